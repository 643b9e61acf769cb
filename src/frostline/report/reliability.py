"""Whether probabilities mean what they say: shares of right answers by confidence (DeGroot 1983; Guo 2017), drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from frostline.fitting.metrics import wilson
from frostline.report.svg import box, dot, drawing, line, path, text
from frostline.report.words import counted, whole

BINS = 10
_LEFT, _TOP, _SIDE, _BARS = 44.0, 26.0, 270.0, 46.0


@dataclass(frozen=True)
class Bin:
    """Images whose confidence lies between two values.

    Attributes:
        low: open, but for the first bin.
        high: closed.
        count: of images.
        confidence: their mean confidence; 0 without images.
        right: share of them that is labelled right; 0 without images.
        interval: of that share (Wilson 1927).
    """

    low: float
    high: float
    count: int
    confidence: float
    right: float
    interval: tuple[float, float]


def bins_of(confidences: Sequence[float], right: Sequence[bool], bins: int = BINS) -> tuple[Bin, ...]:
    """Sort images into equal bins of confidence.

    >>> [(b.count, b.right) for b in bins_of([0.6, 0.9, 1.0, 1.0], [False, True, True, False], 2)]
    [(0, 0.0), (4, 0.5)]
    """
    found: list[Bin] = []
    for i in range(bins):
        low, high = i / bins, (i + 1) / bins
        rows = [k for k, c in enumerate(confidences) if (low < c or i == 0) and (c <= high or i == bins - 1)]
        hits = sum(right[k] for k in rows)
        mean = sum(confidences[k] for k in rows) / len(rows) if rows else 0.0
        share = hits / len(rows) if rows else 0.0
        found.append(Bin(low, high, len(rows), mean, share, wilson(hits, len(rows)) if rows else (0.0, 0.0)))
    return tuple(found)


def reliability(found: Sequence[Bin]) -> str:
    """The diagram: a point a bin on the diagonal where confidence is deserved, with its interval, and the counts below."""
    said = "; ".join(f"{whole(b.confidence)} sure, {whole(b.right)} right, {counted(b.count, 'picture')}" for b in found if b.count)

    def at(confidence: float, share: float) -> tuple[float, float]:
        return _LEFT + confidence * _SIDE, _TOP + (1 - share) * _SIDE

    parts: list[str] = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = at(share, share)
        parts += [line(_LEFT, y, _LEFT + _SIDE, y, "grid"), line(x, _TOP, x, _TOP + _SIDE, "grid")]
        parts += [text(_LEFT - 6, y + 4, whole(share), anchor="end", kind="soft")]
        parts += [text(x, _TOP + _SIDE + _BARS + 30, whole(share), anchor="middle", kind="soft")]
    parts.append(path([at(0, 0), at(1, 1)], "ideal"))
    parts.append(text(2, 12, "share labelled right", kind="soft"))
    base = _TOP + _SIDE + _BARS + 12
    most = max((b.count for b in found), default=1) or 1
    for b in found:
        if not b.count:
            continue
        (x, y), (_, top), (_, bottom) = at(b.confidence, b.right), at(0, b.interval[1]), at(0, b.interval[0])
        words = f"{whole(b.low)} to {whole(b.high)} sure: {whole(b.right)} of {counted(b.count, 'picture')} right"
        parts.append(line(x, top, x, bottom, "whisker"))
        parts.append(dot(x, y, 5, "point", words))
        tall = max(1.5, (_BARS - 14) * b.count / most)
        parts.append(box(_LEFT + b.low * _SIDE + 1, base - tall, _SIDE / len(found) - 2, tall, "count", words))
        parts.append(text(_LEFT + (b.low + b.high) / 2 * _SIDE, base - tall - 3, b.count, anchor="middle", kind="small"))
    parts.append(text(_LEFT + _SIDE / 2, base + 36, "how sure the model says it is; bars: pictures", anchor="middle", kind="soft"))
    return drawing(base + 42, f"Share labelled right by how sure the model is. {said}", parts)
