"""Scores of how well features suit labels, without training a head: LogME and the shrunk H-score."""

from __future__ import annotations

import math

import torch

_EPSILON = 1e-5
_MOST_STEPS = 11


def logme(features: torch.Tensor, labels: torch.Tensor, classes: int) -> float:
    """Logarithm of the maximum evidence of a Bayesian linear model of each class, per image, averaged over the classes (You 2021).

    By the fixed-point iteration of the longer paper (arXiv 2110.10545, algorithm 3), as in the authors' code; where there are fewer
    images than features, directions without any image count for nothing, which that code leaves out.

    Args:
        features: ``(N, d)``, as they come from the network: neither centred nor scaled.
        labels: ``(N,)`` int64.
        classes: number of classes.
    """
    f = features.double()
    count, size = f.shape
    if count > size:
        values, vectors = torch.linalg.eigh(f.T @ f)
        kept = values > 1e-10 * values[-1]
        sigma = values[kept]
        u = f @ vectors[:, kept] / sigma.sqrt()
    else:
        values, vectors = torch.linalg.eigh(f @ f.T)
        kept = values > 1e-10 * values[-1]
        sigma, u = values[kept], vectors[:, kept]
    targets = torch.nn.functional.one_hot(labels, classes).double()
    seen = (u.T @ targets).square()  # (k, classes)
    unseen = targets.square().sum(0) - seen.sum(0)
    found = [_evidence(sigma, seen[:, c], float(unseen[c]), count) for c in range(classes)]
    return sum(found) / classes


def _evidence(sigma: torch.Tensor, seen: torch.Tensor, unseen: float, count: int) -> float:
    alpha = beta = 1.0
    m2 = residue = 0.0
    for _ in range(_MOST_STEPS):
        t = alpha / beta
        gamma = float((sigma / (sigma + t)).sum())
        m2 = float((sigma * seen / (t + sigma).square()).sum())
        residue = float((seen / (1 + sigma / t).square()).sum()) + unseen
        alpha, beta = gamma / (m2 + _EPSILON), (count - gamma) / (residue + _EPSILON)
        if abs(alpha / beta - t) / t <= 1e-3:
            break
    logs = len(sigma) * math.log(alpha) + count * math.log(beta) - float((alpha + beta * sigma).log().sum())
    return (logs - beta * residue - alpha * m2 - count * math.log(2 * math.pi)) / 2 / count


def shrunk_h_score(features: torch.Tensor, labels: torch.Tensor) -> float:
    """The H-score with the covariance of features shrunk towards a multiple of the identity (Ibrahim 2021, eq. 6; Ledoit 2004).

    ``tr(cov_a(f)^-1 (1 - a) cov(E[f | y]))``, from 0 to the number of classes less one.

    Args:
        features: ``(N, d)``.
        labels: ``(N,)`` int64.
    """
    from sklearn.covariance import ledoit_wolf

    f = features.double()
    f = f - f.mean(0)
    shrunk, share = ledoit_wolf(f.numpy(), assume_centered=True)
    sums = torch.zeros(int(labels.max()) + 1, f.shape[1], dtype=f.dtype).index_add_(0, labels, f)
    counts = torch.bincount(labels).clamp(min=1)
    between = (sums / counts[:, None].double().sqrt()) / math.sqrt(len(f) - 1)  # (classes, d): between.T @ between is cov(E[f | y])
    solved = torch.linalg.pinv(torch.from_numpy(shrunk), hermitian=True) @ between.T
    return float((1 - share) * (between.T * solved).sum())
