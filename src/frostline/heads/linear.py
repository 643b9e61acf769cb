"""The linear head: multinomial logistic regression on the features."""

from __future__ import annotations

import torch
from torch import nn

from frostline._rng import seeded
from frostline.heads.contract import FeatureShape, InputScale


class LinearHead(nn.Module):
    """Fixed scaling, then one linear layer that starts at zero: every class equally likely, no seed involved.

    Args:
        features: what the backbone gives, ``(C,)``.
        classes: number of classes.

    Raises:
        HeadError: the features are no vector.
    """

    def __init__(self, features: FeatureShape, classes: int) -> None:
        super().__init__()
        size = features.vector("linear")
        self.scale = InputScale(size, parts=features.parts)
        with seeded(0, "linear head"):  # the draw is thrown away, but would move torch's own generator
            self.linear = nn.Linear(size, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(N, C)`` to logits ``(N, classes)``."""
        return self.linear(self.scale(features))
