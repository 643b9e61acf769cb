"""Probabilities of every image from a head that has not seen it: what its label is judged by.

The head is the L-BFGS logistic regression of ``--head logistic``, its strength chosen by the log loss on held-out images, so that
probabilities are about right. Copies of one picture and images of one group are held out together: a head that has seen the copy knows
the (wrong) label by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from frostline._rng import stream
from frostline.fitting import logistic
from frostline.fitting.folds import Fold
from frostline.fitting.solved import held_out_answers
from frostline.heads.contract import HeadSpec

FOLDS = 5

SAMPLE = 2000
"""Images that the strength is chosen on, at most: trying all of them costs thirteen times what solving the chosen one does."""

DIRECTIONS = 256
"""Principal directions that more than ``SAMPLE`` images are judged by: with all 1280 features of 20,000 images a head takes minutes."""

_HEAD = HeadSpec("logistic")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Out-of-fold probabilities.

    Attributes:
        rows: numbers of the images that were judged, ``(n,)`` int64, ascending.
        probabilities: of them, ``(n, classes)`` float64; 0 for classes that were not judged.
        labels: of them, ``(n,)`` int64.
        strength: of the head, scikit-learn's ``C``.
        left_out: classes with fewer than two independent images, none of whose images was judged.
    """

    rows: torch.Tensor
    probabilities: torch.Tensor
    labels: torch.Tensor
    strength: float
    left_out: tuple[int, ...]


def held_out(features: torch.Tensor, labels: torch.Tensor, classes: int, units: Sequence[int], seed: int) -> HeldOut | None:
    """Judge every image by a head that has seen neither it nor anything of its unit.

    Args:
        features: ``(N, d)``, as they come from the backbone.
        labels: ``(N,)`` int64.
        classes: number of classes.
        units: for each image the number of what it belongs to: a picture with its copies, a group.
        seed: of the folds.

    Returns:
        None where fewer than two classes have two units.
    """
    unit = torch.tensor(units, dtype=torch.int64)
    first, unit = _first_of_each(unit)
    per_class = torch.bincount(labels[first], minlength=classes)
    judged = (per_class >= 2).nonzero()[:, 0]
    if len(judged) < 2:
        return None
    number = torch.full((classes,), -1)
    number[judged] = torch.arange(len(judged))
    own = number[labels]
    dealt = _dealt(number[labels[first]], seed)[unit]
    usable = own >= 0
    folds = [Fold(((dealt != f) & usable).nonzero()[:, 0], ((dealt == f) & usable).nonzero()[:, 0]) for f in range(FOLDS)]
    folds = [fold for fold in folds if len(fold.held)]
    features = _principal(features) if len(labels) > SAMPLE else features
    strength = _strength(features, own, len(judged), folds, seed)
    answers = held_out_answers(_HEAD, features, own.clamp(min=0), len(judged), folds, torch.tensor([strength], dtype=torch.float64))
    rows = usable.nonzero()[:, 0]
    probabilities = torch.zeros(len(rows), classes, dtype=torch.float64)
    probabilities[:, judged] = answers[0, rows].softmax(1)
    return HeldOut(rows, probabilities, labels[rows], strength, tuple((per_class < 2).nonzero()[:, 0].tolist()))


def _principal(features: torch.Tensor) -> torch.Tensor:
    """Features ``(N, d)`` about their mean along the ``DIRECTIONS`` in which they vary most, ``(N, d')`` float32."""
    if features.shape[1] <= DIRECTIONS:
        return features
    centred = features - features.mean(0)
    directions = torch.linalg.eigh((centred.T @ centred).double()).eigenvectors[:, -DIRECTIONS:]
    return centred @ directions.float()


def _first_of_each(unit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first image of each unit, and units numbered from 0."""
    numbered = torch.unique(unit, return_inverse=True)[1]
    first = torch.full((int(numbered.max()) + 1,), len(unit))
    first.scatter_reduce_(0, numbered, torch.arange(len(unit)), "amin")
    return first, numbered


def _dealt(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """A fold for each unit, of each class in turn (Kohavi 1995); units of class -1 go wherever.

    Unlike :func:`frostline.fitting.folds.stratified_folds` there are always as many folds: a class of two units is held out in two of them.
    """
    number = torch.zeros(len(labels), dtype=torch.int64)
    dealt = 0
    for name in range(-1, int(labels.max()) + 1):
        rows = (labels == name).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=stream(seed, "quality folds", name + 1))]
        number[rows] = (torch.arange(len(rows)) + dealt) % FOLDS
        dealt += len(rows)
    return number


def _strength(features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold], seed: int) -> float:
    """The strength with the lowest log loss on held-out images: of all, or of the first fold's sample where there are many."""
    count = sum(len(fold.held) for fold in folds)
    strengths = torch.tensor(logistic.STRENGTHS, dtype=torch.float64)
    if count > SAMPLE:
        folds = [Fold(_sample(folds[0].train, labels, SAMPLE, seed), _sample(folds[0].held, labels, SAMPLE, seed))]
    answers = held_out_answers(_HEAD, features, labels.clamp(min=0), classes, folds, strengths)
    held = torch.cat([fold.held for fold in folds])
    losses = [float(torch.nn.functional.cross_entropy(own[held], labels[held])) for own in answers]
    return float(strengths[losses.index(min(losses))])


def _sample(rows: torch.Tensor, labels: torch.Tensor, most: int, seed: int) -> torch.Tensor:
    """At most ``most`` of the rows, of every class its share and at least one; ascending."""
    if len(rows) <= most:
        return rows
    chosen: list[torch.Tensor] = []
    for name in torch.unique(labels[rows]).tolist():
        own = rows[labels[rows] == name]
        own = own[torch.randperm(len(own), generator=stream(seed, "quality sample", name))]
        chosen.append(own[: max(1, round(most * len(own) / len(rows)))])
    return torch.cat(chosen).sort().values
