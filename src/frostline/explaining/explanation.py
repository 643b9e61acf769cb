"""One explained answer, and its picture."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from frostline._atomic import write_bytes
from frostline.errors import FrostlineError
from frostline.explaining.similar import Similar
from frostline.features.pixels import load_image

_EDGE, _LINE, _SMALL = 12, 20, 104
_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_RAMP = np.array([[20, 11, 52], [132, 32, 107], [229, 92, 48], [246, 215, 70], [252, 255, 200]], dtype=float)
"""Five colours of the map inferno, dark to bright: told apart without colour vision too."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which pixels of a picture spoke for a class.

    Attributes:
        path: the file.
        label: the most probable class.
        probabilities: of every class, by name.
        of: the class that is explained.
        method: how.
        seen: what the network saw of the picture, ``(H, W, 3)`` uint8.
        heat: how much each pixel spoke for the class, ``(H, W)`` float32; below zero against it.
        nearest: the most similar training images, the nearest first; empty where the run does not keep them.
    """

    path: Path
    label: str
    probabilities: dict[str, float]
    of: str
    method: str
    seen: np.ndarray[Any, np.dtype[np.uint8]]
    heat: np.ndarray[Any, np.dtype[np.float32]]
    nearest: tuple[Similar, ...]

    def overlay(self) -> Image.Image:
        """What the network saw, with what spoke for the class in light over it and the rest dimmed."""
        strength = np.clip(_smooth(self.heat) if self.method == "integrated-gradients" else self.heat, 0, None)  # pixel by pixel: dust
        strength = strength / max(float(strength.max()), 1e-12)
        place = strength * (len(_RAMP) - 1)
        low = np.minimum(place.astype(int), len(_RAMP) - 2)
        part = (place - low)[..., None]
        colours = _RAMP[low] * (1 - part) + _RAMP[low + 1] * part
        share = (0.25 + 0.45 * strength)[..., None]
        return Image.fromarray((self.seen * (1 - share) + colours * share).round().astype(np.uint8))

    def picture(self) -> Image.Image:
        """One picture: what was seen, the heat over it, the nearest training images below, with words."""
        height, width = self.seen.shape[:2]
        row = _SMALL + 2 * _LINE + _EDGE if self.nearest else 0
        across = max(2 * width + _EDGE, len(self.nearest) * (_SMALL + _EDGE) - _EDGE) + 2 * _EDGE
        sheet = Image.new("RGB", (across, height + 2 * _LINE + 2 * _EDGE + row), _PAPER)
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
        draw.text((_EDGE, _EDGE), f"{self.label}, {self.probabilities[self.label]:.1%}", _INK, font)
        draw.text((2 * _EDGE + width, _EDGE), f"what spoke for {self.of} ({self.method})", _INK, font)
        sheet.paste(Image.fromarray(self.seen), (_EDGE, _EDGE + _LINE))
        sheet.paste(self.overlay(), (2 * _EDGE + width, _EDGE + _LINE))
        top = 2 * _EDGE + _LINE + height
        for place, similar in enumerate(self.nearest):
            left = _EDGE + place * (_SMALL + _EDGE)
            if place == 0:
                draw.text((left, top), "the most similar training images", _INK, font)
            sheet.paste(_small(similar.path), (left, top + _LINE))
            draw.text((left, top + _LINE + _SMALL + 2), f"{similar.label[:10]} {similar.similarity:.2f}", _INK, font)
        return sheet

    def save(self, path: str | Path) -> None:
        """Write :meth:`picture` as a PNG."""
        stream = io.BytesIO()
        self.picture().save(stream, "PNG")
        write_bytes(Path(path), stream.getvalue())

    def _repr_html_(self) -> str:
        stream = io.BytesIO()
        cast("Any", self.picture()).save(stream, "PNG")
        data = base64.b64encode(stream.getvalue()).decode()
        words = f"{self.path.name}: {self.label}, {self.probabilities[self.label]:.1%}; what spoke for {self.of}"
        return f'<img alt="{html.escape(words, quote=True)}" src="data:image/png;base64,{data}">'


def _smooth(heat: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The mean over a square of a fourteenth of the side around each pixel, twice."""
    reach = max(1, min(heat.shape) // 28)
    found = torch.from_numpy(heat)[None, None]
    for _ in range(2):
        found = nn.functional.avg_pool2d(found, 2 * reach + 1, stride=1, padding=reach)
    return found[0, 0].numpy()


def _small(path: Path) -> Image.Image:
    """A training image at most ``_SMALL`` a side on a square; an empty one where the file is not there any more."""
    square = Image.new("RGB", (_SMALL, _SMALL), (235, 235, 235))
    try:
        image = load_image(path)
    except FrostlineError:
        return square
    image.thumbnail((_SMALL, _SMALL))
    square.paste(image, ((_SMALL - image.width) // 2, (_SMALL - image.height) // 2))
    return square
