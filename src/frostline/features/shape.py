"""The shape of a backbone's features, found by running one image."""

from __future__ import annotations

import torch

from frostline.backbone.network import Backbone
from frostline.backbone.sealed import Sealed
from frostline.errors import BackboneError
from frostline.freeze.apply import evaluating


def feature_shape(backbone: Backbone) -> tuple[int, ...]:
    """Shape of one image's features, without the batch dimension.

    Raises:
        BackboneError: the network does not take such images, or gives no tensor.
    """
    if isinstance(backbone.body, Sealed):
        return backbone.body.shape_of_features
    try:
        with evaluating(backbone.body), torch.no_grad():
            features: object = backbone.body(backbone.example())
    except (RuntimeError, TypeError, ValueError, AssertionError) as fault:
        raise BackboneError(
            f"fails on an image of {backbone.preprocess.crop} pixels ({(str(fault) or 'no message').splitlines()[0][:100]})",
            where=backbone.name,
        ) from fault
    if not isinstance(features, torch.Tensor):
        raise BackboneError(f"gives a {type(features).__name__}, not one tensor of features", where=backbone.name)
    return tuple(features.shape[1:])
