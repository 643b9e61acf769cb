"""The linear head: multinomial logistic regression on the features."""

from __future__ import annotations

import torch
from torch import nn

from frostline.heads.contract import InputScale, vector_size


class LinearHead(nn.Module):
    """Fixed scaling, then one linear layer that starts at zero: every class equally likely, no seed involved.

    Args:
        shape: one image's features, ``(C,)``.
        classes: number of classes.

    Raises:
        HeadError: the features are no vector.
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        size = vector_size(shape, "linear")
        self.scale = InputScale(size)
        self.linear = nn.Linear(size, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(N, C)`` to logits ``(N, classes)``."""
        return self.linear(self.scale(features))
