"""How a ridge labels images that it did not see: the yardstick that depths and plans are told apart by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from frostline.fitting import ridge
from frostline.fitting.folds import Fold
from frostline.fitting.metrics import mcnemar, wilson


@dataclass(frozen=True, eq=False)
class Held:
    """How images were labelled while they were held out.

    Attributes:
        right: ``(N,)`` bool, of every image that was held out.
        losses: ``(N,)`` log loss of each, in nats; None for what gives no probabilities.
        logits: ``(N, classes)``, likewise.
    """

    right: torch.Tensor
    losses: torch.Tensor | None = None
    logits: torch.Tensor | None = None

    @property
    def accuracy(self) -> float:
        """Share labelled right."""
        return float(self.right.double().mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy (Wilson 1927). Folds share training images: it is a little too narrow (Bengio 2004)."""
        return wilson(int(self.right.sum()), len(self.right))

    @property
    def log_loss(self) -> float | None:
        """Mean log loss."""
        return None if self.losses is None else float(self.losses.mean())


def differ(one: Held, other: Held) -> float:
    """Probability of so great a difference between two classifiers on the same images by chance alone (McNemar 1947, exact).

    >>> right = torch.ones(10, dtype=torch.bool)
    >>> differ(Held(right), Held(~right))
    0.001953125
    """
    return mcnemar(int((one.right & ~other.right).sum()), int((~one.right & other.right).sum()))


def surely_lower(one: Held, other: Held, errors: float) -> bool:
    """Whether the log loss of ``other`` is lower by more than so many standard errors; by more still where images are few.

    Student's distribution takes the place of the normal one (by its expansion, Abramowitz and Stegun 1964, 26.7.5): with four images
    two standard errors are worth what 3.2 are.
    """
    assert one.losses is not None
    freedom, z = len(one.losses) - 1, errors
    if freedom < 1:
        return False
    return fall(one, other) > z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def fall(one: Held, other: Held) -> float:
    """How much lower the log loss of ``other`` is than that of ``one``, in standard errors of the difference, image by image."""
    assert one.losses is not None
    assert other.losses is not None
    apart = one.losses - other.losses
    error = float(apart.std()) / len(apart) ** 0.5
    return float(apart.mean()) / error if error > 0 else 0.0


def ridge_held(features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold]) -> Held:
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
    return _calibrated(ridge_answers(features, labels, classes, folds, strengths), labels)


def gram_held(gram: torch.Tensor, size: int, labels: torch.Tensor, classes: int, folds: Sequence[Fold]) -> Held:
    """:func:`ridge_held` from the products of all pairs of images instead of their features.

    Args:
        gram: ``(N, N)`` float64, of centred features; they may be of any size.
        size: number of features; a strength is that of so many of unit mean variance.
        labels: ``(N,)`` int64.
        classes: number of classes.
        folds: of cross-validation; every image is held out once.
    """
    strengths = torch.tensor(ridge.STRENGTHS, dtype=torch.float64)
    values, basis = torch.linalg.eigh(gram * (size * len(gram) / gram.trace().clamp(min=1e-300)))
    return _calibrated(_answers(values, basis, labels, classes, folds, strengths), labels)


def _calibrated(answers: torch.Tensor, labels: torch.Tensor) -> Held:
    return best_held(answers * ridge.logit_scales(answers, labels)[:, None, None], labels)


def ridge_answers(
    features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold], strengths: torch.Tensor
) -> torch.Tensor:
    """The answers of :func:`ridge_held` for every strength, about 0 to 1: ``(S, N, classes)`` float64."""
    x = scaled(features)
    if len(x) < x.shape[1]:
        values, basis = torch.linalg.eigh(x @ x.T)
    else:
        values, vectors = torch.linalg.eigh(x.T @ x)
        basis = x @ (vectors / values.clamp(min=1e-300).sqrt())
    return _answers(values, basis, labels, classes, folds, strengths)


def _answers(
    values: torch.Tensor, basis: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold], strengths: torch.Tensor
) -> torch.Tensor:
    """Of the images' Gram matrix, its eigenvalues, ascending, and eigenvectors."""
    targets = torch.nn.functional.one_hot(labels, classes).double()
    y = targets - targets.mean(0)
    kept = values > 1e-12 * values[-1]
    values, basis = values[kept], basis[:, kept]
    seen = basis.T @ y
    answers = torch.empty(len(strengths), len(labels), classes, dtype=torch.float64)
    for number, strength in enumerate(strengths.tolist()):
        shrunk = values / (values + strength)
        residual = y - basis @ (shrunk[:, None] * seen)
        for fold in folds:
            own = basis[fold.held]
            smooth = (own * shrunk) @ own.T + 1 / len(labels)
            left = torch.linalg.solve(torch.eye(len(own), dtype=torch.float64) - smooth, residual[fold.held])
            answers[number, fold.held] = targets[fold.held] - left
    return answers


def best_held(logits: torch.Tensor, labels: torch.Tensor) -> Held:
    """Of logits ``(S, N, classes)`` the set with the lowest log loss."""
    losses = torch.stack([torch.nn.functional.cross_entropy(own, labels, reduction="none") for own in logits]).nan_to_num(torch.inf)
    best = int(losses.mean(1).argmin())
    return Held(logits[best].argmax(1) == labels, losses[best], logits[best])


def scaled(features: torch.Tensor) -> torch.Tensor:
    """Features centred and scaled to unit mean variance over all images, ``(N, d)`` float64."""
    centred = features.double() - features.double().mean(0)
    return centred / centred.square().mean().sqrt().clamp(min=1e-12)
