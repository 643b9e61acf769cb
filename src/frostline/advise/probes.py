"""Heads tried on features of every depth, on images that they did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from frostline._rng import stream
from frostline.fitting import ridge
from frostline.fitting.baselines import nearest_classes
from frostline.fitting.folds import Fold
from frostline.fitting.metrics import mcnemar, wilson
from frostline.fitting.solved import held_out_answers
from frostline.heads import HeadSpec

PARTS = (0.1, 0.25, 0.5)
"""Shares of the training images that the learning curve is drawn at, besides all of them."""
LOGISTIC_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Strengths that are tried for a logistic regression on features of unit mean variance."""


@dataclass(frozen=True, eq=False)
class Held:
    """How images were labelled while they were held out.

    Attributes:
        right: ``(N,)`` bool, of every image that was held out.
        log_loss: mean, in nats; None for what gives no probabilities.
    """

    right: torch.Tensor
    log_loss: float | None = None

    @property
    def accuracy(self) -> float:
        """Share labelled right."""
        return float(self.right.double().mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy (Wilson 1927). Folds share training images: it is a little too narrow (Bengio 2004)."""
        return wilson(int(self.right.sum()), len(self.right))


def ridge_probe(features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold]) -> Held:
    """A ridge on one-hot targets, at the strength of the grid with the lowest log loss where images were held out.

    What each fold's ridge answers on its held-out images follows from one factorisation of all: with ``H`` the matrix that smooths the
    targets and ``F`` the fold, the residuals are ``(I - H_FF)^-1 (Y - HY)_F`` (Cook 1982, section 2.2; exact for any fixed strength,
    the intercept not penalised). A strength is that of features scaled to unit mean variance over all images.

    Args:
        features: ``(N, d)``.
        labels: ``(N,)`` int64.
        classes: number of classes.
        folds: of cross-validation; every image is held out once.
    """
    strengths = torch.tensor(ridge.STRENGTHS, dtype=torch.float64)
    answers = ridge_answers(features, labels, classes, folds, strengths)
    return _best(answers * ridge.logit_scales(answers, labels)[:, None, None], labels)


def ridge_answers(
    features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold], strengths: torch.Tensor
) -> torch.Tensor:
    """The answers of :func:`ridge_probe` for every strength, about 0 to 1: ``(S, N, classes)`` float64."""
    x = scaled(features).double()
    targets = torch.nn.functional.one_hot(labels, classes).double()
    y = targets - targets.mean(0)
    if len(x) < x.shape[1]:
        values, basis = torch.linalg.eigh(x @ x.T)
    else:
        values, vectors = torch.linalg.eigh(x.T @ x)
        basis = x @ (vectors / values.clamp(min=1e-300).sqrt())
    kept = values > 1e-12 * values[-1]
    values, basis = values[kept], basis[:, kept]
    seen = basis.T @ y
    answers = torch.empty(len(strengths), len(x), classes, dtype=torch.float64)
    for number, strength in enumerate(strengths.tolist()):
        shrunk = values / (values + strength)
        residual = y - basis @ (shrunk[:, None] * seen)
        for fold in folds:
            own = basis[fold.held]
            smooth = (own * shrunk) @ own.T + 1 / len(x)
            left = torch.linalg.solve(torch.eye(len(own), dtype=torch.float64) - smooth, residual[fold.held])
            answers[number, fold.held] = targets[fold.held] - left
    return answers


def logistic_probe(features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold]) -> Held:
    """A logistic regression, likewise, at one of :data:`LOGISTIC_STRENGTHS` (scikit-learn's ``C``)."""
    strengths = torch.tensor(LOGISTIC_STRENGTHS, dtype=torch.float64)
    return _best(held_out_answers(HeadSpec("logistic"), features, labels, classes, folds, strengths), labels)


def _best(logits: torch.Tensor, labels: torch.Tensor) -> Held:
    losses = torch.stack([torch.nn.functional.cross_entropy(own, labels) for own in logits]).nan_to_num(torch.inf)
    best = int(losses.argmin())
    return Held(logits[best].argmax(1) == labels, float(losses[best]))


def scaled(features: torch.Tensor) -> torch.Tensor:
    """Features centred and scaled to unit mean variance over all images, ``(N, d)``."""
    centred = features.double() - features.double().mean(0)
    return (centred / centred.square().mean().sqrt().clamp(min=1e-12)).float()


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


def together(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Features of several depths side by side, ``(N, sum of d)``, each depth scaled to unit mean variance (Evci 2022, section 3)."""
    return torch.cat([scaled(one) for one in features], 1)


def learning_curve(
    features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold], seed: int
) -> tuple[tuple[int, Held], ...]:
    """A ridge trained on growing parts of each fold's training images, judged on the same held-out ones.

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
            found.append((len(fewer[0].train), _best(answers, labels)))
    return (*found, (len(folds[0].train), ridge_probe(features, labels, classes, folds)))


def _part_of(rows: torch.Tensor, labels: torch.Tensor, part: float, seed: int) -> torch.Tensor:
    """A share of rows, of each class its own; nested: less is always part of more."""
    kept: list[torch.Tensor] = []
    for name in labels[rows].unique().tolist():
        own = rows[labels[rows] == name]
        own = own[torch.randperm(len(own), generator=stream(seed, "learning curve", name))]
        kept.append(own[: round(part * len(own))])
    return torch.cat(kept).sort().values


def differ(one: Held, other: Held) -> float:
    """Probability of so great a difference between two classifiers on the same images by chance alone (McNemar 1947, exact, two-sided).

    >>> right = torch.ones(10, dtype=torch.bool)
    >>> differ(Held(right), Held(~right))
    0.001953125
    """
    return mcnemar(int((one.right & ~other.right).sum()), int((~one.right & other.right).sum()))
