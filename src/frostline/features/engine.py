"""Engines: ways to run a frozen prefix. The module itself is the reference; every other is measured against it before it is used."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

from frostline._device import wait_for
from frostline.freeze.apply import evaluating

EngineName = Literal["auto", "plain", "eager", "openvino", "compile"]
ENGINES: tuple[EngineName, ...] = ("auto", "plain", "eager", "openvino", "compile")

ENGINE_FACTS = ("name", "precision", "version", "error", "images_per_second", "pictures_per_second", "seconds_to_choose", "why")
"""What is told of an engine, and remembered."""

Crossing = tuple[torch.Tensor, ...]
Run = Callable[[torch.Tensor], Crossing]

TOLERANCE = {"fp32": 3e-5, "bf16": 5e-2}
"""Largest relative L2 difference of what crosses from the plain fp32 module, by precision. On a GPU, whose convolutions use TF32, the
module itself is no more exact than 5e-3 in fp32."""


_COMPARED = 16
"""Images that are compared at once, in float64: maps of a whole batch of a GPU would take gigabytes."""


def tolerance_of(precision: str, device: torch.device) -> float:
    """What an engine's difference is held against on a device."""
    return 5e-3 if precision == "fp32" and device.type != "cpu" else TOLERANCE[precision]


@dataclass(frozen=True, eq=False)
class Engine:
    """A way to run a prefix.

    Attributes:
        name: ``plain``, ``eager``, ``openvino`` or ``compile``.
        precision: ``fp32`` or ``bf16``.
        version: of the library that runs it, for the identity of features; empty for torch, whose version is in there anyway.
        run: normalised images ``(N, 3, H, W)`` to the tensors that cross.
        error: relative L2 difference from the plain fp32 module on images of the job; 0 for the module itself, None where it was not
            measured in this process (nothing had to be run).
        images_per_second: measured on those images, or None.
        pictures_per_second: decoded for it, in two threads, or None.
        seconds_to_choose: that making, verifying and timing it took when it was chosen, or None where nothing had to be tried.
        why: the reason for the choice, in words.
    """

    name: EngineName
    precision: str
    version: str
    run: Run
    error: float | None = None
    images_per_second: float | None = None
    pictures_per_second: float | None = None
    seconds_to_choose: float | None = None
    why: str = ""

    def facts(self) -> dict[str, Any]:
        """What is told of it, as plain JSON values."""
        return {n: getattr(self, n) for n in ENGINE_FACTS}

    @property
    def has_own_threads(self) -> bool:
        """Whether it runs in other threads than torch's."""
        return self.name == "openvino"

    @property
    def identity(self) -> str:
        """What features depend on."""
        return f"{self.name} {self.precision} {self.version}".strip()


def plain(body: nn.Module, precision: str, why: str = "the module itself") -> Engine:
    """The module as it is, on images that lie channels last, in bf16 under autocast."""

    def run(images: torch.Tensor) -> Crossing:
        with evaluating(body), torch.no_grad(), torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            return as_tuple(body(images.contiguous(memory_format=torch.channels_last)))

    return Engine("plain", precision, "", run, 0.0 if precision == "fp32" else None, why=why)


def as_tuple(given: object) -> Crossing:
    """What a prefix gives, as a tuple."""
    return cast("Crossing", given if isinstance(given, tuple) else (given,))


def difference(found: Crossing, wanted: Crossing) -> float:
    """Relative L2 difference over all tensors; infinite where shapes differ or a value is no number."""
    if len(found) != len(wanted) or any(a.shape != b.shape for a, b in zip(found, wanted, strict=True)):
        return float("inf")
    few = [pair for a, b in zip(found, wanted, strict=True) for pair in zip(a.split(_COMPARED), b.split(_COMPARED), strict=True)]
    apart = sum(float((a.double() - b.double()).square().sum()) for a, b in few)
    size = sum(float(b.double().square().sum()) for _, b in few)
    error = (apart / size) ** 0.5 if size else float(apart > 0)
    return error if error == error else float("inf")


def timed(run: Run, images: torch.Tensor, passes: int = 2) -> tuple[Crossing, float]:
    """What a run gives, on the CPU, and images a second of the fastest of some passes: the first one pays for what is set up once."""
    seconds: list[float] = []
    found: Crossing = ()
    for _ in range(passes):
        began = time.perf_counter()
        found = run(images)
        wait_for(images.device)
        seconds.append(time.perf_counter() - began)
    return tuple(t.cpu() for t in found), len(images) / min(seconds)
