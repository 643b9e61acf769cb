"""The nearest images of each image in feature space, block by block: memory grows with the number of images, never with its square."""

from __future__ import annotations

from dataclasses import dataclass

import torch

BLOCK = 512
"""Images whose similarities to all others are held at once: 40 MB of them for 20,000 images."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The most similar images of each image, the nearest first.

    Attributes:
        rows: row numbers in the pool, ``(N, k)`` int64.
        similarity: cosine, ``(N, k)`` float32, between -1 and 1.
    """

    rows: torch.Tensor
    similarity: torch.Tensor


def unit_length(features: torch.Tensor) -> torch.Tensor:
    """Features ``(N, d)``, each of length 1; one that is all zero stays so."""
    features = features.float()
    return features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)


def directions(features: torch.Tensor) -> torch.Tensor:
    """Features ``(N, d)`` about their mean, each of length 1.

    Features behind a ReLU all lie in one corner, where any two look alike; about their mean they do not, and one threshold serves many
    backbones.
    """
    return unit_length(features.float() - features.double().mean(0).float())


def nearest(queries: torch.Tensor, pool: torch.Tensor, count: int, *, same: bool = False) -> Neighbours:
    """The images of a pool that are most similar to each query.

    Args:
        queries: ``(N, d)`` of length 1.
        pool: ``(M, d)`` of length 1.
        count: how many to find; fewer where the pool is smaller.
        same: queries and pool are the same images, and none is its own neighbour.
    """
    count = min(count, len(pool) - same)
    rows = torch.empty(len(queries), count, dtype=torch.int64)
    similarity = torch.empty(len(queries), count)
    for start in range(0, len(queries), BLOCK):
        block = slice(start, start + BLOCK)
        found = queries[block] @ pool.T
        if same:
            own = torch.arange(len(found))
            found[own, own + start] = -torch.inf
        similarity[block], rows[block] = found.topk(count)
    return Neighbours(rows, similarity)
