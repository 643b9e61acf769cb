"""What a head is: a module that takes the backbone's features and gives one logit a class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import nn

from frostline.errors import HeadError


class InputScale(nn.Module):
    """Centres every channel and divides all by one number, both from the training images: ``(x - mean) / scale``.

    A fixed affine map, kept as buffers; with it one learning rate suits backbones whose features differ in size by
    orders of magnitude. One number for all, not one a channel: features that vary little tell little, and dividing
    each by its own deviation made every task measured worse (docs/LOG.md). Before :meth:`measure` it changes nothing.

    Vectors of several depths side by side have one number a depth: how much each counts.

    Args:
        channels: number of channels.
        channel_axis: where they are, counted from the end: -1 for vectors and tokens, -3 for maps.
        parts: of vectors side by side, the length of each.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, channels: int, channel_axis: int = -1, parts: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.channel_axis, self.parts = channel_axis, parts
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels if parts else ()))

    @torch.no_grad()
    def measure(self, features: Rows, weights: torch.Tensor | None = None) -> None:
        """Take the mean of each channel, and the root of their mean variance, over images and positions.

        Args:
            features: ``(N, C)``, ``(N, L, C)`` or ``(N, C, H, W)``; of the last two at most 512 images, evenly spread, are used. Of
                vectors no more than a few thousand are looked at at once, so that they may lie on disk.
            weights: of vectors side by side, how much the variance of each counts, ``(parts,)`` above 0; all the same unless given.
        """
        first = features[:1]
        if first.ndim > 2:
            features = cast("torch.Tensor", features)[:: max(1, len(features) // MOST_MEASURED)]
        blocks = [slice(start, start + _BLOCK) for start in range(0, len(features), _BLOCK)]
        if len(blocks) == 1:
            variance, mean = torch.var_mean(_channels_last(features[blocks[0]]), dim=0, correction=0)
        else:
            count = float(len(features))
            mean = torch.stack([_channels_last(features[b]).sum(0) / count for b in blocks]).sum(0)
            variance = torch.stack([(_channels_last(features[b]) - mean).square().sum(0) / count for b in blocks]).sum(0)
        every = factors(self.parts, weights).to(variance.device) if self.parts else variance.new_ones(())
        scale = (variance * every.square()).mean().sqrt()
        self.mean.copy_(mean)
        self.scale.copy_((scale if bool(scale > 0) else torch.ones_like(scale)) / every)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(N, ...)`` to ``(N, ...)``."""
        mean = self.mean if self.channel_axis == -1 else self.mean.view(-1, *[1] * (-1 - self.channel_axis))
        return (features - mean) / self.scale


def factors(parts: Sequence[int], weights: torch.Tensor | None = None) -> torch.Tensor:
    """What each channel of vectors side by side is multiplied by so that the variance of a part counts by its weight: ``(C,)`` float64."""
    each = torch.ones(len(parts), dtype=torch.float64) if weights is None else weights.double().cpu().sqrt()
    return each.repeat_interleave(torch.tensor(parts))


MOST_MEASURED = 512
"""Images with positions that :class:`InputScale` is measured on, at most (to twice as many)."""
_BLOCK = 4096


class Rows(Protocol):
    """Features of images, in memory or on disk."""

    def __len__(self) -> int:
        """The number of images."""
        ...

    def __getitem__(self, index: slice, /) -> torch.Tensor:
        """Those of some images, ``(n, ...)``."""
        ...


def _channels_last(features: torch.Tensor) -> torch.Tensor:
    """``(N, C)`` float64, positions counted as images."""
    rows = features.movedim(1, -1) if features.ndim == 4 else features
    return rows.reshape(-1, rows.shape[-1]).to(torch.float64)


@dataclass(frozen=True)
class FeatureShape:
    """What a backbone gives for one image.

    Attributes:
        shape: ``(C,)``, a map ``(C, H, W)`` or tokens ``(L, C)``.
        first: of tokens, how many at the beginning are no part of the picture (a class token, registers).
        parts: of a vector that is those of several depths side by side, the length of each.
    """

    shape: tuple[int, ...]
    first: int = 0
    parts: tuple[int, ...] = ()

    @property
    def tokens(self) -> bool:
        """Whether it is a list of tokens."""
        return len(self.shape) == 2

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.shape[-1] if self.tokens else self.shape[0]

    def vector(self, head: str) -> int:
        """The length of a feature vector.

        Raises:
            HeadError: the features are no vector; says which shape was met.
        """
        if len(self.shape) != 1:
            raise HeadError(f"a {head} head takes a vector for each image, the backbone gives {self.shape}", where="--head")
        return self.shape[0]

    def positions(self, head: str) -> None:
        """Refuse features without positions.

        Raises:
            HeadError: they are a vector; says which shape was met.
        """
        if len(self.shape) not in (2, 3):
            raise HeadError(
                f"a {head} head takes a feature map or tokens for each image, the backbone gives {self.shape}",
                where="--head",
                advice="use linear or mlp:WIDTH",
            )

    def side(self, head: str) -> int:
        """The side of the square that tokens are folded to; 0 for a map, which is one already.

        Raises:
            HeadError: the features are a vector, or tokens that make no square.
        """
        self.positions(head)
        if not self.tokens:
            return 0
        count = self.shape[0] - self.first
        side = math.isqrt(max(0, count))
        if side * side != count or side < 2:
            raise HeadError(
                f"a {head} head takes a square of tokens, the backbone gives {self.shape} with {self.first} of them apart",
                where="--head",
                advice="use attention",
            )
        return side


AUTO = "auto"
"""In place of a block: the depth is chosen by cross-validation."""


@dataclass(frozen=True)
class HeadSpec:
    """A head by name: ``linear``, ``mlp:WIDTH``, ``conv:CHANNELS``, ``attention``, ``ridge`` or ``logistic``.

    The last two are linear heads whose weights are computed, not trained step by step. ``linear@blocks.4.2`` sits on what the block
    ``blocks.4.2`` gives, pooled, instead of the backbone's own features; likewise ``ridge``, ``logistic`` and ``mlp:WIDTH``.
    ``linear@all`` sits on what all blocks and the backbone give, side by side; ``linear@auto`` has the depth chosen.

    >>> HeadSpec.parse("mlp:512")
    HeadSpec(kind='mlp', width=512, at=None)
    >>> HeadSpec.parse("linear@blocks.4.2").at
    'blocks.4.2'
    """

    kind: str
    width: int | None = None
    at: str | None = None

    @property
    def takes_map(self) -> bool:
        """Whether it sits on the last feature map, not on the pooled features."""
        return self.kind in ("conv", "attention")

    @property
    def solved(self) -> bool:
        """Whether its weights are computed from all features at once."""
        return self.kind in ("ridge", "logistic")

    @staticmethod
    def parse(text: str) -> HeadSpec:
        """Read a head's name.

        Raises:
            HeadError: another name, or a width that is no whole number of at least 1.
        """
        what, sign, block = text.strip().partition("@")
        kind, colon, value = what.partition(":")
        at = block if sign else None
        if at is not None and (not at or kind in ("conv", "attention")):
            raise HeadError(
                f"{text!r} names no block to sit on" if not at else f"a {kind} head sits on the last feature map only",
                where="--head",
                advice="use linear, ridge, logistic or mlp:WIDTH before @BLOCK, for example linear@blocks.4.2",
            )
        if kind in ("linear", "attention", "ridge", "logistic") and not colon:
            return HeadSpec(kind, None, at)
        if kind in ("mlp", "conv") and value.isdecimal() and int(value) >= 1:
            return HeadSpec(kind, int(value), at)
        raise HeadError(
            f"no head is called {text!r}",
            where="--head",
            advice="use linear, ridge, logistic, mlp:WIDTH, conv:CHANNELS or attention, for example mlp:512 or conv:256",
        )

    def __str__(self) -> str:
        what = self.kind if self.width is None else f"{self.kind}:{self.width}"
        return what if self.at is None else f"{what}@{self.at}"
