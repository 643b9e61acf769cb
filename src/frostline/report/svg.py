"""Inline SVG as text: every word in it is escaped; colours are classes, so that one style sheet serves light and dark."""

from __future__ import annotations

import html
import math

from frostline.data._names import shown

_FIXED_SPACE = "\u00a0"

WIDTH = 360
"""Units a drawing is wide: about the pixels of a phone, so that letters keep their size there."""


def clean(words: object) -> str:
    """Words that may stand in markup: control characters made visible, ``<``, ``&`` and quotes escaped."""
    printable = _FIXED_SPACE.join(shown(part) for part in str(words).split(_FIXED_SPACE))
    return html.escape(printable.encode("utf-8", "backslashreplace").decode(), quote=True)


def number(value: float) -> str:
    """A coordinate with at most one decimal.

    >>> number(12.04), number(3.26)
    ('12', '3.3')
    """
    return f"{value:.1f}".removesuffix(".0")


def drawing(height: float, label: str, parts: list[str], *, stretched: bool = False) -> str:
    """A whole drawing, ``WIDTH`` wide.

    Args:
        height: in the same units.
        label: what it shows, for those who do not see it.
        parts: what is in it, from the back to the front.
        stretched: whether it may be wider without being higher; then it should hold no words.
    """
    fit = ' preserveAspectRatio="none"' if stretched else ""
    box = f"0 0 {WIDTH} {number(height)}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}"{fit} role="img" aria-label="{clean(label)}">{"".join(parts)}</svg>'


def text(x: float, y: float, words: object, *, anchor: str = "start", kind: str = "") -> str:
    """Words at a point: their ``start``, ``middle`` or ``end``."""
    return f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"{_class(kind)}>{clean(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> str:
    """A rectangle; ``title`` is shown where the pointer rests."""
    inside = f"<title>{clean(title)}</title>" if title else ""
    place = f'x="{number(x)}" y="{number(y)}" width="{number(max(width, 0))}" height="{number(max(height, 0))}"'
    return f"<rect {place}{_class(kind)}>{inside}</rect>"


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"{_class(kind)}/>'


def path(points: list[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    return f'<polyline points="{" ".join(f"{number(x)},{number(y)}" for x, y in points)}"{_class(kind)}/>'


def dot(x: float, y: float, radius: float, kind: str, title: str = "") -> str:
    """A filled circle."""
    inside = f"<title>{clean(title)}</title>" if title else ""
    return f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}"{_class(kind)}>{inside}</circle>'


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two values, at most so many steps apart: 1, 2 or 5 times a power of ten.

    >>> ticks(0, 0.97)
    [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else [0.0]
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough * 0.9999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
