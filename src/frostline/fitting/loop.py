"""The training loop: a generator of events over a source of batches. It knows nothing of files, caches or screens."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, field

import torch
from torch import nn

from frostline._rng import permutation, seeded
from frostline.errors import RecipeError
from frostline.fitting.events import EpochDone, Stopped
from frostline.fitting.hyper import Hyper
from frostline.fitting.optim import set_rates
from frostline.fitting.schedule import warmup_cosine
from frostline.fitting.sources import Source, in_order, merge_last
from frostline.freeze.apply import evaluating, set_mode

EVAL_BATCH = 256


@dataclass
class Best:
    """The best epoch so far and a copy of everything that training may change, as it was then."""

    epoch: int = 0
    loss: float = math.inf
    state: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])


def train(
    module: nn.Module, optimizer: torch.optim.Optimizer, source: Source, val: Source | None, hyper: Hyper, seed: int
) -> Generator[EpochDone | Stopped, None, int]:
    """Train ``module`` on ``source``; it ends with the weights of the epoch with the lowest validation loss.

    Args:
        module: takes the source's batches and gives logits ``(n, classes)``; only what the optimizer holds is changed.
        optimizer: over the trainable parameters; each group has its ``peak`` rate.
        source: training batches and labels.
        val: validation batches and labels; without it the last epoch is kept.
        hyper: epochs, batch size, warm-up and patience.
        seed: the order of the images and the layers' own draws are functions of it and the epoch.

    Yields:
        One event an epoch, and one more if it stops early.

    Returns:
        The epoch whose weights were kept, counted from 1.

    Raises:
        RecipeError: the loss became NaN or infinite before any epoch was done.
    """
    best = Best()
    for epoch in range(hyper.epochs):
        began = time.perf_counter()
        with seeded(seed, "layers", epoch):
            loss, accuracy, bad_step = _one_epoch(module, optimizer, source, hyper, seed, epoch)
        if bad_step is not None:
            yield _diverged(module, best, epoch + 1, bad_step, optimizer)
            return best.epoch
        val_loss, val_accuracy = _validate(module, val)
        yield EpochDone(
            epoch + 1,
            loss,
            accuracy,
            val_loss,
            val_accuracy,
            float(optimizer.param_groups[0]["lr"]),
            time.perf_counter() - began,
        )
        if val_loss is None or val_loss < best.loss:
            best = Best(epoch + 1, math.inf if val_loss is None else val_loss, _copy(module))
        elif epoch + 1 - best.epoch >= hyper.patience:
            yield Stopped(epoch + 1, f"validation loss did not fall for {hyper.patience} epochs")
            break
    module.load_state_dict(best.state, strict=False)
    return best.epoch


def _one_epoch(
    module: nn.Module, optimizer: torch.optim.Optimizer, source: Source, hyper: Hyper, seed: int, epoch: int
) -> tuple[float, float, int | None]:
    """Mean loss and accuracy over an epoch; and the step at which the loss was no number, where that happened."""
    labels = source.labels
    parts = merge_last(list(permutation(len(labels), seed, epoch).split(hyper.batch_size)))
    set_mode(module, training=True)
    total, right = 0.0, 0
    for step, (inputs, part) in enumerate(zip(source.batches(parts), parts, strict=True)):
        set_rates(optimizer, warmup_cosine(epoch * len(parts) + step, hyper.epochs * len(parts), hyper.warmup_fraction))
        logits: torch.Tensor = module(inputs)
        loss = nn.functional.cross_entropy(logits, labels[part])
        value = float(loss.detach())
        if not math.isfinite(value):
            return value, 0.0, step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += value * len(part)
        right += int((logits.detach().argmax(1) == labels[part]).sum())
    return total / len(labels), right / len(labels), None


def logits_of(module: nn.Module, source: Source) -> torch.Tensor:
    """Logits of every image, in order: ``(N, classes)`` float32 on the CPU."""
    with evaluating(module), torch.inference_mode():
        parts = in_order(len(source.labels), EVAL_BATCH)
        return torch.cat([module(inputs).to(torch.float32).cpu() for inputs in source.batches(parts)])


def _validate(module: nn.Module, val: Source | None) -> tuple[float | None, float | None]:
    if val is None:
        return None, None
    logits, labels = logits_of(module, val), val.labels.cpu()
    return float(nn.functional.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).double().mean())


def _copy(module: nn.Module) -> dict[str, torch.Tensor]:
    """Everything training may change; frozen parameters need no copy."""
    frozen = {n for n, p in module.named_parameters() if not p.requires_grad}
    return {n: t.detach().clone() for n, t in module.state_dict().items() if n not in frozen}


def _diverged(module: nn.Module, best: Best, epoch: int, step: int, optimizer: torch.optim.Optimizer) -> Stopped:
    where = f"the loss became NaN or infinite in epoch {epoch}, step {step + 1}"
    if not best.epoch:
        raise RecipeError(where, where=f"--lr {optimizer.param_groups[0]['peak']:g}", advice="try a tenth of it")
    module.load_state_dict(best.state, strict=False)
    return Stopped(epoch, f"{where}; epoch {best.epoch} was kept, try a lower learning rate")
