"""Decode files in threads, one batch ahead of whoever uses them."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image

from frostline._digest import bytes_digest
from frostline.ahead import pixels_ahead
from frostline.backbone.preprocess import Preprocess
from frostline.data.decode import decode, read_image_bytes
from frostline.data.views import PLAIN, View
from frostline.errors import CacheError, DecodeError
from frostline.features.images import unreadable_digest
from frostline.features.key import BATCH

_MOST_THREADS = 32
_MOST_PICTURES = 32
"""Pictures of full size that are held at once: an augmented view is made of the whole."""


def decode_threads() -> int:
    """One a processor that this process may use: on two cores 454 to 478 images/s with two, 240 with one, no more with three."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_THREADS, max(2, usable))


def load_image(path: Path, digest: str | None = None) -> Image.Image:
    """Read and decode one image: RGB. The one way pictures enter frostline.

    Args:
        path: the file.
        digest: the SHA-256 that its content had when it was listed.

    Raises:
        DecodeError: it is no image, or could not be read when it was listed either.
        CacheError: the file changed since it was listed, or cannot be read any more.
    """
    try:
        data = read_image_bytes(path)
    except DecodeError as fault:
        if digest is None or digest == unreadable_digest(path):
            raise
        # no fault of the content, which others may have as well, and which is remembered by its digest
        raise CacheError(f"{fault.fact}, and could be when the run began", where=path, advice="run the same command again") from fault
    if digest is not None and bytes_digest(data) != digest:
        raise CacheError("the file changed while it was used", where=path, advice="run the same command again")
    return decode(data).image


def pixels_of(data: bytes, preprocess: Preprocess) -> torch.Tensor | DecodeError:
    """A file's content as the network sees it, ``(3, H, W)`` uint8, or the error where it is no image."""
    try:
        return preprocess.pixels(decode(data).image)
    except DecodeError as fault:
        return fault


def arriving_batches(
    paths: Iterable[Path], preprocess: Preprocess, size: int = BATCH
) -> Iterator[tuple[list[Path], list[torch.Tensor | DecodeError]]]:
    """Decode files whose names are still arriving, in threads and one batch ahead of the caller; no more than two batches are held.

    Args:
        paths: the files; asked for when there is room.
        preprocess: resize and crop.
        size: of a batch; the last one may be smaller.

    Yields:
        The names of a batch, and for each ``(3, H, W)`` uint8, or the error where it is no image.
    """

    def one(path: Path) -> torch.Tensor | DecodeError:
        try:
            return pixels_of(read_image_bytes(path), preprocess)
        except DecodeError as fault:
            return fault

    names = iter(paths)
    with ThreadPoolExecutor(decode_threads()) as pool:

        def submit() -> list[tuple[Path, Future[torch.Tensor | DecodeError]]]:
            return [(path, pool.submit(one, path)) for path in itertools.islice(names, size)]

        ahead = submit()
        try:
            while ahead:
                current, ahead = ahead, submit()
                yield [path for path, _ in current], [future.result() for _, future in current]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


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
        there = pixels_ahead(digest, preprocess.shown) if view.plain and digest is not None else None
        if there is not None:
            return torch.from_numpy(there).permute(2, 0, 1)
        try:
            image = load_image(path, digest)
            return preprocess.pixels(image) if view.plain else image
        except DecodeError as fault:
            return fault

    def seen(found: Image.Image | torch.Tensor | DecodeError, digest: str | None, view: View) -> torch.Tensor | DecodeError:
        if not isinstance(found, Image.Image):
            return found
        return view.pixels(found, digest or "", preprocess.crop, preprocess.interpolation)

    known = [None] * len(paths) if digests is None else digests
    shown = [PLAIN] * len(paths) if views is None else views
    plain = all(v.plain for v in shown)
    wanted = zip(paths, known, shown, strict=True)
    waiting: deque[tuple[Future[Image.Image | torch.Tensor | DecodeError], str | None, View]] = deque()
    with ThreadPoolExecutor(decode_threads()) as pool:

        def next_of(room: int) -> torch.Tensor | DecodeError:
            waiting.extend((pool.submit(one, p, d, v), d, v) for p, d, v in itertools.islice(wanted, room - len(waiting)))
            future, digest, view = waiting.popleft()
            return seen(future.result(), digest, view)

        try:
            for size, following in zip(sizes, [*sizes, 0][1:], strict=True):
                room = size + following if plain else _MOST_PICTURES
                yield [next_of(room) for _ in range(size)]
        finally:  # who stops half way does not wait for what was still to be decoded
            pool.shutdown(wait=False, cancel_futures=True)


def full_batches(count: int, size: int = BATCH) -> list[int]:
    """Sizes of the batches that ``count`` images make.

    >>> full_batches(35, 16)
    [16, 16, 3]
    """
    return [min(size, count - start) for start in range(0, count, size)]
