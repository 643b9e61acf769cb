"""What a head is: a module that takes the backbone's features and gives one logit a class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from frostline.errors import HeadError


class InputScale(nn.Module):
    """Centres and scales features by fixed statistics of the training images: ``(x - mean) / std``.

    A fixed affine map, kept as buffers; with it one learning rate suits backbones whose features differ in scale by
    orders of magnitude. Before :meth:`measure` it changes nothing.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    @torch.no_grad()
    def measure(self, features: torch.Tensor) -> None:
        """Take mean and standard deviation from ``(N, C)`` features; a constant feature is only centred.

        The standard deviation is floored at a hundredth of its median over all features, so that a feature that hardly
        ever differs from its mean is not blown up.
        """
        std, mean = torch.std_mean(features.to(torch.float64), dim=0, correction=0)
        floor = torch.clamp(std.median() * 1e-2, min=1e-8)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > floor, std, torch.maximum(std, floor) if bool(floor > 1e-8) else torch.ones_like(std)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(N, C)`` to ``(N, C)``."""
        return (features - self.mean) / self.std


@dataclass(frozen=True)
class HeadSpec:
    """A head by name: ``linear`` or ``mlp:WIDTH``.

    >>> HeadSpec.parse("mlp:512")
    HeadSpec(kind='mlp', width=512)
    """

    kind: str
    width: int | None = None

    @staticmethod
    def parse(text: str) -> HeadSpec:
        """Read ``linear`` or ``mlp:WIDTH``.

        Raises:
            HeadError: another name, or a width that is no whole number of at least 1.
        """
        kind, colon, value = text.strip().partition(":")
        if kind == "linear" and not colon:
            return HeadSpec("linear")
        if kind == "mlp" and value.isdecimal() and int(value) >= 1:
            return HeadSpec("mlp", int(value))
        raise HeadError(f"no head is called {text!r}", where="--head", advice="use linear or mlp:WIDTH, for example mlp:512")

    def __str__(self) -> str:
        return self.kind if self.width is None else f"{self.kind}:{self.width}"


def vector_size(shape: tuple[int, ...], head: str) -> int:
    """The length of one image's feature vector.

    Raises:
        HeadError: the features are no vector; says which shape was met.
    """
    if len(shape) != 1:
        raise HeadError(f"a {head} head takes a vector for each image, the backbone gives {shape}", where="--head")
    return shape[0]
