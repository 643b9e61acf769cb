"""Fold batch norm into the convolution before it: the same function of the images, with fewer passes over memory."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from frostline.backbone.trace import CannotTraceError, graph_module, trace
from frostline.freeze.apply import evaluating, set_mode


def folded(body: nn.Module) -> nn.Module | None:
    """A copy of a network in eval mode with its batch norms folded, channels last; None where there is nothing to fold.

    A batch norm is folded where nothing else uses what its convolution gives. ``body`` is not changed; what is not folded is shared
    with it.
    """
    norms = [n for n, m in body.named_modules() if _is_folded(m)]
    if not norms:
        return None
    with evaluating(body):
        try:
            traced = trace(body, norms)
        except CannotTraceError:
            return None
        pairs = _pairs(body, traced.graph)
        if not pairs:
            return None
        module = graph_module(body, traced.graph, traced.constants)  # its layers are those of ``body``, what holds them is its own
        for conv, norm in pairs:
            _put(module, conv, _fused(cast("nn.Conv2d", body.get_submodule(conv)), cast("Any", body.get_submodule(norm))))
            _put(module, norm, _what_is_left(body.get_submodule(norm)))
    return module


def _put(module: nn.Module, name: str, layer: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, layer)


def _is_folded(module: nn.Module) -> bool:
    if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None:
        return False
    return type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"


def _pairs(body: nn.Module, graph: fx.Graph) -> list[tuple[str, str]]:
    """Names of convolutions and of the batch norms that alone use them; each layer is run once."""
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    found: list[tuple[str, str]] = []
    for node in graph.nodes:
        if node.op != "call_module" or not _is_folded(body.get_submodule(str(node.target))):
            continue
        before = node.args[0]
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv = body.get_submodule(str(before.target))
        if isinstance(conv, nn.Conv2d) and calls[str(before.target)] == calls[str(node.target)] == 1:
            found.append((str(before.target), str(node.target)))
    return found


def _fused(conv: nn.Conv2d, norm: Any) -> nn.Module:
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, affine=norm.affine)
    plain.load_state_dict({n: t for n, t in norm.state_dict().items() if n in plain.state_dict()})
    plain.to(norm.running_mean.device)
    own = copy.deepcopy(conv)
    for layer in (plain, own):
        set_mode(layer, training=False)
    return fuse_conv_bn_eval(own, plain).to(memory_format=torch.channels_last)


def _what_is_left(norm: nn.Module) -> nn.Module:
    """What timm's batch norm does behind the norm itself."""
    parts = [cast("nn.Module", getattr(norm, n)) for n in ("drop", "act") if hasattr(norm, n)]
    return nn.Sequential(*parts) if parts else nn.Identity()
