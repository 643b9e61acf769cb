"""What a network does with two images, as a list of torch's operations, to be done again without the network's code.

It is plain JSON. Nothing is run of it but operations of ``torch.ops.aten`` that know no files. docs/design/0004-engines.md.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.utils._python_dispatch import TorchDispatchMode

from frostline.features.engine import TOLERANCE, Crossing, difference, plain

RECORDED_ON = 2
"""Images: few, for a recording is replayed at the start of a job, and more than one, because sizes of one are special."""
_OF_FILES = {"save", "from_file"}
_WORDS = torch.dtype | torch.layout | torch.memory_format
"""What a recording may name of torch besides operations."""


def record(body: nn.Module, images: torch.Tensor, wanted: Crossing) -> str | None:
    """What ``body`` does with the first images, as JSON; None where it cannot be recorded, or does not give the same for the last.

    Args:
        body: on the CPU.
        images: normalised, ``(N, 3, H, W)``.
        wanted: what the module gives for them.
    """
    tensors, few, others = body.state_dict(keep_vars=True), _own(images[:RECORDED_ON]), images[-RECORDED_ON:]
    try:
        with _one_thread(), _Recorder([few, *tensors.values()]) as recorder:
            given = [recorder.written(t) for t in plain(body, "fp32").run(few)]
        text = json.dumps({"tensors": list(tensors), "calls": recorder.calls, "given": given})
        error = difference(replay(text, body.state_dict(), others), tuple(t[-RECORDED_ON:] for t in wanted))
    except Exception:  # a network may do anything
        return None
    return text if error <= TOLERANCE["fp32"] else None


def replay(text: str, tensors: Mapping[str, torch.Tensor], images: torch.Tensor) -> Crossing:
    """What the recorded network gives.

    Args:
        text: what :func:`record` gave.
        tensors: of the network, by name.
        images: normalised, as many as it was recorded on.
    """
    recording = cast("dict[str, Any]", json.loads(text))
    values: dict[int, Any] = dict(enumerate([_own(images), *(tensors[n] for n in recording["tensors"])]))

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return [read(v) for v in cast("list[Any]", value)]
        if isinstance(value, dict):
            ((kind, which),) = cast("dict[str, Any]", value).items()
            return values[which] if kind == "tensor" else _word(which)
        return value

    with _one_thread(), torch.no_grad():
        for name, overload, args, kwargs, numbers in recording["calls"]:
            call = _operation(name, overload)
            values.update(zip(numbers, _several(call(*read(args), **{k: read(v) for k, v in kwargs.items()})), strict=True))
    return tuple(read(recording["given"]))


def _operation(name: str, overload: str) -> Any:
    """An operation of aten; anything else that can be reached by a name is refused, for whoever can write the cache chooses the names."""
    packet = getattr(torch.ops.aten, name, None)
    found = getattr(packet, overload, None) if isinstance(packet, OpOverloadPacket) else None
    if not isinstance(found, OpOverload) or found.namespace != "aten" or name in _OF_FILES:
        raise ValueError(f"{name}.{overload} is no operation that a recording may hold")
    return found


def _word(name: str) -> Any:
    found = getattr(torch, name)
    if not isinstance(found, _WORDS):
        raise TypeError(f"{name} is nothing that a recording may name")
    return found


def _own(images: torch.Tensor) -> torch.Tensor:
    """A copy, for a network may work in place; channels last, as the module gets them."""
    return images.to(memory_format=torch.channels_last, copy=True)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """So few images are quick in one; several would wait for each other hundreds of times, where another process has a processor."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Recorder(TorchDispatchMode):
    """Writes down every operation; tensors are numbered: those given first, then results as they come.

    It fails where a value leaves the tensors, for then the network may do something else with another image, and where a tensor comes
    from elsewhere.
    """

    def __init__(self, given: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._held: list[object] = []  # so that no other gets the same id
        for tensor in given:
            self._numbered(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        namespace, name, overload = str(func).split(".")
        if namespace != "aten":
            raise ValueError(func)
        call = [name, overload, self.written(args), {k: self.written(v) for k, v in (kwargs or {}).items()}]
        found = func(*args, **(kwargs or {}))
        self.calls.append([*call, [self._numbered(t) for t in _several(found)]])
        return found

    def _numbered(self, tensor: object) -> int:
        if not isinstance(tensor, torch.Tensor | None):
            raise TypeError(tensor)
        self._held.append(tensor)
        return self._numbers.setdefault(id(tensor), len(self._held) - 1)

    def written(self, value: Any) -> Any:
        """An argument for JSON; what JSON has no word for is a dictionary."""
        if isinstance(value, torch.Tensor):
            return {"tensor": self._numbers[id(value)]}
        if isinstance(value, _WORDS):
            return {"torch": str(value).removeprefix("torch.")}
        if isinstance(value, list | tuple):
            return [self.written(v) for v in cast("list[Any]", value)]
        return str(value) if isinstance(value, torch.device) else value


def _several(found: Any) -> list[Any]:
    return list(cast("list[Any]", found)) if isinstance(found, list | tuple) else [found]
