"""Copies between a simulated device and pinned memory that are under way until something waits for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes


@dataclass(frozen=True, eq=False)
class Copy:
    """One that has been begun.

    Attributes:
        number: of the copy, in the order of the stream.
        host: the pinned memory.
        value: what arrives there, or what was there when it left.
        arriving: to the processor; else from it.
    """

    number: int
    host: torch.Tensor
    value: torch.Tensor
    arriving: bool


class Stream:
    """The one stream of a simulated device."""

    def __init__(self) -> None:
        self.begun = 0
        self._copies: list[Copy] = []

    def arrives(self, host: torch.Tensor, value: torch.Tensor) -> None:
        """A value will be in this memory once the stream has come so far."""
        self._begin(host, value, arriving=True)

    def leaves(self, host: torch.Tensor) -> None:
        """This memory is read at some time until the stream has come so far."""
        self._begin(host, host.clone(), arriving=False)

    def _begin(self, host: torch.Tensor, value: torch.Tensor, *, arriving: bool) -> None:
        self.begun += 1
        self._copies.append(Copy(self.begun, host, value, arriving))

    def check(self, read: Sequence[torch.Tensor], changed: Sequence[torch.Tensor]) -> None:
        """Raise where memory of the processor is read into which a copy is under way, or changed out of which one is."""
        for copy in self._copies:
            if copy.arriving and any(overlap(copy.host, t) for t in (*read, *changed)):
                raise RuntimeError("read before it is there: a copy from the device is under way (simulated)")
            if not copy.arriving and any(overlap(copy.host, t) for t in changed):
                raise RuntimeError("changed while a copy to the device reads it (simulated)")

    def finish(self, number: int) -> None:
        """Wait for the copies up to a number."""
        done, self._copies = [c for c in self._copies if c.number <= number], [c for c in self._copies if c.number > number]
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            for copy in done:
                if copy.arriving:
                    copy.host.copy_(copy.value)
                elif not torch.equal(copy.host.nan_to_num(), copy.value.nan_to_num()):
                    raise RuntimeError("changed by numpy while a copy to the device reads it (simulated)")

    def synchronize(self) -> None:
        self.finish(self.begun)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(self)
        event.record()
        return event

    def wait_event(self, event: Event) -> None:
        """There is one stream: what comes later waits for what came before."""


class Event:
    """A place in the stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._number, self._at = stream, 0, 0.0

    def record(self, stream: Any = None) -> None:
        self._number, self._at = self._stream.begun, time.perf_counter()

    def synchronize(self) -> None:
        self._stream.finish(self._number)

    def query(self) -> bool:
        self.synchronize()
        return True

    def elapsed_time(self, end: Event) -> float:
        return 1000 * (end._at - self._at)


def overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have bytes in common, counting those between their first and their last."""
    if one.untyped_storage()._cdata != other.untyped_storage()._cdata:
        return False
    (a, b), (c, d) = _bytes(one), _bytes(other)
    return a < d and c < b


def _bytes(tensor: torch.Tensor) -> tuple[int, int]:
    first = tensor.storage_offset() * tensor.element_size()
    if not tensor.numel():
        return first, first
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return first, first + (last + 1) * tensor.element_size()
