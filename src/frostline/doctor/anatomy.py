"""Which layers are frozen, which draw random numbers, and which look as if nobody had trained them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]

from frostline.freeze.layers import is_norm

_STOCHASTIC = {"DropPath", "StochasticDepth", "DropBlock2d", "DropBlock3d", "PatchDropout"}


def frozen_modules(model: nn.Module, frozen: Collection[int]) -> frozenset[str]:
    """Names of the modules all of whose parameters are frozen; one without parameters is as its parent is.

    Args:
        model: the network.
        frozen: ``id`` of every frozen parameter.
    """
    found: set[str] = set()
    for name, module in model.named_modules():
        own = list(module.parameters())
        if all(id(p) in frozen for p in own) if own else bool(name) and name.rpartition(".")[0] in found:
            found.add(name)
    return frozenset(found)


def drop_rate(module: nn.Module) -> float:
    """The probability with which a module drops something in training mode; 0 where it never does."""
    if isinstance(module, _DropoutNd):
        return float(module.p)
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return float(module.dropout)
    if type(module).__name__ in _STOCHASTIC:
        own = vars(module)
        return float(next((own[k] for k in ("drop_prob", "p", "prob") if isinstance(own.get(k), float | int)), 0.0))
    return 0.0


@dataclass(frozen=True)
class Freshness:
    """How much of some layers is as a constructor leaves it.

    Attributes:
        norms: number of norm layers looked at.
        untouched: names of those whose tensors are all at their initial values.
        weights: number of convolutions and linear layers looked at, where there is no norm layer.
        initial: names of those whose weights follow a usual random initialisation exactly.
    """

    norms: int
    untouched: tuple[str, ...]
    weights: int = 0
    initial: tuple[str, ...] = ()

    @property
    def random(self) -> bool:
        """Whether these layers were never trained: half of the norm layers, or without any nearly all weights, are untouched."""
        if self.norms:
            return 2 * len(self.untouched) >= self.norms
        return self.weights > 0 and len(self.initial) >= 0.9 * self.weights


def freshness(model: nn.Module, modules: Collection[str]) -> Freshness:
    """Look at the norm layers among ``modules`` or, where there are none, at the weights."""
    named = [(name, module) for name, module in model.named_modules() if name in modules]
    norms = [(name, untouched) for name, module in named if is_norm(module) for untouched in _untouched(module)]
    if norms:
        return Freshness(len(norms), tuple(name for name, untouched in norms if untouched))
    weights = [(name, initial) for name, module in named for initial in _initial(module)]
    return Freshness(0, (), len(weights), tuple(name for name, initial in weights if initial))


def _untouched(module: nn.Module) -> Iterator[bool]:
    """Whether a norm layer is as it was made; nothing for one that holds no tensors.

    Running statistics of exactly 0 and 1 are proof alone; scale is also started at 0 (zero-initialised residuals).
    """
    own = {n: t.detach() for n, t in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))}
    mean, var = own.get("running_mean"), own.get("running_var")
    if mean is not None and var is not None:
        yield bool((mean == 0).all()) and bool((var == 1).all())
        return
    weight, bias = own.get("weight"), own.get("bias")
    if weight is None and bias is None:
        return
    scaled = weight is not None and not (bool((weight == 1).all()) or bool((weight == 0).all()))
    yield not scaled and (bias is None or bool((bias == 0).all()))


def _initial(module: nn.Module) -> Iterator[bool]:
    """Whether weights are freshly drawn; nothing for layers too small, or without a bias to tell a normal draw from a trained one.

    Uniform draws have a bound that the first training step breaks. Normal ones have none, but come with a bias of exactly 0.
    """
    if not isinstance(module, _ConvNd | nn.Linear) or module.weight.numel() < 256:
        return
    weight = module.weight.detach().double()
    fan_in, fan_out = _fans(weight)
    bias = None if module.bias is None else module.bias.detach().double()
    largest, deviation, count = float(weight.abs().max()), float(weight.std()), weight.numel()
    flat = abs(deviation * math.sqrt(3) / largest - 1) < 0.1 if largest else False
    bounds = (1 / math.sqrt(fan_in), math.sqrt(6 / (fan_in + fan_out)), math.sqrt(6 / fan_in))
    if flat:
        bound = any(0.98 * b <= largest <= b * (1 + 1e-6) for b in bounds)
        yield bound and (bias is None or float(bias.abs().max()) <= 1 / math.sqrt(fan_in) * (1 + 1e-6))
        return
    deviations = (math.sqrt(2 / fan_out), math.sqrt(2 / fan_in), math.sqrt(2 / (fan_in + fan_out)), 0.02, 0.01)
    if bias is not None:
        near = 0.01 + 4 / math.sqrt(2 * count)
        yield bool((bias == 0).all()) and any(abs(deviation / d - 1) < near for d in deviations)


def _fans(weight: torch.Tensor) -> tuple[int, int]:
    inner = int(weight[0][0].numel()) if weight.dim() > 2 else 1
    return int(weight.shape[1]) * inner, int(weight.shape[0]) * inner
