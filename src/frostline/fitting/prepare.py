"""Get what a phase trains on: run its frozen prefix once over the images, or have them decoded anew in every epoch."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from frostline.backbone.network import Backbone
from frostline.data.views import PLAIN, View, Views
from frostline.errors import CacheError, DataError, DecodeError
from frostline.features.choice import choose_engine
from frostline.features.engine import plain
from frostline.features.extract import Extracted, FeatureProgress, Prefix, ensure_features
from frostline.features.images import ImageSet
from frostline.features.key import BATCH
from frostline.features.known import prefix_subject
from frostline.features.pixels import full_batches, pixel_batches
from frostline.features.store import FeatureStore, StoredRows
from frostline.fitting.events import CachePlanned, FeaturesReady
from frostline.fitting.sources import FeatureRows, ImageRows, Source
from frostline.freeze.crossing import Layout
from frostline.freeze.cut import Split

IN_MEMORY = 32 << 20
"""Bytes of features that are held in memory, at most; more are read from the cache, batch by batch, in the same order."""


@dataclass(frozen=True)
class Compute:
    """How the work is done; none of it changes what is learnt beyond rounding.

    Attributes:
        cache: folder of the feature cache; None keeps features in memory for this one training.
        recompute: compute the frozen part anew in every epoch and keep nothing.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``auto`` (fp32, or bf16 where its measured effect is small), ``fp32`` or ``bf16``, of the frozen prefix.
        engine: what runs the frozen prefix: see :func:`frostline.features.choice.choose_engine`.
        storage: how features are kept on disk: ``fp32``, or ``fp16`` or ``bf16`` in half the space.
    """

    cache: Path | None = None
    recompute: bool = False
    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"
    storage: str = "fp32"

    def __post_init__(self) -> None:
        if isinstance(self.cache, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            object.__setattr__(self, "cache", Path(self.cache))


@dataclass(frozen=True)
class Labelled:
    """The images of a job.

    Attributes:
        train: to train on.
        val: to judge by, or None.
        skipped: files that are no images, and why.
        checked: whether what is no image has been left out already.
    """

    train: ImageSet
    val: ImageSet | None
    skipped: tuple[tuple[Path, str], ...] = ()
    checked: bool = False

    @property
    def everything(self) -> ImageSet:
        """Both."""
        return self.train if self.val is None else self.train + self.val

    def usable(self, bad: dict[str, str]) -> Labelled:
        """Without what is no image.

        Raises:
            DataError: nothing would be left of a part, or of a class.
        """
        skipped = tuple((p, bad[d]) for p, d in zip(self.everything.paths, self.everything.digests, strict=True) if d in bad)
        val = None if self.val is None else _usable(self.val, bad, "validation")
        return Labelled(_usable(self.train, bad, "training"), val, (*self.skipped, *skipped), checked=True)


@dataclass(frozen=True, eq=False)
class Sources:
    """What a phase trains on and is judged by."""

    train: Source
    val: Source | None


def prefix_of(
    parts: Split, opened: Backbone, images: Labelled, compute: Compute, device: torch.device, wanted: Labelled | None = None
) -> Prefix:
    """The prefix of a split with the engine that runs it.

    Args:
        parts: the split.
        opened: the backbone.
        images: of the job.
        compute: cache, precision and engine.
        device: where it runs.
        wanted: images whose features are wanted; all of the job where None.

    Raises:
        CacheError: features would have to be written to a cache that cannot be written.
        EngineError: the engine that was asked for is not to be had, or gives other numbers.
    """
    if not parts.cut.cached:
        return Prefix(plain(parts.prefix, "fp32", "there is no prefix"), opened.preprocess, device, parts.layout)
    subject = prefix_subject(parts, opened, device=device, precision=compute.precision, engine=compute.engine)
    kept = None if compute.recompute else (wanted or images).everything
    engine = choose_engine(subject, images.everything, compute.cache, wanted=kept)
    return Prefix(engine, opened.preprocess, device, parts.layout, subject.settings, compute.storage)


@dataclass(frozen=True)
class Shortage:
    """Features that do not fit on the disk.

    Attributes:
        needed: bytes that would be written.
        free: bytes that are free.
        room: bytes an image, in float32, for which there would be room.
    """

    needed: int
    free: int
    room: float

    def __str__(self) -> str:
        return f"{self.needed / 1e6:.1f} MB of features do not fit into the {self.free / 1e6:.1f} MB that are free"


def shortage(prefix: Prefix, images: Labelled, views: tuple[View, ...], compute: Compute) -> Shortage | None:
    """What is missing in the cache, where it does not fit into nine tenths of what is free there; None where it does."""
    if not prefix.settings or compute.recompute:
        return None
    cache, shown = compute.cache or Path(tempfile.gettempdir()), _shown(images, views)
    free, each = free_bytes(cache), stored_bytes(prefix.layout, prefix.storage)
    most = sum(len(some) for some in shown.values())
    if most * each <= 0.9 * free:
        return None
    if compute.cache is not None:
        most = sum(len(FeatureStore.open(cache, prefix.key(view)).missing(some.digests)) for view, some in shown.items())
    if most * each <= 0.9 * free:
        return None
    return Shortage(most * each, free, 0.9 * free / most * (1 if prefix.storage == "fp32" else 2))


def prepare(
    parts: Split, prefix: Prefix, images: Labelled, views: Views, compute: Compute, seed: int, epochs: int = 0
) -> Generator[FeatureProgress | CachePlanned | FeaturesReady, None, tuple[Sources, Labelled]]:
    """The sources of a phase, and the images that could be read.

    Args:
        parts: the network, split.
        prefix: its prefix: see :func:`prefix_of`.
        images: the images.
        views: of the training images.
        compute: cache and precision.
        seed: of the views.
        epochs: done in the phases before; live views go on from there.

    Raises:
        DataError: nothing that can be read is left.
        CacheError: the cache cannot be written, what is missing in it does not fit on the disk, or an image changed meanwhile.
    """
    if parts.cut.cached and not compute.recompute:
        short = shortage(prefix, images, views.cached(seed), compute)
        if short is not None:
            raise CacheError(str(short), where=compute.cache, advice="give another folder with --cache-dir, or run with --no-cache")
        with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
            cache, on_disk = compute.cache or Path(scratch), compute.cache is not None
            return (yield from _cached(prefix, images, views.cached(seed), cache, seed, on_disk=on_disk))
    if not images.checked:
        bad = yield from _unreadable(images.everything, prefix)
        images = images.usable(bad)
        yield FeaturesReady(Extracted(len(images.everything), 0, 0.0), 0, images.skipped, prefix.engine.facts())
    whole, prefix = not parts.cut.cached, replace(prefix, at_once=BATCH)  # it is given the batches of training
    view = views.cached(seed)[0] if not views.live else View(views.augment, seed)
    val = None if images.val is None else ImageRows(images.val, prefix, whole=whole)
    train = ImageRows(images.train, prefix, view, 0 if views.live else views.count, whole, epochs)
    return Sources(train, val), images


def _cached(
    prefix: Prefix, images: Labelled, views: tuple[View, ...], cache: Path, seed: int, *, on_disk: bool
) -> Generator[FeatureProgress | CachePlanned | FeaturesReady, None, tuple[Sources, Labelled]]:
    shown = _shown(images, views)
    stores = {v: FeatureStore.open(cache, prefix.key(v)) for v in shown}
    missing = sum(len(stores[v].missing(some.digests)) for v, some in shown.items())
    if missing:
        yield CachePlanned(missing, missing * stored_bytes(prefix.layout, prefix.storage), free_bytes(cache), cache, prefix.engine.facts())
    done: list[Extracted] = []
    for view, some in shown.items():
        done.append((yield from ensure_features(stores[view], prefix.key(view), prefix, some, view)))
    size = sum(stores[v].bytes_of(some.digests) for v, some in shown.items())
    bad = {d: why for store in stores.values() for d, why in store.skipped.items()}
    before = images.skipped
    images = images.usable(bad) if not images.checked else images
    worst = max(e.storage_error for e in done)
    extracted = Extracted(sum(e.decoded for e in done), sum(e.forwarded for e in done), sum(e.seconds for e in done), worst)
    yield FeaturesReady(extracted, size, images.skipped[len(before) :], prefix.engine.facts())
    rows = tuple(_rows(stores[view], images.train.digests, prefix, len(views) if on_disk else 0) for view in views)
    train = FeatureRows(rows, _labels(images.train, prefix.device), prefix.layout, seed, images.train.units)
    val = None
    if images.val is not None:
        held = _rows(stores[PLAIN], images.val.digests, prefix, int(on_disk))
        val = FeatureRows((held,), _labels(images.val, prefix.device), prefix.layout)
    return Sources(train, val), images


def _rows(store: FeatureStore, digests: Sequence[str], prefix: Prefix, views: int) -> torch.Tensor | StoredRows:
    """Features in memory where they are small, and left on disk where they are not; ``views`` 0: in memory, for the disk is not ours."""
    small = len(digests) * views * prefix.layout.bytes <= IN_MEMORY
    return store.gather(digests) if small else store.rows_of(digests)


def _shown(images: Labelled, views: tuple[View, ...]) -> dict[View, ImageSet]:
    """The images of each view: those of validation are always plain."""
    wanted = dict.fromkeys(views, images.train)
    if images.val is not None:
        wanted[PLAIN] = images.everything if PLAIN in views else images.val
    return wanted


def stored_bytes(layout: Layout, storage: str) -> int:
    """Bytes an image on disk."""
    return layout.size * (4 if storage == "fp32" else 2)


def free_bytes(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    there = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    return shutil.disk_usage(there).free


def _labels(images: ImageSet, device: torch.device) -> torch.Tensor:
    return torch.tensor(images.labels, device=device)


def _unreadable(images: ImageSet, prefix: Prefix) -> Generator[FeatureProgress, None, dict[str, str]]:
    """Decode every image once: the digests of those that are none, and why."""
    bad: dict[str, str] = {}
    sizes = full_batches(len(images), BATCH)
    done = 0
    for batch in pixel_batches(images.paths, prefix.preprocess, sizes, images.digests):
        for digest, found in zip(images.digests[done : done + len(batch)], batch, strict=True):
            if isinstance(found, DecodeError):
                bad[digest] = found.fact
        done += len(batch)
        yield FeatureProgress(done, len(images))
    return bad


def _usable(images: ImageSet, skipped: dict[str, str], what: str) -> ImageSet:
    left = images.without(skipped)
    if not len(left):
        raise DataError(f"none of the {len(images)} {what} files is an image that can be read")
    if what == "training" and (lost := sorted(set(images.labels) - set(left.labels))):
        like = images.paths[images.labels.index(lost[0])]
        raise DataError(f"class number {lost[0]}, that of {like}, has no readable training image left", label=lost[0])
    return left
