"""Many heads of one kind, trained side by side as batched matrix products, on several folds at once.

Each member goes exactly the way of the ordinary loop: InputScale from its fold's training part, the same first weights, the same order of
images, cross-entropy, AdamW with its own rate and weight decay (on matrices only), warm-up and cosine. A test trains members alone and
compares the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import nn

from frostline.fitting.folds import Fold, scale_of
from frostline.fitting.hyper import Hyper
from frostline.fitting.loop import steps_of
from frostline.fitting.schedule import warmup_cosine
from frostline.heads.linear import LinearHead
from frostline.heads.mlp import MLPHead

BETAS = (0.9, 0.999)
EPSILON = 1e-8
"""AdamW's, as :class:`torch.optim.AdamW` has them unless told otherwise."""

ROWS = 512
"""Images that all heads are run on at once when they are judged, at most."""


@dataclass(frozen=True, eq=False)
class Scaled:
    """Features, scaled for each fold as its own heads' InputScale would.

    Attributes:
        features: ``(N, d)`` float32, as they come from the backbone.
        means: of each fold's training part, ``(F, d)``.
        scales: ``(F,)``.
    """

    features: torch.Tensor
    means: torch.Tensor
    scales: torch.Tensor

    @staticmethod
    def of(features: torch.Tensor, folds: Sequence[Fold]) -> Scaled:
        """Measure each fold's training part and nothing else."""
        found = [scale_of(features, fold.train) for fold in folds]
        return Scaled(features, torch.stack([s.mean for s in found]), torch.stack([s.scale for s in found]))

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Row numbers of each fold ``(F, B)`` to columns ``(F, d, B)``."""
        return ((self.features[rows] - self.means[:, None]) / self.scales[:, None, None]).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class Stack:
    """``F x C`` heads of one kind: fold ``f``, candidate ``c``.

    Attributes:
        rates: peak learning rate of each candidate, ``(C,)``.
        decays: weight decay of each, ``(C,)``.
        weights: of the last layer, ``(F, C, classes, width)``.
        biases: ``(F, C, classes)``.
        hidden_weights: of the hidden layer, ``(F, C, width, d)``, or None for linear heads, of which ``width`` is ``d``.
        hidden_biases: ``(F, C, width)``, likewise.
    """

    rates: torch.Tensor
    decays: torch.Tensor
    weights: nn.Parameter
    biases: nn.Parameter
    hidden_weights: nn.Parameter | None
    hidden_biases: nn.Parameter | None

    @staticmethod
    def of(head: LinearHead | MLPHead, rates: torch.Tensor, decays: torch.Tensor, folds: int) -> Stack:
        """Copies of an untrained head, one for each rate and fold, on the device of the rates."""

        def copies(tensor: torch.Tensor) -> nn.Parameter:
            value = tensor.detach().to(rates.device)
            return nn.Parameter(value.expand(folds, len(rates), *value.shape).clone())

        hidden = head.hidden if isinstance(head, MLPHead) else None
        return Stack(
            rates,
            decays,
            copies(head.linear.weight),
            copies(head.linear.bias),
            None if hidden is None else copies(hidden.weight),
            None if hidden is None else copies(hidden.bias),
        )

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """What is trained."""
        return tuple(t for t in (self.weights, self.biases, self.hidden_weights, self.hidden_biases) if t is not None)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Scaled columns ``(F, d, B)`` to logits ``(F, C, classes, B)``."""
        folds, count, classes, width = self.weights.shape
        if self.hidden_weights is None or self.hidden_biases is None:
            return _all_at_once(self.weights, self.biases, x)
        hidden = nn.functional.gelu(_all_at_once(self.hidden_weights, self.hidden_biases, x)).view(folds * count, width, -1)
        found = torch.baddbmm(self.biases.view(-1, classes, 1), self.weights.view(-1, classes, width), hidden)
        return found.view(folds, count, classes, -1)


def _all_at_once(weights: torch.Tensor, biases: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``(F, C, K, d)`` times ``(F, d, B)`` to ``(F, C, K, B)``: one product a fold, in the order whose gradient needs no copy."""
    folds, count, rows, size = weights.shape
    return torch.baddbmm(biases.view(folds, -1, 1), weights.view(folds, -1, size), x).view(folds, count, rows, -1)


def train_stacks(stacks: Sequence[tuple[Stack, Scaled]], labels: torch.Tensor, folds: Sequence[Fold], hyper: Hyper, seed: int) -> None:
    """Train every member of every stack, in place; they share the batches and nothing else.

    Args:
        stacks: the heads, each with the features of all images that it sits on.
        labels: ``(N,)`` int64, on the same device.
        folds: a member sees only the training part of its own.
        hyper: epochs, batch size and warm-up; its rate and decay are not used.
        seed: of the order of images.
    """
    lengths = [hyper.epochs * len(steps_of(len(f.train), hyper.batch_size, 1, seed, 0, 0)) for f in folds]
    optimizers = [_AdamW(stack) for stack, _ in stacks]
    for step, parts in enumerate(zip_longest(*(_order(f, hyper, seed) for f in folds))):
        rows, weights = _padded(parts, labels.device)
        columns = {scaled: scaled(rows) for scaled in dict.fromkeys(scaled for _, scaled in stacks)}
        loss = torch.stack([_loss(stack(columns[scaled]), labels[rows], weights) for stack, scaled in stacks]).sum()
        loss.backward()  # a member's gradient is that of its own loss: no two share a weight
        factors = [warmup_cosine(step, total, hyper.warmup_fraction) if step < total else 0.0 for total in lengths]
        for optimizer in optimizers:
            optimizer.step(torch.tensor(factors, device=labels.device))


def _loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The sum over members of their weighted cross-entropy: logits ``(F, C, classes, B)``, labels and weights ``(F, B)``."""
    count = logits.shape[1]
    wanted = labels.repeat_interleave(count, 0)
    return (nn.functional.cross_entropy(logits.flatten(0, 1), wanted, reduction="none") * weights.repeat_interleave(count, 0)).sum()


def _order(fold: Fold, hyper: Hyper, seed: int) -> Iterator[torch.Tensor]:
    """The rows of each step, as the ordinary loop would take them from the fold's training part alone."""
    for epoch in range(hyper.epochs):
        for group in steps_of(len(fold.train), hyper.batch_size, 1, seed, epoch, 0):
            yield fold.train[group[0]]


def _padded(parts: Sequence[torch.Tensor | None], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Row numbers ``(F, B)`` and their weights in the mean loss, 0 for padding; a fold that has ended has none."""
    longest = max(len(p) for p in parts if p is not None)
    rows = torch.zeros(len(parts), longest, dtype=torch.int64)
    weights = torch.zeros(len(parts), longest)
    for number, part in enumerate(parts):
        if part is not None:
            rows[number, : len(part)] = part
            weights[number, : len(part)] = 1 / len(part)
    return rows.to(device), weights.to(device)


class _AdamW:
    """AdamW (Loshchilov 2019) with a rate and a weight decay for each member, step for step as torch's own.

    A rate of 0 leaves a member as it is.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._means = [torch.zeros_like(p) for p in stack.parameters]
        self._squares = [torch.zeros_like(p) for p in stack.parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self, factors: torch.Tensor) -> None:
        """Move all parameters by their gradients, at each fold's factor ``(F,)`` on the peak rates, and forget the gradients."""
        rates = factors[:, None] * self._stack.rates
        self._steps += 1
        first, second = (1 - beta**self._steps for beta in BETAS)
        for parameter, mean, square in zip(self._stack.parameters, self._means, self._squares, strict=True):
            gradient = parameter.grad
            assert gradient is not None
            alone = rates.view(*rates.shape, *[1] * (parameter.ndim - 2))
            if parameter.ndim == 4:  # matrices only, as in the ordinary optimizer
                parameter.mul_(1 - alone * self._stack.decays.view(1, -1, 1, 1))
            mean.lerp_(gradient, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            torch.sqrt(square, out=gradient).add_(EPSILON * second**0.5)  # its memory is free by now
            parameter.addcmul_(torch.div(mean, gradient, out=gradient), alone, value=-(second**0.5) / first)
            parameter.grad = None


@torch.no_grad()
def held_out_logits(stack: Stack, scaled: Scaled, folds: Sequence[Fold]) -> torch.Tensor:
    """Logits of every image from the heads that did not see it: ``(C, N, classes)`` float32."""
    count, classes = stack.weights.shape[1:3]
    found = scaled.features.new_empty(count, len(scaled.features), classes)
    for start in range(0, max(len(f.held) for f in folds), ROWS):
        parts = [f.held[start : start + ROWS] for f in folds]
        rows, _ = _padded(parts, scaled.features.device)
        logits = stack(scaled(rows))
        for number, part in enumerate(parts):
            found[:, part.to(found.device)] = logits[number, :, :, : len(part)].transpose(1, 2)
    return found
