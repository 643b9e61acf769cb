"""The last layer of a network that still has positions and that the answer depends on at every one of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from frostline.backbone.tap import output_shapes
from frostline.errors import BackboneError
from frostline.model import TransferModel

MOST = 40
"""Layers that are tried, from the end."""

Kind = Literal["map", "turned map", "tokens"]


@dataclass(frozen=True)
class PositionLayer:
    """A layer with positions.

    Attributes:
        name: of the module in the model.
        kind: what it gives: ``map`` is ``(N, C, h, w)``, ``turned map`` is ``(N, h, w, C)``, ``tokens`` are ``(N, L, C)``.
        grid: rows and columns.
    """

    name: str
    kind: Kind
    grid: tuple[int, int]

    def over_positions(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over channels: ``(N, h, w)`` of what has the layer's shape. Tokens ahead of the picture's own are left out."""
        if self.kind == "map":
            return values.sum(1)
        summed = values.sum(-1)
        rows, columns = self.grid
        return summed if self.kind == "turned map" else summed[:, -rows * columns :].unflatten(1, self.grid)


def last_position_layer(model: TransferModel, depends: Callable[[str], torch.Tensor | None]) -> PositionLayer:
    """Find it.

    Behind the last layer with positions a vision transformer may look at one token alone; what the others held is nowhere in the answer
    then, and an earlier layer is the one to look at.

    Args:
        model: in eval mode.
        depends: the name of a layer to how much the answer depends on each value it gives, for one picture; None where that cannot be told.

    Raises:
        BackboneError: there is none.
    """
    names = [n for n, _ in model.named_modules() if n]
    shapes = output_shapes(model, names, model.example(2))
    found = [
        layer for name, shape in reversed(shapes.items()) if (layer := _of_shape(name, shape, model.opened.preprocess.crop)) is not None
    ]
    for layer in found[:MOST]:
        shares = depends(layer.name)
        if shares is not None and float((layer.over_positions(shares.abs()) > 0).float().mean()) > 0.5:
            return layer
    raise BackboneError(
        "no layer with positions decides the answer", where=model.opened.name, advice="use --method integrated-gradients or occlusion"
    )


def _of_shape(name: str, shape: tuple[int, ...], crop: tuple[int, int]) -> PositionLayer | None:
    """What positions a layer's output has, by its shape without the batch; None where it has none."""
    if len(shape) == 3 and _covers(shape[1:], crop):
        return PositionLayer(name, "map", (shape[1], shape[2]))
    if len(shape) == 3 and _covers(shape[:2], crop):
        return PositionLayer(name, "turned map", (shape[0], shape[1]))
    if len(shape) == 2 and (side := math.isqrt(shape[0])) > 1 and _covers((side, side), crop):
        return PositionLayer(name, "tokens", (side, side))
    return None


def _covers(grid: tuple[int, ...], crop: tuple[int, int]) -> bool:
    """Whether so many rows and columns come of a picture by strides, the same both ways; attention weights do not."""
    strides = {round(pixels / count) for pixels, count in zip(crop, grid, strict=True)}
    return min(grid) > 1 and len(strides) == 1 and all(c in (p // s, -(-p // s)) for p, c in zip(crop, grid, strict=True) for s in strides)
