"""What a doctor hands back: findings with their evidence and cure, and what could not be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

TRAPS: Mapping[int, str] = {
    1: "batch-norm statistics move though the layers are frozen",
    2: "train() wakes layers that were put in eval mode",
    4: "dropout is active inside frozen layers",
    5: "the optimizer holds frozen parameters",
    6: "parameters that should be trained are not",
    12: "the images are not normalised as the weights want it",
    15: "the frozen layers hold random weights",
    22: "frozen layers are computed again in every epoch",
    25: "the last batch is a single sample, and batch norm is in training mode",
    27: "everything is frozen: there is nothing to train",
}
"""The mistakes that are looked for: the number that our documentation gives each, and its title."""


@dataclass(frozen=True)
class Finding:
    """One mistake.

    Attributes:
        trap: its number, a key of :data:`TRAPS`.
        evidence: what was measured: names, counts, values.
        cure: what to do, in the imperative.
        severity: ``mistake``: the result is wrong or worse for it; ``advice``: only time is lost.
    """

    trap: int
    evidence: str
    cure: str
    severity: Literal["mistake", "advice"] = "mistake"

    @property
    def title(self) -> str:
        """The mistake in a line."""
        return TRAPS[self.trap]


@dataclass(frozen=True)
class Diagnosis:
    """The outcome of an examination.

    Attributes:
        subject: what was examined, as it was asked for.
        how: what was done to find out, in words.
        findings: mistakes first, then advice, by number.
        unchecked: traps that could not be looked for, with the reason.
    """

    subject: str
    how: str
    findings: tuple[Finding, ...]
    unchecked: Mapping[int, str] = field(default_factory=dict[int, str])

    @property
    def checked(self) -> tuple[int, ...]:
        """The traps that were looked for."""
        return tuple(trap for trap in TRAPS if trap not in self.unchecked)


def listed(names: Sequence[str], most: int = 4) -> str:
    """``a, b, c, d and 3 more``."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def counted(count: int, noun: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
