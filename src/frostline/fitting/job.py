"""Fit a model under a freeze plan: freeze, run the prefix once, train the rest, prove that nothing else moved."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from frostline._device import resolve_device
from frostline.data.manifest import Manifest
from frostline.data.read import read_data
from frostline.errors import DataError
from frostline.features.extract import Prefix, ensure_features
from frostline.features.images import ImageSet
from frostline.features.key import feature_key
from frostline.features.store import FeatureStore
from frostline.fitting.events import EpochDone, Event, FeaturesReady, Finished, Planned, Stopped
from frostline.fitting.hyper import Hyper, default_hyper, override
from frostline.fitting.loop import logits_of, train
from frostline.fitting.optim import make_optimizer
from frostline.fitting.sources import FeatureRows, ImageRows, Source
from frostline.freeze import FreezePlan, ResolvedPlan, audit, find_cut, fingerprint
from frostline.heads.contract import InputScale
from frostline.model import TransferModel

Images = ImageSet | Manifest | Path | str


@dataclass(frozen=True)
class Compute:
    """How the work is done; none of it changes what is learnt beyond rounding.

    Attributes:
        cache: folder of the feature cache; None computes the frozen part anew in every epoch.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``auto`` (fp32), ``fp32`` or ``bf16``, of the frozen prefix.
    """

    cache: Path | None = None
    device: str = "auto"
    precision: str = "auto"


def fit(
    model: TransferModel,
    plan: FreezePlan,
    train_images: Images,
    val_images: Images | None = None,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    backbone_lr: float | None = None,
    weight_decay: float | None = None,
    seed: int = 0,
    compute: Compute = Compute(),
) -> Iterator[Event]:
    """Train ``model`` under ``plan``; a generator of events, nothing happens until it is iterated.

    Args:
        model: changed in place.
        plan: what is trained.
        train_images: a folder of class folders, a manifest, or an :class:`ImageSet`.
        val_images: likewise, with the same classes; chooses the epoch that is kept. None keeps the last.
        epochs: passes over the training images; like the four after it, by default from the documented rule
            (:func:`frostline.fitting.hyper.default_hyper`).
        batch_size: images a step.
        lr: peak learning rate of the head.
        backbone_lr: peak learning rate of unfrozen backbone layers.
        weight_decay: of AdamW, on matrices and kernels only.
        seed: of the order of images and of layers that draw.
        compute: cache, device and precision.

    Yields:
        :class:`Planned`, :class:`FeatureProgress`, :class:`FeaturesReady`, then one :class:`EpochDone` an epoch, and
        :class:`Finished` at the end.

    Raises:
        PlanError: nothing would be trained.
        DataError: an image list is empty once what is no image has been left out.
        AuditError: a frozen tensor changed (a bug).
    """
    device = resolve_device(compute.device)
    model.to(device)
    resolved = plan.apply(model)
    cut = find_cut(resolved)
    train_set = _image_set(train_images)
    val_set = None if val_images is None else _image_set(val_images)
    rule = _rule(model, len(train_set), resolved)
    hyper = override(rule, epochs=epochs, batch_size=batch_size, lr=lr, backbone_lr=backbone_lr, weight_decay=weight_decay)
    yield Planned(resolved, cut, hyper)

    before = fingerprint(model, resolved)
    sources = yield from _sources(model, train_set, val_set, cut.cached, compute, device)
    module = model.head if isinstance(sources.train, FeatureRows) else model
    began = time.perf_counter()
    optimizer = make_optimizer(model, resolved, hyper)
    best_epoch, epochs_run = yield from _counted(train(module, optimizer, sources.train, sources.val, hyper, seed))
    seconds = time.perf_counter() - began
    proof = audit(before, fingerprint(model, resolved))
    proof.check()
    yield Finished(
        best_epoch,
        epochs_run,
        proof,
        logits_of(module, sources.train),
        sources.train.labels.cpu(),
        None if sources.val is None else logits_of(module, sources.val),
        None if sources.val is None else sources.val.labels.cpu(),
        seconds,
    )


def _rule(model: TransferModel, images: int, resolved: ResolvedPlan) -> Hyper:
    scale = _scale(model)
    features = 0 if scale is None else scale.mean.numel()
    kind = type(model.head).__name__.removesuffix("Head").lower()
    return default_hyper(images=images, features=features, classes=model.num_classes, head=kind, backbone_trained=resolved.backbone_trained)


def _counted(loop: Generator[EpochDone | Stopped, None, int]) -> Generator[Event, None, tuple[int, int]]:
    """Pass the loop's events on; gives the epoch that was kept and the number of epochs run."""
    epochs = 0

    def counting() -> Generator[EpochDone | Stopped, None, int]:
        nonlocal epochs
        while True:
            try:
                event = next(loop)
            except StopIteration as end:
                return int(end.value)
            epochs = event.epoch
            yield event

    best = yield from counting()
    return best, epochs


@dataclass(frozen=True)
class _Sources:
    train: Source
    val: Source | None


def _sources(
    model: TransferModel,
    train_set: ImageSet,
    val_set: ImageSet | None,
    cached: bool,
    compute: Compute,
    device: torch.device,
) -> Generator[Event, None, _Sources]:
    """Run the backbone once over all images, fit the head's scaling to the result, and choose where batches come from."""
    everything = train_set if val_set is None else train_set + val_set
    precision = "fp32" if compute.precision == "auto" else compute.precision
    key = feature_key(model.opened, cut="backbone", precision=precision, device=device)
    prefix = Prefix(model.backbone, model.opened.preprocess, device, precision)
    with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
        store = FeatureStore.open(compute.cache or Path(scratch), key)
        extracted = yield from ensure_features(store, key, prefix, everything)
        skipped = tuple((p, store.skipped[d]) for p, d in zip(everything.paths, everything.digests, strict=True) if d in store.skipped)
        train_set = _usable(train_set, store.skipped, "training")
        val_set = None if val_set is None else _usable(val_set, store.skipped, "validation")
        features = FeatureRows(store.gather(train_set.digests).to(device), torch.tensor(train_set.labels, device=device))
        scale = _scale(model)
        if scale is not None:
            scale.measure(features.features)
        yield FeaturesReady(extracted, store.bytes_of(everything.digests), skipped)
        if cached and compute.cache is not None:
            val = (
                None
                if val_set is None
                else FeatureRows(store.gather(val_set.digests).to(device), torch.tensor(val_set.labels, device=device))
            )
            return _Sources(features, val)
    preprocess = model.opened.preprocess
    return _Sources(ImageRows(train_set, preprocess, device), None if val_set is None else ImageRows(val_set, preprocess, device))


def _scale(model: TransferModel) -> InputScale | None:
    return next((m for m in model.head.modules() if isinstance(m, InputScale)), None)


def _image_set(images: Images) -> ImageSet:
    if isinstance(images, ImageSet):
        return images
    return ImageSet.of(images if isinstance(images, Manifest) else read_data(Path(images)))


def _usable(images: ImageSet, skipped: dict[str, str], what: str) -> ImageSet:
    left = images.without(skipped)
    if not len(left):
        raise DataError(f"none of the {len(images)} {what} files is an image that can be read")
    if what == "training" and (lost := sorted(set(images.labels) - set(left.labels))):
        raise DataError(f"class number {lost[0]} has no readable training image left")
    return left
