"""Why a picture got its label: what the network saw of it, which parts spoke for the label, and the training images it is most like."""

from __future__ import annotations

import base64
import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from frostline.errors import FrostlineError
from frostline.features.pixels import load_image
from frostline.features.pooled import vectors_of
from frostline.quality.neighbours import nearest, unit_length
from frostline.run import Run, layout
from frostline.serve.heat import Heat, heat_of
from frostline.use import Labeller

NEAREST = 5
_SIDE = 160


@dataclass(frozen=True)
class Trained:
    """A training image of the run.

    Attributes:
        path: where it was.
        label: its class.
    """

    path: Path
    label: str


class Explainer:
    """Explains answers; to be used in the thread that the network is run in.

    Args:
        labeller: the run.

    Attributes:
        heat: how to find what spoke for a label, or in words why that is left out.
        why_no_nearest: why no training images are shown, in words; None where they are.
    """

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller
        self.heat: Heat | str = heat_of(labeller.run)
        self._trained = _trained(labeller)
        self.why_no_nearest = None if self._trained else "the run does not say which training images its features are from"

    def __call__(self, pixels: torch.Tensor, label: str) -> dict[str, Any]:
        """As plain JSON values: ``seen``, ``heat``, ``heat_why``, ``nearest``, ``nearest_why``.

        Args:
            pixels: ``(3, H, W)`` uint8.
            label: the class that was answered.
        """
        run, prefix = self._labeller.run, self._labeller.prefix
        heat, why = None, None
        if isinstance(self.heat, str):
            why = self.heat
        else:
            shares = self.heat(prefix.preprocess.normalise(pixels[None].to(prefix.device)), run.classes.index(label))
            heat = [[round(value, 6) for value in row] for row in shares.tolist()]
        return {
            "seen": _uri(Image.fromarray(pixels.permute(1, 2, 0).numpy().astype(np.uint8)), None),
            "heat": heat,
            "heat_why": why,
            "nearest": self._nearest(pixels),
            "nearest_why": self.why_no_nearest,
        }

    def _nearest(self, pixels: torch.Tensor) -> list[dict[str, Any]]:
        familiar, prefix = self._labeller.familiar, self._labeller.prefix
        if familiar is None or not self._trained:
            return []
        features = vectors_of(prefix.layout.unpack(prefix(pixels[None]))[0])
        found = nearest(unit_length(features.cpu()), familiar.reference, NEAREST)
        return [
            {"path": str(t.path), "label": t.label, "similarity": round(s, 4), "picture": _thumbnail(t.path)}
            for t, s in zip((self._trained[i] for i in found.rows[0].tolist()), found.similarity[0].tolist(), strict=True)
        ]


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


def _thumbnail(path: Path) -> str | None:
    """A small picture; None where the file is not there any more."""
    try:
        return _uri(load_image(path), _SIDE)
    except FrostlineError:
        return None


def _uri(image: Image.Image, side: int | None) -> str:
    """A JPEG in a ``data:`` address, of at most ``side`` pixels a side."""
    if side is not None:
        image.thumbnail((side, side))
    stream = io.BytesIO()
    cast("Any", image).save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
