"""Choose a place in a network's graph and build the two parts around it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from frostline.backbone.trace import Traced, graph_module
from frostline.freeze.reading import Reading, Value

_VIEWS = """getitem getattr view view_as reshape flatten unflatten permute transpose swapaxes movedim squeeze unsqueeze expand chunk
split unbind narrow select unfold contiguous to float type_as dropout drop_path"""
VIEWS = frozenset(_VIEWS.split())
"""Functions and methods that may give a part of what they are given rather than something new."""


class Suffix(nn.Module):
    """What follows a cut: one graph for training and one for eval mode, over the network's own layers.

    Args:
        evaluated: the graph in eval mode.
        trained: the graph in training mode; may be the same.
    """

    def __init__(self, evaluated: fx.GraphModule, trained: fx.GraphModule) -> None:
        super().__init__()
        self.evaluated: nn.Module = evaluated
        self.trained: nn.Module = trained

    def forward(self, crossing: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
        """What the prefix gives to what the network gives; what is passed in is not written to."""
        part = self.trained if self.training else self.evaluated
        return part(*crossing) if isinstance(crossing, tuple) else part(crossing)


def best_place(nodes: Sequence[fx.Node], known: Mapping[fx.Node, Value], limit: int, after: int, most: float = math.inf) -> int | None:
    """Of the places behind the last frozen layer the one with the fewest bytes; failing that, the nearest valid one before.

    Args:
        nodes: in program order.
        known: what each node before ``limit`` gives.
        limit: index of the first trained node; a place is before the node of its index.
        after: index behind the last frozen node with parameters.
        most: bytes an image that may cross, in float32.
    """

    def bytes_at(place: int) -> float:
        crossing = crossing_at(nodes, known, place)
        return 4 * sum(c.size for n in crossing if (c := known[n].crossing)) if crossing else math.inf

    size = {place: bytes_at(place) for place in range(after, limit + 1)}
    best = min(size, key=lambda p: (size[p], -p))
    if size[best] <= most and size[best] < math.inf:
        return best
    return next((place for place in range(after - 1, 0, -1) if bytes_at(place) <= most and bytes_at(place) < math.inf), None)


def crossing_at(nodes: Sequence[fx.Node], known: Mapping[fx.Node, Value], place: int) -> list[fx.Node] | None:
    """The batch tensors that cross before ``nodes[place]``, or None where something else would have to."""
    later = set(nodes[place:])
    crossing: list[fx.Node] = []
    for node in nodes[:place]:
        if node.op == "get_attr" or not any(user in later for user in node.users):
            continue  # a parameter or buffer is read by the suffix itself
        if known[node].kind == "other":
            return None
        if known[node].kind == "batch":
            crossing.append(node)
    return crossing or None


def parts_of(reading: Reading, known: Mapping[fx.Node, Value], place: int, crossing: Sequence[fx.Node]) -> tuple[fx.GraphModule, nn.Module]:
    """The prefix and the suffix around ``nodes[place]``; both share the network's layers."""
    nodes = reading.nodes
    before, copied = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in nodes[:place]:
        copied[node] = before.node_copy(node, lambda n: copied[n])
    out = [before.call_method("unflatten", (copied[n], 0, (-1, f))) if (f := known[n].fold) > 1 else copied[n] for n in crossing]
    before.output(out[0] if len(out) == 1 else tuple(out))
    index = {n: i for i, n in enumerate(nodes)}
    marks = [index[n] for n in crossing]
    gives = [known[n] for n in nodes[:place]]
    evaluated = _suffix(reading.module, reading.evaluated, gives, marks)
    trained = evaluated if reading.trained is reading.evaluated else _suffix(reading.module, reading.trained, gives, marks)
    return graph_module(reading.module, before, reading.evaluated.constants), Suffix(evaluated, trained)


def _suffix(module: nn.Module, traced: Traced, gives: list[Value], marks: list[int]) -> fx.GraphModule:
    """The nodes behind those that ``gives`` describes; what is the same for every batch is put in as a constant."""
    nodes, place = list(traced.graph.nodes), len(gives)
    graph, copied, constants = fx.Graph(), dict[fx.Node, Any](), dict(traced.constants)
    later = set(nodes[place:])
    placeholders = [graph.placeholder(f"crossing_{number}") for number in range(len(marks))]
    for mark, placeholder in zip(marks, placeholders, strict=True):
        given = placeholder if gives[mark].fold == 1 else graph.call_method("flatten", (placeholder, 0, 1))
        copied[nodes[mark]] = graph.call_method("clone", (given,)) if _is_written(module, nodes[mark], later) else given
    for index, (node, value) in enumerate(zip(nodes, gives, strict=False)):
        if node in copied or not any(user in later for user in node.users):
            continue
        if node.op == "get_attr":
            copied[node] = graph.node_copy(node)
        elif value.kind == "size":
            copied[node] = graph.call_method("size", (placeholders[0], 0))
        elif isinstance(value.constant, torch.Tensor):
            name = f"constant_{index}"
            constants[name] = value.constant
            copied[node] = graph.get_attr(name)
        else:
            copied[node] = value.constant
    for node in nodes[place:]:
        copied[node] = graph.node_copy(node, lambda n: copied[n])
    return graph_module(module, graph, constants)


def _is_written(module: nn.Module, value: fx.Node, later: Collection[fx.Node]) -> bool:
    """Whether a later node may write into ``value``, or into a view of it."""
    users = [user for user in value.users if user in later]
    return any(_writes(module, user, value) or (_may_be_a_view(module, user) and _is_written(module, user, later)) for user in users)


def _may_be_a_view(module: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":  # an identity, or dropout that is off
        return not any(True for _ in module.get_submodule(str(node.target)).parameters())
    return (str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")) in VIEWS


def _writes(module: nn.Module, user: fx.Node, value: fx.Node) -> bool:
    """Whether a node may write into ``value``, its first argument."""
    if not user.args or user.args[0] is not value:
        return user.kwargs.get("out") is value
    if user.op == "call_module":
        return bool(getattr(module.get_submodule(str(user.target)), "inplace", False))
    if user.op == "call_method":
        return str(user.target).endswith("_") or str(user.target) == "__setitem__"
    name = getattr(user.target, "__name__", "")
    in_place_operator = name.startswith("i") and getattr(user.target, "__module__", "") == "_operator"
    return in_place_operator or name.endswith("_") or name == "setitem" or user.kwargs.get("inplace") is True
