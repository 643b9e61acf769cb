"""The only owner of ``requires_grad`` and of train and eval mode.

A frozen module is *pinned*: its own ``train()`` keeps it in eval mode, whoever calls it, so that neither
``model.train()`` nor a parent's ``train()`` wakes batch norm, dropout or stochastic depth in frozen layers
(pytorch#86590). Pinning is an instance attribute and survives pickling and deep copies; ``forward`` is never touched.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator

import torch
from torch import nn


def freeze(module: nn.Module, *, trainable: Collection[str], pinned: Collection[str]) -> None:
    """Make exactly the parameters in ``trainable`` trainable and the modules in ``pinned`` stay in eval mode.

    Args:
        module: the network; changed in place. What an earlier call pinned is released first.
        trainable: names of parameters; all others get ``requires_grad=False`` and lose their gradient.
        pinned: names of modules (the root is the empty name).
    """
    wanted, eval_only = set(trainable), set(pinned)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in wanted)
        if name not in wanted:
            parameter.grad = None
    for name, child in module.named_modules():
        vars(child).pop("train", None)
        if name in eval_only:
            vars(child)["train"] = functools.partial(_train_pinned, child)
    module.train(module.training)


def differentiable(tensor: torch.Tensor) -> torch.Tensor:
    """The same values as a tensor that gradients reach, whatever is frozen behind it."""
    return tensor.detach().requires_grad_()


def is_pinned(module: nn.Module) -> bool:
    """Whether :func:`freeze` keeps this module in eval mode."""
    return isinstance(vars(module).get("train"), functools.partial)


def set_mode(module: nn.Module, *, training: bool) -> None:
    """Put ``module`` in training or eval mode; pinned modules stay in eval mode."""
    module.train(training)


@contextlib.contextmanager
def in_mode(module: nn.Module, *, training: bool) -> Iterator[nn.Module]:
    """Run a block with ``module`` in one mode (pinned modules stay in eval mode); every submodule has its own back afterwards.

    Some networks keep values for eval mode (LeViT its attention biases) and drop them when they are put in training mode. They
    would be old ones where the weights were changed meanwhile, so that both ends of the block pass through training mode.
    """
    before = {child: child.training for child in module.modules()}
    _pass_through_training(module)
    module.train(training)
    try:
        yield module
    finally:
        _pass_through_training(module)
        for child, mode in before.items():
            child.training = mode


def evaluating(module: nn.Module) -> contextlib.AbstractContextManager[nn.Module]:
    """Run a block with ``module`` in eval mode and give every submodule its own mode back afterwards."""
    return in_mode(module, training=False)


def _pass_through_training(module: nn.Module) -> None:
    with contextlib.suppress(Exception):  # of a network that cannot be trained we hear when it is to be trained
        module.train(True)


def _train_pinned(module: nn.Module, mode: bool = True) -> nn.Module:
    type(module).train(module, mode)  # its class may have more to do
    module.training = False
    return module
