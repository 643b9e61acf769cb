"""The layers of a network as rows: what they are, what is frozen, where the cut is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from frostline.freeze.cut import Cut
from frostline.freeze.layers import layers_of
from frostline.freeze.plan import HasBackboneAndHead, ResolvedPlan


@dataclass(frozen=True)
class LayerRow:
    """One block.

    Attributes:
        name: dotted name in the network.
        kind: the module's type.
        parameters: number of parameters in it.
        trained: how many of them are trained.
        modules: the names counted as this block.
    """

    name: str
    kind: str
    parameters: int
    trained: int
    modules: tuple[str, ...]

    @property
    def state(self) -> str:
        """``frozen``, ``trainable`` or ``partly``."""
        if self.trained == 0:
            return "frozen"
        return "trainable" if self.trained == self.parameters else "partly"


def rows(module: nn.Module, resolved: ResolvedPlan) -> tuple[LayerRow, ...]:
    """One row a block in forward order; what belongs to no block is counted in a row ``(root)``; the head comes last."""
    sizes = {name: p.numel() for name, p in module.named_parameters()}
    trained = set(resolved.trainable)
    in_two = isinstance(module, HasBackboneAndHead)
    prefix = "backbone." if in_two else ""
    found: list[LayerRow] = []
    counted: set[str] = set()

    def row(name: str, kind: str, names: list[str], modules: tuple[str, ...]) -> None:
        counted.update(names)
        found.append(LayerRow(name, kind, sum(sizes[n] for n in names), sum(sizes[n] for n in names if n in trained), modules))

    for block in layers_of(module.get_submodule("backbone") if in_two else module).blocks:
        names = [f"{prefix}{p}" for p in block.parameters]
        row(
            f"{prefix}{block.name}",
            type(module.get_submodule(f"{prefix}{block.name}")).__name__,
            names,
            tuple(f"{prefix}{m}" for m in block.modules),
        )
    if in_two:
        names = [n for n in sizes if n.startswith("head.")]
        row("head", type(module.get_submodule("head")).__name__, names, ("head",))
    rest = [n for n in sizes if n not in counted]
    if rest:
        row("(root)", "Parameter", rest, ())
        found.insert(0, found.pop())
    return tuple(found)


def describe(module: nn.Module, resolved: ResolvedPlan, cut: Cut | None) -> str:
    """The rows as plain text, and the cut in words where it is known."""
    table = rows(module, resolved)
    wide = max(len(r.name) for r in table)
    kind = max(len(r.kind) for r in table)
    lines = [f"{r.name:<{wide}}  {r.kind:<{kind}}  {r.parameters:>12,}  {r.state}" for r in table]
    total = sum(r.trained for r in table)
    if cut is not None:
        lines.append(f"cut at {cut.name}: {cut.why}")
    lines.append(f"{total:,} parameters trained, {sum(r.parameters for r in table) - total:,} frozen")
    return "\n".join(lines)
