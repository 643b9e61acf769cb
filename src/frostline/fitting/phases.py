"""Strategies as lists of phases; a phase is a freeze plan with its epochs and rates. Values: nothing happens here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from frostline.errors import PlanError
from frostline.freeze.layers import Layers, layers_of
from frostline.freeze.plan import FreezePlan
from frostline.freeze.select import Everything, FromModule, LastBlocks, Nothing, parse_selector

STRATEGIES = ("plain", "lp-ft", "gradual", "auto")
MOST_STEPS = 4
"""Phases that ``gradual`` makes, at most, after the head's own."""


@dataclass(frozen=True)
class Phase:
    """One part of training.

    Attributes:
        name: in words.
        plan: what is trained in it.
        epochs: passes over the images; like the two after it, by the documented rule where None.
        lr: peak learning rate of the head.
        backbone_lr: peak learning rate of unfrozen backbone layers.
    """

    name: str
    plan: FreezePlan
    epochs: int | None = None
    lr: float | None = None
    backbone_lr: float | None = None


def phases_of(strategy: str | Sequence[Phase], plan: FreezePlan, backbone: nn.Module) -> tuple[Phase, ...]:
    """The phases of a strategy.

    ``plain`` is one phase. ``lp-ft`` trains the head on the frozen backbone first (linear probe) and then what the plan names,
    or all where it names nothing, from there (Kumar 2022). ``gradual`` trains the head, then unfreezes blocks from the end,
    in at most four steps, down to what the plan names, or the last three where it names nothing (Howard 2018). ``auto`` has the
    phases that may come: the head, then the last 2, 4, 8 ... blocks, down to what the plan names, or all; each is run only if the
    one before it helped (:mod:`frostline.fitting.auto`).

    Args:
        strategy: a name, or phases of one's own.
        plan: what is trained in the end.
        backbone: its blocks are counted.

    Raises:
        PlanError: no such strategy, one that does not fit the plan, or phases that never train anything.
    """
    if not isinstance(strategy, str):
        return _checked(tuple(strategy))
    if strategy == "plain":
        return (Phase("plain", plan),)
    head = Phase("linear probe", replace(plan, unfreeze="none"))
    nothing = isinstance(parse_selector(plan.unfreeze), Nothing)
    if strategy == "lp-ft":
        return (head, Phase("fine-tune", replace(plan, unfreeze="all") if nothing else plan))
    if strategy == "auto":
        layers = layers_of(backbone)
        count = len(layers.blocks) if nothing else _blocks(plan.unfreeze, layers)
        steps = [2**k for k in range(1, count.bit_length()) if 2**k < count]
        plans = [f"last:{n}" for n in steps] + ["all" if nothing else plan.unfreeze]
        return (head, *(Phase(f"unfreeze {text}", replace(plan, unfreeze=text)) for text in plans))
    if strategy == "gradual":
        layers = layers_of(backbone)
        count = min(3, len(layers.blocks)) if nothing else _blocks(plan.unfreeze, layers)
        steps = sorted({math.ceil(count * (i + 1) / min(MOST_STEPS, count)) for i in range(min(MOST_STEPS, count))})
        last = plan.unfreeze if not nothing else f"last:{count}"
        plans = [f"last:{n}" for n in steps[:-1]] + [last]
        return (head, *(Phase(f"unfreeze {text}", replace(plan, unfreeze=text)) for text in plans))
    raise PlanError(f"no strategy is called {strategy!r}", where="--strategy", advice=f"use {', '.join(STRATEGIES)}")


def _checked(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    if not phases:
        raise PlanError("a list of phases without any phase trains nothing", where="strategy", advice="give at least one Phase")
    idle = [p.name for p in phases if p.epochs is not None and p.epochs < 1]
    if idle:
        raise PlanError(f"the phase {idle[0]!r} trains for no epoch", where="strategy", advice="give it at least one, or leave it out")
    return phases


def _blocks(unfreeze: str, layers: Layers) -> int:
    """How many blocks from the end a selector reaches."""
    selector = parse_selector(unfreeze)
    if isinstance(selector, LastBlocks | FromModule | Everything):
        chosen = set(selector.select(layers))
        return sum(any(p in chosen for p in block.parameters) for block in layers.blocks)
    raise PlanError(
        f"gradual and auto unfreeze whole blocks from the end, {unfreeze!r} is something else",
        where="--unfreeze",
        advice="use last:N, from:NAME or all, or another --strategy",
    )
