"""Run a frozen prefix once over images: decode, forward, store."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from frostline._device import sent
from frostline.backbone.preprocess import Preprocess
from frostline.data.views import PLAIN, View
from frostline.errors import DecodeError
from frostline.features.engine import Engine
from frostline.features.images import ImageSet
from frostline.features.key import BATCH, FeatureKey, feature_key
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
        batch: images a forward pass; another one only where nothing is cached.
    """

    engine: Engine
    preprocess: Preprocess
    device: torch.device
    layout: Layout
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    storage: str = "fp32"
    batch: int = BATCH

    def key(self, view: View = PLAIN) -> FeatureKey:
        """The identity of its features."""
        return feature_key(self.settings, engine=self.engine.identity, device=self.device, view=view, storage=self.storage)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(N, 3, H, W)`` uint8 to packed rows ``(N, size)`` float32 on the CPU, at the fixed batch shape.

        A last batch that is not full is filled up with black images, so that a feature does not depend on how many
        images it was computed with.
        """
        found: list[torch.Tensor] = []
        for part in pixels.split(self.batch):
            rows = self.layout.pack(self.engine.run(self._normalised(filled_up(part, self.batch))))
            found.append(rows[: len(part)].cpu().contiguous())
        return torch.cat(found)

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
    decoded = forwarded = 0
    size = shard_images(4 * prefix.layout.size)
    todo, ours, waited = list[str](), False, False
    while not ours:
        with store.locked(key) as ours:
            todo = store.missing(images.digests) if ours else []
            for start in range(0, len(todo), size):
                shard = todo[start : start + size]
                rows, good, bad = yield from _compute(prefix, shard, where, (start, len(todo)), view)
                store.add(good, rows, bad)
                decoded += len(shard)
                forwarded += len(good)
        if not ours:
            waited = True
            yield FeatureProgress(0, total, waiting=True)
    if waited and not todo:
        yield FeatureProgress(total, total)
    return Extracted(decoded, forwarded, time.perf_counter() - began, store.error)


def _compute(
    prefix: Prefix, shard: Sequence[str], where: dict[str, Path], progress: tuple[int, int], view: View
) -> Generator[FeatureProgress, None, tuple[torch.Tensor, list[str], dict[str, str]]]:
    rows: list[torch.Tensor] = []
    good: list[str] = []
    bad: dict[str, str] = {}
    for batch in pixel_batches([where[d] for d in shard], prefix.preprocess, full_batches(len(shard)), shard, [view] * len(shard)):
        names = shard[len(good) + len(bad) :][: len(batch)]
        pictures: list[torch.Tensor] = []
        for name, result in zip(names, batch, strict=True):
            if isinstance(result, DecodeError):
                bad[name] = result.fact
            else:
                good.append(name)
                pictures.append(result)
        if pictures:
            rows.append(prefix(torch.from_numpy(np.stack([p.numpy() for p in pictures]))))  # in one thread, as in normalise_alone
        yield FeatureProgress(progress[0] + len(good) + len(bad), progress[1])
    return torch.cat(rows) if rows else torch.empty(0), good, bad
