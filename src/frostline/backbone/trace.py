"""Read a network's forward pass as a graph, with ``torch.fx``: what is called, in which order, on what."""

from __future__ import annotations

import copy
import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx, nn


class CannotTraceError(Exception):
    """The forward pass cannot be read as a graph (it branches on values, for example); the message says where."""


@dataclass(frozen=True, eq=False)
class Traced:
    """A forward pass as a graph.

    Attributes:
        graph: its nodes; the first is the one input.
        constants: tensors that the forward pass makes out of nothing, by the name under which the graph reads them.
    """

    graph: fx.Graph
    constants: Mapping[str, torch.Tensor]

    def run_by(self, module: nn.Module) -> fx.GraphModule:
        """A module that runs the graph over the layers of ``module``."""
        return graph_module(module, self.graph, self.constants)


def graph_module(module: nn.Module, graph: fx.Graph, constants: Mapping[str, torch.Tensor]) -> fx.GraphModule:
    """A module that runs a graph over the layers, parameters and buffers of ``module``, which it shares."""
    root: dict[str, Any] = dict(constants)
    for node in graph.nodes:
        target = str(node.target)
        if node.op == "call_module":
            root[target] = module.get_submodule(target)
        elif node.op == "get_attr" and target not in root:
            owner, _, name = target.rpartition(".")
            root[target] = getattr(module.get_submodule(owner), name)
    return fx.GraphModule(root, graph)


def trace(module: nn.Module, leaves: Collection[str] = ()) -> Traced:
    """The graph of ``module.forward`` in the mode (training or eval) that each submodule is in now. Nothing is run.

    What a library registers as not to be looked into stays one node: torch's own layers, timm's no-trace modules and
    functions (and torchvision's, which wrap themselves).

    Args:
        module: the network; its forward pass takes one positional argument.
        leaves: names of further submodules that stay one node.

    Raises:
        CannotTraceError: the forward pass depends on more than shapes.
    """
    tracer = _Tracer(module, leaves)
    before = _state_of(module)
    try:
        graph = _without_options(tracer.trace(module, _defaults(module)))
    except Exception as fault:  # whatever a forward pass does with a stand-in for a tensor; all of it means the same
        said = str(fault).splitlines()[0][:120] if str(fault) else type(fault).__name__
        raise CannotTraceError(f"{type(module).__name__}: {said}") from fault
    finally:  # fx leaves tensors that a forward pass makes on the module that it reads, and layers keep stand-ins for tensors
        constants = {name: cast("torch.Tensor", made) for name, made in vars(module).items() if name.startswith("_tensor_constant")}
        _put_back(before)
    return Traced(graph, constants)


_State = list[tuple[dict[str, Any], dict[str, Any], list[tuple[Any, Any]]]]


def _state_of(module: nn.Module) -> _State:
    """What every submodule holds, and what the dictionaries and lists in it hold."""
    kept: _State = []
    for child in module.modules():
        own = vars(child)
        kept.append((own, dict(own), [(v, copy.copy(v)) for v in own.values() if type(v) in (dict, list, OrderedDict)]))
    return kept


def _put_back(state: _State) -> None:
    for own, attributes, containers in state:
        own.clear()
        own.update(attributes)
        for container, content in containers:
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(content)


def _defaults(module: nn.Module) -> dict[str, object]:
    """Every argument but the first, at its default, so that branches on it are decided."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    return {p.name: p.default for p in parameters[1:] if p.default is not p.empty}


def _without_options(graph: fx.Graph) -> fx.Graph:
    """The graph without its arguments behind the first, and without the checks that they are at their default."""
    for node in [n for n in graph.nodes if n.op == "placeholder"][1:]:
        _erase(graph, node)
    return graph


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    for user in list(node.users):
        _erase(graph, user)
    graph.erase_node(node)


def add_(value: Any, other: Any) -> Any:
    """``value += other``: into its memory where ``value`` is a tensor."""
    value += other
    return value


def sub_(value: Any, other: Any) -> Any:
    """``value -= other``."""
    value -= other
    return value


def mul_(value: Any, other: Any) -> Any:
    """``value *= other``."""
    value *= other
    return value


def div_(value: Any, other: Any) -> Any:
    """``value /= other``."""
    value /= other
    return value


class _StandIn(fx.Proxy):
    """Stands for a value, and keeps ``x += y`` what it is: fx makes ``x + y`` of it, which other names of ``x`` do not see."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", add_, (self, other), {})

    def __isub__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", sub_, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", mul_, (self, other), {})

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", div_, (self, other), {})


class _Tracer(fx.Tracer):
    def __init__(self, root: nn.Module, leaves: Collection[str]) -> None:
        modules, functions = _timm_leaves()
        super().__init__(autowrap_functions=functions)
        self._leaf_types = modules
        self._leaf_modules = {id(root.get_submodule(name)) for name in leaves}

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _StandIn(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return id(m) in self._leaf_modules or isinstance(m, self._leaf_types) or super().is_leaf_module(m, module_qualified_name)


def _timm_leaves() -> tuple[tuple[type[nn.Module], ...], tuple[Callable[..., Any], ...]]:
    """timm's lists; empty where timm was not imported, for then no module is of its kinds."""
    layers = sys.modules.get("timm.layers")
    if layers is None:
        return (), ()
    known = cast("Any", layers)
    return tuple(known.get_notrace_modules()), tuple(known.get_notrace_functions())
