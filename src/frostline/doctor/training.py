"""A few training steps as a loop makes them, on the script's own objects, and everything put back afterwards."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.optim import Optimizer

from frostline.backbone.tap import Call, recording
from frostline.doctor.batches import loss_of, run_model
from frostline.doctor.subject import ScriptError, Subject, told
from frostline.errors import FrostlineError


@dataclass(frozen=True, eq=False)
class Statistics:
    """Running mean and variance of a batch-norm layer."""

    mean: torch.Tensor
    var: torch.Tensor


@dataclass(eq=False)
class Steps:
    """What some training steps did; parameters are known by their ``id``.

    Attributes:
        calls: of every module, in all steps.
        attached: some output depended on something that is trained.
        reached: parameters that had a gradient.
        pushed: parameters that had one that was not 0 everywhere.
        moved: parameters whose values changed.
        before: running statistics of the batch-norm layers before the first step, by name.
        after: the same after the last.
    """

    calls: list[Call] = field(default_factory=list[Call])
    attached: bool = False
    reached: set[int] = field(default_factory=set[int])
    pushed: set[int] = field(default_factory=set[int])
    moved: set[int] = field(default_factory=set[int])
    before: dict[str, Statistics] = field(default_factory=dict[str, Statistics])
    after: dict[str, Statistics] = field(default_factory=dict[str, Statistics])


def train_steps(subject: Subject, batches: Sequence[object], keep: Collection[str]) -> Steps:
    """Make one step a batch. The model is in the mode in which the caller put it.

    Args:
        subject: model and optimizer; they change.
        batches: on the model's device.
        keep: names of modules whose input is kept in the calls.

    Raises:
        ScriptError: the model, the backward pass or the optimizer raises.
    """
    steps = Steps(before=statistics(subject.model))
    parameters = list(subject.model.parameters())
    values = [p.detach().clone() for p in parameters]
    for batch in batches:
        for parameter in (*parameters, *held_by(subject.optimizer)):
            parameter.grad = None
        with blamed(subject.name, "the model on a batch"), recording(subject.model, keep=keep) as calls:
            output = run_model(subject.model, batch)
        steps.calls += calls
        loss = loss_of(output, batch)
        if loss is None:
            continue
        steps.attached = True
        with blamed(subject.name, "the backward pass"):
            loss.backward()
        got = [p for p in parameters if p.grad is not None]
        steps.reached |= {id(p) for p in got}
        steps.pushed |= {id(p) for p in got if bool(cast("torch.Tensor", p.grad).to_dense().any())}
        with blamed(subject.name, "the optimizer's step"):
            _step(subject.optimizer, loss)
    steps.after = statistics(subject.model)
    steps.moved = {id(p) for p, v in zip(parameters, values, strict=True) if not torch.equal(p.detach(), v)}
    return steps


def statistics(model: nn.Module) -> dict[str, Statistics]:
    """Copies of the running statistics of every batch-norm layer that keeps them, by name."""
    return {
        name: Statistics(module.running_mean.detach().clone(), module.running_var.detach().clone())
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None
    }


def held_by(optimizer: Optimizer) -> list[torch.Tensor]:
    """Every tensor that an optimizer steps."""
    return [p for group in optimizer.param_groups for p in group["params"]]


@contextlib.contextmanager
def restored(model: nn.Module, optimizer: Optimizer) -> Iterator[None]:
    """Run a block and give every parameter, gradient and buffer, and the optimizer's state, its value back afterwards."""
    tensors = [*model.parameters(), *held_by(optimizer)]
    buffers = [(m, name, b) for m in model.modules() for name, b in m.named_buffers(recurse=False)]
    values = [(t, t.detach().clone()) for t in (*tensors, *(b for _, _, b in buffers))]
    gradients = [(t, t.grad) for t in tensors]
    state = copy.deepcopy(optimizer.state_dict())
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer in buffers:
                setattr(module, name, buffer)
            for tensor, value in values:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
        for tensor, gradient in gradients:
            tensor.grad = gradient
        optimizer.load_state_dict(state)


@contextlib.contextmanager
def blamed(name: str, what: str) -> Iterator[None]:
    """Turn whatever the script's own code raises into one line that says what was being done.

    Raises:
        ScriptError: the block raised.
    """
    try:
        yield
    except FrostlineError:
        raise
    except Exception as fault:
        raise ScriptError(
            f"running {what} raises {told(fault)}", where=name, advice="make one training step run by itself first"
        ) from fault


def _step(optimizer: Optimizer, loss: torch.Tensor) -> None:
    try:
        optimizer.step()
    except TypeError:  # LBFGS and its like ask for the loss again
        cast("Any", optimizer).step(lambda: loss)
