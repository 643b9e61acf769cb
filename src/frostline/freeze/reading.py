"""Where a traced network stops being frozen, and what would cross a cut at each place."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate, map_arg

from frostline.backbone.trace import Traced, trace
from frostline.freeze.apply import evaluating, in_mode
from frostline.freeze.crossing import Crossing, is_channels_last

DRAWS = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.RReLU)  # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True, eq=False)
class Reading:
    """A network's forward pass, read in both modes.

    Attributes:
        module: the network, with its plan applied.
        evaluated: the forward pass in eval mode.
        trained: the forward pass in training mode, where it differs; the same object where it does not.
        first_trained: index of the first node that is trained, draws, or differs between the two; the first of both graphs up
            to there are the same.
    """

    module: nn.Module
    evaluated: Traced
    trained: Traced
    first_trained: int

    @property
    def nodes(self) -> list[fx.Node]:
        """The nodes in eval mode, in program order."""
        return list(self.evaluated.graph.nodes)


def read(module: nn.Module, leaves: Collection[str]) -> Reading:
    """Read ``module``, frozen by a plan, in both modes; its mode is put back.

    Raises:
        CannotTraceError: its forward pass depends on more than shapes.
    """
    with evaluating(module):
        evaluated = trace(module, leaves)
    with in_mode(module, training=True):
        trained = trace(module, leaves)
        awake = {id(m) for m in module.modules() if m.training}
    same, first = _common(evaluated, trained)
    index = _first_awake(module, list(evaluated.graph.nodes)[:first], awake)
    return Reading(module, evaluated, evaluated if same else trained, first if index is None else index)


def parameters_of(module: nn.Module, node: fx.Node) -> list[nn.Parameter]:
    """The parameters that a node itself uses."""
    if node.op == "call_module":
        return list(module.get_submodule(str(node.target)).parameters())
    if node.op == "get_attr" and not str(node.target).startswith("_tensor_constant"):
        owner, _, name = str(node.target).rpartition(".")
        value: object = getattr(module.get_submodule(owner), name)
        return [value] if isinstance(value, nn.Parameter) else []
    return []


def _first_awake(module: nn.Module, nodes: list[fx.Node], awake: Collection[int]) -> int | None:
    for index, node in enumerate(nodes):
        if any(p.requires_grad for p in parameters_of(module, node)):
            return index
        if node.op == "call_module":
            inside = list(module.get_submodule(str(node.target)).modules())
            if any((id(m) in awake and _draws(m)) or _mixes_images(m) for m in inside):
                return index
    return None


def _draws(module: nn.Module) -> bool:
    """Whether a layer behaves otherwise in training mode; dropout of nothing does not."""
    return isinstance(module, DRAWS) and getattr(module, "p", None) != 0


def _mixes_images(module: nn.Module) -> bool:
    """Whether a layer depends on the whole batch in eval mode too: batch norm that keeps no statistics."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None  # pyright: ignore[reportPrivateUsage]


def _common(one: Traced, other: Traced) -> tuple[bool, int]:
    """Whether two readings are the same, and the number of nodes at their beginning that are."""
    twin: dict[fx.Node, fx.Node] = {}
    for a, b in zip(one.graph.nodes, other.graph.nodes, strict=False):
        same = (a.op, a.target) == (b.op, b.target) and _arguments(a, twin) == _arguments(b, {})
        name = str(a.target)
        if not same or (name in one.constants and not torch.equal(one.constants[name], other.constants[name])):
            return False, len(twin)
        twin[a] = b
    return len(one.graph.nodes) == len(other.graph.nodes), len(twin)


def _arguments(node: fx.Node, twin: Mapping[fx.Node, fx.Node]) -> str:
    """The arguments in words, nodes by their name in the other graph."""
    return repr(map_arg((node.args, dict(node.kwargs)), lambda n: twin.get(n, n)))


@dataclass(frozen=True)
class Value:
    """What a node gives, as far as a cut needs to know.

    Attributes:
        kind: ``batch`` (a tensor whose first dimension is the batch), ``constant`` (the same whatever the batch),
            ``size`` (the number of images), or ``other``: something that no cut can cross.
        crossing: its shape, for ``batch``.
        fold: how many rows of the tensor belong to an image, for ``batch``: patches or windows may be folded into its first
            dimension; ``crossing`` has them unfolded.
        constant: its value, for ``constant``.
    """

    kind: str
    crossing: Crossing | None = None
    fold: int = 1
    constant: Any = None


def values(reading: Reading, example: torch.Tensor) -> list[Value]:
    """Run the reading in eval mode on two batches that differ in size and content, and tell what each node up to the first trained gives.

    Args:
        reading: the network, read.
        example: a batch of inputs ``(N, ...)``; the two batches are made of its rows.
    """
    body = reading.evaluated.run_by(reading.module)
    with evaluating(reading.module), torch.no_grad():  # what is made in inference mode could not become a constant of what is trained
        return _Twice(body, reading.first_trained).compare(*two_batches(example))


def two_batches(example: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two and three inputs out of an example, in its memory layout; those of numbers differ in content as well."""
    index = torch.arange(3, device=example.device) % len(example)
    more = example[index.flip(0)]
    if more.is_floating_point():
        more = more * -0.75 + 0.1
    few = example[index[:2]]
    if is_channels_last(example):
        few, more = (t.contiguous(memory_format=torch.channels_last) for t in (few, more))
    return few, more


@dataclass(frozen=True, eq=False)
class _Pair:
    """What a node gives for either batch."""

    both: tuple[Any, Any]


class _Twice(fx.Interpreter):
    """Runs the first nodes of a graph on two batches side by side, so that no more than both forward passes need is kept."""

    def __init__(self, module: fx.GraphModule, upto: int) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._upto, self._found = upto, list[Value]()

    def compare(self, few: torch.Tensor, more: torch.Tensor) -> list[Value]:
        self._given = few, more
        with contextlib.suppress(StopIteration):
            self.run(few)
        return self._found

    def run_node(self, n: fx.Node) -> _Pair:
        if len(self._found) == self._upto:
            raise StopIteration
        given, run = self.fetch_args_kwargs_from_env(n), getattr(self, n.op)
        a, b = self._given if n.op == "placeholder" else (run(n.target, *_of(which, given)) for which in (0, 1))
        few, more = map(len, self._given)
        self._found.append(Value("constant") if n.op == "get_attr" else _value(a, b, few, more))
        return _Pair((a, b))


def _of(which: int, given: Any) -> Any:
    return map_aggregate(given, lambda v: cast("Any", v.both[which] if isinstance(v, _Pair) else v))


def _value(a: Any, b: Any, few: int, more: int) -> Value:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.ndim and a.ndim == b.ndim and a.shape[0] * more == b.shape[0] * few != 0:
            return _batch(a, b, a.shape[0] // few)
        same = a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
        return Value("constant", constant=a.clone()) if same else Value("other")
    if type(a) is type(b) is int and (a, b) == (few, more):
        return Value("size")
    return (
        Value("constant", constant=tuple(a) if isinstance(a, tuple) else a) if _is_plain(a) and _is_plain(b) and a == b else Value("other")
    )


def _batch(a: torch.Tensor, b: torch.Tensor, fold: int) -> Value:
    last = is_channels_last(a)
    if a.dtype != torch.float32 or a.shape[1:] != b.shape[1:] or last != is_channels_last(b) or (fold > 1 and last):
        return Value("other")
    shape = tuple(a.shape[1:])
    return Value("batch", Crossing(shape if fold == 1 else (fold, *shape), last), fold)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(v) for v in cast("Iterable[Any]", value))
    return isinstance(value, int | float | str | torch.device | torch.dtype | None)
