"""Make a head from its name and the features it will sit on."""

from __future__ import annotations

from torch import nn

from frostline.errors import HeadError
from frostline.heads.attention import AttentionHead
from frostline.heads.contract import FeatureShape, HeadSpec
from frostline.heads.conv import ConvHead
from frostline.heads.linear import LinearHead
from frostline.heads.mlp import MLPHead


def build_head(spec: HeadSpec, features: FeatureShape, classes: int, seed: int = 0) -> nn.Module:
    """The head ``spec`` for such features and ``classes`` classes.

    Raises:
        HeadError: it cannot sit on such features, or there are fewer than two classes.
    """
    if classes < 2:
        raise HeadError(f"a classifier needs at least 2 classes, not {classes}", where="--head")
    if spec.kind == "attention":
        return AttentionHead(features, classes)
    if spec.kind == "conv" and spec.width is not None:
        return ConvHead(features, classes, spec.width, seed)
    if spec.kind == "mlp" and spec.width is not None:
        return MLPHead(features, classes, spec.width, seed)
    return LinearHead(features, classes)
