"""Cut a network that is a chain of blocks, where its forward pass cannot be read as a graph.

The prefix runs the network as it is and stops before the first trained block; the suffix runs that block, those behind it and
what follows the list of blocks. Whether the network really is such a chain is for the caller to verify, by numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import nn

from frostline.backbone.tap import given_to, input_of
from frostline.errors import BackboneError
from frostline.freeze.apply import evaluating
from frostline.freeze.crossing import Layout
from frostline.freeze.plan import HasBackboneAndHead, ResolvedPlan

Parts = tuple[nn.Module, nn.Module, str, Layout, str]


class Before(nn.Module):
    """Runs a network up to one of its layers and gives what enters that.

    Args:
        network: the network.
        layer: name of the layer that is not run any more.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        self.network = network
        self.layer = layer

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """``(N, ...)`` inputs to what enters the layer."""
        return input_of(self.network, self.layer, inputs)


class Behind(nn.Module):
    """Runs layers and methods one after the other.

    Args:
        layers: the layers, in order; they are registered, so that modes reach them.
        last: called on their result.
        head: called last, or None.
    """

    def __init__(self, layers: list[nn.Module], last: Callable[[Any], Any] | None, head: nn.Module | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.head = head
        self._last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What enters the first layer to what the network gives."""
        for layer in self.layers:
            x = layer(x)
        x = x if self._last is None else self._last(x)
        return x if self.head is None else self.head(x)


def chain_split(module: nn.Module, resolved: ResolvedPlan, example: torch.Tensor) -> Parts | None:
    """Prefix, suffix, the name of the last frozen block, what crosses and the prefix as text; None where no list of blocks is cut."""
    in_two = isinstance(module, HasBackboneAndHead)
    body = module.backbone if in_two else module
    prefix_name = "backbone." if in_two else ""
    trained = [n.removeprefix(prefix_name) for n in resolved.trainable if n.startswith(prefix_name)]
    for name, blocks in _lists(body):
        first = next((i for i, (n, _) in enumerate(blocks) if any(t.startswith(f"{n}.") for t in trained)), None)
        before = [n for n, _ in body.named_parameters() if n in set(trained) and not n.startswith(f"{name}.")]
        if not first or any(_precedes(body, n, name) for n in before):
            continue
        rest = [child for child_name, child in body.named_children() if _follows(body, child_name, name)]
        norm = [child for n, child in body.named_children() if n in ("norm", "fc_norm") and _follows(body, n, name)][:1]
        last = cast("Callable[[Any], Any] | None", getattr(body, "forward_head", None))  # timm's name for what follows its blocks
        tails = [(rest, None)] if last is None else [(norm, last), ([], last), (rest, None)]
        for tail, method in tails:
            suffix = Behind([child for _, child in blocks[first:]] + tail, method, module.head if in_two else None)
            prefix = Before(body, blocks[first][0])
            if _same(module, prefix, suffix, example):
                with evaluating(prefix), torch.no_grad():
                    layout = Layout.of([prefix(example)])
                return prefix, suffix, blocks[first - 1][0], layout, f"up to {blocks[first][0]} of {body}"
    return None


def _lists(body: nn.Module) -> Iterator[tuple[str, list[tuple[str, nn.Module]]]]:
    """Lists of at least two layers, by name."""
    for name, child in body.named_modules():
        if name and isinstance(child, nn.Sequential | nn.ModuleList) and len(child) > 1:
            yield name, [(f"{name}.{n}", block) for n, block in child.named_children()]


def _precedes(body: nn.Module, parameter: str, name: str) -> bool:
    order = [n for n, _ in body.named_parameters()]
    first = next((i for i, n in enumerate(order) if n.startswith(f"{name}.")), len(order))
    return order.index(parameter) < first


def _follows(body: nn.Module, child: str, name: str) -> bool:
    order = [n for n, _ in body.named_children()]
    return order.index(child) > order.index(name.partition(".")[0])


def _same(module: nn.Module, prefix: nn.Module, suffix: nn.Module, example: torch.Tensor) -> bool:
    head = module.head if isinstance(module, HasBackboneAndHead) else None
    try:
        with evaluating(module), evaluating(suffix), torch.no_grad():
            found, wanted = given_to(suffix, head, prefix(example)), given_to(module, head, example)
            return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(found, wanted, strict=True))
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, BackboneError):
        return False
