"""Features of every depth: a backbone tapped at the end of each block, all of it in one pass; or run up to one block only.

What a block gives is pooled to one vector for each image: the mean over the positions of a map or over the tokens. Networks whose
forward pass cannot be read as a graph are tapped at their end alone. A head may sit on the end, on one block, or on all depths side by
side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import fx, nn

from frostline.backbone.maps import PartOf, graph_up_to, noise_pictures
from frostline.backbone.network import Backbone
from frostline.backbone.tap import output_shapes
from frostline.backbone.trace import CannotTraceError, Traced, graph_module, trace
from frostline.errors import HeadError, near_names
from frostline.features.engine import as_tuple
from frostline.freeze.apply import evaluating
from frostline.freeze.crossing import Layout
from frostline.freeze.layers import layers_of

END = "backbone"
"""The name of the last depth: what the backbone itself gives, pooled where it is no vector."""

ALL = "all"
"""In place of a depth: what all of them give, side by side (:func:`joined`)."""

_Pool = tuple[str, tuple[Any, ...]] | None


@dataclass(frozen=True, eq=False)
class Depths:
    """A backbone that gives pooled features of many depths.

    Attributes:
        names: of the blocks, in forward order; the last is :data:`END`.
        body: normalised images ``(N, 3, H, W)`` to a tuple of vectors ``(N, C)``, one a name. Its layers are the backbone's.
        layout: what it gives.
        code: it as text, for the identity of the features.
        constants: tensors that it makes out of nothing, by name.
        why: the reason, in words, where only the end is tapped; empty otherwise.
    """

    names: tuple[str, ...]
    body: nn.Module
    layout: Layout
    code: str
    why: str = ""
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])

    def at(self, depth: str, features: torch.Tensor) -> torch.Tensor:
        """Of features as the body gives them, one after the other ``(N, size of all)``, those of a depth, or of :data:`ALL`: ``(N, C)``."""
        if depth != ALL:
            return features.split(self.sizes, 1)[self.names.index(depth)].contiguous()
        return torch.cat([joined(rows.split(self.sizes, 1)) for rows in features.split(_ROWS)])

    @property
    def sizes(self) -> tuple[int, ...]:
        """The length of the vector of each depth."""
        return tuple(part.size for part in self.layout.parts)


def joined(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Vectors of several depths side by side, ``(N, C)`` to ``(N, sum of C)`` float32 (Evci 2022).

    Each is brought to mean 0 and variance 1 first, over its channels, image by image, as in layer normalisation (Ba 2016): depths may
    differ in size by orders of magnitude.
    """
    centred = [f.float() - f.float().mean(1, keepdim=True) for f in features]
    return torch.cat([f / (f.square().mean(1, keepdim=True) + 1e-12).sqrt() for f in centred], 1)


_ROWS = 4096
"""Images whose depths are joined at once."""


class _EndOnly(nn.Module):
    def __init__(self, network: nn.Module, pool: _Pool) -> None:
        super().__init__()
        self.network, self._pool = network, pool

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Images to one vector, in a tuple."""
        return (_pooled(self.network(images), self._pool),)


def at_depths(opened: Backbone) -> Depths:
    """Tap a backbone at the end of each block.

    The tapped network is used only where its last value equals the backbone's own, to the last bit on the CPU.

    Args:
        opened: its layers are shared; nothing in it changes.

    Raises:
        BackboneError: it gives no tensor of one, two or three dimensions an image.
    """
    network = opened.body
    with evaluating(network), torch.no_grad():
        example = noise_pictures(opened)
        given: torch.Tensor = network(example)
        end = _pool_of(tuple(given.shape[1:]))
        alone = _EndOnly(network, end)
        try:
            nodes, traced = _block_ends(network)
        except CannotTraceError as fault:
            return Depths((END,), alone, Layout.of(alone(example)), "end", f"its forward pass cannot be read ({fault})")
        shapes = output_shapes(network, [str(n.target) for n in nodes.values()], example[:1])
        taps = {name: (node, _pool_of(shapes[str(node.target)])) for name, node in nodes.items() if _poolable(shapes, node)}
        found = _checked(network, traced, taps, example, end, _pooled(given, end))
    if found is None:
        return Depths((END,), alone, Layout.of(alone(example)), "end", "its graph gives other numbers")
    return found


def up_to(opened: Backbone, block: str) -> Backbone:
    """The backbone up to the end of a block, pooled: its features are what :func:`at_depths` gives for that depth.

    With :data:`ALL` for the block it is the whole backbone, and gives all depths, :func:`joined`.

    Raises:
        HeadError: it has no such block, or its forward pass cannot be read.
    """
    if block == END:
        return opened
    if block == ALL:
        return _side_by_side(opened)
    network = opened.body
    with evaluating(network), torch.no_grad():
        try:
            nodes, traced = _block_ends(network)
        except CannotTraceError as fault:
            raise HeadError(
                f"{opened.name} cannot be cut: its forward pass cannot be read ({fault})", where=f"--head ...@{block}"
            ) from fault
        example = noise_pictures(opened)
        shapes = output_shapes(network, [str(n.target) for n in nodes.values()], example[:1])
    known = {name: node for name, node in nodes.items() if _poolable(shapes, node)}
    if block not in known:
        raise HeadError(
            f"{opened.name} has no block {block!r} that gives one tensor",
            where=f"--head ...@{block}",
            advice=near_names(block, known) or "frostline inspect shows the blocks",
        )
    pool = _pool_of(shapes[str(known[block].target)])
    body = PartOf(network, graph_up_to(traced, known[block], pool), traced.constants)
    return _given(opened, body, f"up to {block}")


def _given(opened: Backbone, body: nn.Module, what: str, parts: tuple[int, ...] = ()) -> Backbone:
    named = f"{opened.architecture} {what}"
    return replace(opened, body=body, architecture=named, first_tokens=0, parts=parts, digest="", classifier=None)


def _side_by_side(opened: Backbone) -> Backbone:
    depths = at_depths(opened)
    if depths.why:
        raise HeadError(f"{opened.name} gives one depth only: {depths.why}", where=f"--head ...@{ALL}", advice="leave out the @")
    assert isinstance(depths.body, fx.GraphModule)
    graph = fx.Graph()
    values = cast("tuple[fx.Node, ...]", graph.graph_copy(depths.body.graph, {}))
    graph.output(graph.call_function(joined, (values,)))
    return _given(opened, PartOf(opened.body, graph, depths.constants), "at all depths", depths.sizes)


def _block_ends(network: nn.Module) -> tuple[dict[str, fx.Node], Traced]:
    """The node that gives what each block gives, by the block's name, in program order; blocks are run whole."""
    owner = {m: block.name for block in layers_of(network).blocks for m in block.modules}
    traced = trace(network, list(owner))
    ends = {owner[str(n.target)]: n for n in traced.graph.nodes if n.op == "call_module" and str(n.target) in owner}
    place = {n: i for i, n in enumerate(traced.graph.nodes)}
    return dict(sorted(ends.items(), key=lambda pair: place[pair[1]])), traced


def _poolable(shapes: dict[str, tuple[int, ...]], node: fx.Node) -> bool:
    return 1 <= len(shapes.get(str(node.target), ())) <= 3


def _pool_of(shape: tuple[int, ...]) -> _Pool:
    """How one image's values are pooled: a map ``(C, H, W)`` or ``(H, W, C)``, tokens ``(L, C)``, or a vector as it is."""
    if len(shape) == 3:
        last = shape[0] == shape[1] != shape[2]
        return "mean", ((1, 2) if last else (2, 3),)
    return ("mean", (1,)) if len(shape) == 2 else None


def _pooled(given: torch.Tensor, pool: _Pool) -> torch.Tensor:
    return given if pool is None else cast("torch.Tensor", getattr(given, pool[0])(*pool[1]))


def _checked(
    network: nn.Module, traced: Traced, taps: dict[str, tuple[fx.Node, _Pool]], example: torch.Tensor, pool: _Pool, end: torch.Tensor
) -> Depths | None:
    """The tapped network; None where it does not run, or gives another end."""
    try:
        given = as_tuple(graph_module(network, _tapped(traced, taps, pool), traced.constants)(example))
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError):
        return None
    exact = example.device.type == "cpu"
    same = torch.equal(given[-1], end) if exact else torch.allclose(given[-1], end, rtol=1e-3, atol=1e-5)
    if not same or any(t.ndim != 2 or len(t) != len(example) for t in given):
        return None
    names = list(taps)
    alike = bool(names) and given[-2].shape == end.shape and torch.allclose(given[-2], end, rtol=1e-4, atol=1e-6)
    if alike and not _weighs(network, traced, taps[names[-1]][0]):
        names = names[:-1]  # the last block, pooled, is what the backbone gives
    graph = _tapped(traced, {n: taps[n] for n in names}, pool)
    given = (*given[: len(names)], given[-1])
    body = graph_module(network, graph, traced.constants)
    return Depths((*names, END), body, Layout.of(given), str(graph), constants=traced.constants)


def _weighs(network: nn.Module, traced: Traced, last: fx.Node) -> bool:
    """Whether weights have a part in what becomes of a value: then it may be like the end with some weights, and is not with others."""
    nodes = list(traced.graph.nodes)
    after = nodes[nodes.index(last) + 1 :]
    called = [network.get_submodule(str(n.target)) for n in after if n.op == "call_module"]
    return any(n.op == "get_attr" for n in after) or any(m.state_dict() for m in called)


def _tapped(traced: Traced, taps: dict[str, tuple[fx.Node, _Pool]], end: _Pool) -> fx.Graph:
    """The forward pass with what each tap gives, pooled at once: later steps may work in place."""
    graph, copied = fx.Graph(), dict[fx.Node, Any]()
    pools, given = dict(taps.values()), dict[fx.Node, fx.Node]()
    for node in traced.graph.nodes:
        if node.op == "output":
            last = copied[cast("fx.Node", node.args[0])]
            graph.output((*(given[n] for n, _ in taps.values()), last if end is None else graph.call_method(end[0], (last, *end[1]))))
            break
        copied[node] = graph.node_copy(node, lambda n: copied[n])
        if node in pools:
            method, arguments = pools[node] or ("clone", ())
            given[node] = graph.call_method(method, (copied[node], *arguments))
    return graph
