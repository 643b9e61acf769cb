"""Features of every depth: a backbone tapped at the end of each block, all of it in one pass; or run up to one block only.

What a block gives is pooled to one vector for each image: the mean over the positions of a map or over the tokens. Networks whose
forward pass cannot be read as a graph are tapped at their end alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import fx, nn

from frostline.backbone.maps import UpTo, noise_pictures
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

_Pool = tuple[str, tuple[Any, ...]] | None


@dataclass(frozen=True, eq=False)
class Depths:
    """A backbone that gives pooled features of many depths.

    Attributes:
        names: of the blocks, in forward order; the last is :data:`END`.
        body: normalised images ``(N, 3, H, W)`` to a tuple of vectors ``(N, C)``, one a name. Its layers are the backbone's.
        layout: what it gives.
        code: it as text, for the identity of the features.
        why: the reason, in words, where only the end is tapped; empty otherwise.
    """

    names: tuple[str, ...]
    body: nn.Module
    layout: Layout
    code: str
    why: str = ""


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
        example = noise_pictures(opened).to(next(network.parameters()).device)
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

    Raises:
        HeadError: it has no such block, or its forward pass cannot be read.
    """
    if block == END:
        return opened
    network = opened.body
    with evaluating(network), torch.no_grad():
        try:
            nodes, traced = _block_ends(network)
        except CannotTraceError as fault:
            raise HeadError(
                f"{opened.name} cannot be cut: its forward pass cannot be read ({fault})", where=f"--head ...@{block}"
            ) from fault
        example = noise_pictures(opened).to(next(network.parameters()).device)
        shapes = output_shapes(network, [str(n.target) for n in nodes.values()], example[:1])
    known = {name: node for name, node in nodes.items() if _poolable(shapes, node)}
    if block not in known:
        raise HeadError(
            f"{opened.name} has no block {block!r} that gives one tensor",
            where=f"--head ...@{block}",
            advice=near_names(block, known) or "frostline inspect shows the blocks",
        )
    pool = _pool_of(shapes[str(known[block].target)])
    body = UpTo(network, traced, known[block], pool)
    return replace(opened, body=body, architecture=f"{opened.architecture} up to {block}", first_tokens=0, digest="", classifier=None)


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
    if names and given[-2].shape == end.shape and torch.allclose(given[-2], end, rtol=1e-4, atol=1e-6):
        names = names[:-1]  # the last block, pooled, is what the backbone gives
    graph = _tapped(traced, {n: taps[n] for n in names}, pool)
    given = (*given[: len(names)], given[-1])
    return Depths((*names, END), graph_module(network, graph, traced.constants), Layout.of(given), str(graph))


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
            pool = pools[node]
            given[node] = copied[node] if pool is None else graph.call_method(pool[0], (copied[node], *pool[1]))
    return graph
