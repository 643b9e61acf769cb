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
_AT_ONCE = 64


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


def likenesses(a: torch.Tensor, b: torch.Tensor) -> list[Likeness]:
    """Correlation of pairs of thumbnails, one laid over every window of the other, straight and mirrored.

    Normalised cross-correlation (Lewis 1995): brightness and contrast do not count.

    Args:
        a: ``(N, 32, 32)`` gray levels.
        b: ``(N, 32, 32)`` gray levels, of the other picture of each pair.
    """
    found: list[Likeness] = []
    for one, other in zip(a.split(_AT_ONCE), b.split(_AT_ONCE), strict=True):
        turned = other.flip(2)
        straight = torch.maximum(_best_window(one, other), _best_window(other, one))
        mirrored = torch.maximum(_best_window(one, turned), _best_window(turned, one))
        for value, value_mirrored in zip(straight.tolist(), mirrored.tolist(), strict=True):
            found.append(Likeness(max(value, value_mirrored), value_mirrored > value))
    return found


def _best_window(small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
    """The highest correlation of the whole of each ``small`` with a window of its ``large``: ``(N,)``."""
    best = torch.full((len(small),), -1.0)
    for side in WINDOWS:
        resized = torch.nn.functional.interpolate(small[:, None], (side, side), mode="bilinear", antialias=True)
        windows = large.unfold(1, side, 1).unfold(2, side, 1).reshape(len(large), -1, side * side)
        best = torch.maximum(best, _correlation(resized.reshape(len(small), 1, side * side), windows).amax(1))
    return best


def _correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of ``(N, 1, n)`` with each of ``(N, m, n)``: ``(N, m)``; two flat pictures correlate where they are equally bright."""
    a_spread, a_mean = torch.std_mean(a, dim=2, correction=0)
    b_spread, b_mean = torch.std_mean(b, dim=2, correction=0)
    product = (b @ (a - a_mean[:, :, None]).transpose(1, 2))[:, :, 0] / a.shape[2]
    found = product / (a_spread * b_spread).clamp(min=1e-6)
    alike = ((a_mean - b_mean).abs() < _SAME_GRAY).float()
    both_flat, one_flat = (a_spread < _FLAT) & (b_spread < _FLAT), (a_spread < _FLAT) | (b_spread < _FLAT)
    return torch.where(both_flat, alike, torch.where(one_flat, 0.0, found))
