"""Run a frozen prefix once over images: decode, forward, store."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from frostline._digest import bytes_digest
from frostline.backbone.preprocess import Preprocess
from frostline.data.decode import decode, read_image_bytes
from frostline.data.views import PLAIN, View
from frostline.errors import CacheError, DecodeError
from frostline.features.images import ImageSet
from frostline.features.key import BATCH, FeatureKey
from frostline.features.store import SHARD_IMAGES, FeatureStore
from frostline.freeze.apply import evaluating
from frostline.freeze.crossing import Layout

_DECODE_THREADS = 2


@dataclass(frozen=True)
class FeatureProgress:
    """How many of the images that had to be computed are done."""

    done: int
    total: int


@dataclass(frozen=True)
class Extracted:
    """What :func:`ensure_features` did.

    Attributes:
        decoded: images decoded.
        forwarded: images run through the prefix; 0 when everything was cached.
        seconds: wall time.
    """

    decoded: int
    forwarded: int
    seconds: float

    @property
    def hit(self) -> bool:
        """Whether nothing had to be computed."""
        return self.decoded == 0


@dataclass(frozen=True)
class Prefix:
    """The frozen part of a network with its preprocessing, ready to run.

    Attributes:
        body: normalised images ``(N, 3, H, W)`` to what crosses the cut.
        preprocess: what comes before it.
        device: where it runs.
        layout: what crosses the cut.
        precision: ``fp32`` or ``bf16``.
    """

    body: nn.Module
    preprocess: Preprocess
    device: torch.device
    layout: Layout
    precision: str = "fp32"

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(N, 3, H, W)`` uint8 to packed rows ``(N, size)`` float32 on the CPU, at the fixed batch shape.

        A last batch that is not full is filled up with black images, so that a feature does not depend on how many
        images it was computed with.
        """
        found: list[torch.Tensor] = []
        with evaluating(self.body), torch.no_grad():
            for part in pixels.split(BATCH):
                x = self.preprocess.normalise(filled_up(part).to(self.device)).contiguous(memory_format=torch.channels_last)
                with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
                    out: torch.Tensor | tuple[torch.Tensor, ...] = self.body(x)
                rows = self.layout.pack(out if isinstance(out, tuple) else (out,))
                found.append(rows[: len(part)].cpu().contiguous())
        return torch.cat(found)


def filled_up(part: torch.Tensor) -> torch.Tensor:
    """``(n, ...)`` filled up with zeros to the fixed batch; another batch shape may round differently in the last bit."""
    return torch.cat([part, part.new_zeros(BATCH - len(part), *part.shape[1:])]) if len(part) < BATCH else part


def load_image(path: Path, digest: str | None = None) -> Image.Image:
    """Read and decode one image: RGB. The one way pictures enter frostline.

    Args:
        path: the file.
        digest: the SHA-256 that its content had when it was listed.

    Raises:
        DecodeError: it is no image, or cannot be read.
        CacheError: the file changed since it was listed.
    """
    data = read_image_bytes(path)
    if digest is not None and bytes_digest(data) != digest:
        raise CacheError("the file changed while it was used", where=path, advice="run the same command again")
    return decode(data).image


def pixel_batches(
    paths: Sequence[Path],
    preprocess: Preprocess,
    sizes: Sequence[int],
    digests: Sequence[str] | None = None,
    views: Sequence[View] | None = None,
) -> Iterator[list[torch.Tensor | DecodeError]]:
    """Decode batches of the given sizes in threads, one batch ahead of the caller.

    Args:
        paths: the files.
        preprocess: resize and crop, of the plain view.
        sizes: of the batches; their sum is the number of files.
        digests: of each file's content; None where the files were not listed before.
        views: of each file, None for the plain ones; an augmented one needs the digests, and is made in the caller's thread.

    Yields:
        For each image ``(3, H, W)`` uint8, or the error where it is none.
    """

    def one(path: Path, digest: str | None, view: View) -> Image.Image | torch.Tensor | DecodeError:
        try:
            image = load_image(path, digest)
        except DecodeError as fault:
            return fault
        return preprocess.pixels(image) if view.plain else image

    def seen(found: Image.Image | torch.Tensor | DecodeError, digest: str | None, view: View) -> torch.Tensor | DecodeError:
        if not isinstance(found, Image.Image):
            return found
        return view.pixels(found, digest or "", preprocess.crop, preprocess.interpolation)

    known = [None] * len(paths) if digests is None else digests
    shown = [PLAIN] * len(paths) if views is None else views
    ends = list(itertools.accumulate(sizes))
    with ThreadPoolExecutor(_DECODE_THREADS) as pool:

        def submit(batch: int) -> list[tuple[Future[Image.Image | torch.Tensor | DecodeError], str | None, View]]:
            if batch == len(ends):
                return []
            span = slice(ends[batch] - sizes[batch], ends[batch])
            return [(pool.submit(one, p, d, v), d, v) for p, d, v in zip(paths[span], known[span], shown[span], strict=True)]

        ahead = submit(0)
        for batch in range(len(ends)):
            current, ahead = ahead, submit(batch + 1)
            yield [seen(future.result(), digest, view) for future, digest, view in current]


def full_batches(count: int, size: int = BATCH) -> list[int]:
    """Sizes of the batches that ``count`` images make.

    >>> full_batches(35, 16)
    [16, 16, 3]
    """
    return [min(size, count - start) for start in range(0, count, size)]


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
    if not store.missing(images.digests):
        return Extracted(0, 0, time.perf_counter() - began)
    where = dict(zip(images.digests, images.paths, strict=True))
    decoded = forwarded = 0
    with store.locked(key):
        todo = store.missing(images.digests)
        for start in range(0, len(todo), SHARD_IMAGES):
            shard = todo[start : start + SHARD_IMAGES]
            rows, good, bad = yield from _compute(prefix, shard, where, (start, len(todo)), view)
            store.add(good, rows, bad)
            decoded += len(shard)
            forwarded += len(good)
    return Extracted(decoded, forwarded, time.perf_counter() - began)


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
            rows.append(prefix(torch.stack(pictures)))
        yield FeatureProgress(progress[0] + len(good) + len(bad), progress[1])
    return torch.cat(rows) if rows else torch.empty(0), good, bad
