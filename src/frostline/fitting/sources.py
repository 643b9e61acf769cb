"""Where training takes its batches from: cached features in memory, or images that go through the frozen prefix anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from frostline._device import sent
from frostline._rng import stream
from frostline.data.views import PLAIN, View
from frostline.errors import DecodeError
from frostline.features.extract import Prefix
from frostline.features.images import ImageSet
from frostline.features.pixels import pixel_batches
from frostline.features.store import StoredRows
from frostline.fitting.objective import Inputs
from frostline.freeze.crossing import Layout


class Source(Protocol):
    """What a suffix is trained or judged on."""

    @property
    def labels(self) -> torch.Tensor:
        """Class indices: ``(N,)`` int64, on the device of training."""
        ...

    def batches(self, parts: Sequence[torch.Tensor], epoch: int | None = None) -> Iterator[Inputs]:
        """The suffix's inputs for each part (a vector of indices) in turn; ``epoch`` chooses among views, None the first."""
        ...


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Features, packed: for each view one matrix ``(N, size)``, in memory or left on disk, where the next batch is read ahead.

    Attributes:
        views: the matrices; in epoch ``e`` image ``i`` is seen in view ``(e + i') mod K``, where ``i'`` is a seeded place.
        labels: ``(N,)`` int64, on the device of training.
        layout: what a row holds.
        seed: of the places.
        units: for each image the number of what it belongs to (its copies, its group); empty: each is on its own.
    """

    views: tuple[torch.Tensor | StoredRows, ...]
    labels: torch.Tensor
    layout: Layout
    seed: int = 0
    units: tuple[int, ...] = ()

    @property
    def first(self) -> torch.Tensor:
        """The first tensor that crosses, of every image in its first view: ``(N, ...)``, in memory."""
        rows = self.views[0]
        return self.layout.unpack(rows if isinstance(rows, torch.Tensor) else rows[torch.arange(len(rows))])[0]

    def batches(self, parts: Sequence[torch.Tensor], epoch: int | None = None) -> Iterator[Inputs]:
        """Rows, by index."""
        shift = None if epoch is None or len(self.views) == 1 else view_numbers(len(self.labels), self.seed, epoch, len(self.views))

        def rows_of(part: torch.Tensor) -> torch.Tensor:
            return self.views[0][part] if shift is None else self._chosen(part, shift[part])

        for rows in map(rows_of, parts) if isinstance(self.views[0], torch.Tensor) else one_ahead(rows_of, parts):
            tensors = self.layout.unpack(rows.to(self.labels.device, non_blocking=True))
            yield tensors[0] if len(tensors) == 1 else tensors

    def _chosen(self, part: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        rows = self.views[0][part]
        for index, view in enumerate(self.views[1:], start=1):
            rows[which == index] = view[part[which == index]]
        return rows


@dataclass(frozen=True, eq=False)
class ImageRows:
    """Images, decoded each time they are asked for, one batch ahead of the network.

    Attributes:
        images: the files.
        prefix: what they go through.
        view: what the view of each epoch is made from; plain shows every image as it is.
        count: number of different views, that epochs go round as in :class:`FeatureRows`; 0 makes a new one every epoch.
        whole: there is no prefix: the images themselves are given, normalised ``(n, 3, H, W)``.
        first: number of the view of epoch 0, where every epoch has a new one.
    """

    images: ImageSet
    prefix: Prefix
    view: View = PLAIN
    count: int = 0
    whole: bool = False
    first: int = 0

    @property
    def labels(self) -> torch.Tensor:
        """Class indices: ``(N,)`` int64."""
        return torch.tensor(self.images.labels, device=self.prefix.device)

    def batches(self, parts: Sequence[torch.Tensor], epoch: int | None = None) -> Iterator[Inputs]:
        """What the prefix makes of the images."""
        order = torch.cat(list(parts)).tolist() if parts else []
        numbers = self._numbers(epoch)
        decoded = pixel_batches(
            [self.images.paths[i] for i in order],
            self.prefix.preprocess,
            [len(p) for p in parts],
            [self.images.digests[i] for i in order],
            [PLAIN if numbers is None else replace(self.view, index=int(numbers[i])) for i in order],
        )
        for batch in decoded:
            pixels = torch.stack([_must(picture) for picture in batch])
            if self.whole:
                images = self.prefix.preprocess.normalise(sent(pixels, self.prefix.device))
                yield images.contiguous(memory_format=torch.channels_last)
                continue
            tensors = self.prefix.layout.unpack(self.prefix(pixels).to(self.prefix.device))
            yield tensors[0] if len(tensors) == 1 else tensors

    def _numbers(self, epoch: int | None) -> torch.Tensor | None:
        """The number of the view of each image; None for plain ones."""
        if self.view.plain or (epoch is None and not self.count):
            return None
        if epoch is None or self.count == 1:
            return torch.zeros(len(self.images), dtype=torch.int64)
        if self.count:
            return view_numbers(len(self.images), self.view.seed, epoch, self.count)
        return torch.full((len(self.images),), self.first + epoch)


def one_ahead(make: Callable[[torch.Tensor], torch.Tensor], parts: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """``make(part)`` for each part in turn, the next one begun in a thread while the last one is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(make, part) for part in parts[:1]]
        for part in parts[1:]:
            ready, waiting = waiting[0], [pool.submit(make, part)]
            yield ready.result()
        for last in waiting:
            yield last.result()


def view_numbers(count: int, seed: int, epoch: int, views: int) -> torch.Tensor:
    """Which of ``views`` views each of ``count`` images is seen in: ``(count,)`` int64; they go round, each from its own place."""
    return (torch.randperm(count, generator=stream(seed, "views")) + epoch) % views


def in_order(count: int, size: int) -> list[torch.Tensor]:
    """``count`` indices in order, ``size`` at a time."""
    return list(torch.arange(count).split(size)) if count else []


def merge_last(parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Put a last batch of one image to the batch before it: batch norm in training mode cannot take one image."""
    if len(parts) > 1 and len(parts[-1]) == 1:
        return [*parts[:-2], torch.cat(parts[-2:])]
    return parts


def _must(picture: torch.Tensor | DecodeError) -> torch.Tensor:
    if isinstance(picture, DecodeError):
        raise picture
    return picture
