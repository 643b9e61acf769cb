"""Get what a phase trains on: run its frozen prefix once over the images, or have them decoded anew in every epoch."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch

from frostline._digest import tensors_digest
from frostline.backbone.network import Backbone
from frostline.data.views import PLAIN, View, Views
from frostline.errors import DataError, DecodeError
from frostline.features.extract import Extracted, FeatureProgress, Prefix, ensure_features, full_batches, pixel_batches
from frostline.features.images import ImageSet
from frostline.features.key import BATCH, feature_key
from frostline.features.store import FeatureStore
from frostline.fitting.events import FeaturesReady
from frostline.fitting.sources import FeatureRows, ImageRows, Source
from frostline.freeze.cut import Split


@dataclass(frozen=True)
class Compute:
    """How the work is done; none of it changes what is learnt beyond rounding.

    Attributes:
        cache: folder of the feature cache; None keeps features in memory for this one training.
        recompute: compute the frozen part anew in every epoch and keep nothing.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``auto`` (fp32), ``fp32`` or ``bf16``, of the frozen prefix.
    """

    cache: Path | None = None
    recompute: bool = False
    device: str = "auto"
    precision: str = "auto"


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


def prepare(
    parts: Split, opened: Backbone, images: Labelled, views: Views, compute: Compute, device: torch.device, seed: int, epochs: int = 0
) -> Generator[FeatureProgress | FeaturesReady, None, tuple[Sources, Labelled]]:
    """The sources of a phase, and the images that could be read.

    Args:
        parts: the network, split.
        opened: its backbone.
        images: the images.
        views: of the training images.
        compute: cache and precision.
        device: where it runs.
        seed: of the views.
        epochs: done in the phases before; live views go on from there.

    Raises:
        DataError: nothing that can be read is left.
        CacheError: the cache cannot be written, or an image changed meanwhile.
    """
    precision = "fp32" if compute.precision == "auto" else compute.precision
    prefix = Prefix(parts.prefix, opened.preprocess, device, parts.layout, precision)
    if parts.cut.cached and not compute.recompute:
        with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
            return (yield from _cached(parts, prefix, opened, images, views.cached(seed), compute.cache or Path(scratch), seed))
    if not images.checked:
        bad = yield from _unreadable(images.everything, prefix)
        images = images.usable(bad)
        yield FeaturesReady(Extracted(len(images.everything), 0, 0.0), 0, images.skipped)
    whole = not parts.cut.cached
    view = views.cached(seed)[0] if not views.live else View(views.augment, seed)
    val = None if images.val is None else ImageRows(images.val, prefix, whole=whole)
    train = ImageRows(images.train, prefix, view, 0 if views.live else views.count, whole, epochs)
    return Sources(train, val), images


def _cached(
    parts: Split, prefix: Prefix, opened: Backbone, images: Labelled, views: tuple[View, ...], cache: Path, seed: int
) -> Generator[FeatureProgress | FeaturesReady, None, tuple[Sources, Labelled]]:
    code = "" if parts.cut.way == "backbone" else parts.code
    weights = tensors_digest(parts.prefix.state_dict())
    stores: dict[View, FeatureStore] = {}
    done: list[Extracted] = []
    size = 0
    for view in dict.fromkeys((PLAIN, *views)):
        wanted = images.everything if view == PLAIN and PLAIN in views else images.val if view == PLAIN else images.train
        if wanted is None:
            continue
        key = feature_key(
            opened, cut=parts.cut.name, weights=weights, precision=prefix.precision, device=prefix.device, view=view, code=code
        )
        stores[view] = FeatureStore.open(cache, key)
        done.append((yield from ensure_features(stores[view], key, prefix, wanted, view)))
        size += stores[view].bytes_of(wanted.digests)
    bad = {d: why for store in stores.values() for d, why in store.skipped.items()}
    before = images.skipped
    images = images.usable(bad) if not images.checked else images
    extracted = Extracted(sum(e.decoded for e in done), sum(e.forwarded for e in done), sum(e.seconds for e in done))
    yield FeaturesReady(extracted, size, images.skipped[len(before) :])
    rows = tuple(stores[view].gather(images.train.digests) for view in views)
    train = FeatureRows(rows, _labels(images.train, prefix.device), parts.layout, seed)
    val = None
    if images.val is not None:
        val = FeatureRows((stores[PLAIN].gather(images.val.digests),), _labels(images.val, prefix.device), parts.layout)
    return Sources(train, val), images


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
        raise DataError(f"class number {lost[0]} has no readable training image left")
    return left
