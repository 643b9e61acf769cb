"""What was found in the images, as one value: rows are numbers of pictures, and everything else follows from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frostline.data._names import SPLITS
from frostline.features.extract import Extracted
from frostline.fitting.metrics import wilson
from frostline.quality.near import ALIKE, SIMILAR, NearCopy
from frostline.quality.outliers import CALLED_FROM, NEAREST
from frostline.quality.overlap import USUAL, Overlap
from frostline.quality.suspects import Suspect

RANKED = 20
"""Images that are farthest from all others and are listed, whether they are called outliers or not."""


@dataclass(frozen=True)
class Picture:
    """One image that can be read.

    Attributes:
        path: its file.
        digest: SHA-256 of its content.
        label: number of its class.
        split: ``train``, ``val`` or ``test``.
    """

    path: Path
    digest: str
    label: int
    split: str


@dataclass(frozen=True)
class Outlier:
    """An image far from all others.

    Attributes:
        row: its number.
        score: mean of ``1 - cosine`` to its nearest images.
        called: whether the score is above the threshold.
    """

    row: int
    score: float
    called: bool


@dataclass(frozen=True)
class Judged:
    """How labels were judged.

    Attributes:
        images: that were judged.
        right: of them, how many the held-out heads label as they are labelled.
        strength: of the head.
        left_out: classes with too few independent images to judge.
        confusion: counts, ``[given][predicted]``.
    """

    images: int
    right: int
    strength: float
    left_out: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class DataQuality:
    """What ``frostline data`` found.

    Attributes:
        data: what was looked at, as it was named.
        backbone: whose features were compared.
        classes: names.
        pictures: that can be read, in order.
        skipped: files that are no pictures, and why.
        notes: what was left out or decided while reading.
        converted: how many pictures of each kind are converted to RGB.
        tiny: rows of pictures whose shorter side is below ``tiny_side``.
        tiny_side: half the side in pixels that the backbone looks at.
        exact: groups of rows with the same bytes.
        near: pairs of rows that show the same picture.
        suspects: labels that are probably wrong, the surest first.
        outliers: the farthest first; all that are called, and at least :data:`RANKED`.
        outlier_threshold: None where there are too few images.
        judged: None where there are too few images.
        overlaps: of classes, the largest first.
        extracted: what had to be computed for the features.
        seconds: wall time of all.
    """

    data: str
    backbone: str
    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    skipped: tuple[tuple[Path, str], ...]
    notes: tuple[str, ...]
    converted: Mapping[str, int]
    tiny: tuple[int, ...]
    tiny_side: int
    exact: tuple[tuple[int, ...], ...]
    near: tuple[NearCopy, ...]
    suspects: tuple[Suspect, ...]
    outliers: tuple[Outlier, ...]
    outlier_threshold: float | None
    judged: Judged | None
    overlaps: tuple[Overlap, ...]
    extracted: Extracted
    seconds: float

    def across(self, rows: Sequence[int]) -> bool:
        """Whether copies lie in several splits: what is trained on is also judged by."""
        return len({self.pictures[row].split for row in rows}) > 1

    def contradictory(self, rows: Sequence[int]) -> bool:
        """Whether copies have several labels, of which one at most is right."""
        return len({self.pictures[row].label for row in rows}) > 1

    def counts(self) -> dict[str, dict[str, int]]:
        """Readable images by split and class."""
        found = Counter((p.split, p.label) for p in self.pictures)
        splits = [s for s in SPLITS if any(p.split == s for p in self.pictures)]
        return {s: {name: found[s, i] for i, name in enumerate(self.classes)} for s in splits}

    def imbalance(self) -> float | None:
        """Size of the largest class over that of the smallest, in training; None where a class has no image there."""
        sizes = self.counts().get("train", {"": 0}).values()
        return max(sizes) / min(sizes) if min(sizes) else None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "data": self.data,
            "backbone": self.backbone,
            "classes": list(self.classes),
            "images": len(self.pictures),
            "counts": self.counts(),
            "imbalance": self.imbalance(),
            "images_skipped": [{"path": str(path), "why": why} for path, why in self.skipped],
            "converted": dict(self.converted),
            "tiny": [str(self.pictures[row].path) for row in self.tiny],
            "exact_duplicates": [self._copies(rows) for rows in self.exact],
            "near_duplicates": [
                {**self._copies(c.rows), "similarity": c.similarity, "likeness": c.likeness, "mirrored": c.mirrored} for c in self.near
            ],
            "suspect_labels": [self._suspect(s) for s in self.suspects],
            "outliers": [{**self._picture(o.row), "score": o.score, "outlier": o.called} for o in self.outliers],
            "overlaps": [self._overlap(o) for o in self.overlaps],
            "held_out": None if self.judged is None else self._held_out(self.judged),
            "rules": {
                "near_similarity": SIMILAR,
                "near_likeness": ALIKE,
                "outlier_threshold": self.outlier_threshold,
                "outlier_deviations": CALLED_FROM,
                "outlier_neighbours": NEAREST,
                "overlap_share": USUAL,
                "tiny_side": self.tiny_side,
            },
            "notes": list(self.notes),
            "cache": {"hit": self.extracted.hit, "decoded": self.extracted.decoded, "forwarded": self.extracted.forwarded},
            "seconds": self.seconds,
        }

    def _picture(self, row: int) -> dict[str, Any]:
        picture = self.pictures[row]
        return {"path": str(picture.path), "split": picture.split, "label": self.classes[picture.label]}

    def _copies(self, rows: Sequence[int]) -> dict[str, Any]:
        pictures = [self.pictures[row] for row in rows]
        return {
            "paths": [str(p.path) for p in pictures],
            "splits": [p.split for p in pictures],
            "labels": [self.classes[p.label] for p in pictures],
            "across_splits": self.across(rows),
            "contradictory": self.contradictory(rows),
        }

    def _suspect(self, suspect: Suspect) -> dict[str, Any]:
        return {
            **self._picture(suspect.row),
            "likely": self.classes[suspect.likely],
            "probability_label": suspect.probability_given,
            "probability_likely": suspect.probability_likely,
        }

    def _overlap(self, overlap: Overlap) -> dict[str, Any]:
        return {
            "classes": [self.classes[i] for i in overlap.classes],
            "confused": overlap.confused,
            "images": overlap.images,
            "share": overlap.share,
            "interval": list(overlap.interval),
        }

    def _held_out(self, judged: Judged) -> dict[str, Any]:
        return {
            "images": judged.images,
            "accuracy": judged.right / judged.images,
            "interval": list(wilson(judged.right, judged.images)),
            "strength": judged.strength,
            "classes_left_out": [self.classes[i] for i in judged.left_out],
            "confusion": [list(row) for row in judged.confusion],
        }
