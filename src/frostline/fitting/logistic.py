"""Multinomial logistic regression by L-BFGS, many problems at once as batched matrix products (Liu 1989).

What is minimised is scikit-learn's objective: ``C`` times the sum of the log losses plus half the squared weights, the intercept not
penalised; with two classes scikit-learn has one weight vector, which is the same as two with twice the penalty. Penalty and loss
do not change when the features are turned, so that all runs in the eigenbasis of their Gram matrix: at most ``n`` directions, and a
first guess of the curvature for each. Started from zero, all strengths side by side: a grid costs as many products as its hardest member.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

STRENGTHS = tuple(10 ** (k / 2) for k in range(-10, 3))
"""Values of ``C`` that are tried, 0.00001 to 10 in steps of half a decade; features are scaled to unit mean variance."""

MEMORY = 10
MOST_STEPS = 500
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
        curvature: a guess of the second derivative, ``(P, r + 1, 1)``.
    """

    rows: torch.Tensor
    targets: torch.Tensor
    strength: torch.Tensor
    penalty: torch.Tensor
    curvature: torch.Tensor

    def value_and_gradient(self, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(P,)`` objectives and ``(P, r + 1, classes)`` gradients."""
        folds, count = self.rows.shape[:2]
        problems, size, classes = at.shape
        each = problems // folds
        side = at.view(folds, each, size, classes).transpose(1, 2).reshape(folds, size, each * classes)
        logits = (self.rows @ side).view(folds, count, each, classes)
        logs = logits.log_softmax(3)
        targets = self.targets[:, :, None]
        real = targets.sum(3, keepdim=True)
        loss = -(logs * targets).sum((1, 3)).view(problems)
        wrong = (logs.exp() * real - targets).reshape(folds, count, each * classes)
        back = (self.rows.transpose(1, 2) @ wrong).view(folds, size, each, classes).transpose(1, 2).reshape(problems, size, classes)
        value = self.strength.view(-1) * loss + (self.penalty * at.square()).sum((1, 2))
        return value, self.strength * back + 2 * self.penalty * at


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
    kept = [x.new_zeros(rank) for x in features]
    bases = [x.new_zeros(dimension, rank) for x in features]
    rows = features[0].new_zeros(len(features), most, rank + 1)
    targets = features[0].new_zeros(len(features), most, classes)
    for f, (x, y) in enumerate(zip(features, labels, strict=True)):
        basis, values = _eigenbasis(x - middles[f])
        own = len(values)
        bases[f][:, :own], kept[f][:own] = basis, values
        rows[f, : len(x), :own] = (x - middles[f]) @ basis
        rows[f, : len(x), rank] = 1
        targets[f, : len(x)] = torch.nn.functional.one_hot(y, classes).to(x.dtype)
    penalty = rows.new_full((rank + 1, 1), 1.0 if classes == 2 else 0.5)
    penalty[rank] = 0
    spread = torch.stack([torch.cat([v, v.new_tensor([float(len(x))])]) for v, x in zip(kept, features, strict=True)])
    strength = strengths.repeat(len(features)).view(-1, 1, 1)
    softness = (1 - 1 / classes) / classes  # the variance of a softmax that does not know
    curvature = strength * softness * spread.repeat_interleave(len(strengths), 0)[..., None] + 2 * penalty
    found = _minimise(_Problems(rows, targets, strength, penalty, curvature), tolerance)
    turned = found.view(len(features), len(strengths), rank + 1, classes).transpose(2, 3)
    weights = torch.stack([turned[f, ..., :rank] @ bases[f].T for f in range(len(features))])
    shift = torch.stack([weights[f] @ middles[f] for f in range(len(features))])
    intercepts = turned[..., rank] - shift
    return weights, intercepts - intercepts.mean(2, keepdim=True)


def _eigenbasis(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal directions ``(d, r)`` that span the rows of ``x``, and the squared length of ``x`` along each."""
    dual = len(x) < x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.T if dual else x.T @ x)
    met = values > values[-1] * 1e-12
    values, vectors = values[met], vectors[:, met]
    return (x.T @ vectors / values.sqrt() if dual else vectors), values


def _minimise(problems: _Problems, tolerance: float) -> torch.Tensor:
    """L-BFGS with a halving line search, every problem with its own step; gives ``(P, r + 1, classes)``."""
    classes = problems.targets.shape[2]
    at = problems.curvature.new_zeros(len(problems.strength), problems.curvature.shape[1], classes)
    value, gradient = problems.value_and_gradient(at)
    moves: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    stuck = torch.zeros_like(value, dtype=torch.bool)
    for _ in range(MOST_STEPS):
        direction = -_through_memory(gradient, moves, problems.curvature)
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
