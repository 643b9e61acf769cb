"""The network from the picture to the answer, block by block, with the cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from frostline.freeze.table import LayerRow
from frostline.report.svg import WIDTH, box, drawing, line, text

MOST_ROWS = 30
"""Rows that are drawn; in a deeper network the blocks of one stage share a row."""

_ROW, _NAME, _BAR = 20.0, 118.0, 130.0
_SHORTEST = 2.0


@dataclass(frozen=True)
class Row:
    """What one bar stands for.

    Attributes:
        name: of the block, or of the stage.
        blocks: how many there are in it.
        parameters: number of weights in it.
        trained: how many of them were trained.
    """

    name: str
    blocks: int
    parameters: int
    trained: int

    @property
    def state(self) -> str:
        """``frozen``, ``trained`` or ``partly`` trained."""
        return "frozen" if self.trained == 0 else "trained" if self.trained == self.parameters else "partly"


def rows_above(layers: Sequence[LayerRow], cut: str) -> int:
    """How many rows lie before the cut, which ``summary.json`` names by the last layer of the prefix."""
    if cut == "backbone":
        return sum(r.name != "head" for r in layers)
    return next((i for i, r in enumerate(layers, start=1) if r.name == f"backbone.{cut}"), 0)


def folded(layers: Sequence[LayerRow], above: int, most: int = MOST_ROWS) -> tuple[list[Row], int]:
    """Rows to draw and how many of them lie above the cut; neighbours of one stage, side and state are one where there are many."""
    named = [(r.name.removeprefix("backbone."), r) for r in layers]
    found = [Row(name, 1, r.parameters, r.trained) for name, r in named]
    if len(found) <= most:
        return found, above
    kept: list[Row] = []
    at = 0
    for i, row in enumerate(found):
        stage = row.name.rpartition(".")[0]
        last = kept[-1] if kept else None
        if last and stage and i != above and last.state == row.state and stage in (last.name, last.name.rpartition(".")[0]):
            kept[-1] = Row(stage, last.blocks + 1, last.parameters + row.parameters, last.trained + row.trained)
        else:
            kept.append(row)
        if i < above:
            at = len(kept)
    return kept, at


def network(layers: Sequence[LayerRow], cut: str) -> str:
    """The drawing: a bar a block as long as it has parameters, frozen or trained, and the cut between them.

    Args:
        layers: in forward order, the head last.
        cut: name of the last layer before it.
    """
    above = rows_above(layers, cut)
    found, at = folded(layers, above)
    most = max((r.parameters for r in found), default=1) or 1
    parts: list[str] = [text(0, 13, "picture", kind="soft")]
    y = 22.0
    for i, row in enumerate(found):
        if i == at:
            parts += _cut(y, nothing=above == 0)
            y += 26
        parts += _row(y, row, most)
        y += _ROW
    if at == len(found):
        parts += _cut(y, nothing=False)
        y += 26
    parts.append(text(0, y + 13, "answer", kind="soft"))
    frozen, trained = sum(r.state == "frozen" for r in layers), sum(r.state != "frozen" for r in layers)
    where = "before the first block" if above == 0 else f"after {cut}" if cut != "backbone" else "between the backbone and the head"
    return drawing(y + 20, f"The network from top to bottom: {frozen} blocks frozen, {trained} trained, the cut {where}.", parts)


def _row(y: float, row: Row, most: int) -> list[str]:
    words = {"frozen": "frozen", "trained": "trained", "partly": f"{row.trained:,} of {row.parameters:,} trained"}[row.state]
    title = f"{row.name}{f', {row.blocks} blocks' if row.blocks > 1 else ''}: {row.parameters:,} parameters, {words}"
    name = row.name if len(row.name) <= 17 else f"{row.name[:7]}…{row.name[-9:]}"
    name = f"{name} ({row.blocks})" if row.blocks > 1 else name
    long = max(_SHORTEST, _BAR * row.parameters / most)
    share = row.trained / max(1, row.parameters)
    parts = [text(0, y + 14, name, kind="name"), box(_NAME, y + 3, long, _ROW - 5, "frozen", title)]
    if share:
        parts.append(box(_NAME, y + 3, max(_SHORTEST, long * share), _ROW - 5, "trained", title))
    parts.append(
        text(WIDTH, y + 14, f"{short(row.parameters)} {'part' if row.state == 'partly' else row.state}", anchor="end", kind="small")
    )
    return parts


def _cut(y: float, *, nothing: bool) -> list[str]:
    words = "the cut: nothing is computed only once" if nothing else "▲ frozen, computed once · ▼ trained"
    return [line(0, y + 13, WIDTH, y + 13, "cut"), box(40, y + 3, WIDTH - 80, 20, "tag"), text(WIDTH / 2, y + 17, words, anchor="middle")]


def short(count: int) -> str:
    """A number of parameters in a few letters.

    >>> short(928), short(26240), short(3371008)
    ('928', '26 k', '3.4 M')
    """
    if count < 1000:
        return str(count)
    return f"{count / 1e3:.0f} k" if count < 999_500 else f"{count / 1e6:.1f} M"
