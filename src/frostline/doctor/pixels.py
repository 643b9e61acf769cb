"""Whether images reach the pre-trained layers normalised as their weights want it: measured, then judged.

Three kinds of evidence, the strongest first. Images that were 8-bit when they were normalised keep a ladder of at most 256 levels,
and the height of a rung is 1 / (255 std): it gives the deviation away exactly. Values that no picture can have under the wanted
normalisation give a wrong one away. And values that fill exactly the range of another known normalisation, and only half of the
wanted one, do too. What none of them tells is not called a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_LEVELS = 64
_MEAN_TOLERANCE, _STD_TOLERANCE = 0.05, 0.1
"""Statistics that differ by less (0..1 scale, and relatively) give the same accuracy; rounded constants are no mistake."""


@dataclass(frozen=True)
class Wanted:
    """What a network's weights were trained to see.

    Attributes:
        mean: per channel, on the 0..1 scale.
        std: per channel, on the 0..1 scale.
        size: height and width in pixels, where known.
        source: who says so.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    source: str


@dataclass(frozen=True)
class Channel:
    """One colour channel of a sample of images: its statistics, and the height of a rung where its values form a ladder."""

    mean: float
    std: float
    low: float
    high: float
    rung: float | None


@dataclass(frozen=True)
class Pixels:
    """A sample of images as they reach the first layer.

    Attributes:
        shape: of the sample, ``(N, C, H, W)``.
        channels: statistics by channel.
        outside: share of values that no picture can have, under the wanted normalisation.
        noise: the images are Gaussian noise, neighbouring pixels have nothing in common.
    """

    shape: tuple[int, ...]
    channels: tuple[Channel, ...]
    outside: float
    noise: bool


def measure(images: torch.Tensor, wanted: Wanted) -> Pixels:
    """Take the statistics of ``(N, C, H, W)`` images."""
    values = images.detach().float().cpu()
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (wanted.mean, wanted.std))
    pixels = values * std + mean
    outside = float(((pixels < -0.1) | (pixels > 1.1)).float().mean())  # interpolation on floats overshoots a little
    channels = tuple(_channel(values[:, c].double()) for c in range(values.shape[1]))
    return Pixels(tuple(values.shape), channels, outside, _is_noise(values))


def fault(pixels: Pixels, wanted: Wanted) -> str | None:
    """What the images look like instead of what is wanted, in words; None where they fit or nothing can be told."""
    if all(c.rung is not None for c in pixels.channels):
        fits = all(_rung_fits(c, m, s) for c, m, s in zip(pixels.channels, wanted.mean, wanted.std, strict=True))
        return None if fits else _look(pixels, wanted)
    if pixels.noise:
        return None
    low, high = min(c.low for c in pixels.channels), max(c.high for c in pixels.channels)
    raw = max(wanted.mean) < 0.01 and min(wanted.std) > 0.99
    if low >= -1e-3 and high <= 1.001 and not raw:
        return "values from 0 to 1, not normalised"
    if pixels.outside > 0.05:
        return _look(pixels, wanted)
    if not _fills(pixels, wanted.mean, wanted.std, within=0.04):
        other = next((name for name, mean, std in _known(wanted) if _fills(pixels, mean, std, within=0.01)), None)
        narrow = all(
            c.low * s + m > 0.04 and c.high * s + m < 0.96 for c, m, s in zip(pixels.channels, wanted.mean, wanted.std, strict=True)
        )
        return other if narrow else None
    return None


def _look(pixels: Pixels, wanted: Wanted) -> str:
    known = _known(wanted)
    if all(c.rung is not None for c in pixels.channels):
        for name, mean, std in known:
            if all(_rung_fits(c, m, s) for c, m, s in zip(pixels.channels, mean, std, strict=True)):
                return name
    for within in (0.01, 0.06):
        for name, mean, std in known:
            if _fills(pixels, mean, std, within=within):
                return name
    rungs = [1 / (255 * c.rung) for c in pixels.channels if c.rung is not None]
    if len(rungs) == len(pixels.channels):
        return f"normalised with std {', '.join(f'{r:.3g}' for r in rungs)} (from the step between grey levels)"
    return "another normalisation"


def _known(wanted: Wanted) -> list[tuple[str, Sequence[float], Sequence[float]]]:
    count = len(wanted.mean)
    flat: list[tuple[str, Sequence[float], Sequence[float]]] = [
        ("values from 0 to 1, not normalised", (0.0,) * count, (1.0,) * count),
        ("values from 0 to 255, not normalised", (0.0,) * count, (1 / 255,) * count),
        ("normalised with mean and std 0.5", (0.5,) * count, (0.5,) * count),
        _twice("normalised twice, with mean and std 0.5", (0.5,) * count, (0.5,) * count),
        ("normalised without dividing by 255 first", [m / 255 for m in wanted.mean], [s / 255 for s in wanted.std]),
        _twice("normalised twice", wanted.mean, wanted.std),
    ]
    if count == 3:
        flat += [("normalised with ImageNet's mean and std", *_IMAGENET), ("normalised with CLIP's mean and std", *_CLIP)]
        flat += [_twice("normalised twice, with ImageNet's mean and std", *_IMAGENET)]
    return flat


def _twice(name: str, mean: Sequence[float], std: Sequence[float]) -> tuple[str, Sequence[float], Sequence[float]]:
    return name, [m + m * s for m, s in zip(mean, std, strict=True)], [s * s for s in std]


def _rung_fits(channel: Channel, mean: float, std: float) -> bool:
    """Whether a ladder of values can be 8-bit pixels normalised so. Its lowest level may be any pixel value that leaves room above."""
    if channel.rung is None:
        return False
    found = 1 / (255 * channel.rung)
    if abs(found / std - 1) > _STD_TOLERANCE:
        return False
    room = 1 - (channel.high - channel.low) * found
    lowest = mean + channel.low * found
    return -_MEAN_TOLERANCE <= lowest <= max(room, 0.0) + _MEAN_TOLERANCE


def _fills(pixels: Pixels, mean: Sequence[float], std: Sequence[float], *, within: float) -> bool:
    """Whether the values run from black to white exactly, in every channel, if they were normalised so."""
    ends = [(c.low * s + m, c.high * s + m) for c, m, s in zip(pixels.channels, mean, std, strict=True)]
    return all(abs(low) <= within and abs(high - 1) <= within for low, high in ends)


def _channel(values: torch.Tensor) -> Channel:
    return Channel(float(values.mean()), float(values.std()), float(values.min()), float(values.max()), _rung(values))


def _rung(values: torch.Tensor) -> float | None:
    """The step between neighbouring levels, where the values lie on a ladder of at most 256."""
    levels = values.unique()
    if len(levels) > 1024:
        return None
    gaps = levels.diff()
    gaps = gaps[gaps > 1e-4 * gaps.median()]  # the same level, rounded otherwise
    if len(gaps) + 1 < _LEVELS:
        return None
    step = float(gaps.median())
    steps = gaps / step
    even = (steps - steps.round()).abs() < 0.05
    if float(even.double().mean()) < 0.95 or float(steps.round().sum()) > 257:
        return None
    return float(gaps[even].sum() / steps[even].round().sum())


def _is_noise(values: torch.Tensor) -> bool:
    whole = values - values.mean(dim=(2, 3), keepdim=True)
    spread = float(whole.square().mean())
    if values.shape[-1] < 2 or not spread:
        return False
    alike = float((whole[..., 1:] * whole[..., :-1]).mean()) / spread
    tails = float(whole.pow(4).mean()) / spread**2 - 3
    return abs(alike) < 0.1 and abs(tails) < 0.5 and 0.5 < spread**0.5 < 1.5 and abs(float(values.mean())) < 0.5
