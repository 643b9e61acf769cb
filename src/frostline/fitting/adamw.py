"""AdamW (Loshchilov 2019) as torch computes it, without torch's ``Optimizer`` class, which imports the compiler: half a second."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw


class AdamW:
    """Steps equal those of ``torch.optim.AdamW`` at its defaults to the last bit.

    Args:
        groups: each with ``params``, ``lr`` and ``weight_decay``; whatever else they hold is kept.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = groups
        self.state: dict[nn.Parameter, dict[str, torch.Tensor]] = {}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step along the gradients; a parameter without one stays as it is."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            states = [self._state_of(p) for p in moved]
            adamw(
                moved,
                [p.grad for p in moved],
                [s["exp_avg"] for s in states],
                [s["exp_avg_sq"] for s in states],
                [],
                [s["step"] for s in states],
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=1e-8,
                maximize=False,
            )

    def _state_of(self, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
        if parameter not in self.state:
            zeros = (torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2))
            self.state[parameter] = {"step": torch.tensor(0.0), "exp_avg": next(zeros), "exp_avg_sq": next(zeros)}
        return self.state[parameter]
