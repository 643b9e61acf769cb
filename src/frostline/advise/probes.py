"""Heads tried on features of every depth, on images that they did not see."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from frostline._rng import stream
from frostline.fitting import ridge
from frostline.fitting.baselines import nearest_classes
from frostline.fitting.folds import Fold
from frostline.fitting.held import Held, best_held
from frostline.fitting.solved import held_out_answers
from frostline.heads import HeadSpec

PARTS = (0.1, 0.25, 0.5)
"""Shares of the training images that the learning curve is drawn at, besides all of them."""
LOGISTIC_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Strengths that are tried for a logistic regression on features of unit mean variance."""


def logistic_probe(features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold]) -> Held:
    """A logistic regression, likewise, at one of :data:`LOGISTIC_STRENGTHS` (scikit-learn's ``C``)."""
    strengths = torch.tensor(LOGISTIC_STRENGTHS, dtype=torch.float64)
    return best_held(held_out_answers(HeadSpec("logistic"), features, labels, classes, folds, strengths), labels)


def neighbours_probe(features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold]) -> Held:
    """The nearest neighbours: see :func:`frostline.fitting.baselines.nearest_classes`.

    Args:
        features: ``(N, d)``.
        labels: ``(N,)`` int64.
        classes: number of classes.
        folds: the neighbours come from the training part.
    """
    right = torch.zeros(len(labels), dtype=torch.bool)
    for fold in folds:
        answers = nearest_classes(features[fold.train], labels[fold.train], features[fold.held], classes)
        right[fold.held] = answers == labels[fold.held]
    return Held(right[torch.cat([fold.held for fold in folds]).sort().values])


def learning_curve(
    features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold], seed: int, whole: Held
) -> tuple[tuple[int, Held], ...]:
    """A ridge trained on growing parts of each fold's training images, judged on the same held-out ones; ``whole`` is that of all of them.

    Returns:
        For each share of :data:`PARTS` at which every class keeps an image: the number of training images, and how it did.
    """
    found: list[tuple[int, Held]] = []
    strengths = torch.tensor(ridge.STRENGTHS, dtype=torch.float64)
    for part in PARTS:
        fewer = [Fold(_part_of(fold.train, labels, part, seed), fold.held) for fold in folds]
        if all(len(labels[f.train].unique()) == len(labels[g.train].unique()) for f, g in zip(fewer, folds, strict=True)):
            answers = held_out_answers(HeadSpec("ridge"), features, labels, classes, fewer, strengths)
            answers *= ridge.logit_scales(answers, labels)[:, None, None]
            found.append((len(fewer[0].train), best_held(answers, labels)))
    return (*found, (len(folds[0].train), whole))


def _part_of(rows: torch.Tensor, labels: torch.Tensor, part: float, seed: int) -> torch.Tensor:
    """A share of rows, of each class its own; nested: less is always part of more."""
    kept: list[torch.Tensor] = []
    for name in labels[rows].unique().tolist():
        own = rows[labels[rows] == name]
        own = own[torch.randperm(len(own), generator=stream(seed, "learning curve", name))]
        kept.append(own[: round(part * len(own))])
    return torch.cat(kept).sort().values
