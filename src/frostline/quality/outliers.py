"""Images that are like no other: their distance to the nearest images in feature space.

The mean distance to the k nearest neighbours (Angiulli 2002) among features of length 1 (Sun 2022, who take it for out-of-distribution
images) looks at no label and assumes no shape of the whole. It was chosen over the same with centred features, a shrunk-covariance
Mahalanobis distance, the local outlier factor and others by measurement: docs/data-quality.md. Features are not centred here: an odd image
often has little in any feature, and about their mean such images all lie on one side, among many.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from frostline.quality.neighbours import Neighbours

NEAREST = 10
"""Neighbours that the distance is the mean over."""

CALLED_FROM = 3.5
"""Robust deviations above the median from which an image is called an outlier (Iglewicz 1993, chapter 3)."""

FEWEST = 20
"""Images below which nothing is called an outlier: there is no telling what is usual."""


@dataclass(frozen=True, eq=False)
class Outlyingness:
    """How far each image is from all others.

    Attributes:
        score: mean of ``1 - cosine`` to its nearest neighbours, ``(N,)``, 0 to 2.
        order: row numbers, the farthest first.
        threshold: the score above which an image is called an outlier; None where there are too few images.
    """

    score: torch.Tensor
    order: tuple[int, ...]
    threshold: float | None

    @property
    def called(self) -> tuple[int, ...]:
        """Row numbers of the outliers, the farthest first."""
        least = self.threshold
        return () if least is None else tuple(row for row in self.order if float(self.score[row]) > least)


def outlyingness(found: Neighbours) -> Outlyingness:
    """Score every image, and say from where on one is an outlier.

    Args:
        found: the neighbours of distinct images among themselves, by features of length 1; copies would be each other's excuse.
    """
    score = (1 - found.similarity[:, :NEAREST]).mean(1) if found.similarity.shape[1] else torch.zeros(len(found.similarity))
    order = tuple(score.argsort(descending=True, stable=True).tolist())
    return Outlyingness(score, order, _threshold(score) if len(score) >= FEWEST else None)


def _threshold(score: torch.Tensor) -> float:
    """Median plus ``CALLED_FROM`` times the median absolute deviation, scaled to a normal deviation."""
    middle = score.double().median()
    spread = 1.4826 * (score.double() - middle).abs().median()
    return float(middle + CALLED_FROM * spread)
