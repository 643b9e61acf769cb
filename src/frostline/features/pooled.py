"""One vector an image, whatever the features are: those with positions are averaged over them."""

from __future__ import annotations

import torch

from frostline.features.store import StoredRows
from frostline.freeze.crossing import Layout

_AT_ONCE = 64
"""Images whose features with positions are held at once."""


def vectors_of(features: torch.Tensor) -> torch.Tensor:
    """``(N, C)``, maps ``(N, C, H, W)`` or tokens ``(N, L, C)`` to ``(N, C)``."""
    if features.ndim == 4:
        return features.flatten(2).mean(2)
    return features.mean(1) if features.ndim == 3 else features


def pooled(rows: StoredRows, layout: Layout) -> torch.Tensor:
    """One vector an image, ``(N, d)`` float32 on the CPU, block by block.

    Args:
        rows: at least one, packed.
        layout: of a row.
    """
    blocks = (rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE))
    return torch.cat([vectors_of(layout.unpack(block)[0]) for block in blocks]).cpu()
