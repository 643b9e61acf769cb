"""Multinomial logistic regression by L-BFGS, many problems at once as batched matrix products (Liu 1989).

What is minimised is scikit-learn's objective: ``C`` times the sum of the log losses plus half the squared weights, the intercept not
penalised; with two classes scikit-learn has one weight vector, which is the same as two with twice the penalty. Penalty and loss
do not change when the features are turned, so that all runs in the eigenbasis of their Gram matrix: at most ``n`` directions, in which
the Hessian is near its diagonal. Started from zero, all strengths side by side: a grid costs as many products as its hardest member.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

STRENGTHS = tuple(10 ** (k / 2) for k in range(-10, 3))
"""Values of ``C`` that are tried, 0.00001 to 10 in steps of half a decade; features are scaled to unit mean variance."""

MEMORY = 10
MOST_STEPS = 500
RENEWED = 4
"""Steps after which the diagonal that the memory is begun at is computed anew; separable classes would else take twice the steps."""

SMALLEST = 1e-9
"""Share of a step; where it lowers an objective no more, rounding is all that is left."""

EXACTLY, ROUGHLY = 1e-10, 1e-6
"""Steps end when the next one promises to lower no objective by more than this share of it; roughly is enough to choose a strength."""


@dataclass(frozen=True, eq=False)
class _Problems:
    """Minimisation problems over ``(P, r + 1, classes)``, the last row the intercepts.

    Attributes:
        rows: turned features with a column of ones, ``(F, n, r + 1)``; each serves ``C`` problems, ``P = F * C``.
        targets: one-hot, ``(F, n, classes)``; all zero where a row is padding.
        strength: of the loss, ``(P, 1, 1)``.
        penalty: of each squared weight, ``(r + 1, 1)``: 0 for the intercepts.
    """

    rows: torch.Tensor
    targets: torch.Tensor
    strength: torch.Tensor
    penalty: torch.Tensor

    def value_and_gradient(self, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(P,)`` objectives and ``(P, r + 1, classes)`` gradients."""
        logs = self._logs(at)
        targets = self.targets[:, :, None]
        loss = -(logs * targets).sum((1, 3)).view(-1)
        gradient = self._back(self.rows, logs.exp() * targets.sum(3, keepdim=True) - targets)
        value = self.strength.view(-1) * loss + (self.penalty * at.square()).sum((1, 2))
        return value, self.strength * gradient + 2 * self.penalty * at

    def curvature(self, at: torch.Tensor) -> torch.Tensor:
        """Second derivatives, each weight's own, ``(P, r + 1, classes)``."""
        shares = self._logs(at).exp() * self.targets.sum(2)[:, :, None, None]
        own = self._back(self.rows.square(), shares * (1 - shares))
        return self.strength * own + (2 * self.penalty).clamp(min=1e-12)

    def _logs(self, at: torch.Tensor) -> torch.Tensor:
        """Log-probabilities ``(F, n, C, classes)``."""
        folds, count, size = self.rows.shape
        each, classes = len(at) // folds, at.shape[2]
        side = at.view(folds, each, size, classes).transpose(1, 2).reshape(folds, size, each * classes)
        return (self.rows @ side).view(folds, count, each, classes).log_softmax(3)

    def _back(self, rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Values of every image ``(F, n, C, classes)``, weighed by its rows and summed: ``(P, r + 1, classes)``."""
        folds, count, size = rows.shape
        each, classes = values.shape[2:]
        found = (rows.transpose(1, 2) @ values.reshape(folds, count, each * classes)).view(folds, size, each, classes)
        return found.transpose(1, 2).reshape(folds * each, size, classes)


def logistic_path(
    features: list[torch.Tensor], labels: list[torch.Tensor], classes: int, strengths: torch.Tensor, tolerance: float = EXACTLY
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logistic regressions of several sets of images for many strengths at once.

    Args:
        features: ``F`` sets ``(n, d)`` float64; ``n`` may differ.
        labels: of each, ``(n,)`` int64.
        classes: number of classes.
        strengths: ``(S,)`` float64, scikit-learn's ``C``, above 0.
        tolerance: the share of an objective that is too little to go on for.

    Returns:
        Weights ``(F, S, classes, d)`` and intercepts ``(F, S, classes)``.
    """
    most, dimension = max(len(x) for x in features), features[0].shape[1]
    rank = min(most, dimension)
    middles = [x.mean(0) for x in features]
    bases = [x.new_zeros(dimension, rank) for x in features]
    rows = features[0].new_zeros(len(features), most, rank + 1)
    targets = features[0].new_zeros(len(features), most, classes)
    for f, (x, y) in enumerate(zip(features, labels, strict=True)):
        basis = _eigenbasis(x - middles[f])
        own = basis.shape[1]
        bases[f][:, :own] = basis
        rows[f, : len(x), :own] = (x - middles[f]) @ basis
        rows[f, : len(x), rank] = 1
        targets[f, : len(x)] = torch.nn.functional.one_hot(y, classes).to(x.dtype)
    penalty = rows.new_full((rank + 1, 1), 1.0 if classes == 2 else 0.5)
    penalty[rank] = 0
    strength = strengths.repeat(len(features)).view(-1, 1, 1)
    found = _minimise(_Problems(rows, targets, strength, penalty), tolerance)
    turned = found.view(len(features), len(strengths), rank + 1, classes).transpose(2, 3)
    weights = torch.stack([turned[f, ..., :rank] @ bases[f].T for f in range(len(features))])
    shift = torch.stack([weights[f] @ middles[f] for f in range(len(features))])
    intercepts = turned[..., rank] - shift
    return weights, intercepts - intercepts.mean(2, keepdim=True)


def _eigenbasis(x: torch.Tensor) -> torch.Tensor:
    """Orthonormal directions ``(d, r)`` that span the rows of ``x``, and along which they do not correlate."""
    dual = len(x) < x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.T if dual else x.T @ x)
    met = values > values[-1] * 1e-12
    values, vectors = values[met], vectors[:, met]
    return x.T @ vectors / values.sqrt() if dual else vectors


def _minimise(problems: _Problems, tolerance: float) -> torch.Tensor:
    """L-BFGS with a halving line search, every problem with its own step; gives ``(P, r + 1, classes)``."""
    at = problems.rows.new_zeros(len(problems.strength), problems.rows.shape[2], problems.targets.shape[2])
    value, gradient = problems.value_and_gradient(at)
    moves: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    curvature = problems.curvature(at)
    stuck = torch.zeros_like(value, dtype=torch.bool)
    for number in range(MOST_STEPS):
        if number and number % RENEWED == 0:
            curvature = problems.curvature(at)
        direction = -_through_memory(gradient, moves, curvature)
        slope = _dot(direction, gradient)
        under_way = (-slope > tolerance * value.abs()) & ~stuck
        if not bool(under_way.any()):
            break
        step = under_way.to(at.dtype)
        while True:  # ends: a step of 0 lowers nothing and is asked for nothing
            there = at + step[:, None, None] * direction
            new_value, new_gradient = problems.value_and_gradient(there)
            short = ~(new_value <= value + 1e-4 * step * slope)
            if not bool(short.any()):
                break
            step = torch.where(short, torch.where(step > SMALLEST, step / 2, 0.0), step)
        stuck |= under_way & (step == 0)
        move, turn = there - at, new_gradient - gradient
        product = _dot(move, turn)
        moves = [*moves[-MEMORY + 1 :], (move, turn, torch.where(product > 0, 1 / product.clamp(min=1e-300), 0.0))]
        at, value, gradient = there, new_value, new_gradient
    return at


def _through_memory(
    gradient: torch.Tensor, moves: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], curvature: torch.Tensor
) -> torch.Tensor:
    """The inverse Hessian's guess times the gradient (two loops, Nocedal 1980), begun at the diagonal ``1 / curvature``."""
    q = gradient
    weights: list[torch.Tensor] = []
    for move, turn, inverse in reversed(moves):
        weights.append(inverse * _dot(move, q))
        q = q - weights[-1][:, None, None] * turn
    q = q / curvature
    for (move, turn, inverse), weight in zip(moves, reversed(weights), strict=True):
        q = q + (weight - inverse * _dot(turn, q))[:, None, None] * move
    return q


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum((1, 2))
