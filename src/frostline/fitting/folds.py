"""Folds of cross-validation: which training images judge which heads. They depend on labels, groups and seed, nothing else."""

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
        RecipeError: a class has one image only, or its groups cannot be dealt out so that every fold leaves some of it to train on.
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
    absent: list[int] = []
    for attempt in range(_ATTEMPTS if len(pairs) > len(own) else 1):
        number = _dealt(own, folds, seed, attempt)[unit]
        absent = [c for f in range(folds) if (c := _absent(labels[number != f], counts)) is not None]
        if not absent:
            return tuple(Fold((number != f).nonzero()[:, 0], (number == f).nonzero()[:, 0]) for f in range(folds))
    raise _too_few(labels, absent[0])


_ATTEMPTS = 50
"""Orders tried where groups of several classes leave a fold without one of them to train on."""


def _dealt(own: torch.Tensor, folds: int, seed: int, attempt: int) -> torch.Tensor:
    """A fold for each unit, class by class in a random order."""
    number = torch.empty(len(own), dtype=torch.int64)
    dealt = 0
    for name in range(int(own.max()) + 1):
        rows = (own == name).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=stream(seed, f"folds {attempt}" if attempt else "folds", name))]
        number[rows] = (torch.arange(len(rows)) + dealt) % folds  # go on where the class before ended: folds differ by one unit at most
        dealt += len(rows)
    return number


def _absent(labels: torch.Tensor, counts: torch.Tensor) -> int | None:
    """A class that there is, and that none of the labels is of."""
    absent = (torch.bincount(labels, minlength=len(counts)) == 0) & (counts > 0)
    return int(absent.nonzero()[0]) if bool(absent.any()) else None


def _too_few(labels: torch.Tensor, name: int) -> RecipeError:
    alone = int((labels == name).sum()) == 1
    few = "one training image" if alone else "too few groups of training images (copies of one picture are a group)"
    return RecipeError(
        f"class number {name} has {few}, cross-validation takes at least 2 of every class",
        where="training images",
        advice="add some of that class; training needs no cross-validation with --head linear, no --sweep and no --nested",
        label=name,
    )


def scale_of(features: torch.Tensor, rows: torch.Tensor) -> InputScale:
    """The head's fixed scaling, measured on some rows of ``(N, d)`` and no others."""
    scale = InputScale(features.shape[1]).to(features.device)
    scale.measure(features[rows].cpu())  # in float64, which not every device has
    return scale
