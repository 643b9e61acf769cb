"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from frostline.data._names import shown
from frostline.fitting.metrics import wilson

MOST_DRAWN = 20
"""Classes up to which the whole matrix is drawn; of more, the pairs that are confused most."""

_PAIRS = 20
_SHADES = 6


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix.

    Attributes:
        count: of images.
        shade: 0 to 6, by the share of the row; 0 only without images.
        own: whether the two classes are the same.
    """

    count: int
    shade: int
    own: bool


@dataclass(frozen=True)
class ClassRow:
    """How one class fares.

    Attributes:
        name: of the class, safe to print.
        count: images of it.
        found: how many of them are labelled right.
        interval: of that share; None without images.
        named: images that are called so.
    """

    name: str
    count: int
    found: int
    interval: tuple[float, float] | None
    named: int


@dataclass(frozen=True)
class Pair:
    """Images of one class that are taken for another.

    Attributes:
        name: of their class.
        taken_for: the other.
        count: how many.
        of: images of their class.
    """

    name: str
    taken_for: str
    count: int
    of: int


def confusion_of(labels: Sequence[int], predicted: Sequence[int], classes: int) -> list[list[int]]:
    """Counts ``[label][predicted]``.

    >>> confusion_of([0, 0, 1], [0, 1, 1], 2)
    [[1, 1], [0, 1]]
    """
    counts = [[0] * classes for _ in range(classes)]
    for label, answer in zip(labels, predicted, strict=True):
        counts[label][answer] += 1
    return counts


def cells_of(counts: Sequence[Sequence[int]]) -> list[list[Cell]]:
    """The cells to draw."""
    return [[Cell(n, _shade(n, sum(row)), i == j) for j, n in enumerate(row)] for i, row in enumerate(counts)]


def _shade(count: int, of: int) -> int:
    return 0 if not count else max(1, round(_SHADES * count / of))


def class_rows(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> list[ClassRow]:
    """One row a class, in the order of the classes."""
    return [
        ClassRow(shown(name), sum(row), row[i], wilson(row[i], sum(row)) if sum(row) else None, sum(r[i] for r in counts))
        for i, (name, row) in enumerate(zip(classes, counts, strict=True))
    ]


def pairs_of(counts: Sequence[Sequence[int]], classes: Sequence[str], most: int = _PAIRS) -> list[Pair]:
    """The pairs that are confused most, the most images first."""
    found = [
        Pair(shown(classes[i]), shown(classes[j]), n, sum(row)) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j
    ]
    return sorted(found, key=lambda p: (-p.count, -p.count / p.of, p.name, p.taken_for))[:most]
