"""A freeze plan says what is trained; resolved against a network it names every parameter, buffer and module."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import nn

from frostline._html import facts_table
from frostline.errors import PlanError
from frostline.freeze.apply import freeze
from frostline.freeze.layers import Layers, is_norm, layers_of
from frostline.freeze.select import parse_selector

BatchNorm = Literal["frozen", "affine", "train"]


@runtime_checkable
class HasBackboneAndHead(Protocol):
    """A network in two parts; selectors speak of the backbone, the head is always trained."""

    @property
    def backbone(self) -> nn.Module:
        """The pre-trained part."""
        ...

    @property
    def head(self) -> nn.Module:
        """The new part."""
        ...


@runtime_checkable
class HasExample(Protocol):
    """A network that knows what its inputs look like."""

    def example(self, batch: int = 1) -> torch.Tensor:
        """A batch of inputs."""
        ...


@dataclass(frozen=True)
class ResolvedPlan:
    """A plan, resolved against one network. All names are the network's own, dotted.

    Attributes:
        trainable: parameters that are trained, the head's included.
        frozen: parameters that are not.
        frozen_buffers: buffers (batch-norm statistics, for example) that must not change either.
        pinned: modules that stay in eval mode.
        matched: blocks of the backbone that the selector touched, as it names them.
        head: prefix of the head's parameters, or empty.
    """

    trainable: tuple[str, ...]
    frozen: tuple[str, ...]
    frozen_buffers: tuple[str, ...]
    pinned: tuple[str, ...]
    matched: tuple[str, ...]
    head: str

    def _repr_html_(self) -> str:
        facts = {
            "blocks unfrozen": ", ".join(self.matched) or "none",
            "trained": f"{len(self.trainable)} tensors",
            "frozen": f"{len(self.frozen)} tensors, {len(self.frozen_buffers)} buffers",
            "in eval mode for good": f"{len(self.pinned)} modules",
            "head": self.head or None,
        }
        return facts_table("freeze plan, resolved", facts)

    @property
    def backbone_trained(self) -> bool:
        """Whether anything but the head is trained."""
        return any(not (self.head and name.startswith(self.head)) for name in self.trainable)


@dataclass(frozen=True)
class FreezePlan:
    """What to train: a value; nothing happens until :meth:`apply`.

    Attributes:
        unfreeze: a selector over the backbone (see :func:`frostline.freeze.select.parse_selector`).
        batch_norm: what batch norm does in frozen layers. ``frozen``: nothing changes. ``affine``: scale and shift are
            trained, the running statistics stay. ``train``: both move, and those layers are no longer frozen.
        head: name of the submodule that is always trained, in a network of one's own.

    >>> plan = FreezePlan(unfreeze="last:1")
    >>> net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    >>> plan.apply(net).trainable
    ('2.weight', '2.bias')
    >>> net.train()[1].training
    False
    """

    unfreeze: str = "none"
    batch_norm: BatchNorm = "frozen"
    head: str = "head"

    def resolve(self, module: nn.Module) -> ResolvedPlan:
        """Name everything this plan trains and freezes in ``module``, which is not changed.

        Raises:
            SelectorError: the selector matches nothing (with the nearest names).
            PlanError: nothing would be left to train.
        """
        if self.batch_norm not in ("frozen", "affine", "train"):
            raise PlanError(
                f"{self.batch_norm!r} is nothing batch norm can do",
                where="--batch-norm",
                advice="use frozen, affine or train",
            )
        in_two = isinstance(module, HasBackboneAndHead)
        prefix = "backbone." if in_two else ""
        head = f"{self.head}." if in_two or _has_child(module, self.head) else ""
        layers = layers_of(module.get_submodule("backbone") if in_two else module)
        chosen = {f"{prefix}{name}" for name in parse_selector(self.unfreeze).select(layers)}
        norms = {
            name: [f"{name}.{p}" for p, _ in module.get_submodule(name).named_parameters(recurse=False)] for name in _at(prefix, layers)
        }
        norms = {name: own for name, own in norms.items() if not chosen.issuperset(own)}  # the frozen ones
        if self.batch_norm != "frozen":
            chosen |= {p for own in norms.values() for p in own}
        every = [name for name, _ in module.named_parameters()]
        trainable = tuple(n for n in every if n in chosen or (head and n.startswith(head)))
        if not trainable:
            raise PlanError(
                "everything is frozen and there is no head: nothing would be trained",
                where=f"--unfreeze {self.unfreeze}",
                advice="add a head, or unfreeze something, for example last:1",
            )
        pinned = _pinned(module, set(trainable), norms, wake=self.batch_norm == "train", head=head)
        asleep = set(pinned)
        return ResolvedPlan(
            trainable=trainable,
            frozen=tuple(n for n in every if n not in set(trainable)),
            frozen_buffers=tuple(n for n, _ in module.named_buffers() if n.rpartition(".")[0] in asleep),
            pinned=pinned,
            matched=tuple(b.name for b in layers.blocks if any(f"{prefix}{p}" in chosen for p in b.parameters)),
            head=head,
        )

    def apply(self, module: nn.Module) -> ResolvedPlan:
        """Freeze ``module`` in place so that it stays frozen, and say what was done.

        Raises:
            SelectorError: the selector matches nothing (with the nearest names).
            PlanError: nothing would be left to train.
        """
        resolved = self.resolve(module)
        freeze(module, trainable=resolved.trainable, pinned=resolved.pinned)
        return resolved

    def _repr_html_(self) -> str:
        return facts_table("freeze plan", {"unfreeze": self.unfreeze, "batch norm in frozen layers": self.batch_norm, "head": self.head})

    def describe(self, module: nn.Module, example: torch.Tensor | None = None) -> str:
        """A table in plain text: block, parameters, frozen or trainable; and where the cut is. ``module`` is not changed.

        Args:
            module: the network.
            example: a batch of inputs ``(N, ...)``, to find the cut by; a :class:`frostline.TransferModel` has its own.
        """
        from frostline.freeze.cut import split
        from frostline.freeze.table import describe

        example = module.example(2) if example is None and isinstance(module, HasExample) else example
        cut = None if example is None else split(copy.deepcopy(module), self, example).cut
        return describe(module, self.resolve(module), cut)


def _has_child(module: nn.Module, name: str) -> bool:
    return any(n == name for n, _ in module.named_modules() if n)


def _at(prefix: str, layers: Layers) -> list[str]:
    return [f"{prefix}{name}" for name in layers.batch_norms]


def _pinned(module: nn.Module, trainable: set[str], norms: Collection[str], *, wake: bool, head: str) -> tuple[str, ...]:
    """Modules that must stay in eval mode: frozen ones, and those without parameters that lie before what is trained."""
    owners = [
        name
        for name, child in module.named_modules()
        if any(f"{name}.{p}".lstrip(".") in trainable for p, _ in child.named_parameters(recurse=False))
    ]
    order = [name for name, _ in module.named_modules()]
    first = order.index(owners[0])
    pinned: list[str] = []
    for index, (name, child) in enumerate(module.named_modules()):
        below = [f"{name}.{p}".lstrip(".") for p, _ in child.named_parameters()]
        own = [f"{name}.{p}".lstrip(".") for p, _ in child.named_parameters(recurse=False)]
        if name in norms and not wake:
            pinned.append(name)
            continue
        if name in norms or (head and f"{name}.".startswith(head)):
            continue
        if below:
            frozen = not any(p in trainable for p in below) or (is_norm(child) and not all(p in trainable for p in own))
        else:
            frozen = index < first and not any(o.startswith(f"{name}.") for o in owners)
            frozen = frozen or name.rpartition(".")[0] in pinned
        if frozen and name:
            pinned.append(name)
    return tuple(pinned)
