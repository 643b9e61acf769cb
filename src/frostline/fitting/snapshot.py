"""Everything it takes to go on with training from where it stopped, as plain tensors and plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A state of training. All draws are functions of seed, phase, epoch and step: there is no generator to keep.

    Attributes:
        facts: where training stands, and what it has found so far; plain JSON values.
        tensors: weights, optimizer state (both by parameter name), the best weights so far, those the phase began with.
    """

    facts: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors below a name: ``model``, ``best``, ``start``, ``average``, ``optimizer``, ``probe``."""
        return {n.removeprefix(f"{prefix}/"): t for n, t in self.tensors.items() if n.startswith(f"{prefix}/")}


@dataclass
class Progress:
    """Where a phase stands. Mutable; the loop that runs the phase owns it.

    Attributes:
        epoch: epochs that are finished.
        step: steps done in the epoch under way.
        loss_sum: sum of the losses of its images so far.
        right: number of its images that were labelled right.
        best_epoch: the epoch of the best weights, counted from 1; 0 before the first.
        best_loss: their validation loss, or None.
        best_accuracy: the highest validation accuracy so far, of any epoch.
        stale: epochs since loss or accuracy last improved.
        best: the best weights, with everything else that training may change.
        average: moving averages, where they are kept.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    right: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    best_accuracy: float | None = None
    stale: int = 0
    best: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    average: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])

    def facts(self) -> dict[str, Any]:
        """The numbers, as plain JSON values."""
        return {n: v for n, v in vars(self).items() if n not in ("best", "average")}

    @staticmethod
    def of(facts: Mapping[str, Any], best: dict[str, torch.Tensor], average: dict[str, torch.Tensor]) -> Progress:
        """The reverse of :meth:`facts`."""
        return Progress(**facts, best=best, average=average)


def copies(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Copies on the CPU, under ``prefix/name``."""
    return {f"{prefix}/{n}": t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}
