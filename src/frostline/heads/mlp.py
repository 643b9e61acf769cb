"""The head with one hidden layer."""

from __future__ import annotations

import torch
from torch import nn

from frostline._rng import seeded
from frostline.heads.contract import FeatureShape, InputScale


class MLPHead(nn.Module):
    """Fixed scaling, a hidden layer with GELU, and a linear layer that starts at zero.

    Args:
        features: what the backbone gives, ``(C,)``.
        classes: number of classes.
        width: size of the hidden layer.
        seed: of the hidden layer's initial weights.

    Raises:
        HeadError: the features are no vector.
    """

    def __init__(self, features: FeatureShape, classes: int, width: int, seed: int = 0) -> None:
        super().__init__()
        size = features.vector("mlp")
        self.scale = InputScale(size, parts=features.parts)
        with seeded(seed, "mlp head"):
            self.hidden = nn.Linear(size, width)
            self.linear = nn.Linear(width, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(N, C)`` to logits ``(N, classes)``."""
        return self.linear(nn.functional.gelu(self.hidden(self.scale(features))))
