"""The whole way, in order: data, backbone, freeze, features, fit, run. The page to read first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from frostline._device import resolve_device
from frostline.backbone import Backbone, open_backbone
from frostline.backbone.sealed import Sealed, record_backbone, sealed_backbone
from frostline.data.manifest import Manifest
from frostline.data.read import read_data, read_labelled
from frostline.data.split import duplicates_across, ensure_splits
from frostline.data.views import PLAIN, Views
from frostline.errors import DataError, DecodeError
from frostline.features import FeatureProgress, FeatureStore, ImageSet, ensure_features
from frostline.features.images import digest_files
from frostline.features.known import backbone_subject, is_known
from frostline.features.pixels import full_batches, pixel_batches
from frostline.features.shape import feature_shape
from frostline.fitting import Compute, EpochDone, Event, Finished, PhaseDone, Planned, Resumed, Snapshot, StepDone, Stopped, fit
from frostline.fitting.loop import logits_of
from frostline.fitting.metrics import Scores, score
from frostline.fitting.sources import FeatureRows
from frostline.freeze import FreezePlan
from frostline.heads import HeadSpec
from frostline.model import TransferModel
from frostline.recipe import Recipe
from frostline.run import Run, RunRecord, write_run
from frostline.run.identity import begin, identity_of
from frostline.run.journal import Journal
from frostline.run.layout import check_begun, claim
from frostline.run.record import tensor_digests
from frostline.run.summary import Timing, summarise

Listener = Callable[[Event], None]


def train(
    recipe: Recipe,
    out: Path,
    *,
    cache: Path | None,
    listen: Listener,
    offline: bool = False,
    startup: float = 0.0,
    resume: bool = False,
    stop: Callable[[], BaseException | None] = lambda: None,
) -> dict[str, Any]:
    """Train as the recipe says and write a run directory.

    Args:
        recipe: what to do.
        out: the run directory; it must not exist yet, unless ``resume``.
        cache: folder of the feature cache; None keeps no features on disk.
        listen: called with every event, for progress.
        offline: fetch nothing.
        startup: seconds spent before this call, for the record.
        resume: go on with the run in ``out``, which was interrupted.
        stop: asked after every event; what it gives is raised once a checkpoint has been written.

    Returns:
        The summary, as written to ``summary.json``.

    Raises:
        FrostlineError: what was asked for cannot be done; nothing was written to ``out`` that hinders another try.
    """
    began = time.perf_counter()
    (check_begun if resume else claim)(out)
    at_hand = _gather(recipe, cache, offline=offline)
    identity = identity_of(at_hand.manifest, at_hand.digests, at_hand.model.opened, resolve_device(recipe.device))
    journal = Journal.resume(out, identity) if resume else Journal(out)
    if resume:
        listen(Resumed(len(journal.phases), len(journal.epochs), journal.passed_over))
    events: list[Event] = []
    last = False
    for event in _fit(recipe, at_hand, cache, journal.snapshot):
        if not events and not resume:
            begin(out, recipe, identity)
        if not isinstance(event, StepDone | FeatureProgress):
            events.append(event)
        listen(event)
        last = event.number == event.phases if isinstance(event, Planned) else last
        # Another event follows those three at once; behind the last phase there is nothing to go on with, the run is written.
        fault = None if isinstance(event, EpochDone | Stopped | Finished) or (last and isinstance(event, PhaseDone)) else stop()
        journal.note(event, at_once=fault is not None)
        if fault is not None:
            raise fault
    run = Run(out, recipe, {}, at_hand.manifest.classes, at_hand.model)
    test = evaluate_images(run, at_hand.images["test"], cache=cache)[0] if len(at_hand.images["test"]) else None
    leaks = duplicates_across(at_hand.manifest, at_hand.digests)
    timing = Timing(startup, began, time.perf_counter())
    summary = summarise(run, events, test, at_hand.manifest, journal.phases, leaks, timing)
    summary = write_run(out, RunRecord(recipe, summary, journal.epochs, at_hand.manifest, at_hand.model, at_hand.original))
    journal.close()
    return summary


@dataclass(frozen=True, eq=False)
class _AtHand:
    """What training begins with: the images by split, the model, and the digests of both."""

    manifest: Manifest
    digests: list[str]
    images: dict[str, ImageSet]
    model: TransferModel
    original: dict[str, str]


def _gather(recipe: Recipe, cache: Path | None, *, offline: bool) -> _AtHand:
    manifest = read_data(Path(recipe.data), None if recipe.val is None else Path(recipe.val))
    digests = digest_files([r.path for r in manifest.records])
    manifest = ensure_splits(manifest, digests, recipe.seed)
    backbone = _backbone(recipe, digests, cache, offline=offline)
    model = TransferModel(backbone, recipe.head, len(manifest.classes), recipe.seed)
    if cache is not None and not isinstance(backbone.body, Sealed) and model.opened is backbone:
        record_backbone(backbone, feature_shape(backbone), cache)
    images = {split: _part(manifest, digests, split) for split in ("train", "val", "test")}
    return _AtHand(manifest, digests, images, model, tensor_digests(model))


def _backbone(recipe: Recipe, digests: list[str], cache: Path | None, *, offline: bool) -> Backbone:
    """The backbone, opened; where nothing will be run through it, as it was recorded, for opening takes longer than all the rest."""
    views = Views.parse(recipe.augment, recipe.views)
    head_alone = (recipe.unfreeze, recipe.strategy, recipe.batch_norm) == ("none", "plain", "frozen")
    if cache is not None and head_alone and not views.live and not HeadSpec.parse(recipe.head).takes_map:
        sealed = sealed_backbone(recipe.backbone, recipe.weights, cache)
        if sealed is not None:
            on = resolve_device(recipe.device)
            subject = backbone_subject(sealed, weights=sealed.digest, device=on, precision=recipe.precision, engine=recipe.engine)
            if is_known(subject, digests, (PLAIN, *views.cached(recipe.seed)), cache):
                return sealed
    return open_backbone(recipe.backbone, recipe.weights, replace=recipe.replace_layer, offline=offline)


def _fit(recipe: Recipe, at_hand: _AtHand, cache: Path | None, resume: Snapshot | None) -> Iterator[Event]:
    return fit(
        at_hand.model,
        FreezePlan(recipe.unfreeze, recipe.batch_norm),
        at_hand.images["train"],
        at_hand.images["val"],
        strategy=recipe.strategy,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        backbone_lr=recipe.backbone_lr,
        weight_decay=recipe.weight_decay,
        options=recipe.options(),
        views=Views.parse(recipe.augment, recipe.views),
        seed=recipe.seed,
        compute=Compute(cache, not recipe.cache, recipe.device, recipe.precision, recipe.engine, recipe.storage),
        sweep=recipe.sweep,
        resume=resume,
    )


def evaluate(run: Run, data: Path, *, cache: Path | None, device: str = "auto") -> tuple[Scores, list[tuple[Path, str]]]:
    """Score a run on labelled images; class folders are matched by name.

    Returns:
        The scores, and the files that were left out with the reason.

    Raises:
        DataError: no labelled images, or a class that the run does not know.
    """
    return evaluate_images(run, ImageSet.of(read_labelled(data, run.classes)), cache=cache, device=device)


def evaluate_images(run: Run, images: ImageSet, *, cache: Path | None, device: str = "auto") -> tuple[Scores, list[tuple[Path, str]]]:
    """:func:`evaluate` for images that are listed already."""
    import tempfile

    on = resolve_device(device)
    prefix = run.fast_prefix(on, images, cache)
    with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
        key = prefix.key()
        store = FeatureStore.open(cache or Path(scratch), key)
        for _ in ensure_features(store, key, prefix, images):
            pass
        skipped = [(p, store.skipped[d]) for p, d in zip(images.paths, images.digests, strict=True) if d in store.skipped]
        usable = images.without(store.skipped)
        if not len(usable):
            raise DataError(f"none of the {len(images)} files is an image that can be read")
        rows = FeatureRows((store.gather(usable.digests),), torch.tensor(usable.labels, device=on), prefix.layout)
        return score(logits_of(run.model.head, rows), rows.labels), skipped


@dataclass(frozen=True)
class Prediction:
    """The answer for one file.

    Attributes:
        path: the file.
        label: the most probable class, or None where the file is no image.
        probabilities: of every class, by name.
        error: why there is no answer.
    """

    path: Path
    label: str | None
    probabilities: dict[str, float]
    error: str | None = None


def predict(run: Run, paths: list[Path], *, device: str = "auto") -> Iterator[Prediction]:
    """Label files one after the other, in their order; a file that is no image gives an error and the rest go on."""
    prefix = run.prefix(resolve_device(device))
    at = 0
    for batch in pixel_batches(paths, prefix.preprocess, full_batches(len(paths))):
        pixels = [p for p in batch if not isinstance(p, DecodeError)]
        answers: list[list[float]] = []
        if pixels:
            answers = run.probabilities(prefix, torch.stack(pixels)).tolist()
        found = iter(answers)
        for path, picture in zip(paths[at : at + len(batch)], batch, strict=True):
            if isinstance(picture, DecodeError):
                yield Prediction(path, None, {}, picture.fact)
                continue
            probabilities = dict(zip(run.classes, next(found), strict=True))
            yield Prediction(path, max(probabilities, key=lambda c: probabilities[c]), probabilities)
        at += len(batch)


def list_images(paths: list[Path]) -> list[Path]:
    """Files as they are given, folders replaced by the files in them, sorted; dot names are left out.

    Raises:
        DataError: a path does not exist, or there is no file at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found.extend(
                sorted(p for p in path.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(path).parts))
            )
        elif path.exists():
            found.append(path)
        else:
            raise DataError("no such file or folder", where=path)
    if not found:
        raise DataError("holds no files", where=paths[0] if paths else "PATH")
    return found


def _part(manifest: Manifest, digests: list[str], split: str) -> ImageSet:
    here = [i for i, r in enumerate(manifest.records) if r.split == split]
    return ImageSet.of(manifest.only(split), [digests[i] for i in here])
