"""Whether two pictures show the same thing pixel by pixel, whatever was done to size, quality, frame or side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

SIDE = 32
WINDOWS = (32, 31, 30, 29, 28, 27, 26)
"""Sides of the windows in which one picture is looked for in the other: a crop to 26/32 of either side is still found."""

_FLAT = 2.0
_SAME_GRAY = 4.0


@dataclass(frozen=True)
class Likeness:
    """How alike two pictures are.

    Attributes:
        value: correlation of their gray levels in the window that fits best, -1 to 1.
        mirrored: whether it is found with one of them turned left to right.
    """

    value: float
    mirrored: bool


def thumbnail(image: Image.Image) -> torch.Tensor:
    """Gray levels ``(32, 32)`` float32, 0 to 255, the whole picture squeezed into a square."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return torch.from_numpy(np.array(small, dtype=np.float32))


def likeness(a: torch.Tensor, b: torch.Tensor) -> Likeness:
    """Correlation of two thumbnails, one laid over every window of the other, straight and mirrored.

    Normalised cross-correlation (Lewis 1995): brightness and contrast do not count.

    Args:
        a: ``(32, 32)`` gray levels.
        b: ``(32, 32)`` gray levels.
    """
    straight, turned = (max(_best_window(a, other), _best_window(other, a)) for other in (b, b.flip(1)))
    return Likeness(max(straight, turned), turned > straight)


def _best_window(small: torch.Tensor, large: torch.Tensor) -> float:
    """The highest correlation of the whole of ``small`` with a window of ``large``."""
    best = -1.0
    for side in WINDOWS:
        resized = torch.nn.functional.interpolate(small[None, None], (side, side), mode="bilinear", antialias=True)
        wanted, windows = resized.reshape(1, -1), large.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)
        best = max(best, float(_correlation(wanted, windows).max()))
    return best


def _correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of each row of ``(1, n)`` with each of ``(m, n)``; two flat pictures correlate where they are equally bright."""
    a_mean, b_mean = a.mean(1), b.mean(1)
    a_rest, b_rest = a - a_mean[:, None], b - b_mean[:, None]
    a_spread, b_spread = a_rest.square().mean(1).sqrt(), b_rest.square().mean(1).sqrt()
    found = (a_rest * b_rest).mean(1) / (a_spread * b_spread).clamp(min=1e-6)
    alike = ((a_mean - b_mean).abs() < _SAME_GRAY).float()
    both_flat, one_flat = (a_spread < _FLAT) & (b_spread < _FLAT), (a_spread < _FLAT) | (b_spread < _FLAT)
    return torch.where(both_flat, alike, torch.where(one_flat, 0.0, found))
