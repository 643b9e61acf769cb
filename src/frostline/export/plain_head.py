"""A head as ordinary layers, its fixed input scaling folded into the first: no part of frostline is needed to run it."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from frostline.errors import ExportError
from frostline.heads import InputScale
from frostline.heads.linear import LinearHead
from frostline.heads.mlp import MLPHead


def plain_layers(head: nn.Module) -> tuple[nn.Module, ...]:
    """Layers that do in a row what the head does to a feature vector.

    Raises:
        ExportError: the head sits on a feature map; there are no ordinary layers that are it.
    """
    if isinstance(head, LinearHead):
        return (folded(head.scale, head.linear),)
    if isinstance(head, MLPHead):
        return folded(head.scale, head.hidden), nn.GELU(), _linear(head.linear.weight, head.linear.bias)
    raise ExportError(
        f"the head ({type(head).__name__}) sits on the last feature map: it is no part of a model of timm or torchvision",
        where="--format safetensors",
        advice="use --format onnx or --format torch-export, which take every head",
    )


def folded(scale: InputScale, linear: nn.Linear) -> nn.Linear:
    """``linear((x - mean) / scale)`` as one linear layer: weight ``W / scale``, bias ``b - W mean / scale``, computed in float64."""
    weight = linear.weight.detach().double() / scale.scale.double()
    return _linear(weight, linear.bias.detach().double() - weight @ scale.mean.double())


def empty_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer whose weights are still to come; torch's generator is not moved."""
    return cast("nn.Linear", torch.nn.utils.skip_init(nn.Linear, inputs, outputs))


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    made = empty_linear(weight.shape[1], weight.shape[0])
    made.load_state_dict({"weight": weight, "bias": bias})
    return made
