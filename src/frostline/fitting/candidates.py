"""What a sweep chooses among: each candidate is a value, told from others by its fields and never by how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from frostline.heads.contract import HeadSpec


@dataclass(frozen=True)
class SteppedHead:
    """A head that is trained step by step.

    Attributes:
        head: ``linear`` or ``mlp:WIDTH``.
        lr: peak learning rate.
        weight_decay: of AdamW, on matrices.
    """

    head: HeadSpec
    lr: float
    weight_decay: float

    def __str__(self) -> str:
        return f"{self.head}, rate {self.lr:.2g}, weight decay {self.weight_decay:.2g}"


@dataclass(frozen=True)
class SolvedHead:
    """A linear head whose weights are computed from all features at once.

    Attributes:
        head: ``ridge`` or ``logistic``.
        strength: scikit-learn's ``alpha`` of a ridge (more is smoother), its ``C`` of a logistic regression (less is smoother), on
            features scaled to unit mean variance.
    """

    head: HeadSpec
    strength: float

    def __str__(self) -> str:
        return f"{self.head}, strength {self.strength:.2g}"


Candidate = SteppedHead | SolvedHead


@dataclass(frozen=True)
class Judged:
    """A candidate and how it did on images that its weights had not seen.

    Attributes:
        candidate: the key.
        accuracy: share of all training images that were labelled right while they were held out.
        log_loss: of the same, in nats; infinite where the candidate diverged.
        factor: what a ridge's answers are multiplied by to be logits; 1 for all others.
    """

    candidate: Candidate
    accuracy: float
    log_loss: float
    factor: float = 1.0


def judge(
    candidates: Sequence[Candidate], logits: torch.Tensor, labels: torch.Tensor, factors: torch.Tensor | None = None
) -> tuple[Judged, ...]:
    """Score candidates by their out-of-fold logits.

    Args:
        candidates: ``C`` of them.
        logits: ``(C, N, classes)``.
        labels: ``(N,)`` int64.
        factors: ``(C,)``, of a ridge.
    """
    found: list[Judged] = []
    for number, candidate in enumerate(candidates):
        own = logits[number].to("cpu", torch.float64)
        loss = float(torch.nn.functional.cross_entropy(own, labels.cpu()))
        right = float((own.argmax(1) == labels.cpu()).double().mean())
        sound = bool(torch.isfinite(own).all())
        found.append(Judged(candidate, right, loss if sound else float("inf"), 1.0 if factors is None else float(factors[number])))
    return tuple(found)


def best_of(judged: Sequence[Judged]) -> Judged:
    """The candidate with the lowest log loss on held-out images; of equals the first."""
    return min(judged, key=lambda j: j.log_loss)
