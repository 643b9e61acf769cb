"""Everything the page says, as one value: plain facts, before a word of markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frostline.freeze.table import LayerRow
from frostline.recipe import Recipe
from frostline.report.compare import Difference
from frostline.report.depths import Depth
from frostline.report.mistakes import Answer
from frostline.report.pictures import Tile


@dataclass(frozen=True, eq=False)
class Album:
    """Pictures to look at.

    Attributes:
        surest_mistakes: wrong answers, the most confident first.
        least_sure: answers that could have been others.
        suspects: labels that are probably wrong.
        copies: pairs that show one picture and lie in two splits.
        mistakes: how many there are in all.
        suspected: how many labels are suspect in all; None where nobody looked.
        unsuspected: in words, why nobody looked.
        copied: how many pairs there are in all; None where nobody looked.
    """

    surest_mistakes: tuple[Tile, ...]
    least_sure: tuple[Tile, ...]
    suspects: tuple[Tile, ...]
    copies: tuple[tuple[Tile, Tile], ...]
    mistakes: int
    suspected: int | None
    unsuspected: str
    copied: int | None


@dataclass(frozen=True, eq=False)
class Report:
    """What is known of a run.

    Attributes:
        name: of the run.
        folder: where it lies, as it was named.
        summary: as in ``summary.json``.
        environment: as in ``environment.json``; empty where it is missing.
        recipe: how the run was made.
        classes: names, in the order of the confusion matrix.
        counts: images by split and class.
        split: ``test`` or ``val``, which the result is of; None where it is of neither.
        majority: the most frequent class among the images judged, and its share of them; None where it is not known.
        answers: one an image that was judged now.
        missing: images of the split that are not there any more.
        layers: of the network, in forward order.
        epochs: rows of ``metrics.jsonl``.
        depths: accuracy by depth; empty where it is not known.
        album: pictures.
        contenders: facts of the runs side by side; empty where only one is looked at.
        differences: of the others from the first.
    """

    name: str
    folder: str
    summary: Mapping[str, Any]
    environment: Mapping[str, Any]
    recipe: Recipe
    classes: tuple[str, ...]
    counts: Mapping[str, Sequence[int]]
    split: str | None
    majority: tuple[str, float] | None
    answers: tuple[Answer, ...]
    missing: int
    layers: tuple[LayerRow, ...]
    epochs: tuple[Mapping[str, Any], ...]
    depths: tuple[Depth, ...]
    album: Album
    contenders: tuple[Mapping[str, Any], ...]
    differences: tuple[Difference, ...]
