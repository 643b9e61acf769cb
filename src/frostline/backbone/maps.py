"""The same backbone with its last feature map, or its tokens, instead of the vector that it makes of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import fx, nn

from frostline._rng import stream
from frostline.backbone.network import Backbone
from frostline.backbone.trace import CannotTraceError, Traced, graph_module, trace
from frostline.errors import BackboneError


def as_feature_map(opened: Backbone) -> Backbone:
    """The backbone up to its last map: a body that gives ``(N, C, H, W)``, or tokens ``(N, L, C)``.

    Layers, their names and weights are those of ``opened``. The forward pass is read, and ends at the last value that has positions
    and that everything behind it is made of. A map that the network keeps as ``(H, W, C)`` is turned.

    Args:
        opened: its body in eval mode; the caller sees to that.

    Raises:
        BackboneError: the features are not made of one map (says which shape they have), or the forward pass cannot be read.
    """
    network = opened.body
    example = noise_pictures(opened)
    with torch.no_grad():
        given: torch.Tensor = network(example)
    vector = tuple(given.shape[1:])
    if _has_positions(vector):
        return _described(opened, network, vector)
    try:
        last = _last_map_of(network, example)
    except CannotTraceError as fault:
        raise BackboneError(
            f"its last feature map cannot be found: its forward pass cannot be read ({fault})",
            where=opened.name,
            advice="use a linear or mlp head, or a network whose output is the map",
        ) from fault
    if last is None:
        raise BackboneError(f"gives {vector}, not made of one feature map", where=opened.name, advice="use a linear or mlp head")
    traced, node, shape = last
    turned = len(shape) == 3 and len(vector) == 1 and shape[2] == vector[0] != shape[0]
    graph = graph_up_to(traced, node, ("permute", (0, 3, 1, 2)) if turned else None)
    return _described(opened, PartOf(network, graph, traced.constants), shape)


def graph_up_to(traced: Traced, last: fx.Node, then: tuple[str, tuple[Any, ...]] | None) -> fx.Graph:
    """A forward pass up to the value that ``last`` gives; ``then``, a method of tensors with its arguments, is called on it."""
    graph, copied = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in traced.graph.nodes:  # in program order and nothing left out: some steps work in place
        copied[node] = graph.node_copy(node, lambda n: copied[n])
        if node is last:
            break
    graph.output(copied[last] if then is None else graph.call_method(then[0], (copied[last], *then[1])))
    return graph


class PartOf(nn.Module):
    """A network's own layers, under their own names, run by a graph of their own; layers that it does not use are left out.

    Args:
        network: whose layers are taken.
        graph: of images to one value.
        constants: tensors that the forward pass makes, by the name under which the graph asks for them.
    """

    def __init__(self, network: nn.Module, graph: fx.Graph, constants: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        used = {str(n.target) for n in graph.nodes if n.op in ("call_module", "get_attr")}
        for name, child in network.named_children():
            if (kept := _used_part(child, name, used)) is not None:
                self.add_module(name, kept)
        for name, parameter in network.named_parameters(recurse=False):
            if name in used:
                self.register_parameter(name, parameter)
        buffers = {**dict(network.named_buffers(recurse=False)), **constants}
        for name, buffer in buffers.items():
            if name in used:
                self.register_buffer(name, buffer, persistent=name in network.state_dict())
        # Only this module's code is run, on the layers of the module that holds it; in a tuple it is no layer itself.
        self._code = (graph_module(network, graph, constants),)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images ``(N, 3, H, W)`` to the value."""
        return cast("Any", type(self._code[0])).forward(self, images)


def _used_part(module: nn.Module, name: str, used: Collection[str]) -> nn.Module | None:
    """The module, or a copy of it that holds the same layers without those that nothing of ``used`` names; None where none is left."""
    if name in used or any(f"{name}.{own}" in used for own in (*module._parameters, *module._buffers)):  # pyright: ignore[reportPrivateUsage]
        return module
    kept = {leaf: part for leaf, child in module.named_children() if (part := _used_part(child, f"{name}.{leaf}", used)) is not None}
    if not kept or all(kept.get(leaf) is child for leaf, child in module.named_children()):
        return module if kept else None
    part = copy.copy(module)
    part.__dict__["_modules"] = kept  # a container of the same kind, by which blocks are told
    return part


class _Shapes(fx.Interpreter):
    """Runs a graph and tells the shape of every value that is one tensor with an entry for each image, without the batch."""

    def __init__(self, module: fx.GraphModule, batch: int) -> None:
        super().__init__(module)
        self._batch, self._found = batch, dict[str, tuple[int, ...]]()

    def of(self, example: torch.Tensor) -> Mapping[str, tuple[int, ...]]:
        """By the name of the node."""
        self.run(example)
        return self._found

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == self._batch:
            self._found[n.name] = tuple(value.shape[1:])
        return value


def _last_map_of(network: nn.Module, example: torch.Tensor) -> tuple[Traced, fx.Node, tuple[int, ...]] | None:
    """The forward pass, the node that gives the last map, and its shape.

    The layers that the network calls stay whole where the map lies between them: inside, they go on being run as what they are, with
    what they do in training mode only.
    """
    whole = [name for name, _ in network.named_modules() if name]
    for leaves in (whole, []):
        traced = trace(network, leaves)
        with torch.no_grad():
            shapes = _Shapes(traced.run_by(network), len(example)).of(example)
        last = _last_map(list(traced.graph.nodes), shapes)
        if last is not None:
            return traced, *last
    return None


def _last_map(nodes: list[fx.Node], shapes: Mapping[str, tuple[int, ...]]) -> tuple[fx.Node, tuple[int, ...]] | None:
    """The last node with positions that everything behind it is made of."""
    place = {node: i for i, node in enumerate(nodes)}
    for index in range(len(nodes) - 1, 0, -1):
        node = nodes[index]
        if node.op not in ("call_module", "call_function", "call_method") or not _has_positions(shapes.get(node.name, ())):
            continue
        before = [n for n in nodes[:index] if n.name in shapes]
        if all(place[user] <= index for n in before for user in n.users):
            return node, shapes[node.name]
    return None


def _has_positions(shape: tuple[int, ...]) -> bool:
    """A map of at least 2 x 2, or at least two tokens."""
    return (len(shape) == 3 and min(shape[1:]) > 1) or (len(shape) == 2 and shape[0] > 1)


def _described(opened: Backbone, body: nn.Module, shape: tuple[int, ...]) -> Backbone:
    """The backbone with such a body; tokens that are no part of the picture are those that timm or torchvision say, if still there."""
    said: object = vars(opened.body).get("num_prefix_tokens", int("class_token" in dict(opened.body.named_parameters(recurse=False))))
    first = said if len(shape) == 2 and isinstance(said, int) and math.isqrt(shape[0] - said) ** 2 == shape[0] - said else 0
    return replace(opened, body=body, architecture=f"{opened.architecture} map", first_tokens=first, digest="")


def noise_pictures(opened: Backbone) -> torch.Tensor:
    """Two pictures of noise, on the backbone's device: of black ones more might look the same than is."""
    random = torch.randint(0, 256, (2, 3, *opened.preprocess.crop), generator=stream(0, "pictures for the last map"))
    return opened.preprocess.normalise(random.to(opened.device, torch.uint8))
