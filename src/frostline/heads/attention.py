"""The head that chooses where to look: attention pooling over the positions of a map or over tokens."""

from __future__ import annotations

import torch
from torch import nn

from frostline._rng import seeded
from frostline.heads.contract import FeatureShape, InputScale


class AttentionHead(nn.Module):
    """Fixed scaling, then for each of eight groups of channels a mean over positions weighted by a learned query, then a linear layer.

    The queries start at zero, the linear layer too: training begins at plain average pooling. (Attention pooling with a learned query:
    Ilse 2018; several heads: Lee 2019. No key and value projections, which a few hundred images cannot train.)

    Args:
        features: what the backbone gives: a map ``(C, H, W)``, or tokens ``(L, C)``, a class token included.
        classes: number of classes.

    Raises:
        HeadError: the features are a vector.
    """

    def __init__(self, features: FeatureShape, classes: int) -> None:
        super().__init__()
        features.positions("attention")
        self.tokens = features.tokens
        self.heads = 8 if features.channels % 8 == 0 else 1
        self.scale = InputScale(features.channels, channel_axis=-1)
        self.query = nn.Parameter(torch.zeros(features.channels, self.heads))
        with seeded(0, "attention head"):  # the draw is thrown away, but would move torch's own generator
            self.linear = nn.Linear(features.channels, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(N, C, H, W)`` or ``(N, L, C)`` to logits ``(N, classes)``."""
        x = self.scale(features if self.tokens else features.flatten(2).transpose(1, 2))
        weights = (x @ self.query / x.shape[-1] ** 0.5).softmax(1)
        pooled = torch.einsum("nlh,nlhc->nhc", weights, x.unflatten(2, (self.heads, -1)))
        return self.linear(pooled.flatten(1))
