"""Selectors: which parameters of the backbone are to be trained, as values.

The language (``--unfreeze``): ``none`` · ``all`` · ``last:N`` blocks · ``from:NAME`` · ``params:N`` last tensors · ``norm`` ·
``bias`` · ``NAME[,NAME]``, names or globs of modules. The head that was put on top is always trained and never counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from frostline.errors import SelectorError, near_names
from frostline.freeze.layers import Layers


class Selector(Protocol):
    """Names the parameters to train, out of a network's anatomy."""

    def select(self, layers: Layers) -> tuple[str, ...]:
        """Names of the selected parameters, in the network's order.

        Raises:
            SelectorError: nothing is matched, or fewer blocks or tensors exist than were asked for.
        """
        ...


@dataclass(frozen=True)
class Nothing:
    """``none``: the whole backbone stays frozen."""

    def select(self, layers: Layers) -> tuple[str, ...]:
        """No parameter."""
        del layers
        return ()


@dataclass(frozen=True)
class Everything:
    """``all``: the whole backbone is trained."""

    def select(self, layers: Layers) -> tuple[str, ...]:
        """Every parameter."""
        return layers.parameters


@dataclass(frozen=True)
class LastBlocks:
    """``last:N``: the last N blocks."""

    count: int

    def select(self, layers: Layers) -> tuple[str, ...]:
        """The parameters of the last blocks."""
        if self.count > len(layers.blocks):
            raise SelectorError(
                f"last:{self.count} asks for more than the {len(layers.blocks)} blocks there are",
                where="--unfreeze",
                advice="use all to train everything",
            )
        wanted = {p for block in layers.blocks[-self.count :] for p in block.parameters}
        return tuple(p for p in layers.parameters if p in wanted)


@dataclass(frozen=True)
class LastParameters:
    """``params:N``: the last N parameter tensors of the backbone (a layer has one, two or more)."""

    count: int

    def select(self, layers: Layers) -> tuple[str, ...]:
        """The last tensors, in the order of registration."""
        if self.count > len(layers.parameters):
            raise SelectorError(
                f"params:{self.count} asks for more than the {len(layers.parameters)} tensors there are",
                where="--unfreeze",
                advice="use all to train everything",
            )
        return layers.parameters[-self.count :]


@dataclass(frozen=True)
class FromModule:
    """``from:NAME``: the module and all that follows it."""

    name: str

    def select(self, layers: Layers) -> tuple[str, ...]:
        """The parameters of the module and everything after."""
        first = next((i for i, p in enumerate(layers.parameters) if p.startswith(f"{self.name}.")), None)
        if self.name not in layers.modules or first is None:
            raise _no_match(self.name, layers)
        return layers.parameters[first:]


@dataclass(frozen=True)
class Named:
    """``NAME[,NAME]``: modules or parameters, by name or glob."""

    patterns: tuple[str, ...]

    def select(self, layers: Layers) -> tuple[str, ...]:
        """Every parameter below a matching module, and every matching parameter."""
        wanted: set[str] = set()
        for pattern in self.patterns:
            modules = tuple(f"{m}." for m in layers.modules if fnmatchcase(m, pattern))
            matched = {p for p in layers.parameters if p.startswith(modules) or fnmatchcase(p, pattern)}
            if not matched:
                raise _no_match(pattern, layers)
            wanted |= matched
        return tuple(p for p in layers.parameters if p in wanted)


@dataclass(frozen=True)
class Norms:
    """``norm``: scale and shift of every norm layer."""

    def select(self, layers: Layers) -> tuple[str, ...]:
        """The parameters of the norm layers."""
        below = tuple(f"{n}." for n in layers.norms)
        found = tuple(p for p in layers.parameters if p.startswith(below))
        if not found:
            raise SelectorError("norm matches nothing: no norm layer here has parameters", where="--unfreeze")
        return found


@dataclass(frozen=True)
class Biases:
    """``bias``: every bias."""

    def select(self, layers: Layers) -> tuple[str, ...]:
        """The parameters whose name ends in ``bias``."""
        found = tuple(p for p in layers.parameters if p.rpartition(".")[2].endswith("bias"))
        if not found:
            raise SelectorError("bias matches nothing: no layer here has one", where="--unfreeze")
        return found


def parse_selector(text: str) -> Selector:
    """Read the selector language.

    Raises:
        SelectorError: ``text`` is empty, or a count is not a whole number of at least 1.

    >>> parse_selector("last:2")
    LastBlocks(count=2)
    >>> parse_selector("layer4.*,conv1")
    Named(patterns=('layer4.*', 'conv1'))
    """
    text = text.strip()
    plain: dict[str, Selector] = {"none": Nothing(), "all": Everything(), "norm": Norms(), "bias": Biases()}
    if text in plain:
        return plain[text]
    kind, colon, value = text.partition(":")
    if colon and kind in {"last", "params"}:
        if not value.isdecimal() or int(value) < 1:
            raise SelectorError(
                f"{text!r} wants a whole number of at least 1 after the colon",
                where="--unfreeze",
                advice=f"use {kind}:1 or more, or none to keep the backbone frozen",
            )
        return LastBlocks(int(value)) if kind == "last" else LastParameters(int(value))
    if colon and kind == "from" and value:
        return FromModule(value)
    patterns = tuple(p.strip() for p in text.split(",") if p.strip())
    if colon or not patterns:
        raise SelectorError(
            f"{text!r} is no selector",
            where="--unfreeze",
            advice="use none, last:N, from:NAME, NAME[,NAME], params:N, norm, bias or all",
        )
    return Named(patterns)


def _no_match(pattern: str, layers: Layers) -> SelectorError:
    return SelectorError(
        f"{pattern!r} matches no layer",
        where="--unfreeze",
        advice=near_names(pattern, layers.modules) or f"the blocks are {', '.join(b.name for b in layers.blocks[:8])} ...",
    )
