"""An explanation as the page of the server wants it: plain values and pictures in ``data:`` addresses."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from frostline.errors import FrostlineError
from frostline.explaining.cam import Heat, heat_of
from frostline.explaining.similar import SimilarImages
from frostline.features.pixels import load_image
from frostline.use import Labeller

_SIDE = 160


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
        self._similar = SimilarImages(labeller)
        self.why_no_nearest = self._similar.why_none

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
            "nearest": [
                {"path": str(s.path), "label": s.label, "similarity": round(s.similarity, 4), "picture": _thumbnail(s.path)}
                for s in self._similar.to(pixels)
            ],
            "nearest_why": self.why_no_nearest,
        }


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
