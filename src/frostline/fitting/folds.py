"""Folds of cross-validation: which training images judge which heads. They depend on labels and seed, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
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


def stratified_folds(labels: torch.Tensor, most: int, seed: int, units: Sequence[int] = ()) -> tuple[Fold, ...]:
    """Cut images into folds that each have their share of every class (Kohavi 1995); what belongs together lies in one fold.

    Args:
        labels: ``(N,)`` int64.
        most: number of folds; fewer where a class has fewer images, or groups of them, than that.
        seed: of the order in which each class is dealt out.
        units: for each image the number of what it belongs to (its copies, its group); empty: each is on its own.

    Raises:
        RecipeError: a class has one image only, or lies in one group: nothing would be left to train on, or to judge by.
    """
    labels = labels.cpu()
    unit = torch.unique(torch.tensor(units), return_inverse=True)[1] if units else torch.arange(len(labels))
    pairs = torch.unique(torch.stack([unit, labels], 1), dim=0)  # which classes each unit has, by unit
    counts = torch.bincount(pairs[:, 1])
    smallest = int(counts[counts > 0].min())
    if smallest < 2:
        raise _too_few(labels, int((counts == 1).nonzero()[0]))
    folds = min(most, smallest)
    rarest = pairs[torch.argsort(counts[pairs[:, 1]], stable=True)].flip(0)
    own = torch.empty(int(unit.max()) + 1, dtype=torch.int64)
    for each, name in rarest.tolist():  # the last one counts: a unit of several classes is dealt out with the rarest of them
        own[each] = name
    number = torch.empty(len(own), dtype=torch.int64)
    dealt = 0
    for name in range(len(counts)):
        rows = (own == name).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=stream(seed, "folds", name))]
        number[rows] = (torch.arange(len(rows)) + dealt) % folds  # go on where the class before ended: folds differ by one unit at most
        dealt += len(rows)
    of_image = number[unit]
    for f in range(folds):
        absent = (torch.bincount(labels[of_image != f], minlength=len(counts)) == 0) & (counts > 0)
        if bool(absent.any()):
            raise _too_few(labels, int(absent.nonzero()[0]))
    return tuple(Fold((of_image != f).nonzero()[:, 0], (of_image == f).nonzero()[:, 0]) for f in range(folds))


def can_be_folded(labels: torch.Tensor, units: Sequence[int] = ()) -> bool:
    """Whether every class has images to train on and others to judge by: see :func:`stratified_folds`.

    Args:
        labels: ``(N,)`` int64.
        units: for each image the number of what it belongs to; empty: each is on its own.
    """
    try:
        return len(stratified_folds(labels, 2, 0, units)) == 2
    except RecipeError:
        return False


def _too_few(labels: torch.Tensor, name: int) -> RecipeError:
    alone = int((labels == name).sum()) == 1
    few = "one training image" if alone else "too few groups of training images (copies of one picture are a group)"
    return RecipeError(
        f"class number {name} has {few}, cross-validation takes at least 2 of every class",
        where="--sweep, --head",
        advice="add images, or use --head linear without --sweep",
    )


def scale_of(features: torch.Tensor, rows: torch.Tensor) -> InputScale:
    """The head's fixed scaling, measured on some rows of ``(N, d)`` and no others."""
    scale = InputScale(features.shape[1]).to(features.device)
    scale.measure(features[rows].cpu())  # in float64, which not every device has
    return scale
