"""How fast this machine is at the parts of a training: measured on a few images of the job."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from frostline._device import wait_for
from frostline.backbone.tap import recording
from frostline.features.engine import Crossing, as_tuple
from frostline.fitting.adamw import AdamW
from frostline.freeze.apply import evaluating, set_mode
from frostline.freeze.cut import split_resolved
from frostline.freeze.layers import layers_of
from frostline.freeze.plan import FreezePlan
from frostline.model import TransferModel

STEPS = 20
"""Steps of a head that are measured."""
TIMED = 16
"""Images of a measured forward pass."""
TRAINED = 32
"""Images of a measured step: as many as the rule trains a backbone with at once; fewer stay in the processor's cache and are quicker."""


@dataclass(frozen=True)
class Speeds:
    """What this machine does with one backbone.

    Attributes:
        opening: seconds until images and backbone are there.
        decode: pictures a second.
        engine: images a second of the whole backbone by its engine.
        module: seconds an image of the module itself, forward.
        shares: for each block in forward order the share of that time that has passed at its end, by name.
        choosing: seconds that choosing and making an engine takes.
        weighing: seconds that weighing the depths takes.
        solving: multiplications a second of solving a head, as :func:`frostline.fitting.solved.work_of` counts them.
    """

    opening: float
    decode: float
    engine: float
    module: float
    shares: Mapping[str, float]
    choosing: float
    weighing: float
    solving: float

    def passing(self, images: int, share: float = 1.0) -> float:
        """Seconds of choosing an engine for the first ``share`` of the backbone, and of decoding images and running them through it."""
        return self.choosing + images * (1 / self.decode + share / self.engine)


@dataclass(frozen=True)
class Step:
    """What training under a plan takes.

    Attributes:
        seconds: an image: forward and backward through what is run in every epoch.
        forward: an image: forward through the same.
        update: seconds of the optimizer, a step.
        splitting: seconds of finding the cut and proving it, once.
        saved: bytes an image that are kept for the backward pass.
        trained: parameters that are trained.
        frozen: whether the whole backbone is.
        before: share of the backbone that is run once and cached; 0 where nothing is.
        crossing: bytes an image that cross the cut.
    """

    seconds: float
    forward: float
    update: float
    splitting: float
    saved: int
    trained: int
    frozen: bool
    before: float
    crossing: int


def module_speed(body: nn.Module, images: torch.Tensor) -> tuple[float, dict[str, float]]:
    """Seconds an image of a forward pass, and for each block the share that has passed at its end."""
    blocks = layers_of(body).blocks
    few = images[:TIMED].contiguous(memory_format=torch.channels_last)
    with evaluating(body), torch.no_grad():
        body(few)
        wait_for(few.device)
        began = time.perf_counter()
        body(few)
        wait_for(few.device)
        total = time.perf_counter() - began
        with recording(body) as calls:
            body(few)
    seconds = {b.name: sum(c.seconds for c in calls if c.name in b.modules) for b in blocks}
    whole, passed, shares = sum(seconds.values()), 0.0, dict[str, float]()
    for number, (name, spent) in enumerate(seconds.items(), 1):
        passed += spent
        shares[name] = passed / whole if whole else number / len(seconds)  # a list of parameters is a block that is never run
    return total / len(few), shares


def head_speed(width: int, classes: int, device: torch.device, batch: int) -> float:
    """Seconds an image of training a linear head on ``width`` cached features, by a few steps on made ones."""
    head = nn.Linear(width, classes).to(device)
    optimizer = AdamW([{"params": list(head.parameters()), "lr": 1e-3, "weight_decay": 0.01}])
    features, targets = torch.randn(batch, width, device=device), torch.arange(batch, device=device) % classes
    began = 0.0
    for step in range(STEPS + 1):
        if step == 1:  # the first one pays for what the others find
            began = time.perf_counter()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head(features), targets)
        loss.backward()
        optimizer.step()
        float(loss.detach())  # as the loop does; a GPU is done then
    return (time.perf_counter() - began) / STEPS / batch


def measured_step(model: TransferModel, unfreeze: str, images: torch.Tensor, speeds: Speeds) -> Step:
    """Run a few images as training would, and take the step on copies; all values are as they were afterwards, frozen by the plan."""
    resolved = FreezePlan(unfreeze).apply(model)
    began = time.perf_counter()
    parts = split_resolved(model, resolved, model.example(2))
    splitting = time.perf_counter() - began
    few = images[:TRAINED].contiguous(memory_format=torch.channels_last)
    with evaluating(parts.prefix), torch.no_grad():
        given = as_tuple(parts.prefix(few) if parts.cut.cached else few)
    cached, frozen = parts.cut.cached, parts.cut.way == "backbone"
    before = 1.0 if frozen else _before(model, resolved.trainable, speeds) if cached else 0.0
    targets = torch.arange(len(few), device=few.device) % model.num_classes
    with _kept(model):
        seconds, saved = _forward_and_backward(model, parts.suffix, given, targets)
        if seconds < 1.0:  # the first pass pays for memory that the others find
            seconds = min(seconds, _forward_and_backward(model, parts.suffix, given, targets)[0])
        update = _update(model)
    forward = min(_forward(parts.suffix, given) for _ in range(2))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    each = len(few)
    crossing = parts.layout.bytes if cached else 0
    return Step(seconds / each, forward / each, update, splitting, saved // each, trained, frozen, before, crossing)


@contextlib.contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """Run a block in training mode; buffers, such as those of batch norm, are as they were afterwards, and there are no gradients."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    set_mode(model, training=True)
    try:
        yield
    finally:
        set_mode(model, training=False)
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])


def _before(model: TransferModel, trainable: tuple[str, ...], speeds: Speeds) -> float:
    """Share of the forward pass before the first trained block."""
    passed = 0.0
    for block in layers_of(model.backbone).blocks:
        if any(f"backbone.{p}" in trainable for p in block.parameters):
            return passed
        passed = speeds.shares.get(block.name, passed)
    return 1.0


def _forward_and_backward(model: TransferModel, run: nn.Module, given: Crossing, targets: torch.Tensor) -> tuple[float, int]:
    met: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            met[storage.data_ptr()] = storage.nbytes()
        return tensor

    wait_for(targets.device)
    began = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(pack, _same):
        loss = nn.functional.cross_entropy(run(_entering(given)), targets)
    loss.backward()
    wait_for(targets.device)
    return time.perf_counter() - began, sum(met.values())


def _forward(run: nn.Module, given: Crossing) -> float:
    with evaluating(run), torch.no_grad():
        wait_for(given[0].device)
        began = time.perf_counter()
        run(_entering(given))
        wait_for(given[0].device)
    return time.perf_counter() - began


def _entering(given: Crossing) -> Any:
    """What crosses, as a suffix takes it; it may work in place."""
    copies = [t.clone() for t in given]
    return tuple(copies) if len(copies) > 1 else copies[0]


def _update(model: nn.Module) -> float:
    """Seconds of a step of the optimizer, taken on copies of what is trained."""
    trained = [p for p in model.parameters() if p.grad is not None]
    copies = [p.detach().clone() for p in trained]
    for copied, parameter in zip(copies, trained, strict=True):
        copied.grad = parameter.grad
    optimizer = AdamW([{"params": copies, "lr": 1e-3, "weight_decay": 0.01}])
    optimizer.step()  # the first one makes its moments
    wait_for(copies[0].device)
    began = time.perf_counter()
    optimizer.step()
    wait_for(copies[0].device)
    return time.perf_counter() - began


def _same(tensor: Any) -> Any:
    return tensor
