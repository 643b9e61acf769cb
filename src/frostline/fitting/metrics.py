"""Scores of a classifier, with an interval, each checked in the tests against scikit-learn or a known value."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Scores:
    """How good logits are.

    Attributes:
        n: number of images.
        accuracy: share labelled right.
        interval: 95 % interval of the accuracy (Wilson 1927).
        balanced_accuracy: mean over the classes of the share labelled right.
        log_loss: mean negative log-likelihood of the true class, in nats.
        calibration_error: expected calibration error over 15 equal bins of confidence (Guo 2017).
        confusion: ``confusion[true][predicted]``, counts.
    """

    n: int
    accuracy: float
    interval: tuple[float, float]
    balanced_accuracy: float
    log_loss: float
    calibration_error: float
    confusion: tuple[tuple[int, ...], ...]


def score(logits: torch.Tensor, labels: torch.Tensor) -> Scores:
    """Score ``(N, classes)`` logits against ``(N,)`` labels; ``N`` is at least 1."""
    logits, labels = logits.to("cpu", torch.float64), labels.cpu()
    count, classes = logits.shape
    predicted = logits.argmax(1)
    right = predicted == labels
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    confusion.index_put_((labels, predicted), torch.ones_like(labels), accumulate=True)
    per_class = confusion.sum(1)
    met = per_class > 0
    balanced = (confusion.diagonal()[met] / per_class[met]).mean()
    return Scores(
        n=count,
        accuracy=float(right.double().mean()),
        interval=wilson(int(right.sum()), count),
        balanced_accuracy=float(balanced),
        log_loss=float(torch.nn.functional.cross_entropy(logits, labels)),
        calibration_error=_calibration_error(logits.softmax(1).amax(1), right),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def wilson(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927; Brown 2001).

    >>> tuple(round(x, 3) for x in wilson(145, 153))
    (0.9, 0.973)
    """
    share = successes / trials
    denominator = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / denominator
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / denominator
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))  # rounding must not leave the share outside


def mcnemar(one: int, other: int) -> float:
    """Probability of a split at least as uneven by chance alone, two-sided: the exact test of McNemar (1947).

    Args:
        one: images that only the one classifier labels right.
        other: those that only the other does.

    >>> mcnemar(10, 0)
    0.001953125
    """
    both = one + other
    tail = sum(math.comb(both, k) for k in range(min(one, other) + 1))
    return min(1.0, 2 * tail / 2**both)


def _calibration_error(confidence: torch.Tensor, right: torch.Tensor, bins: int = 15) -> float:
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, right.double() - confidence)
    return float(gap.abs().sum() / len(confidence))
