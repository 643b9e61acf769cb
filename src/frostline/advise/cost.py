"""What a plan will cost on this machine: seconds, peak memory, bytes of cache. Measured on a few images, then counted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from frostline.backbone.tap import recording
from frostline.fitting.adamw import AdamW
from frostline.fitting.hyper import Hyper, default_hyper
from frostline.freeze.apply import evaluating, set_mode
from frostline.freeze.layers import layers_of
from frostline.freeze.plan import FreezePlan
from frostline.model import TransferModel

STEPS = 20
"""Steps of a head that are measured."""
UNSURE = 0.25
"""Share by which a plan may be quicker or slower than what a few timed batches say (docs/LOG.md, 2026-11-27)."""
TIMED = 16
"""Images of a measured step."""


@dataclass(frozen=True)
class Speeds:
    """What this machine does with one backbone.

    Attributes:
        decode: pictures a second.
        engine: images a second of the whole backbone by its engine.
        module: seconds an image of the module itself, forward.
        shares: for each block in forward order the share of that time that has passed at its end, by name.
        prepare: seconds that choosing and making an engine takes.
        head: seconds an image of one pass of a linear head on cached features.
    """

    decode: float
    engine: float
    module: float
    shares: Mapping[str, float]
    prepare: float
    head: float


@dataclass(frozen=True)
class Step:
    """One image's share of a training step under a plan.

    Attributes:
        seconds: forward and backward through what is trained, the frozen part not counted.
        forward: forward through the same.
        saved: bytes kept for the backward pass.
        trained: parameters that are trained.
        before: share of the forward pass that lies before it.
    """

    seconds: float
    forward: float
    saved: int
    trained: int
    before: float


@dataclass(frozen=True)
class Cost:
    """What a plan costs.

    Attributes:
        seconds: features and training, the start of the process not counted; all epochs.
        interval: least (training stops as soon as its patience allows) and most.
        peak_memory: bytes, of the whole process.
        cache: bytes of features on disk.
    """

    seconds: float
    interval: tuple[float, float]
    peak_memory: int
    cache: int


def module_speed(body: nn.Module, images: torch.Tensor) -> tuple[float, dict[str, float]]:
    """Seconds an image of a forward pass, and for each block the share that has passed at its end."""
    blocks = layers_of(body).blocks
    few = images[:TIMED].contiguous(memory_format=torch.channels_last)
    with evaluating(body), torch.no_grad():
        body(few)
        began = time.perf_counter()
        body(few)
        total = time.perf_counter() - began
        with recording(body) as calls:
            body(few)
    seconds = {b.name: sum(c.seconds for c in calls if c.name in b.modules) for b in blocks}
    whole, passed, shares = sum(seconds.values()), 0.0, dict[str, float]()
    for name, spent in seconds.items():
        passed += spent
        shares[name] = passed / whole
    return total / len(few), shares


def head_speed(width: int, classes: int, device: torch.device) -> float:
    """Seconds an image of training a linear head on ``width`` cached features, by a few steps on made ones."""
    head = nn.Linear(width, classes).to(device)
    optimizer = AdamW([{"params": list(head.parameters()), "lr": 1e-3, "weight_decay": 0.01}])
    batch = default_hyper(images=TIMED, head="linear", backbone_trained=False).batch_size
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
    """Train on a few images without taking the step; the model is left as it was, frozen by the plan."""
    resolved = FreezePlan(unfreeze).apply(model)
    few = images[:TIMED].contiguous(memory_format=torch.channels_last)
    targets = torch.arange(len(few), device=few.device) % model.num_classes
    before = _before(model, unfreeze, resolved.trainable, speeds)
    seconds, saved = _forward_and_backward(model, few, targets)
    if seconds < 1.0:  # the first pass pays for memory that the others find
        seconds = min(seconds, _forward_and_backward(model, few, targets)[0])
    model.zero_grad(set_to_none=True)
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    forward = speeds.module * (1 - before)
    own = max(seconds / len(few) - speeds.module * before, forward)
    return Step(own, forward, saved // len(few), sum(sizes[n] for n in resolved.trainable), before)


def _before(model: TransferModel, unfreeze: str, trainable: tuple[str, ...], speeds: Speeds) -> float:
    """Share of the forward pass before the first trained block."""
    if unfreeze == "none":
        return 1.0
    passed = 0.0
    for block in layers_of(model.backbone).blocks:
        if any(f"backbone.{p}" in trainable for p in block.parameters):
            return passed
        passed = speeds.shares.get(block.name, passed)
    return passed


def _forward_and_backward(model: TransferModel, images: torch.Tensor, targets: torch.Tensor) -> tuple[float, int]:
    met: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            met[storage.data_ptr()] = storage.nbytes()
        return tensor

    set_mode(model, training=True)
    began = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(pack, _same):
        loss = nn.functional.cross_entropy(model(images), targets)
    loss.backward()
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    seconds = time.perf_counter() - began
    set_mode(model, training=False)
    return seconds, sum(met.values())


def _same(tensor: Any) -> Any:
    return tensor


def cost_of(step: Step, speeds: Speeds, counts: tuple[int, int], width: int, crossing: int, resident: int, *, probe: bool) -> Cost:
    """Count what a plan costs.

    Args:
        step: measured under it.
        speeds: of the machine.
        counts: images to train on, and to judge by.
        width: features of the backbone.
        crossing: bytes an image that cross the cut; 0 where nothing is cached.
        resident: bytes of this process before any training.
        probe: whether a linear probe on the whole backbone comes first (lp-ft).
    """
    train, val = counts
    head = default_hyper(images=train, head="linear", backbone_trained=False)
    pictures = train + val
    passes = pictures * (1 / speeds.decode + 1 / speeds.engine) + speeds.prepare
    head_seconds = head.epochs * pictures * speeds.head
    cache = pictures * 4 * width
    if step.before >= 1.0:
        low = passes + head_seconds * _fewest(head) / head.epochs
        return Cost(passes + head_seconds, _unsure(low, passes + head_seconds), resident + pictures * 4 * width, cache)
    hyper = default_hyper(images=train, head="linear", backbone_trained=True)
    epoch = train * step.seconds + val * step.forward
    own = 0.0
    if crossing:
        own = pictures * (1 / speeds.decode + step.before / speeds.engine) + speeds.prepare
    else:
        epoch += pictures * (1 / speeds.decode + step.before * speeds.module)
    extra = passes + head_seconds if probe else 0.0
    memory = resident + step.saved * hyper.batch_size + 24 * step.trained + min(pictures * crossing, 32 << 20)
    whole = extra + own + hyper.epochs * epoch
    interval = _unsure(extra + own + _fewest(hyper) * epoch, whole)
    return Cost(whole, interval, memory, pictures * crossing + (cache if probe else 0))


def _unsure(low: float, high: float) -> tuple[float, float]:
    """The range of seconds from the fewest epochs to all of them, wider by what a few timed batches leave open."""
    return low * (1 - UNSURE), high * (1 + UNSURE)


def _fewest(hyper: Hyper) -> int:
    """Epochs after which training stops where the first one was the best."""
    return min(hyper.epochs, 1 + hyper.patience)
