"""The training images that a picture is most like, by the features that the run has kept of them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import torch

from frostline.features.pooled import vectors_of
from frostline.quality.neighbours import nearest, unit_length
from frostline.run import Run, layout
from frostline.use import Labeller

NEAREST = 5


@dataclass(frozen=True)
class Trained:
    """A training image of a run.

    Attributes:
        path: where it was.
        label: its class.
    """

    path: Path
    label: str


@dataclass(frozen=True)
class Similar(Trained):
    """A training image beside a picture.

    Attributes:
        similarity: cosine of their features, at most 1.
    """

    similarity: float


class SimilarImages:
    """Finds them; to be used in the thread that the network is run in.

    Args:
        labeller: of the run.

    Attributes:
        why_none: why none are found, in words; None where they are.
    """

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller
        self._trained = _trained(labeller)
        self.why_none = None if self._trained else "the run does not say which training images its features are from"

    def to(self, pixels: torch.Tensor) -> list[Similar]:
        """The most similar ones, the nearest first; ``pixels`` is ``(3, H, W)`` uint8."""
        familiar, prefix = self._labeller.familiar, self._labeller.prefix
        if familiar is None or not self._trained:
            return []
        features = vectors_of(prefix.layout.unpack(prefix(pixels[None]))[0])
        found = nearest(unit_length(features.cpu()), familiar.reference, NEAREST)
        rows = zip((self._trained[i] for i in found.rows[0].tolist()), found.similarity[0].tolist(), strict=True)
        return [Similar(t.path, t.label, s) for t, s in rows]


def _trained(labeller: Labeller) -> list[Trained]:
    """The training image of each feature that the run keeps; none where that cannot be told any more."""
    familiar = labeller.familiar
    if familiar is None or len(familiar.rows) != len(familiar.reference):
        return []
    listed = _listed(labeller.run)
    if any(not 0 <= row < len(listed) for row in familiar.rows):
        return []
    return [listed[row] for row in familiar.rows]


def _listed(run: Run) -> list[Trained]:
    try:
        text = (run.folder / layout.SPLIT).read_text(encoding="utf-8")
        return [Trained(Path(row["path"]), row["label"]) for row in csv.DictReader(io.StringIO(text, newline=""))]
    except (OSError, UnicodeDecodeError, KeyError, csv.Error):
        return []
