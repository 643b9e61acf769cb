"""Ridge regression on one-hot targets, in closed form: one factorisation gives every strength (Hoerl 1970; Golub 1979).

With ``X`` and ``Y`` centred, so that the intercept is not penalised, ``W = (X'X + a I)^-1 X'Y = X' (XX' + a I)^-1 Y``. The smaller of the
two Gram matrices is factored once as ``U diag(e) U'``; a strength ``a`` then costs a division by ``e + a``. The answer is
that of :class:`sklearn.linear_model.Ridge` with ``alpha = a``.
"""

from __future__ import annotations

import torch

STRENGTHS = tuple(10 ** (k / 2) for k in range(-4, 13))
"""Strengths that are tried, 0.01 to 1,000,000 in steps of half a decade; features are scaled to unit mean variance."""

SCALES = (0.1, 100.0)
"""Least and most that a ridge's answers, about 0 to 1, are multiplied by to be logits."""


def ridge_path(features: torch.Tensor, labels: torch.Tensor, classes: int, strengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ridge regressions of one-hot targets for many strengths at once.

    Args:
        features: ``(n, d)`` float64.
        labels: ``(n,)`` int64.
        classes: number of classes.
        strengths: ``(S,)`` float64, above 0.

    Returns:
        Weights ``(S, classes, d)`` and intercepts ``(S, classes)``.
    """
    targets = torch.nn.functional.one_hot(labels, classes).to(features.dtype)
    middle, mean = features.mean(0), targets.mean(0)
    x, y = features - middle, targets - mean
    dual = len(x) < x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.T if dual else x.T @ x)
    seen = vectors.T @ (y if dual else x.T @ y)  # (r, classes)
    shrunk = seen / (values.clamp(min=0)[:, None] + strengths[:, None, None])  # (S, r, classes)
    basis = x.T @ vectors if dual else vectors  # (d, r)
    weights = (basis @ shrunk).transpose(1, 2)
    return weights.contiguous(), mean - weights @ middle


def logit_scales(answers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The factors that turn answers into logits with the lowest log loss (temperature scaling, Guo 2017).

    The loss is convex in the factor, so that its derivative changes sign once; it is found by halving an interval, within ``SCALES``.

    Args:
        answers: ``(S, n, classes)`` float64, of images that the regressions did not see.
        labels: ``(n,)`` int64.

    Returns:
        ``(S,)``, each for its own answers.
    """
    return torch.cat([_logit_scale(own[None], labels) for own in answers])  # one after the other: of many classes each is large


def _logit_scale(answers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    low, high = (torch.full(answers.shape[:1], bound, dtype=answers.dtype).log() for bound in SCALES)
    true = answers.gather(2, labels.expand(len(answers), -1)[..., None])[..., 0]
    for _ in range(40):
        middle = (low + high) / 2
        mean = ((answers * middle.exp()[:, None, None]).softmax(2) * answers).sum(2)
        rising = (mean - true).mean(1) > 0
        low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
    return ((low + high) / 2).exp()
