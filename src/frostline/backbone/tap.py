"""Look at what flows through a network. The only owner of hooks; each is gone when its block ends."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from frostline._device import wait_for
from frostline.errors import BackboneError


def output_shapes(network: nn.Module, names: Sequence[str], example: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Run ``example`` once and tell what shape each named module gives, without the batch dimension.

    The network's mode is left as it is; the caller puts it in eval mode. A module that is not run, or gives no tensor,
    is left out.
    """
    found: dict[str, tuple[int, ...]] = {}
    handles = [network.get_submodule(name).register_forward_hook(functools.partial(_record, found, name)) for name in names]
    try:
        with torch.no_grad():
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


def given_to(run: nn.Module, layer: nn.Module | None, inputs: Any) -> list[torch.Tensor]:
    """What ``run`` gives for ``inputs``, and what enters ``layer`` meanwhile: a head that is new may give zeros whatever enters it."""
    if layer is None:
        return [run(inputs)]
    with recorded_inputs(layer) as met:
        gave = run(inputs)
    return [gave, *met]


@dataclass(frozen=True, eq=False)
class Call:
    """One run of one module.

    Attributes:
        order: place among all calls, by when they began.
        name: of the module; empty for the whole network.
        within: names of the modules that were running when it began, outermost first.
        training: the module's mode while it ran.
        seconds: how long it took, with everything inside it.
        shape: of the first tensor that it was given.
        sums: sum, sum of magnitudes and sum of squares of what it was given and of what it gave, where asked for.
        given: a copy of the first tensor that it was given, where asked for.
        gave: a copy of the first tensor that it gave, where asked for.
    """

    order: int
    name: str
    within: tuple[str, ...]
    training: bool
    seconds: float
    shape: tuple[int, ...] | None
    sums: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    given: torch.Tensor | None = None
    gave: torch.Tensor | None = None


@contextlib.contextmanager
def recording(network: nn.Module, *, keep: Collection[str] = (), sums: Collection[str] = ()) -> Iterator[list[Call]]:
    """Record every call of every module while the block runs; the list is complete and in order when it has ended.

    Args:
        network: is not changed.
        keep: names of modules whose first input and output tensors are copied.
        sums: names of modules to sum what they were given and gave; where one runs inside another, only the outer one. It costs
            time: not for measuring it.
    """
    recorder = _Recorder(frozenset(keep), frozenset(sums))
    handles: list[Any] = []
    try:
        for name, module in network.named_modules():
            handles.append(module.register_forward_pre_hook(functools.partial(recorder.begin, name), with_kwargs=True))
            handles.append(module.register_forward_hook(functools.partial(recorder.end, name)))
        yield recorder.calls
    finally:
        for handle in handles:
            handle.remove()
        recorder.calls.sort(key=lambda call: call.order)


def first_tensor(value: object) -> torch.Tensor | None:
    """The first tensor in nested tuples, lists and mappings, or None."""
    if isinstance(value, torch.Tensor):
        return value
    parts: list[object] = []
    if isinstance(value, Mapping):
        parts = list(cast("Mapping[object, object]", value).values())
    elif isinstance(value, list | tuple):
        parts = list(cast("Sequence[object]", value))
    return next((t for t in map(first_tensor, parts) if t is not None), None)


@dataclass(frozen=True, eq=False)
class _Running:
    order: int
    name: str
    began: float
    shape: tuple[int, ...] | None
    sums: tuple[float, ...] | None
    given: torch.Tensor | None


class _Recorder:
    def __init__(self, keep: frozenset[str], sums: frozenset[str]) -> None:
        self.calls: list[Call] = []
        self._keep, self._sums, self._begun = keep, sums, 0
        self._running: list[_Running] = []

    def begin(self, name: str, module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        del module
        given = first_tensor((inputs, named))
        _wait_for(given)
        copy = given.detach().clone() if given is not None and name in self._keep else None
        shape = None if given is None else tuple(given.shape)
        summed = name in self._sums and not any(r.name in self._sums for r in self._running)
        sums = _sums(given) if summed else None
        self._running.append(_Running(self._begun, name, time.perf_counter(), shape, sums, copy))
        self._begun += 1

    def end(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        del inputs
        gave = first_tensor(output)
        _wait_for(gave)
        ended = time.perf_counter()
        begun = self._running.pop()
        self.calls.append(
            Call(
                begun.order,
                name,
                tuple(r.name for r in self._running),
                module.training,
                ended - begun.began,
                begun.shape,
                None if begun.sums is None else (begun.sums, _sums(gave)),
                begun.given,
                gave.detach().clone() if gave is not None and name in self._keep else None,
            )
        )


def _wait_for(tensor: torch.Tensor | None) -> None:
    if tensor is not None:
        wait_for(tensor.device)


def _sums(tensor: torch.Tensor | None) -> tuple[float, ...]:
    if tensor is None:
        return ()
    values = tensor.detach().double() if not tensor.is_complex() else torch.view_as_real(tensor.detach()).double()
    return float(values.sum()), float(values.abs().sum()), float(values.square().sum())


@dataclass(eq=False)
class ChannelStatistics:
    """Sums over what entered a layer, by channel. Mutable: it grows with every call."""

    count: int = 0
    total: torch.Tensor | None = None
    squares: torch.Tensor | None = None

    def add(self, given: torch.Tensor) -> None:
        """Count ``(N, C, ...)``."""
        values = given.detach().double().transpose(0, 1).flatten(1)
        total, squares = values.sum(1).cpu(), values.square().sum(1).cpu()
        self.count += values.shape[1]
        self.total = total if self.total is None else self.total + total
        self.squares = squares if self.squares is None else self.squares + squares

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance ``(C,)`` of all that was counted; something was."""
        assert self.total is not None
        assert self.squares is not None
        mean = self.total / self.count
        return mean, (self.squares / self.count - mean.square()).clamp(min=0)


@contextlib.contextmanager
def channel_statistics(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, ChannelStatistics]]:
    """While the block runs, sum what enters the named layers by channel; layers that are never run are left out."""
    found: dict[str, ChannelStatistics] = {}

    def count(name: str, module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        del module
        found.setdefault(name, ChannelStatistics()).add(given[0])

    handles = [network.get_submodule(name).register_forward_pre_hook(functools.partial(count, name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
