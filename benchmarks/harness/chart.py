"""A bar chart as SVG, written by hand: horizontal bars on a logarithmic axis, readable on light and on dark pages.

It has a ground of its own, so that it stays readable where the page is dark and what draws it knows no ``prefers-color-scheme``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
    .page { fill: #ffffff; }
    text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; stroke: #ffffff; }
    text { stroke-width: 3px; paint-order: stroke; }
    .quiet { fill: #59636e; font-size: 12px; }
    .title { font-size: 15px; font-weight: 600; }
    .grid { stroke: #d1d9e0; stroke-width: 1; }
    .own { fill: #0969da; }
    .other { fill: #8c959f; }
    .whisker { stroke: #1f2328; stroke-width: 1.5; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; }
      text { fill: #f0f6fc; stroke: #0d1117; }
      .quiet { fill: #9198a1; }
      .grid { stroke: #3d444d; }
      .own { fill: #4493f8; }
      .other { fill: #656c76; }
      .whisker { stroke: #f0f6fc; }
    }"""
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 860, 300, 130, 66, 30


@dataclass(frozen=True)
class Bar:
    """One row.

    Attributes:
        label: at its left.
        value: its length; above 0.
        low: smallest value measured.
        high: largest value measured.
        note: behind the bar.
        own: drawn in the colour that stands out.
    """

    label: str
    value: float
    low: float
    high: float
    note: str
    own: bool


def chart(bars: Sequence[Bar], title: str, axis: str) -> str:
    """The picture.

    Args:
        bars: from top to bottom; at least one.
        title: what it shows.
        axis: what the axis counts.
    """
    first = math.floor(math.log10(min(b.low for b in bars)))
    last = max(first + 1, math.ceil(math.log10(max(b.high for b in bars))))
    width = _WIDTH - _LEFT - _RIGHT
    bottom = _TOP + _ROW * len(bars)

    def x(value: float) -> float:
        return round(_LEFT + width * (math.log10(value) - first) / (last - first), 1)

    told = "; ".join(f"{b.label}: {b.value:.3g}" for b in bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 44}" width="{_WIDTH}" role="img" '
        'aria-labelledby="title desc">',
        f'  <title id="title">{escape(title)}</title>',
        f'  <desc id="desc">{escape(axis)}. {escape(told)}.</desc>',
        f"  <style>{_STYLE}\n  </style>",
        f'  <rect class="page" width="{_WIDTH}" height="{bottom + 44}" rx="6"/>',
        f'  <text class="title" x="12" y="26">{escape(title)}</text>',
        f'  <text class="quiet" x="12" y="46">{escape(axis)}</text>',
    ]
    for power in range(first, last + 1):
        for factor in (1, 2, 5) if power < last else (1,):
            value = factor * 10.0**power
            if factor == 1:
                parts.append(f'  <line class="grid" x1="{x(value)}" y1="{_TOP - 6}" x2="{x(value)}" y2="{bottom}"/>')
            parts.append(f'  <text class="quiet" x="{x(value)}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    for row, bar in enumerate(bars):
        top = _TOP + _ROW * row
        middle = top + _ROW / 2
        parts.append(f'  <text x="{_LEFT - 10}" y="{middle + 4}" text-anchor="end">{escape(bar.label)}</text>')
        kind = "own" if bar.own else "other"
        parts.append(f'  <rect class="{kind}" x="{_LEFT}" y="{top + 6}" width="{x(bar.value) - _LEFT:.1f}" height="{_ROW - 12}" rx="2"/>')
        if bar.high > bar.low:
            parts.append(f'  <line class="whisker" x1="{x(bar.low)}" y1="{middle}" x2="{x(bar.high)}" y2="{middle}"/>')
        parts.append(f'  <text x="{max(x(bar.value), x(bar.high)) + 8}" y="{middle + 4}">{escape(bar.note)}</text>')
    return "\n".join([*parts, "</svg>", ""])
