"""The loss of a step: cross-entropy with the options that change it. Each is checked in the tests against NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from frostline._rng import beta, stream
from frostline.fitting.hyper import Options

Inputs = torch.Tensor | tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class Objective:
    """What is minimised.

    Attributes:
        options: label smoothing, mixup, L2-SP.
        class_weight: of each class, ``(classes,)``, or None for all 1.
        anchors: pre-trained values of trained backbone weights, by name, for L2-SP.
        seed: of the draws of mixup.
        phase: counted from 0; another phase draws anew.
    """

    options: Options
    class_weight: torch.Tensor | None = None
    anchors: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    seed: int = 0
    phase: int = 0

    def weight_of(self, labels: torch.Tensor) -> float:
        """The sum of the images' weights; their number where no class is weighted."""
        return float(len(labels)) if self.class_weight is None else float(self.class_weight[labels].sum())

    def loss(self, module: nn.Module, inputs: Inputs, labels: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the images' losses, weighted, and the logits ``(n, classes)``.

        Args:
            module: gives logits.
            inputs: a batch.
            labels: ``(n,)``.
            step: counted over the whole phase; mixup's draws are a function of it.
        """
        if not self.options.mixup:
            logits: torch.Tensor = module(inputs)
            return self._cross_entropy(logits, labels), logits
        phase = f" {self.phase}" if self.phase else ""
        share = beta(self.options.mixup, self.seed, f"mixup share{phase}", step)
        partner = torch.randperm(len(labels), generator=stream(self.seed, f"mixup partner{phase}", step)).to(labels.device)
        logits = module(_mixed(inputs, partner, share))
        loss = share * self._cross_entropy(logits, labels) + (1 - share) * self._cross_entropy(logits, labels[partner])
        return loss, logits

    def pull(self, named: Mapping[str, nn.Parameter]) -> torch.Tensor | None:
        """L2-SP: half the strength times the squared distance of the anchored weights from their anchors; None without."""
        if not self.options.l2_sp or not self.anchors:
            return None
        distance = torch.stack([(named[n] - anchor).square().sum() for n, anchor in self.anchors.items()]).sum()
        return 0.5 * self.options.l2_sp * distance

    def _cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(
            logits, labels, weight=self.class_weight, reduction="sum", label_smoothing=self.options.label_smoothing
        )


def balanced_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """``n / (classes * images of the class)``, as scikit-learn's ``class_weight="balanced"``: ``(classes,)`` float32.

    A class without images is not counted and weighs nothing; label smoothing would else pull hardest towards it.

    >>> balanced_weights(torch.tensor([0, 0, 0, 1]), 2)
    tensor([0.6667, 2.0000])
    """
    counts = torch.bincount(labels.cpu(), minlength=classes).double()
    met = counts > 0
    weights = torch.where(met, len(labels) / (met.sum() * counts.clamp(min=1)), 0.0)
    return weights.float().to(labels.device)


def _mixed(inputs: Inputs, partner: torch.Tensor, share: float) -> Inputs:
    if isinstance(inputs, tuple):
        return tuple(share * t + (1 - share) * t[partner] for t in inputs)
    return share * inputs + (1 - share) * inputs[partner]
