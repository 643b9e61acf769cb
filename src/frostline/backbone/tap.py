"""Look at what flows through a network. The only owner of hooks; each is gone when its block ends."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import nn


def output_shapes(network: nn.Module, names: Sequence[str], example: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Run ``example`` once and tell what shape each named module gives, without the batch dimension.

    The network's mode is left as it is; the caller puts it in eval mode. A module that is not run, or gives no tensor,
    is left out.
    """
    found: dict[str, tuple[int, ...]] = {}
    handles = [network.get_submodule(name).register_forward_hook(functools.partial(_record, found, name)) for name in names]
    try:
        with torch.inference_mode():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _record(found: dict[str, tuple[int, ...]], name: str, module: nn.Module, inputs: object, output: object) -> None:
    del module, inputs
    if isinstance(output, torch.Tensor):
        found[name] = tuple(output.shape[1:])
