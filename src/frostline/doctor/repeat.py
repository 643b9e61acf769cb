"""Run one batch again: frozen layers must give the same. Where they do not, something random is awake in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from frostline.backbone.tap import Call, recording
from frostline.doctor.batches import run_model
from frostline.doctor.training import blamed

_SAME = 1e-6


class Runs(Protocol):
    """Runs the batch once."""

    def __call__(self, *, keep: Collection[str] = (), sums: Collection[str] = ()) -> list[Call]:
        """The calls of one run."""
        ...


@dataclass(frozen=True)
class Repeat:
    """What differed between runs of one batch.

    Attributes:
        varied: the frozen layers were not given the same: something before them is random (augmentation in the model).
        place: the frozen module that was given the same and gave something else, or after which something random runs.
        jitter: relative difference of what the last frozen module gave, 0 where there is none.
    """

    varied: bool = False
    place: str | None = None
    jitter: float = 0.0


def repeat(model: nn.Module, batch: object, frozen: Collection[str], trained: Collection[str], name: str) -> Repeat:
    """Run ``batch`` four times without gradients, in the mode in which the model is.

    Raises:
        ScriptError: the model raises.
    """

    def run(*, keep: Collection[str] = (), sums: Collection[str] = ()) -> list[Call]:
        with blamed(name, "the model on a batch"), torch.no_grad(), recording(model, keep=keep, sums=sums) as calls:
            run_model(model, batch)
        return calls

    first, second = run(sums=frozen), run(sums=frozen)
    outer, again = _outermost(first, frozen), _outermost(second, frozen)
    if not outer or [c.name for c in outer] != [c.name for c in again]:
        return Repeat()
    if not _same(outer[0], again[0], 0):
        return Repeat(varied=True)
    begun = min((c.order for c in first if c.name in trained and c.within), default=len(first))
    for before, one, two in zip([None, *outer], outer, again, strict=False):
        if not _same(one, two, 0):  # the frozen layers so far agree, what runs between them does not
            place = None if before is None or one.order > begun else before.name
            return Repeat(place=place, jitter=_jitter(run, one.name) if place else 0.0)
        if not _same(one, two, 1):
            return Repeat(place=one.name, jitter=_jitter(run, outer[-1].name))
    return Repeat()


def _outermost(calls: Sequence[Call], frozen: Collection[str]) -> list[Call]:
    return [c for c in calls if c.name in frozen and not any(n in frozen for n in c.within)]


def _same(one: Call, two: Call, end: int) -> bool:
    if one.sums is None or two.sums is None:
        return True
    return all(
        abs(a - b) <= _SAME * max(abs(m), 1e-12) for a, b, m in zip(one.sums[end], two.sums[end], _scales(one.sums[end]), strict=True)
    )


def _scales(sums: Sequence[float]) -> Sequence[float]:
    """A sum is compared with the sum of magnitudes: it may be nearly 0 itself."""
    return sums if len(sums) < 3 else (sums[1], sums[1], sums[2])


def _jitter(run: Runs, name: str) -> float:
    gave = [next((c.gave for c in run(keep=(name,)) if c.name == name), None) for _ in range(2)]
    one, two = gave
    if one is None or two is None or one.shape != two.shape:
        return 0.0
    return float((one.double() - two.double()).norm() / one.double().norm().clamp_min(1e-12))
