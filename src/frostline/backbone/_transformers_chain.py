"""A network of transformers written as what it is: an embedding, a list of blocks, a norm, and how features are made of the result.

Its own forward pass cannot be read as a graph; this one can be cut between two blocks. It is used where it gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import nn

_EMBEDDINGS = ("embeddings", "embedder")
_BLOCKS = ("layers", "layer", "stages", "blocks")
_NORMS = ("layernorm", "norm", "post_layernorm")


def _first_token(x: torch.Tensor) -> torch.Tensor:
    return x[:, 0]


def _first_and_mean(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[:, 0], x[:, 1:].mean(1)], 1)


def _mean_of_tokens(x: torch.Tensor) -> torch.Tensor:
    return x.mean(1)


def _mean_of_map(x: torch.Tensor) -> torch.Tensor:
    return x.mean((-2, -1))


def _as_it_is(x: torch.Tensor) -> torch.Tensor:
    return x


_POOLS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (_first_token, _first_and_mean, _mean_of_tokens, _mean_of_map)


class Whole(nn.Module):
    """A classification model without its classifier, as the library runs it.

    Args:
        network: gives what enters its classifier as ``logits``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images ``(N, 3, H, W)`` to features ``(N, C)``."""
        return cast("Any", self.network)(images).logits


class Chain(nn.Module):
    """The same network as embedding, blocks, norm and pooling in a row; it shares the layers.

    Args:
        embeddings: images to tokens ``(N, L, C)`` or a map.
        layers: the blocks, in order.
        norm: what follows them, or None.
        pools: what is done before the norm, and behind it.
    """

    def __init__(self, embeddings: nn.Module, layers: nn.ModuleList, norm: nn.Module | None, pools: tuple[Any, Any]) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.layers = layers
        self.layernorm = norm
        self._before, self._after = pools
        if self._after in (_first_token, _first_and_mean):
            self.num_prefix_tokens = 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images ``(N, 3, H, W)`` to features ``(N, C)``."""
        x = self.embeddings(images)
        for layer in self.layers:
            x = layer(x)
        return self.forward_head(x)

    def forward_head(self, x: torch.Tensor) -> torch.Tensor:
        """What the last block gives to features; timm's name for it."""
        x = self._before(x)
        return self._after(x if self.layernorm is None else self.layernorm(x))


def chained(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """The network as a :class:`Chain` where that gives the same features, as a :class:`Whole` where not.

    Args:
        network: a classification model of transformers without its classifier, in eval mode.
        example: images ``(N, 3, H, W)``, no two alike.
    """
    whole = Whole(network)
    with torch.no_grad():
        wanted = whole(example)
        for chain in _candidates(cast("nn.Module", cast("Any", network).base_model)):
            try:
                found = chain(example)
            except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
                continue
            if found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-5, atol=1e-6):
                return chain
    return whole


def _candidates(base: nn.Module) -> Iterator[Chain]:
    children = dict(base.named_children())
    embeddings = next((children[n] for n in _EMBEDDINGS if n in children), None)
    holder = dict(children["encoder"].named_children()) if "encoder" in children else children
    layers = next((holder[n] for n in _BLOCKS if isinstance(holder.get(n), nn.ModuleList)), None)
    if embeddings is None or layers is None:
        return
    used = set[int]({id(embeddings), id(layers), id(children.get("encoder"))})
    rest = [n for n, c in children.items() if id(c) not in used and any(True for _ in c.parameters())]
    if any(n not in _NORMS for n in rest) or len(rest) > 1:
        return
    norm = children[rest[0]] if rest else None
    for pool in _POOLS:
        yield Chain(embeddings, cast("nn.ModuleList", layers), norm, (_as_it_is, pool))
        yield Chain(embeddings, cast("nn.ModuleList", layers), norm, (pool, _as_it_is))
