"""Resize and crop: from a decoded picture to the pixels that a network sees, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from frostline.errors import DecodeError

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


MOST_RESIZED = 32_000_000
"""The most pixels that a picture may have once its short side is resized: with 256 of it, one that is 488 times as long as wide."""


@dataclass(frozen=True)
class Crop:
    """Resize, then crop the centre.

    Attributes:
        size: height and width of the crop in pixels.
        resize: length of the shorter side before cropping (``center``), or of both sides (``squash``), in pixels.
        mode: ``center`` keeps the aspect ratio and crops the middle; ``squash`` stretches.
        interpolation: Pillow filter, by torchvision's name.
    """

    size: tuple[int, int]
    resize: int
    mode: Literal["center", "squash"] = "center"
    interpolation: str = "bilinear"

    def of(self, image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """``(H, W, 3)`` uint8. Equal to torchvision's ``Resize`` and ``CenterCrop`` on Pillow.

        Raises:
            DecodeError: the picture is so long and narrow that resizing it would take gigabytes, of which next to nothing is shown.
        """
        height, width = self.size
        resample = RESAMPLING[self.interpolation]
        if self.mode == "squash":
            image = image.resize((self.resize * width // max(width, height), self.resize * height // max(width, height)), resample)
        else:
            resized = _short_side(image.size, self.resize)
            if resized[0] * resized[1] > MOST_RESIZED:
                raise DecodeError(f"{image.width} x {image.height} pixels, too narrow to be resized to {self.resize} on the short side")
            image = image.resize(resized, resample)
        left, top = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
        return np.array(image.crop((left, top, left + width, top + height)), dtype=np.uint8)


def _short_side(size: tuple[int, int], short: int) -> tuple[int, int]:
    width, height = size
    if width <= height:
        return short, max(1, int(short * height / width))
    return max(1, int(short * width / height)), short
