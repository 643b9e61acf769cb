"""What was found, drawn: one HTML file that needs nothing else, with the pictures in it."""

from __future__ import annotations

import base64
import importlib.resources
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from frostline.data._names import shown
from frostline.errors import FrostlineError
from frostline.features.pixels import load_image
from frostline.quality.findings import DataQuality, Judged

MOST_SHOWN = 24
"""Findings of one kind that are drawn; the JSON has all."""

MOST_CLASSES = 24
"""Classes in the matrix; of more, those that are confused most."""

_SIDE = 200
_CELL = 34


@dataclass(frozen=True)
class Tile:
    """One picture on the page.

    Attributes:
        path: its file, in words.
        uri: the picture itself, as ``data:``; None where it cannot be read any more.
        alt: what it is, for those who do not see it.
        split: where it is used.
        label: its class.
    """

    path: str
    uri: str | None
    alt: str
    split: str
    label: str


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix: where it stands, how dark it is, what it says."""

    x: int
    y: int
    shade: float
    count: int
    own: bool
    title: str


@dataclass(frozen=True)
class Matrix:
    """The matrix of given against predicted classes.

    Attributes:
        names: of the classes in it, with the place of each.
        cells: that are not empty.
        side: of the square, in pixels.
        margin: room for names, in pixels.
        left_out: classes that are not in it.
    """

    names: tuple[tuple[str, int], ...]
    cells: tuple[Cell, ...]
    side: int
    margin: int
    left_out: int


def page(found: DataQuality) -> str:
    """The page: outliers, suspect labels, copies side by side, overlap. Every name in it is escaped.

    Args:
        found: what was found; pictures are read again for their thumbnails.
    """
    tiles: dict[int, Tile] = {}

    def tile(row: int) -> Tile:
        if row not in tiles:
            tiles[row] = _tile(found, row)
        return tiles[row]

    called = [o for o in found.outliers if o.called]
    across_first = sorted(found.near, key=lambda c: not found.across(c.rows))
    facts: dict[str, Any] = {
        "found": found,
        "classes": [shown(c) for c in found.classes],
        "counts": found.counts(),
        "skipped": [(shown(p), shown(why)) for p, why in found.skipped],
        "notes": [shown(n) for n in found.notes],
        "outliers": [(o, tile(o.row)) for o in (called or found.outliers)[:MOST_SHOWN]],
        "called": len(called),
        "suspects": [(s, tile(s.row), shown(found.classes[s.likely])) for s in found.suspects[:MOST_SHOWN]],
        "exact": [_side_by_side(found, rows, tile) for rows in sorted(found.exact, key=lambda r: not found.across(r))[:MOST_SHOWN]],
        "near": [(c, *_side_by_side(found, c.rows, tile)) for c in across_first[:MOST_SHOWN]],
        "overlaps": [(o, *(shown(found.classes[i]) for i in o.classes)) for o in found.overlaps],
        "matrix": None if found.judged is None else matrix(found.judged, found.classes),
        "cell": _CELL,
    }
    text = importlib.resources.files("frostline.quality").joinpath("page.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(text).render(facts)


def _side_by_side(found: DataQuality, rows: Sequence[int], tile: Callable[[int], Tile]) -> tuple[list[Tile], bool, bool, int]:
    """The first copies, whether they lie in several splits and under several labels, and how many there are."""
    return [tile(row) for row in rows[:4]], found.across(rows), found.contradictory(rows), len(rows)


def _tile(found: DataQuality, row: int) -> Tile:
    picture = found.pictures[row]
    path, label = shown(picture.path), shown(found.classes[picture.label])
    try:
        uri = data_uri(load_image(picture.path, picture.digest))
    except FrostlineError:  # it was there when it was looked at
        uri = None
    return Tile(path, uri, f"{shown(picture.path.name)}, labelled {label}, in {picture.split}", picture.split, label)


def data_uri(image: Image.Image) -> str:
    """A picture of at most 200 pixels a side as a JPEG in a ``data:`` address."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def matrix(judged: Judged, classes: Sequence[str]) -> Matrix:
    """The matrix of the classes that are confused most, in their own order.

    Args:
        judged: has the counts.
        classes: names.
    """
    counts = judged.confusion
    size = len(classes)
    wrong = [sum(counts[i][j] + counts[j][i] for j in range(size) if j != i) for i in range(size)]
    chosen = sorted(sorted(range(size), key=lambda i: (-wrong[i], i))[:MOST_CLASSES])
    cells = tuple(
        Cell(
            x * _CELL,
            y * _CELL,
            round(counts[a][b] / max(1, sum(counts[a])), 3),
            counts[a][b],
            a == b,
            f"{counts[a][b]} of {sum(counts[a])} labelled {shown(classes[a])} are taken for {shown(classes[b])}",
        )
        for y, a in enumerate(chosen)
        for x, b in enumerate(chosen)
        if counts[a][b]
    )
    names = tuple((_short(shown(classes[i])), at * _CELL + _CELL // 2) for at, i in enumerate(chosen))
    margin = 24 + 7 * max(len(name) for name, _ in names)
    return Matrix(names, cells, _CELL * len(chosen), margin, size - len(chosen))


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"
