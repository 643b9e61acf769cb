"""The result on a scale from none to all right, with its interval and what simpler ways would get."""

from __future__ import annotations

from collections.abc import Sequence

from frostline.report.svg import WIDTH, box, dot, drawing, line, text
from frostline.report.words import of_100

_LEFT, _WIDE, _AXIS = 12.0, 336.0, 62.0


def strip(accuracy: float, interval: tuple[float, float], baselines: Sequence[tuple[str, float]]) -> str:
    """The drawing.

    Args:
        accuracy: share labelled right.
        interval: of it.
        baselines: what to compare with: a few words and a share.
    """

    def at(share: float) -> float:
        return _LEFT + _WIDE * share

    low, high = interval
    parts = [line(at(0), _AXIS, at(1), _AXIS, "axis")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [
            line(at(share), _AXIS - 4, at(share), _AXIS + 4, "axis"),
            text(at(share), _AXIS + 18, f"{100 * share:.0f}", anchor="middle", kind="soft"),
        ]
    parts += [box(at(low), _AXIS - 8, max(3, at(high) - at(low)), 16, "interval"), dot(at(accuracy), _AXIS, 6, "point")]
    parts.append(_placed(at(accuracy), 22, f"this model: {of_100(accuracy)}", "strong"))
    parts.append(_placed(at(accuracy), 38, f"between {of_100(low)} and {of_100(high)}", "soft"))
    y = _AXIS + 38
    for words, share in baselines:
        parts += [line(at(share), _AXIS, at(share), y - 10, "ideal"), dot(at(share), _AXIS, 4, "other")]
        parts.append(_placed(at(share), y, f"{words}: {of_100(share)}", "soft"))
        y += 17
    others = "".join(f"; {words} {of_100(share)}" for words, share in baselines)
    label = f"Of 100 pictures {of_100(accuracy)} are labelled right, between {of_100(low)} and {of_100(high)}{others}."
    return drawing(y, label, parts)


def _placed(x: float, y: float, words: str, kind: str) -> str:
    """Words about a point, moved where they would leave the drawing."""
    half = 3.4 * len(words)
    if x + half > WIDTH:
        return text(WIDTH - 2, y, words, anchor="end", kind=kind)
    return text(2, y, words, kind=kind) if x < half else text(x, y, words, anchor="middle", kind=kind)
