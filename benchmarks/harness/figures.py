"""The few statistics that the page needs, on plain Python numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927).

    >>> tuple(round(x, 3) for x in wilson(145, 153))
    (0.9, 0.973)
    """
    if n == 0:
        return 0.0, 1.0
    share, spread = right / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Line:
    """A straight line through points, least squares.

    Attributes:
        slope: rise for a step of 1.
        start: value at 0.
        r2: share of the variance that the line explains.
        worst: largest distance of a point from the line, as a share of the point.
    """

    slope: float
    start: float
    r2: float
    worst: float


def fit_line(xs: Sequence[float], ys: Sequence[float]) -> Line | None:
    """The line through the points; None where there are fewer than two values of x."""
    if len(set(xs)) < 2:
        return None
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)
    start = mean_y - slope * mean_x
    left = [y - start - slope * x for x, y in zip(xs, ys, strict=True)]
    whole = sum((y - mean_y) ** 2 for y in ys)
    worst = max(abs(e) / abs(y) for e, y in zip(left, ys, strict=True) if y)
    return Line(slope, start, 1 - sum(e * e for e in left) / whole if whole else 1.0, worst)
