"""Run a frozen prefix once over images: decode, forward, store."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from frostline._device import fetched, sent
from frostline.backbone.preprocess import Preprocess
from frostline.data.views import PLAIN, View
from frostline.errors import DecodeError
from frostline.features.engine import Engine
from frostline.features.images import ImageSet
from frostline.features.key import BATCH, FeatureKey, batch_on, feature_key
from frostline.features.pixels import full_batches, pixel_batches
from frostline.features.store import FeatureStore, shard_images
from frostline.freeze.crossing import Layout


@dataclass(frozen=True)
class FeatureProgress:
    """How many of the images that had to be computed are done.

    Attributes:
        done: of them.
        total: all of them.
        waiting: another process is computing for the same store, and is waited for.
    """

    done: int
    total: int
    waiting: bool = False


@dataclass(frozen=True)
class Extracted:
    """What :func:`ensure_features` did.

    Attributes:
        decoded: images decoded.
        forwarded: images run through the prefix; 0 when everything was cached.
        seconds: wall time.
        storage_error: relative L2 difference of what was stored from what was computed; 0 in float32.
    """

    decoded: int
    forwarded: int
    seconds: float
    storage_error: float = 0.0

    @property
    def hit(self) -> bool:
        """Whether nothing had to be computed."""
        return self.decoded == 0


@dataclass(frozen=True)
class Prefix:
    """The frozen part of a network with its preprocessing, ready to run.

    Attributes:
        engine: normalised images ``(N, 3, H, W)`` to what crosses the cut.
        preprocess: what comes before it.
        device: where it runs.
        layout: what crosses the cut.
        settings: what it computes, as plain JSON values: see :func:`frostline.features.key.prefix_settings`.
        storage: how its features are kept: ``fp32``, ``fp16`` or ``bf16``.
        at_once: images a forward pass where nothing is cached; None for the batch of its device.
    """

    engine: Engine
    preprocess: Preprocess
    device: torch.device
    layout: Layout
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    storage: str = "fp32"
    at_once: int | None = None

    @property
    def batch(self) -> int:
        """Images a forward pass."""
        return self.at_once or batch_on(self.device, self.preprocess.crop)

    def key(self, view: View = PLAIN) -> FeatureKey:
        """The identity of its features."""
        return feature_key(self.settings, engine=self.engine.identity, device=self.device, view=view, storage=self.storage)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(N, 3, H, W)`` uint8 to packed rows ``(N, size)`` float32 on the CPU, at the fixed batch shape.

        A last batch that is not full is filled up with black images, so that a feature does not depend on how many
        images it was computed with.
        """
        return torch.cat([self.begin(part)() for part in pixels.split(self.batch)])

    def begin(self, pixels: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Begin with no more than one batch: what is given waits for its rows, while a GPU goes on with what is begun after it."""
        rows = self.layout.pack(self.engine.run(self._normalised(filled_up(pixels, self.batch))))
        return fetched(rows[: len(pixels)].contiguous())

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.engine.has_own_threads:
            return self.preprocess.normalise_alone(pixels)
        return self.preprocess.normalise(sent(pixels, self.device))


def filled_up(part: torch.Tensor, size: int = BATCH) -> torch.Tensor:
    """``(n, ...)`` filled up with zeros to the fixed batch; another batch shape may round differently in the last bit."""
    return torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])]) if len(part) < size else part


def ensure_features(
    store: FeatureStore, key: FeatureKey, prefix: Prefix, images: ImageSet, view: View = PLAIN
) -> Generator[FeatureProgress, None, Extracted]:
    """Compute and store the features of all images that are not stored yet; each distinct image once.

    Args:
        store: where they go, and what is there already.
        key: what the store was opened with.
        prefix: the frozen network.
        images: files and the digests of their content.
        view: which view of each image; part of the key.

    Yields:
        How far it is, after every batch.

    Returns:
        What was computed; nothing is decoded or run for images that were stored.

    Raises:
        CacheError: the cache cannot be written, or an image changed meanwhile.
    """
    began = time.perf_counter()
    total = len(store.missing(images.digests))
    if not total:
        return Extracted(0, 0, time.perf_counter() - began, store.error)
    where = dict(zip(images.digests, images.paths, strict=True))
    forwarded = 0
    todo, ours, waited = list[str](), False, False
    while not ours:
        with store.locked(key) as ours:
            todo = store.missing(images.digests) if ours else []
            forwarded = yield from _compute(store, prefix, todo, [where[d] for d in todo], view)
        if not ours:
            waited = True
            yield FeatureProgress(0, total, waiting=True)
    if waited and not todo:
        yield FeatureProgress(total, total)
    return Extracted(len(todo), forwarded, time.perf_counter() - began, store.error)


@dataclass
class _Part:
    """Some images, one behind the other, on their way through a prefix.

    Attributes:
        good: digests of those that are pictures.
        bad: digests of those that are none, and why.
        rows: what the prefix gives for the good ones, a batch each; a batch waits until it is asked for.
    """

    good: list[str] = field(default_factory=list[str])
    bad: dict[str, str] = field(default_factory=dict[str, str])
    rows: list[Callable[[], torch.Tensor]] = field(default_factory=list[Callable[[], torch.Tensor]])

    def __len__(self) -> int:
        return len(self.good) + len(self.bad)


def _compute(
    store: FeatureStore, prefix: Prefix, todo: Sequence[str], paths: Sequence[Path], view: View
) -> Generator[FeatureProgress, None, int]:
    """Shard after shard into the store, and how many were run."""
    size = shard_images(prefix.layout.bytes, prefix.batch)
    shard, rows, stored, forwarded = _Part(), list[torch.Tensor](), 0, 0
    for part in _one_behind(_begun(prefix, todo, paths, view)):
        shard.good.extend(part.good)
        shard.bad.update(part.bad)
        rows.extend(wait() for wait in part.rows)
        if len(shard) == min(size, len(todo) - stored):
            store.add(shard.good, torch.cat(rows) if rows else torch.empty(0), shard.bad)
            stored, forwarded = stored + len(shard), forwarded + len(shard.good)
            shard, rows = _Part(), []
        yield FeatureProgress(stored + len(shard), len(todo))
    return forwarded


def _begun(prefix: Prefix, todo: Sequence[str], paths: Sequence[Path], view: View) -> Iterator[_Part]:
    """Batch after batch, decoded, and begun to be run."""
    names = iter(todo)
    sizes = full_batches(len(todo), prefix.batch)
    for batch in pixel_batches(paths, prefix.preprocess, sizes, todo, [view] * len(todo)):
        part, pictures = _Part(), list[torch.Tensor]()
        for result in batch:
            if isinstance(result, DecodeError):
                part.bad[next(names)] = result.fact
            else:
                part.good.append(next(names))
                pictures.append(result)
        if pictures:  # stacked by numpy: in one thread, as in normalise_alone
            part.rows.append(prefix.begin(torch.from_numpy(np.stack([p.numpy() for p in pictures]))))
        yield part


def _one_behind(parts: Iterable[_Part]) -> Iterator[_Part]:
    """Each part once the next one has begun, so that a GPU has something to do while its answer is waited for and stored.

    Where the next one cannot be had, the last is given before that is told: with it a shard may be whole.
    """
    begun, last, fault = iter(parts), None, None
    while True:
        part = None
        try:
            part = next(begun, None)
        except Exception as found:
            fault = found
        if last is not None:
            yield last
        last = part
        if last is None:
            break
    if fault is not None:
        raise fault
