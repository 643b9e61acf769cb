"""Make a head from its name and the features it will sit on."""

from __future__ import annotations

from torch import nn

from frostline.errors import HeadError
from frostline.heads.contract import HeadSpec
from frostline.heads.linear import LinearHead
from frostline.heads.mlp import MLPHead


def build_head(spec: HeadSpec, shape: tuple[int, ...], classes: int, seed: int = 0) -> nn.Module:
    """The head ``spec`` for features of ``shape`` (without the batch) and ``classes`` classes.

    Raises:
        HeadError: it cannot sit on such features, or there are fewer than two classes.
    """
    if classes < 2:
        raise HeadError(f"a classifier needs at least 2 classes, not {classes}", where="--head")
    if spec.width is None:
        return LinearHead(shape, classes)
    return MLPHead(shape, classes, spec.width, seed)
