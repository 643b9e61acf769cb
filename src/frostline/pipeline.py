"""The whole way, in order: data, backbone, freeze, features, fit, run. The page to read first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from frostline._device import resolve_device
from frostline.backbone import open_backbone
from frostline.data._classes import naming
from frostline.data.views import Views
from frostline.errors import PlanError
from frostline.familiar import write_familiar
from frostline.features import FeatureProgress, ImageSet
from frostline.features.extract import Prefix
from frostline.fitting import Compute, EpochDone, Event, Finished, PhaseDone, Resumed, Snapshot, StepDone, Stopped, fit
from frostline.fitting.baselines import baselines_of
from frostline.fitting.budget import Budget, seconds_of
from frostline.fitting.calibrate import calibrated
from frostline.fitting.events import FeaturesReady, Gathered
from frostline.fitting.prepare import Labelled, prefix_of, prepare
from frostline.freeze import FreezePlan
from frostline.freeze.cut import split_resolved
from frostline.gather import AtHand, by_split, gather, read_images
from frostline.model import TransferModel
from frostline.nested import check_nested, nested, parts_of
from frostline.quality.leak import leaks_of
from frostline.recipe import Recipe
from frostline.run import Run, RunRecord, write_run
from frostline.run.identity import begin, identity_of
from frostline.run.journal import Journal
from frostline.run.layout import check_begun, claim
from frostline.run.summary import Honest, Timing, summarise
from frostline.use import evaluate_images, familiar_of

Listener = Callable[[Event], None]


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    cache: str | Path | None,
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
    out, cache = Path(out), None if cache is None else Path(cache)
    check_nested(recipe)
    (check_begun if resume else claim)(out)
    at_hand = gather(recipe, cache, offline=offline)
    tested = at_hand.images["test"]
    parts = parts_of(recipe, at_hand) if recipe.nested and not len(tested) else ()
    identity = identity_of(at_hand.manifest, at_hand.digests, at_hand.model.opened, resolve_device(recipe.device))
    journal = Journal.resume(out, identity) if resume else Journal(out)
    if resume:
        listen(Resumed(len(journal.phases), len(journal.epochs), journal.passed_over))
    listen(Gathered(at_hand.counts()))
    events: list[Event] = []
    budget = None if recipe.budget is None else Budget(seconds_of(recipe.budget), began - startup, len(at_hand.images["test"]))
    if budget is not None:
        budget.begin()
    for event in _events(recipe, at_hand, cache, journal.snapshot, budget):
        if not events and not resume:
            begin(out, recipe, identity)
        if not isinstance(event, StepDone | FeatureProgress):
            events.append(event)
        listen(event)
        # Another event follows those three at once; behind the last phase there is nothing to go on with, the run is written.
        fault = None if isinstance(event, EpochDone | Stopped | Finished) or (isinstance(event, PhaseDone) and event.last) else stop()
        journal.note(event, at_once=fault is not None)
        if fault is not None:
            raise fault
    run = Run(out, recipe, {}, at_hand.manifest.classes, at_hand.model)
    finished, calibration = calibrated(run.model.head, next(e for e in events if isinstance(e, Finished)), recipe.seed)
    test = evaluate_images(run, tested, _prefix(run, at_hand, cache), cache=cache)[0] if len(tested) else None
    familiar = familiar_of(run, finished, at_hand.images["train"], at_hand.manifest, lambda: _prefix(run, at_hand, cache), cache)
    if familiar is not None:
        write_familiar(out, familiar)
    leaks = leaks_of(at_hand.manifest, at_hand.digests, finished)
    folds = nested(recipe, at_hand, parts, lambda model, *sets: _fit(recipe, model, sets, cache, None, None), cache) if parts else None
    timing = Timing(startup, began, time.perf_counter())
    honest = Honest(test, None if folds is None else asdict(folds), baselines_of(finished), calibration, leaks)
    summary = summarise(run, [*events[:-1], finished], honest, at_hand.manifest, journal.phases, journal.choices, timing)
    summary = write_run(out, RunRecord(recipe, summary, journal.epochs, at_hand.manifest, at_hand.model, at_hand.original))
    journal.close()
    return summary


def _prefix(run: Run, at_hand: AtHand, cache: Path | None) -> Prefix:
    return run.prefix_as_trained(resolve_device(run.recipe.device), at_hand.images["train"] + at_hand.images["val"], cache)


def _events(recipe: Recipe, at_hand: AtHand, cache: Path | None, resume: Snapshot | None, budget: Budget | None) -> Iterator[Event]:
    with naming(at_hand.manifest.classes):
        yield from _fit(recipe, at_hand.model, (at_hand.images["train"], at_hand.images["val"]), cache, resume, budget)


def _fit(
    recipe: Recipe, model: TransferModel, sets: Sequence[ImageSet], cache: Path | None, resume: Snapshot | None, budget: Budget | None
) -> Iterator[Event]:
    return fit(
        model,
        FreezePlan(recipe.unfreeze, recipe.batch_norm),
        sets[0],
        sets[1],
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
        budget=budget,
        resume=resume,
    )


def extract(recipe: Recipe, *, cache: Path, listen: Listener, offline: bool = False) -> FeaturesReady:
    """Fill the feature cache for a training by this recipe, and train nothing.

    Args:
        recipe: only what features depend on is looked at.
        cache: folder of the feature cache.
        listen: called with every event, for progress.
        offline: fetch nothing.

    Raises:
        FrostlineError: what was asked for cannot be done; features that are finished stay.
        PlanError: nothing is frozen at the input, so that there is nothing to cache.
    """
    manifest, digests = read_images(recipe)
    opened = open_backbone(recipe.backbone, recipe.weights, replace=recipe.replace_layer, offline=offline)
    model = TransferModel(opened, recipe.head, len(manifest.classes), recipe.seed)
    on = resolve_device(recipe.device)
    model.to(on)
    resolved = FreezePlan(recipe.unfreeze, recipe.batch_norm).apply(model)
    parts = split_resolved(model, resolved, model.example(2))
    views = Views.parse(recipe.augment, recipe.views)
    if views.live:
        raise PlanError("live views are drawn anew in every epoch: there is nothing to cache", where="--views live", advice="give a number")
    if not parts.cut.cached:
        raise PlanError(
            f"there is nothing to cache: {parts.cut.why}", where=f"--unfreeze {recipe.unfreeze}", advice="unfreeze fewer layers"
        )
    images = by_split(manifest, digests)
    held_out = images["val"] + images["test"] if parts.cut.way == "backbone" else images["val"]  # a test goes through all of a backbone
    labelled = Labelled(images["train"], held_out if len(held_out) else None)
    trained = Labelled(images["train"], images["val"] if len(images["val"]) else None)  # by their number training chooses its engine
    compute = Compute(cache, False, recipe.device, recipe.precision, recipe.engine, recipe.storage)
    prefix = prefix_of(parts, model.opened, trained, compute, on)
    ready: FeaturesReady | None = None
    with naming(manifest.classes):
        for event in prepare(parts, prefix, labelled, views, compute, recipe.seed):
            ready = event if isinstance(event, FeaturesReady) else ready
            listen(event)
    assert ready is not None  # prepare ends with it
    return ready
