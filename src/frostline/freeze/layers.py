"""What a network is made of, in forward order: its parameters by name, and its blocks.

A *block* is the smallest repeated unit that people name: a residual block, a transformer block, a convolution with its
norm. Containers (``nn.Sequential``, ``nn.ModuleList``, and stages that hold a list of equal blocks) are looked through.
"""

from __future__ import annotations

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
    return "Norm" in type(module).__name__ and not any(True for _ in module.children())


def norm_parameters(module: nn.Module) -> set[str]:
    """Names of the parameters that norm layers hold, whatever their shape."""
    return {f"{name}.{p}".lstrip(".") for name, child in module.named_modules() if is_norm(child) for p, _ in child.named_parameters()}


def _blocks(module: nn.Module) -> list[Block]:
    found: list[Block] = []
    for name, child in _units(module, ""):
        parameters = tuple(f"{name}.{p}" for p, _ in child.named_parameters())
        if not parameters:
            continue
        if found and is_norm(child):
            last = found[-1]
            found[-1] = Block(last.name, (*last.modules, name), (*last.parameters, *parameters))
        else:
            found.append(Block(name, (name,), parameters))
    return found


def _units(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    units: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        full = f"{prefix}{name}"
        units.extend(_units(child, f"{full}.") if _is_container(child) else [(full, child)])
    return units


def _is_container(module: nn.Module) -> bool:
    """A list of layers, or a stage: a module that holds a list of at least two modules of one type."""
    if type(module) in (nn.Sequential, nn.ModuleList):
        return True
    return _is_list_of_equals(module) or any(_is_list_of_equals(child) for child in module.children())


def _is_list_of_equals(module: nn.Module) -> bool:
    if not isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) and not type(module).__name__.endswith("Stage"):
        return False
    kinds = [type(child) for child in module.children() if any(True for _ in child.children())]
    return len(kinds) >= 2 and len(set(kinds)) == 1
