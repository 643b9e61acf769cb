"""What a network is made of, in forward order: its parameters by name, and its blocks.

A *block* is the smallest repeated unit that people name: a residual block, a transformer block, a convolution with its
norm. Containers (``nn.Sequential``, ``nn.ModuleList``, and stages that hold a list of equal blocks) are looked through;
a repeated module that is itself made of a few convolutions in a list is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

NORM_TYPES = (
    _BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.RMSNorm,
)


@dataclass(frozen=True)
class Block:
    """A named module of the network, with the norm layers that directly follow it.

    Attributes:
        name: the module's dotted name.
        modules: the module and the norm layers counted with it, dotted names.
        parameters: names of all parameters in it.
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Layers:
    """The anatomy of a network.

    Attributes:
        parameters: names of all parameters, in the order of registration.
        modules: names of all modules, the root's empty name left out.
        blocks: the blocks, in forward order; parameters that the root itself holds belong to none.
        norms: names of the norm layers.
        batch_norms: names of the norm layers that keep running statistics.
    """

    parameters: tuple[str, ...]
    modules: tuple[str, ...]
    blocks: tuple[Block, ...]
    norms: tuple[str, ...]
    batch_norms: tuple[str, ...]


def layers_of(module: nn.Module) -> Layers:
    """Read the anatomy of ``module``; nothing is run and nothing changed.

    >>> [block.name for block in layers_of(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 2))).blocks]
    ['0', '3']
    """
    named = [(name, child) for name, child in module.named_modules() if name]
    return Layers(
        parameters=tuple(name for name, _ in module.named_parameters()),
        modules=tuple(name for name, _ in named),
        blocks=tuple(_blocks(module)),
        norms=tuple(name for name, child in named if is_norm(child)),
        batch_norms=tuple(name for name, child in named if isinstance(child, _BatchNorm)),
    )


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: a norm layer of torch's, or one named so that holds its own scale and no children."""
    if isinstance(module, NORM_TYPES):
        return True
    kind = type(module).__name__
    return ("Norm" in kind or kind == "Affine") and not any(True for _ in module.children())  # Affine: ResMLP's, without statistics


def norm_parameters(module: nn.Module) -> set[str]:
    """Names of the parameters that norm layers hold, whatever their shape."""
    return {f"{name}.{p}".lstrip(".") for name, child in module.named_modules() if is_norm(child) for p, _ in child.named_parameters()}


def _blocks(module: nn.Module) -> list[Block]:
    found: list[Block] = []
    for name, child in _units(module, ""):
        parameters = tuple(f"{name}.{p}" for p, _ in child.named_parameters())
        if not parameters:
            continue
        if found and len(norm_parameters(child)) == len(parameters):
            last = found[-1]
            found[-1] = Block(last.name, (*last.modules, name), (*last.parameters, *parameters))
        else:
            found.append(Block(name, (name,), parameters))
    return found


def _units(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """What is not looked through below ``module``, in forward order."""
    children = [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]
    for name, child in _side_by_side(children):
        twins = [other for _, other in children if type(other) is type(child)]
        if _is_container(child, repeated=len(twins) > 1) and not (_is_list(module) and _is_repeated_row(child, twins)):
            yield from _units(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _side_by_side(children: list[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Module]]:
    """Neighbouring lists of one length that hold different kinds (embeddings, positions, blocks) are run abreast, blocks last."""
    start = 0
    while start < len(children):
        stop, kinds = start, list[type]()
        while stop < len(children) and type(child := children[stop][1]) is nn.ModuleList and len(child) == len(children[start][1]):  # pyright: ignore[reportArgumentType]
            kinds.append(type(next(iter(child))))
            stop += 1
        if len(kinds) > 1 and len(set(kinds)) == len(kinds):
            lists = [[(f"{n}.{k}", part) for k, part in c.named_children()] for n, c in children[start:stop]]
            for abreast in zip(*lists, strict=True):
                yield from sorted(abreast, key=lambda part: _is_list(part[1]))
        else:
            stop = start + 1
            yield children[start]
        start = stop


def _is_list(module: nn.Module) -> bool:
    return type(module) in (nn.Sequential, nn.ModuleList)


def _is_repeated_row(child: nn.Module, twins: list[nn.Module]) -> bool:
    """Whether an ``nn.Sequential`` with layers of its own, such as (convolution, norm, activation), is there more than once."""
    if type(child) is not nn.Sequential:
        return False
    kinds = [type(c) for c in child]
    own = any(not any(True for _ in c.children()) and not is_norm(c) and any(True for _ in c.parameters()) for c in child)
    return own and sum([type(c) for c in twin.children()] == kinds for twin in twins) > 1


def _is_container(module: nn.Module, *, repeated: bool) -> bool:
    """A list of layers, or a stage: a module that holds a list of at least two modules of one type."""
    if _is_list(module):
        return True
    lists = [c for c in (module, *module.children()) if isinstance(c, nn.Sequential | nn.ModuleList | nn.ModuleDict)]
    kind = type(module).__name__
    if kind.endswith("Stage"):
        return bool(lists) or _holds_equals(module)
    if kind.endswith(("Block", "Module")) and module not in lists:
        repeated = True
        lists = lists if len(lists) == len([c for c in module.children() if any(True for _ in c.parameters())]) == 1 else []
    return any(_holds_equals(c) and (c is module or not repeated or _is_deep(c)) for c in lists)


def _holds_equals(module: nn.Module) -> bool:
    kinds = [type(child) for child in module.children() if any(True for _ in child.children())]
    return len(kinds) >= 2 and len(set(kinds)) == 1


def _is_deep(module: nn.Module) -> bool:
    """Whether what a list holds is more than rows of layers, so that it could be blocks."""
    return any(any(True for _ in inner.children()) for child in module.children() for inner in child.children())
