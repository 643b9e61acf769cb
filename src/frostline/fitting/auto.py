"""Whether the strategy ``auto`` unfreezes more: a step at a time, from what the step before has gained on held-out images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from frostline.fitting.metrics import mcnemar

ERRORS = 2.0
"""Standard errors that the fall of the loss since the linear probe must be above zero for a step to be kept, and another one taken.

Of the fall since the probe, not since the step before: steps that gain a little each are one gain. Two, for epoch and mixture are the
best of many on the same images (docs/LOG.md, 2026-11-25 and 2026-11-27)."""

FEWEST = 20
"""Validation images below which nothing is unfrozen: they cannot tell a gain from noise (docs/LOG.md, 2026-11-27)."""


@dataclass(frozen=True)
class Gain:
    """What a phase gained on the validation images, image by image; log losses are those at the temperature that suits answers best.

    Attributes:
        loss: mean fall of the log loss, in nats; below zero where it rose.
        error: standard error of that mean.
        repaired: images that were labelled wrong before and right after it.
        broken: the reverse.
        chance: probability of so great a difference between the two by chance alone (McNemar 1947, exact).
        total: mean fall of the log loss since the linear probe.
        total_error: standard error of that mean.
    """

    loss: float
    error: float
    repaired: int
    broken: int
    chance: float
    total: float
    total_error: float

    @property
    def sure(self) -> bool:
        """Whether the loss fell, and by more than its noise since the linear probe."""
        return self.loss > 0 and self.total > ERRORS * self.total_error

    def __str__(self) -> str:
        sign = "fell" if self.loss >= 0 else "rose"
        first = (self.loss, self.error) == (self.total, self.total_error)
        total = "" if first else f", since the linear probe by {self.total:.4f} ({self.total_error:.4f})"
        images = f"{self.repaired} images repaired and {self.broken} broken (by chance alone: {self.chance:.0%})"
        return f"calibrated validation loss {sign} by {abs(self.loss):.4f} (standard error {self.error:.4f}){total}, {images}"


def losses_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log loss of each image ``(N,)``, from logits ``(N, classes)`` and ``(N,)`` labels."""
    return torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")


def gain_of(probe: torch.Tensor, before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor) -> Gain:
    """Compare logits ``(N, classes)`` of the same images before and after a phase.

    ``probe``: what :func:`losses_of` gives for the linear probe.
    """
    losses = [losses_of(logits, labels) for logits in (before, after)]
    rights = [logits.argmax(1) == labels for logits in (before, after)]
    repaired, broken = int((~rights[0] & rights[1]).sum()), int((rights[0] & ~rights[1]).sum())
    return Gain(*_mean(losses[0] - losses[1]), repaired, broken, mcnemar(repaired, broken), *_mean(probe - losses[1]))


def _mean(falls: torch.Tensor) -> tuple[float, float]:
    """Mean and standard error."""
    error = float(falls.std() / len(falls) ** 0.5) if len(falls) > 1 else float("inf")
    return float(falls.mean()), error


def another_step(phase: str, gain: Gain | None, *, kept: bool, judges: int, unfinished: str = "") -> tuple[bool, str]:
    """Whether to unfreeze more after a phase, and the reason in words.

    Args:
        phase: its name.
        gain: what it gained; None for the linear probe, and without validation images.
        kept: whether its weights were kept.
        judges: validation images; 0 where there are none, and every step is taken.
        unfinished: why no epoch of it was finished; empty where one was.
    """
    if unfinished:
        return False, f"{phase}: undone and nothing more unfrozen, {unfinished}"
    if gain is None and 0 < judges < FEWEST:
        return False, f"{phase}: nothing is unfrozen, {judges} validation images are too few to see a gain (fewer than {FEWEST})"
    if gain is None:
        return True, f"{phase}: what the steps after it are held against"
    if not kept:
        noise = "" if gain.sure or gain.loss <= 0 else "the gain is inside its noise: "
        return False, f"{phase}: undone and nothing more unfrozen, {noise}{gain}"
    return True, f"{phase}: kept, {gain}"
