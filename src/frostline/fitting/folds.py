"""Folds of cross-validation: which training images judge which heads. They depend on labels and seed, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from frostline._rng import stream
from frostline.errors import RecipeError
from frostline.heads.contract import InputScale


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold: what is trained on, and what judges.

    Attributes:
        train: row numbers ``(n,)`` int64, ascending.
        held: row numbers ``(m,)`` of the images that training must not see; together they are all rows.
    """

    train: torch.Tensor
    held: torch.Tensor


def stratified_folds(labels: torch.Tensor, most: int, seed: int) -> tuple[Fold, ...]:
    """Cut images into folds that each have their share of every class (Kohavi 1995).

    Args:
        labels: ``(N,)`` int64.
        most: number of folds; fewer where a class has fewer images than that.
        seed: of the order in which each class is dealt out.

    Raises:
        RecipeError: a class has one image only: nothing would be left to train on, or to judge by.
    """
    labels = labels.cpu()
    counts = torch.bincount(labels)
    smallest = int(counts[counts > 0].min())
    if smallest < 2:
        raise RecipeError(
            f"class number {int((counts == 1).nonzero()[0])} has one training image, cross-validation takes at least 2 of every class",
            where="--sweep, --head",
            advice="add images, or use --head linear without --sweep",
        )
    folds = min(most, smallest)
    number = torch.empty(len(labels), dtype=torch.int64)
    dealt = 0
    for name in range(len(counts)):
        rows = (labels == name).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=stream(seed, "folds", name))]
        number[rows] = (torch.arange(len(rows)) + dealt) % folds  # go on where the class before ended: folds differ by one image at most
        dealt += len(rows)
    return tuple(Fold((number != f).nonzero()[:, 0], (number == f).nonzero()[:, 0]) for f in range(folds))


def scale_of(features: torch.Tensor, rows: torch.Tensor) -> InputScale:
    """The head's fixed scaling, measured on some rows of ``(N, d)`` and no others."""
    scale = InputScale(features.shape[1]).to(features.device)
    scale.measure(features[rows].cpu())  # in float64, which not every device has
    return scale
