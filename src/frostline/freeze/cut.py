"""Find the cut of a frozen network and split it there: a prefix that is computed once per image, a suffix that is trained.

The ways, in order: a wholly frozen backbone under a head is cut between the two; a forward pass that can be read is cut by
its graph; a chain of blocks is cut between two of them; what cannot be cut at all is trained from its input. Nothing is
used before ``suffix(prefix(x))`` has been found equal to the network itself. docs/design/0002-the-cut.md has the reasons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx, nn

from frostline.backbone.sealed import Sealed
from frostline.backbone.tap import given_to
from frostline.backbone.trace import CannotTraceError
from frostline.freeze.apply import evaluating
from frostline.freeze.chain import chain_split
from frostline.freeze.crossing import Crossing, Layout
from frostline.freeze.layers import layers_of
from frostline.freeze.parts import best_place, crossing_at, parts_of
from frostline.freeze.plan import FreezePlan, HasBackboneAndHead, ResolvedPlan
from frostline.freeze.reading import Reading, parameters_of, read, two_batches, values

WORTH = 0.1
"""Share of the network's work below which a prefix is not worth the bytes of its output."""

_EVERYTHING = "the whole network is run on every image in every epoch"


@dataclass(frozen=True)
class Cut:
    """A place in the network.

    Attributes:
        name: the last layer of the prefix; ``backbone`` where that is all of it, ``input`` where there is none.
        way: ``backbone``, ``graph``, ``chain`` or ``input``: how it was found.
        why: the reason, in words.
        bytes: size of what crosses, an image, in float32.
    """

    name: str
    way: str
    why: str
    bytes: int = 0

    @property
    def cached(self) -> bool:
        """Whether there is a prefix whose output can be cached."""
        return self.way != "input"


@dataclass(frozen=True, eq=False)
class Split:
    """A network in two parts that share its layers: ``suffix(prefix(x))`` is ``module(x)``.

    Attributes:
        prefix: frozen; ``(N, ...)`` inputs to one tensor, or a tuple of tensors, ``(N, ...)``. An identity at the input.
        suffix: takes what the prefix gives; it is trained, and follows ``train()`` and ``eval()``.
        cut: where.
        layout: what crosses.
        code: the prefix as text, for the identity of its output.
    """

    prefix: nn.Module
    suffix: nn.Module
    cut: Cut
    layout: Layout
    code: str


def split(module: nn.Module, plan: FreezePlan, example: torch.Tensor) -> Split:
    """Freeze ``module`` by ``plan`` and split it at the last place that nothing trained can reach.

    Args:
        module: any network whose forward pass takes one tensor; frozen in place, otherwise unchanged. Its layers are shared.
        plan: what is trained.
        example: a batch of inputs ``(N, ...)`` on the module's device.

    Raises:
        SelectorError: the plan's selector matches nothing.
        PlanError: nothing would be left to train.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> parts = split(net, FreezePlan("2"), torch.ones(1, 4))
    >>> parts.cut.name, parts.layout.size, bool((parts.suffix(parts.prefix(torch.ones(1, 4))) == net(torch.ones(1, 4))).all())
    ('0', 8, True)
    """
    return split_resolved(module, plan.apply(module), example)


def split_resolved(module: nn.Module, resolved: ResolvedPlan, example: torch.Tensor, most: float = math.inf) -> Split:
    """:func:`split` for a plan that was applied already.

    Args:
        module: the network.
        resolved: its plan, applied.
        example: a batch of inputs.
        most: bytes an image that may cross. Where more would, the cut moves towards the input, to the nearest place where fewer do.
    """
    found = _split_resolved(module, resolved, example, most)
    return found if found.layout.bytes <= most or not found.cut.cached else whole(module, example, f"too much would cross: {_EVERYTHING}")


def _split_resolved(module: nn.Module, resolved: ResolvedPlan, example: torch.Tensor, most: float) -> Split:
    if isinstance(module, HasBackboneAndHead) and "backbone" in resolved.pinned and not resolved.backbone_trained:
        return _between_backbone_and_head(module.backbone, module.head, example)
    leaves = ("head",) if isinstance(module, HasBackboneAndHead) else ()
    reasons: list[str] = []
    try:
        found = _by_graph(read(module, leaves), example, most)
        if isinstance(found, Split):
            if found.cut.way == "input" or agrees(module, found, example):
                return found
            reasons.append("its graph gives other numbers")
        else:
            reasons.append(found)
    except CannotTraceError as fault:
        reasons.append(f"its forward pass cannot be read ({fault})")
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as fault:
        reasons.append(f"its graph does not run ({type(fault).__name__}: {str(fault).strip().partition(chr(10))[0][:120]})")
    found = chain_split(module, resolved, example)
    if found is not None:
        prefix, suffix, name, layout, code = found
        cut = Cut(name, "chain", f"{'; '.join(reasons)}: cut between two of its blocks", layout.bytes)
        parts = Split(prefix, suffix, cut, layout, code)
        if agrees(module, parts, example):
            return parts
    reasons.append("it is no chain of blocks")
    return whole(module, example, f"{'; '.join(reasons)}: {_EVERYTHING}")


def whole(module: nn.Module, example: torch.Tensor, why: str) -> Split:
    """No prefix: everything is run on every image."""
    return Split(nn.Identity(), module, Cut("input", "input", why), Layout.of([example]), "input")


def agrees(module: nn.Module, parts: Split, example: torch.Tensor) -> bool:
    """Whether both parts in a row give what the network gives, and what crosses of an image depends on that image alone.

    For two batches, of two and of three images: the result to the last bit on the CPU, to rounding elsewhere. And what crosses of an
    image is the same beside another image.
    """
    few, more = two_batches(example)
    exact = few.device.type == "cpu"
    head = module.head if isinstance(module, HasBackboneAndHead) else None
    crossing: object = None
    with evaluating(module), evaluating(parts.prefix), evaluating(parts.suffix), torch.no_grad():
        for batch in (more, few):
            wanted, crossing = given_to(module, head, batch), parts.prefix(batch)
            found = given_to(parts.suffix, head, crossing)
            if len(wanted) != len(found) or not all(_equal(a, b, exact=exact) for a, b in zip(wanted, found, strict=True)):
                return False
        few[0] = more[0]
        beside, least = parts.prefix(few), 1e-5 if exact else 1e-2
        return all(
            bool((a[1] - b[1]).abs().max() <= least * b[1].abs().max()) for a, b in zip(_several(crossing), _several(beside), strict=True)
        )


def _several(crossing: object) -> tuple[torch.Tensor, ...]:
    return cast("tuple[torch.Tensor, ...]", crossing if isinstance(crossing, tuple) else (crossing,))


def _equal(a: torch.Tensor, b: torch.Tensor, *, exact: bool) -> bool:
    return a.shape == b.shape and (torch.equal(a, b) if exact else torch.allclose(a, b, rtol=1e-4, atol=1e-5))


def _between_backbone_and_head(backbone: nn.Module, head: nn.Module, example: torch.Tensor) -> Split:
    if isinstance(backbone, Sealed):
        layout = Layout((Crossing(backbone.shape_of_features),))
    else:
        with evaluating(backbone), torch.no_grad():
            layout = Layout.of([backbone(example)])
    cut = Cut("backbone", "backbone", "the whole backbone is frozen: it is run once per image and its output cached", layout.bytes)
    return Split(backbone, head, cut, layout, "backbone")


def _by_graph(reading: Reading, example: torch.Tensor, most: float) -> Split | str:
    """The split, or in words why there is none."""
    nodes, limit = reading.nodes, reading.first_trained
    frozen = [i for i in range(limit) if parameters_of(reading.module, nodes[i])]
    if not frozen:
        return whole(reading.module, example, f"a layer right at the input is trained: {_EVERYTHING}")
    known = dict(zip(nodes[:limit], values(reading, example), strict=True))
    place = best_place(nodes, known, limit, frozen[-1] + 1, most)
    crossing = None if place is None else crossing_at(nodes, known, place)
    if place is None or crossing is None:
        return "nothing that belongs to one image crosses between its layers"
    if all(n.op == "placeholder" for n in crossing):
        return whole(reading.module, example, f"nothing but the input can be cut off: {_EVERYTHING}")
    prefix, suffix = parts_of(reading, known, place, crossing)
    name = _last_frozen(reading.module, nodes[:place])
    share = _share_of_work(prefix, suffix, example)
    if share < WORTH:
        return whole(reading.module, example, f"only {share:.0%} of the work lies before the first trained layer: {_EVERYTHING}")
    layout = Layout(tuple(c for n in crossing if (c := known[n].crossing) is not None))
    why = f"what follows {name} is trained: the {share:.0%} of the work up to there is done once per image and cached"
    return Split(prefix, suffix, Cut(name, "graph", why, layout.bytes), layout, str(prefix.graph))


def _last_frozen(module: nn.Module, nodes: list[fx.Node]) -> str:
    """The last block that a layer of ``nodes`` lies in, by the name that selectors know."""
    in_two = isinstance(module, HasBackboneAndHead)
    blocks = layers_of(module.backbone if in_two else module).blocks
    layers = [str(n.target).removeprefix("backbone." if in_two else "") for n in reversed(nodes) if n.op == "call_module"]
    inside = (b.name for layer in layers for b in blocks if any(f"{layer}.".startswith(f"{m}.") for m in b.modules))
    return next(inside, layers[0] if layers else "input")


def _share_of_work(prefix: nn.Module, suffix: nn.Module, example: torch.Tensor) -> float:
    """Floating-point operations of the prefix, of those of both; 1 where none are counted."""
    from torch.utils.flop_counter import FlopCounterMode  # a tenth of a second, and only here

    with evaluating(prefix), evaluating(suffix), torch.no_grad(), FlopCounterMode(display=False) as counter:
        crossing = prefix(two_batches(example)[0])
        before = counter.get_total_flops()
        suffix(crossing)
        return before / total if (total := counter.get_total_flops()) else 1.0
