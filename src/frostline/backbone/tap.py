"""Look at what flows through a network. The only owner of hooks; each is gone when its block ends."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from frostline.errors import BackboneError


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


def input_of(network: nn.Module, name: str, inputs: torch.Tensor) -> torch.Tensor:
    """What enters the module ``name`` when ``network`` is run on ``inputs``; nothing from that module on is run.

    Raises:
        BackboneError: the module is not run, or does not take exactly one tensor.
    """
    met: list[object] = []

    def stop(module: nn.Module, given: tuple[object, ...]) -> None:
        del module
        met.extend(given)
        raise _StoppedError

    handle = network.get_submodule(name).register_forward_pre_hook(stop)
    try:
        network(inputs)
    except _StoppedError:
        pass
    finally:
        handle.remove()
    if len(met) != 1 or not isinstance(met[0], torch.Tensor):
        raise BackboneError(f"{name} is given {len(met)} things, not one tensor", where=type(network).__name__)
    return met[0]


class _StoppedError(Exception):
    """Raised to leave a forward pass early."""


@contextlib.contextmanager
def recorded_inputs(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """While the block runs, the first input of every call of ``module`` is added to the list that is given, on the CPU."""
    met: list[torch.Tensor] = []

    def record(called: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        del called
        met.append(given[0].detach().cpu().clone())

    handle = module.register_forward_pre_hook(record)
    try:
        yield met
    finally:
        handle.remove()
