"""What a head is: a module that takes the backbone's features and gives one logit a class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from frostline.errors import HeadError


class InputScale(nn.Module):
    """Centres every feature and divides all by one number, both from the training images: ``(x - mean) / scale``.

    A fixed affine map, kept as buffers; with it one learning rate suits backbones whose features differ in size by
    orders of magnitude. One number for all, not one a feature: features that vary little tell little, and dividing
    each by its own deviation made every task measured worse (docs/LOG.md). Before :meth:`measure` it changes nothing.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def measure(self, features: torch.Tensor) -> None:
        """Take the mean of each feature, and the root of their mean variance, from ``(N, C)`` features."""
        variance, mean = torch.var_mean(features.to(torch.float64), dim=0, correction=0)
        scale = variance.mean().sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(scale if bool(scale > 0) else torch.ones_like(scale))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(N, C)`` to ``(N, C)``."""
        return (features - self.mean) / self.scale


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
