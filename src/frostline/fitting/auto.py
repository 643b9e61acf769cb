"""Whether the strategy ``auto`` unfreezes more: a step at a time, from what the step before has gained on held-out images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from frostline.fitting.metrics import mcnemar

ERRORS = 1.0
"""Standard errors that the fall of the loss must be above zero for a step to be kept, and another one taken."""


@dataclass(frozen=True)
class Gain:
    """What a phase gained on the validation images, image by image.

    Attributes:
        loss: mean fall of the log loss, in nats; below zero where it rose.
        error: standard error of that mean.
        repaired: images that were labelled wrong before and right after it.
        broken: the reverse.
        chance: probability of so great a difference between the two by chance alone (McNemar 1947, exact).
    """

    loss: float
    error: float
    repaired: int
    broken: int
    chance: float

    @property
    def sure(self) -> bool:
        """Whether the loss fell by more than its noise."""
        return self.loss > ERRORS * self.error

    def __str__(self) -> str:
        sign = "fell" if self.loss >= 0 else "rose"
        return (
            f"validation loss {sign} by {abs(self.loss):.4f} (standard error {self.error:.4f}), {self.repaired} images repaired and "
            f"{self.broken} broken (by chance alone: {self.chance:.0%})"
        )


def gain_of(before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor) -> Gain:
    """Compare two sets of logits ``(N, classes)`` of the same images, ``(N,)`` labels."""
    losses = [torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none") for logits in (before, after)]
    fall = losses[0] - losses[1]
    rights = [logits.argmax(1) == labels for logits in (before, after)]
    repaired, broken = int((~rights[0] & rights[1]).sum()), int((rights[0] & ~rights[1]).sum())
    error = float(fall.std() / len(fall) ** 0.5) if len(fall) > 1 else float("inf")
    return Gain(float(fall.mean()), error, repaired, broken, mcnemar(repaired, broken))


def another_step(phase: str, gain: Gain | None, *, kept: bool) -> tuple[bool, str]:
    """Whether to unfreeze more after a phase, and the reason in words.

    Args:
        phase: its name.
        gain: what it gained; None for the linear probe, and without validation images.
        kept: whether its weights were kept.
    """
    if gain is None:
        return True, f"{phase}: what the steps after it are held against"
    if not kept:
        noise = "" if gain.sure or gain.loss <= 0 else "the gain is inside its noise: "
        return False, f"{phase}: undone and nothing more unfrozen, {noise}{gain}"
    return True, f"{phase}: kept, {gain}"
