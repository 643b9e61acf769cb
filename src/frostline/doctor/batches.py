"""Batches to examine a model with: the loader's own, or generated where there is none; and how a model takes one."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from frostline._rng import stream
from frostline.backbone.tap import first_tensor
from frostline.doctor.subject import ScriptError, told

MOST_SAMPLES = 16
"""More of a batch is left out: whether a layer is awake shows on a few samples as well."""

_INPUTS = ("pixel_values", "image", "images", "input", "inputs", "x", "img", "data", "features")
_TARGETS = ("labels", "label", "targets", "target", "y")


def drawn(loader: Iterable[object], count: int, name: str) -> tuple[object, ...]:
    """The first batches of a loader, fewer where it has fewer.

    Raises:
        ScriptError: the loader raises or gives nothing.
    """
    try:
        batches = tuple(itertools.islice(loader, count))
    except Exception as fault:
        raise ScriptError(
            f"drawing a batch from its loader raises {told(fault)}", where=name, advice="make one pass over it first"
        ) from fault
    if not batches:
        raise ScriptError("its loader gives no batch", where=name, advice="check the dataset's length and drop_last")
    if first_tensor(batches[0]) is None:
        raise ScriptError(
            f"its loader gives a {type(batches[0]).__name__} without a tensor in it",
            where=name,
            advice="give tensors, (inputs, targets) or a mapping of names to tensors",
        )
    return batches


def size_of(batch: object) -> int:
    """Number of samples: the length of its first tensor."""
    tensor = first_tensor(batch)
    return 0 if tensor is None or tensor.dim() == 0 else len(tensor)


def prepared(batch: object, device: torch.device) -> object:
    """At most :data:`MOST_SAMPLES` samples and at least two, on the model's device.

    A batch of one is doubled, since batch norm refuses it: that it is one is another check's affair.
    """
    size = size_of(batch)

    def fit(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() and len(tensor) == size:
            tensor = torch.cat([tensor, tensor]) if size == 1 else tensor[:MOST_SAMPLES]
        return tensor.to(device)

    return mapped(batch, fit)


def mapped(value: object, change: Callable[[torch.Tensor], torch.Tensor]) -> object:
    """``value`` with every tensor in it replaced; lists, tuples and mappings are rebuilt, anything else stays."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {k: mapped(v, change) for k, v in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        parts = [mapped(v, change) for v in cast("Sequence[object]", value)]
        return tuple(parts) if isinstance(value, tuple) else parts
    return value


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """Every tensor in nested lists, tuples and mappings."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in cast("Mapping[object, object]", value).values():
            yield from tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in cast("Sequence[object]", value):
            yield from tensors_in(part)


def run_model(model: nn.Module, batch: object) -> object:
    """Give the model its part of a batch: the tensor, the first of a tuple, or of a mapping what ``forward`` names."""
    if isinstance(batch, Mapping):
        named = cast("Mapping[str, object]", batch)
        wanted = inspect.signature(model.forward).parameters
        taken = {k: v for k, v in named.items() if k in wanted}
        if taken:
            return model(**taken)
        return model(next((named[k] for k in _INPUTS if k in named), first_tensor(named)))
    if isinstance(batch, list | tuple):
        return run_model(model, cast("Sequence[object]", batch)[0])
    return model(batch)


def loss_of(output: object, batch: object) -> torch.Tensor | None:
    """A loss that reaches all that the output depends on; None where the output depends on nothing that is trained.

    The script's own loss is not known: cross entropy where the targets are classes, squared error where they are of the
    output's shape, and a fixed random projection of the output otherwise.
    """
    named = (
        cast("Mapping[str, object]", output)
        if isinstance(output, Mapping)
        else cast("Mapping[str, object]", getattr(output, "__dict__", {}))
    )
    own = named.get("loss")
    if isinstance(own, torch.Tensor) and own.requires_grad:
        return own.mean()
    logits = named.get("logits")
    values = logits if isinstance(logits, torch.Tensor) else first_tensor(output)
    if values is None or not values.requires_grad:
        return None
    targets = _targets(batch)
    if targets is not None and _are_classes(targets, values):
        return functional.cross_entropy(values.float(), targets.long())
    if targets is not None and targets.shape == values.shape and targets.is_floating_point():
        return functional.mse_loss(values.float(), targets.float())
    weights = torch.randn(values.shape, generator=stream(0, "doctor's loss")).to(values.device)
    return (values.float() * weights).mean()


def _are_classes(targets: torch.Tensor, logits: torch.Tensor) -> bool:
    if targets.is_floating_point() or targets.dim() != 1 or logits.dim() != 2 or len(targets) != len(logits) or logits.shape[1] < 2:
        return False
    return int(targets.min()) >= 0 and int(targets.max()) < logits.shape[1]


def _targets(batch: object) -> torch.Tensor | None:
    if isinstance(batch, Mapping):
        named = cast("Mapping[str, object]", batch)
        found = next((named[k] for k in _TARGETS if k in named), None)
    elif isinstance(batch, list | tuple) and len(cast("Sequence[object]", batch)) > 1:
        found = cast("Sequence[object]", batch)[1]
    else:
        found = None
    return found if isinstance(found, torch.Tensor) else None


def generated(model: nn.Module, sizes: Sequence[tuple[int, ...]], works: Callable[[object], bool], name: str) -> tuple[object, ...]:
    """Three batches of noise in the first shape that the model takes.

    Args:
        model: the network.
        sizes: shapes of one input to try first.
        works: whether the model runs on a batch.
        name: of the script, for the error.

    Raises:
        ScriptError: no shape fits.
    """
    for shape in (*sizes, *_shapes(model)):
        batches = tuple(torch.randn(8, *shape, generator=stream(0, "doctor's batch", i)) for i in range(3))
        if works(batches[0]):
            return batches
    raise ScriptError(
        "returns no loader, and the model takes no input that can be guessed",
        where=name,
        advice="return (model, optimizer, loader)",
    )


def _shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            yield from ((module.in_channels, side, side) for side in (64, 224, 32))
            return
        if isinstance(module, nn.Conv1d):
            yield (module.in_channels, 256)
            return
        if isinstance(module, nn.Linear | nn.BatchNorm1d | nn.LayerNorm):
            yield (cast("Any", module).in_features if isinstance(module, nn.Linear) else _width(module),)
            return


def _width(module: nn.Module) -> int:
    own = next((p for p in module.parameters(recurse=False)), None)
    return 1 if own is None else int(own.shape[-1])
