"""Which device the work runs on, and how pictures get there."""

from __future__ import annotations

from collections.abc import Callable

import torch

from frostline.errors import DeviceError

MOST_PINNED = 64 << 20
"""Bytes of a batch's rows that memory is pinned for: no page of it can be taken away, and containers have little."""


def resolve_device(name: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        DeviceError: there is no such device on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (index and not index.isdigit()):
        raise DeviceError(f"no device is called {name!r}", where="--device", advice="use auto, cpu, cuda, cuda:0 or mps")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise DeviceError(
            f"{name} was asked for, this machine has {found} CUDA devices",
            where="--device",
            advice="use --device cpu or auto",
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps was asked for, this machine has none", where="--device", advice="use --device cpu or auto")
    return torch.device(name)


def wait_for(device: torch.device) -> None:
    """Return once a device has done what it was given; a processor has when it says so."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values on a device; to a GPU from pinned memory, so that the copy takes its turn there and nobody waits for it."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def fetched(values: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Begin to bring values to the CPU: what is given waits for them. A GPU meanwhile goes on with what it is given next."""
    if values.device.type != "cuda" or values.nbytes > MOST_PINNED:
        return values.cpu
    here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    here.copy_(values, non_blocking=True)
    there = torch.cuda.Event(blocking=True)  # else who waits turns, on a processor that decoding wants
    there.record(torch.cuda.current_stream(values.device))

    def arrived() -> torch.Tensor:
        there.synchronize()
        return here

    return arrived
