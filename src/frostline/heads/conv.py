"""The head with a convolution: on a feature map, so that it sees where things are."""

from __future__ import annotations

import math

import torch
from torch import nn

from frostline._rng import seeded
from frostline.heads.contract import FeatureShape, InputScale


class ConvHead(nn.Module):
    """Fixed scaling, a 3 x 3 convolution with group norm and GELU, the mean over all positions, a linear layer that starts at zero.

    Group norm (Wu 2018), not batch norm: what it does to an image does not depend on the images beside it, and it has no statistics
    that a few hundred images would have to settle.

    Args:
        features: what the backbone gives: a map ``(C, H, W)``, or tokens ``(L, C)`` that are folded to a square.
        classes: number of classes.
        channels: output channels of the convolution.
        seed: of its initial weights.

    Raises:
        HeadError: the features are a vector, or tokens that make no square.
    """

    def __init__(self, features: FeatureShape, classes: int, channels: int, seed: int = 0) -> None:
        super().__init__()
        self.side = features.side("conv")
        self.first = features.first
        self.scale = InputScale(features.channels, channel_axis=-3)
        with seeded(seed, "conv head"):
            self.conv = nn.Conv2d(features.channels, channels, 3, padding=1, bias=False)
            self.norm = nn.GroupNorm(math.gcd(channels, 32), channels)
            self.linear = nn.Linear(channels, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(N, C, H, W)`` or ``(N, L, C)`` to logits ``(N, classes)``."""
        if self.side:
            features = features[:, self.first :].transpose(1, 2).unflatten(2, (self.side, self.side))
        x = nn.functional.gelu(self.norm(self.conv(self.scale(features))))
        return self.linear(x.mean((2, 3)))
