"""The training loop: a generator of events over a source of batches. It knows nothing of files, caches or screens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from frostline._rng import permutation, seeded
from frostline.errors import RecipeError
from frostline.fitting.adamw import AdamW
from frostline.fitting.average import MovingAverage
from frostline.fitting.events import EpochDone, StepDone, Stopped
from frostline.fitting.hyper import Hyper
from frostline.fitting.objective import Objective
from frostline.fitting.optim import set_rates
from frostline.fitting.schedule import warmup_cosine
from frostline.fitting.snapshot import Progress, Snapshot
from frostline.fitting.sources import Source, in_order, merge_last
from frostline.freeze.apply import evaluating, set_mode


@dataclass(frozen=True, eq=False)
class Task:
    """What one phase trains, and on what.

    Attributes:
        phase: its name.
        number: counted from 0; part of the seeds.
        module: takes the sources' batches and gives logits ``(n, classes)``.
        changing: every tensor that training may change, by its name in the whole model: trained weights and awake statistics.
        trained: the trained weights among them.
        train: training batches and labels.
        val: validation batches and labels; without it the last epoch is kept.
        hyper: epochs, batch size, warm-up and patience.
        objective: the loss.
        seed: the order of images and all draws are functions of it, of the phase, epoch and step.
        eval_batch: images a batch of validation.
        late: whether the time is up.
    """

    phase: str
    number: int
    module: nn.Module
    changing: dict[str, torch.Tensor]
    trained: dict[str, nn.Parameter]
    train: Source
    val: Source | None
    hyper: Hyper
    objective: Objective
    seed: int
    eval_batch: int = 256
    late: Callable[[], bool] = lambda: False


LoopEvent = StepDone | EpochDone | Stopped


def train(task: Task, optimizer: AdamW, progress: Progress, snapshot: Callable[[Progress], Snapshot]) -> Generator[LoopEvent, None, None]:
    """Run a phase from where ``progress`` stands; it ends with the weights of the epoch with the lowest validation loss.

    Args:
        task: what is trained.
        optimizer: over the trained weights; each group has its ``peak`` rate.
        progress: where the phase stands; kept up to date.
        snapshot: makes a copy of everything it takes to go on.

    Yields:
        :class:`StepDone` after every step and every batch of validation, :class:`EpochDone` after every epoch, and one
        :class:`Stopped` if it ends early.

    Raises:
        RecipeError: the loss became NaN or infinite before any epoch of the first phase was done; a later phase has weights to go
            back to, which is for the caller to do where ``progress.best_epoch`` is still 0.
    """
    followed = {n: t for n, t in task.changing.items() if t.is_floating_point()}
    average = MovingAverage(task.objective.options.ema, followed, progress.average)
    while progress.epoch < task.hyper.epochs and progress.stale < task.hyper.patience:
        began = time.perf_counter()
        bad_step = yield from _one_epoch(task, optimizer, average, progress, snapshot)
        if task.late() and (progress.best_epoch or task.number):
            yield Stopped(task.phase, progress.epoch + 1, "the time is up (--budget)")
            break
        if bad_step is not None:
            yield _diverged(task, progress, bad_step, optimizer)
            break
        loss, accuracy = progress.loss_sum, progress.right / len(task.train.labels)
        give = partial(snapshot, progress)
        if task.objective.options.ema:  # while averages take the weights' place, the weights are in this one copy
            give = partial(_same, snapshot(progress))
        with average.in_place():
            val_loss, val_accuracy = yield from _validate(task, give)
            sound = _sound(task, val_loss)
            if sound:
                close_epoch(task, progress, val_loss, val_accuracy)
        if not sound:
            yield _diverged(task, progress, progress.step - 1, optimizer)
            break
        yield EpochDone(
            task.phase,
            progress.epoch,
            loss,
            accuracy,
            val_loss,
            val_accuracy,
            float(optimizer.param_groups[0]["lr"]),
            time.perf_counter() - began,
        )
        if progress.stale >= task.hyper.patience and progress.epoch < task.hyper.epochs:
            why = f"neither validation loss nor accuracy got better for {task.hyper.patience} epochs"
            yield Stopped(task.phase, progress.epoch, why)
    put_back(task.changing, progress.best)


def _one_epoch(
    task: Task,
    optimizer: AdamW,
    average: MovingAverage,
    progress: Progress,
    snapshot: Callable[[Progress], Snapshot],
) -> Generator[StepDone, None, int | None]:
    """Train on every image once, from the step where ``progress`` stands; gives the step at which the loss was no number."""
    labels, epoch = task.train.labels, progress.epoch
    groups = steps_of(len(labels), task.hyper.batch_size, task.objective.options.accumulate, task.seed, epoch, task.number)
    set_mode(task.module, training=True)
    batches = task.train.batches([part for group in groups[progress.step :] for part in group], epoch)

    def set_rate_of(number: int) -> None:
        set_rates(optimizer, warmup_cosine(number, task.hyper.epochs * len(groups), task.hyper.warmup_fraction))

    set_rate_of(epoch * len(groups) + max(0, progress.step - 1))  # the epoch may be resumed behind its last step
    for step, group in enumerate(groups[progress.step :], start=progress.step):
        number = epoch * len(groups) + step
        set_rate_of(number)
        with seeded(task.seed, f"layers {task.number}", number):
            loss, right = _accumulate(task, optimizer, batches, group, number)
        if not math.isfinite(loss):
            return step
        if task.objective.options.clip_norm:
            torch.nn.utils.clip_grad_norm_(list(task.trained.values()), task.objective.options.clip_norm)
        optimizer.step()
        average.update(number)
        progress.step = step + 1
        progress.loss_sum += loss * sum(len(part) for part in group) / len(labels)
        progress.right += right
        if task.late():  # what was trained of the first epoch of all is judged, and kept
            return None
        yield StepDone(step + 1, len(groups), partial(snapshot, progress))
    return None


def _accumulate(
    task: Task,
    optimizer: AdamW,
    batches: Iterator[torch.Tensor | tuple[torch.Tensor, ...]],
    group: list[torch.Tensor],
    number: int,
) -> tuple[float, int]:
    """Gradients of the mean loss over a group of batches; gives the loss and the number of images labelled right."""
    labels, objective = task.train.labels, task.objective
    optimizer.zero_grad()
    weight = sum(objective.weight_of(labels[part]) for part in group)
    total, right = 0.0, 0
    for index, part in enumerate(group):
        loss, logits = objective.loss(task.module, next(batches), labels[part], number * objective.options.accumulate + index)
        loss = loss / weight
        total += float(loss.detach())
        if not math.isfinite(total):
            break
        loss.backward()
        right += int((logits.detach().argmax(1) == labels[part]).sum())
    pull = objective.pull(task.trained)
    if pull is not None and math.isfinite(total):
        pull.backward()
    return total, right


def steps_of(count: int, batch_size: int, accumulate: int, seed: int, epoch: int, phase: int) -> list[list[torch.Tensor]]:
    """The steps of an epoch, each a list of batches of indices; every index is in exactly one."""
    parts = merge_last(list(permutation(count, seed, epoch, phase).split(batch_size)))
    return [parts[start : start + accumulate] for start in range(0, len(parts), accumulate)]


def _same(snapshot: Snapshot) -> Snapshot:
    return snapshot


def _validate(task: Task, give: Callable[[], Snapshot]) -> Generator[StepDone, None, tuple[float | None, float | None]]:
    if task.val is None:
        return None, None
    parts = in_order(len(task.val.labels), task.eval_batch)
    found: list[torch.Tensor] = []
    inputs = task.val.batches(parts)
    for number in range(len(parts)):
        with evaluating(task.module), torch.no_grad():
            found.append(task.module(next(inputs)).to(torch.float32).cpu())
        if len(parts) > 1:
            yield StepDone(number + 1, len(parts), give)
    logits, labels = torch.cat(found), task.val.labels.cpu()
    return float(nn.functional.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).double().mean())


def logits_of(module: nn.Module, source: Source, eval_batch: int = 256) -> torch.Tensor:
    """Logits of every image, in order: ``(N, classes)`` float32 on the CPU."""
    with evaluating(module), torch.no_grad():
        parts = in_order(len(source.labels), eval_batch)
        return torch.cat([module(inputs).to(torch.float32).cpu() for inputs in source.batches(parts)])


def _sound(task: Task, val_loss: float | None) -> bool:
    """Whether an epoch may be kept: its last step has not made a number infinite or NaN, which no loss of training has met yet."""
    weights = all(bool(torch.isfinite(weight).all()) for weight in task.trained.values())
    return weights and (val_loss is None or math.isfinite(val_loss))


def close_epoch(task: Task, progress: Progress, val_loss: float | None, val_accuracy: float | None) -> None:
    """Count the epoch, keep its weights if they are the best, and count the epochs since anything got better."""
    progress.epoch += 1
    progress.step, progress.loss_sum, progress.right = 0, 0.0, 0
    better_loss = val_loss is None or progress.best_loss is None or val_loss < progress.best_loss
    better_accuracy = val_accuracy is not None and (progress.best_accuracy is None or val_accuracy > progress.best_accuracy)
    if better_loss:
        progress.best_epoch, progress.best_loss = progress.epoch, val_loss
        progress.best = {n: t.detach().clone() for n, t in task.changing.items()}
    if better_accuracy:
        progress.best_accuracy = val_accuracy
    progress.stale = 0 if better_loss or better_accuracy else progress.stale + 1


@torch.no_grad()
def put_back(tensors: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
    """Copy values into tensors of the same names, in place."""
    for name, value in values.items():
        tensors[name].copy_(value)


def _diverged(task: Task, progress: Progress, step: int, optimizer: AdamW) -> Stopped:
    where = f"the loss became NaN or infinite in epoch {progress.epoch + 1}, step {step + 1}"
    if not progress.best_epoch and not task.number:
        raise RecipeError(where, where=f"--lr {optimizer.param_groups[0]['peak']:g}", advice="try a tenth of it")
    if not progress.best_epoch:
        return Stopped(task.phase, progress.epoch + 1, f"{where}; the phase is undone, try a lower learning rate")
    return Stopped(task.phase, progress.epoch + 1, f"{where}; epoch {progress.best_epoch} was kept, try a lower learning rate")
