"""Features of any dataset, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import TensorDataset

from frostline.errors import DataError
from frostline.features.key import BATCH
from frostline.freeze.apply import evaluating


class MapDataset(Protocol):
    """What torch calls a map-style dataset."""

    def __len__(self) -> int:
        """The number of items."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """One item: ``(input, label, ...)``."""
        ...


def cache_features(prefix: nn.Module, dataset: MapDataset, *, batch_size: int = BATCH) -> TensorDataset:
    """Run a frozen prefix once over a dataset and keep what it gives, in memory.

    Args:
        prefix: from :func:`frostline.split`, on any device.
        dataset: items ``(input, label)``, inputs tensors of one shape; it must give the same item for an index every time.
        batch_size: inputs a forward pass; batches are filled up to it, so that a feature does not depend on its company.

    Returns:
        Items ``(feature, label)``; several features where several tensors cross the cut: ``(feature, feature, label)``. All on
        the CPU, ready for a ``DataLoader``.

    Raises:
        DataError: the dataset is empty, or an item is no pair of a tensor and a label.

    >>> data = TensorDataset(torch.ones(5, 4), torch.tensor([0, 1, 0, 1, 0]))
    >>> cache_features(nn.Linear(4, 2), data)[4][0].shape
    torch.Size([2])
    """
    if not len(dataset):
        raise DataError("the dataset is empty", where="cache_features")
    place = next((t.device for t in (*prefix.parameters(), *prefix.buffers())), torch.device("cpu"))
    rows: list[tuple[torch.Tensor, ...]] = []
    labels: list[torch.Tensor] = []
    for start in range(0, len(dataset), batch_size):
        items = [_pair(dataset[i], i) for i in range(start, min(start + batch_size, len(dataset)))]
        inputs = torch.stack([x for x, _ in items])
        full = torch.cat([inputs, inputs.new_zeros(batch_size - len(inputs), *inputs.shape[1:])])
        with evaluating(prefix), torch.no_grad():
            out = prefix(full.to(place))
        crossing = out if isinstance(out, tuple) else (out,)
        rows.append(tuple(t[: len(items)].cpu().clone() for t in crossing))
        labels.extend(torch.as_tensor(y) for _, y in items)
    columns = [torch.cat(column).clone() for column in zip(*rows, strict=True)]
    return TensorDataset(*columns, torch.stack(labels))


def _pair(item: Sequence[Any], index: int) -> tuple[torch.Tensor, Any]:
    try:
        first, label = item
    except (TypeError, ValueError) as fault:
        raise DataError(f"item {index} of the dataset is no pair (input, label)", where="cache_features") from fault
    if not isinstance(first, torch.Tensor):
        raise DataError(
            f"the input of item {index} is a {type(first).__name__}, not a tensor", where="cache_features", advice="add ToTensor"
        )
    return first, label
