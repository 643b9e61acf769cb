"""What a loader does: whether it gives the same again, and how large its last batch is."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, cast

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from frostline._digest import tensor_digest
from frostline.doctor.batches import size_of, tensors_in

_SAMPLES = 16
_BATCHES = 16


@dataclass(frozen=True)
class LoaderFacts:
    """How a loader behaves.

    Attributes:
        repeats: whether a sample is the same, byte for byte, every time it is asked for; None where that cannot be told.
        count: samples in an epoch, None where that cannot be told.
        batch_size: samples in a batch, None where that cannot be told.
        last: samples in the last batch of an epoch, None where that cannot be told.
    """

    repeats: bool | None
    count: int | None = None
    batch_size: int | None = None
    last: int | None = None


def loader_facts(loader: Iterable[object]) -> LoaderFacts:
    """Look at a loader. A few samples are drawn; workers are not started.

    Faults of the dataset are left to whoever draws batches: what raises here cannot be told.
    """
    try:
        repeats = _repeats(loader)
    except Exception:  # whatever a foreign dataset raises, it only means that this cannot be told
        repeats = None
    return LoaderFacts(repeats, *_sizes(loader))


def _sizes(loader: Iterable[object]) -> tuple[int | None, int | None, int | None]:
    if isinstance(loader, list | tuple):
        sizes = [size_of(batch) for batch in cast("Sequence[object]", loader)]
        return sum(sizes), max(sizes, default=0), sizes[-1] if sizes else None
    if not isinstance(loader, DataLoader):
        return None, None, None
    sampler = cast("object", loader.batch_sampler)
    if not isinstance(sampler, BatchSampler) or not isinstance(sampler.sampler, Sized):
        return None, None, None
    try:
        count, size = len(sampler.sampler), int(sampler.batch_size)
    except (TypeError, NotImplementedError):  # an endless sampler has no length
        return None, None, None
    if sampler.drop_last:
        return count, size, size if count >= size else None
    return count, size, count % size or size


def _repeats(loader: Iterable[object]) -> bool | None:
    if isinstance(loader, DataLoader):
        dataset = cast("Any", loader.dataset)
        length = len(dataset) if isinstance(loader.dataset, Sized) else 0
        if length and not isinstance(loader.dataset, IterableDataset):
            samples = range(min(_SAMPLES, length))
            draws = 2 if len(samples) >= 8 else 8  # a coin that flips few samples must be thrown more often
            collate = cast("Any", loader.collate_fn)
            seen = {_digest(collate([dataset[i] for i in samples])) for _ in range(draws)}
            return len(seen) == 1
    first, second = (Counter(_sample_digests(loader)) for _ in range(2))
    if not first or not second:
        return None
    if first == second:
        return True
    whole = isinstance(loader, Sized) and len(loader) <= _BATCHES
    return False if whole else None  # a shuffled loader may just have begun elsewhere


def _digest(batch: object) -> tuple[str, ...]:
    return tuple(tensor_digest(t) for t in tensors_in(batch))


def _sample_digests(loader: Iterable[object]) -> Iterator[str]:
    for batch in itertools.islice(loader, _BATCHES):
        inputs = next(tensors_in(batch), None)
        if inputs is not None and inputs.dim():
            yield from (tensor_digest(sample) for sample in inputs)
