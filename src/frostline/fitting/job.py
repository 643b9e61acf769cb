"""Fit a model under a freeze plan, phase by phase: the calls in order."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import Dataset

from frostline._device import resolve_device
from frostline.data.manifest import Manifest
from frostline.data.read import read_data
from frostline.data.views import Views
from frostline.errors import RecipeError
from frostline.features.images import ImageSet
from frostline.fitting.budget import Budget
from frostline.fitting.choose import check_choice, choose_head
from frostline.fitting.depth import Places, choose_depth, wants_depth
from frostline.fitting.events import Event, Finished, Seen, Stopped
from frostline.fitting.forget import FEWEST, forgetting_of, originals
from frostline.fitting.guard import Guards, overfitting
from frostline.fitting.hyper import Options
from frostline.fitting.ledger import Ledger
from frostline.fitting.looked import looked_at
from frostline.fitting.loop import logits_of
from frostline.fitting.phase import Given, Job, Ready, Trained, run_phase
from frostline.fitting.phases import Phase, phases_of
from frostline.fitting.prepare import Compute, Labelled
from frostline.fitting.snapshot import Snapshot
from frostline.fitting.sources import FeatureRows, Source
from frostline.freeze import FreezePlan, ResolvedPlan
from frostline.freeze.select import FromModule, parse_selector
from frostline.given import is_dataset, manifest_of
from frostline.model import TransferModel

Images = ImageSet | Manifest | Path | str | Dataset[Any]


def fit(
    model: TransferModel,
    plan: FreezePlan,
    train_images: Images,
    val_images: Images | None = None,
    *,
    strategy: str | Sequence[Phase] = "plain",
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    backbone_lr: float | None = None,
    weight_decay: float | None = None,
    options: Options = Options(),
    views: Views = Views(),
    seed: int = 0,
    compute: Compute = Compute(),
    sweep: int = 0,
    budget: Budget | None = None,
    resume: Snapshot | None = None,
) -> Iterator[Event]:
    """Train ``model`` under ``plan``; a generator of events, nothing happens until it is iterated.

    Args:
        model: changed in place.
        plan: what is trained.
        train_images: a folder of class folders, a table, tar files, a manifest, an :class:`ImageSet`, or a data set of torch,
            torchvision or Hugging Face with items of picture and class.
        val_images: likewise, with the same classes; chooses the epoch that is kept. None keeps the last.
        strategy: ``plain``, ``lp-ft``, ``gradual``, ``auto``, or phases of one's own.
        epochs: passes over the training images, of each phase; like the four after it, by default from the documented rule
            (:func:`frostline.fitting.hyper.default_hyper`).
        batch_size: images a batch.
        lr: peak learning rate of the head.
        backbone_lr: peak learning rate of unfrozen backbone layers.
        weight_decay: of AdamW, on matrices and kernels only.
        options: what is added to plain training.
        views: augmentation of the training images.
        seed: of the order of images and of everything that is drawn.
        compute: cache, device and precision.
        sweep: heads to try by cross-validation on the training images; the best takes the place of ``model.head``. 0 tries none.
        budget: the time that there is; what is best when it is up is kept. How far that is depends on the machine.
        resume: go on from a snapshot of the same job; ``model`` is given as it was before that began.

    Yields:
        For each phase :class:`Planned`, :class:`FeatureProgress`, :class:`FeaturesReady`, many :class:`StepDone`, one
        :class:`EpochDone` an epoch and :class:`PhaseDone`; :class:`Finished` at the end. Solved heads have one :class:`Solved` and
        no steps; with a sweep, features and :class:`Swept` come first.

    Raises:
        PlanError: nothing would be trained, or the strategy does not fit the plan.
        RecipeError: an option is out of range or cannot go with a sweep or a solved head, or the loss is no number from the start.
        DataError: an image list is empty once what is no image has been left out.
        AuditError: a frozen tensor changed (a bug).
    """
    options.check()
    phases, auto = phases_of(strategy, plan, model.backbone), strategy == "auto"
    options = _mixed(options, phases, auto=auto, judged=val_images is not None)
    given = Given(epochs, batch_size, lr, backbone_lr, weight_decay, options, views, seed, auto=auto, budget=budget)
    check_choice(model.head_spec, sweep, phases, given, compute)
    device = resolve_device(compute.device)
    model.to(device)
    with ExitStack() as held:
        images = _labelled(train_images, val_images, held)
        ledger = Ledger() if resume is None else Ledger.of(resume)
        given, ready = yield from _in_time(_choose(model, plan, phases[0], images, given, compute, device, sweep, ledger), budget)
        phases = phases_of(strategy, plan, model.backbone)
        plans = [phase.plan.resolve(model) for phase in phases]
        job = Job(model, device, compute, given, len(phases), len(images.train), originals(model, plans))
        first, trained = yield from _run(job, phases, images, ledger, resume, ready)
        yield _finished(job, first, trained, ledger, plans[ledger.kept])


def _run(
    job: Job, phases: Sequence[Phase], images: Labelled, ledger: Ledger, resume: Snapshot | None, ready: Ready | None
) -> Generator[Event, None, tuple[Trained, Trained]]:
    """All phases that are left; gives what the first and the last one that were run leave behind."""
    first = trained = None
    ready = ready if ledger.phase == 0 else None  # features at hand are those of the frozen backbone
    for phase in phases[ledger.phase :]:
        steps = run_phase(job, phase, images, ledger, resume, ready)
        if trained is None:
            trained = yield from _in_time(steps, job.given.budget)
        else:
            trained = (yield from _unless_late(steps, phase.name, ledger, job.given.budget)) or trained
        first, images, resume, ready = first or trained, trained.images, None, None
        if ledger.over:
            break
    assert first is not None  # there is at least one phase, and a snapshot is taken inside one
    assert trained is not None
    return first, trained


def _choose(
    model: TransferModel,
    plan: FreezePlan,
    phase: Phase,
    images: Labelled,
    given: Given,
    compute: Compute,
    device: torch.device,
    sweep: int,
    ledger: Ledger,
) -> Generator[Event, None, tuple[Given, Ready | None]]:
    """The depth and the head, where they are to be chosen; gives the settings and the features, if they are at hand.

    ``ledger`` knows which head was chosen before an interruption, for with a budget another one might be chosen now.
    """
    places = Places()
    named = isinstance(parse_selector(plan.unfreeze), FromModule)  # which a cut of the backbone may take away
    if wants_depth(model, auto=given.auto and not named):
        places = yield from choose_depth(model, images, given, compute, device, sweep=sweep > 0, taken=ledger.head)
    chosen = yield from choose_head(model, phase, images, given, compute, device, sweep, places)
    ledger.head = str(model.head_spec)
    return chosen


_Event = TypeVar("_Event", bound=Event)
_Given = TypeVar("_Given")


def _in_time(steps: Generator[_Event, None, _Given], budget: Budget | None) -> Generator[_Event, None, _Given]:
    """The same steps; refused where the budget does not even allow the first features."""
    with closing(steps):  # whoever refuses leaves no lock behind
        while True:
            try:
                event = next(steps)
            except StopIteration as end:
                return end.value
            if budget is not None:
                budget.check(event)
            yield event


def _unless_late(
    steps: Generator[Event, None, Trained], name: str, ledger: Ledger, budget: Budget | None
) -> Generator[Event, None, Trained | None]:
    """The same steps of a later phase; ended, with what the phases before have reached, where its features would not be there in time."""
    with closing(steps):
        while True:
            try:
                event = next(steps)
            except StopIteration as end:
                return end.value
            if budget is not None and budget.too_late(event):
                ledger.decide(False, f"{name}: not begun, its features would not be there in time (--budget)")
                yield Stopped(name, 1, "its features would not be there in time (--budget)")
                return None
            yield event


def _mixed(options: Options, phases: Sequence[Phase], *, auto: bool, judged: bool) -> Options:
    """The options; ``auto`` mixes weights wherever there are images to judge mixtures by.

    Raises:
        RecipeError: they were to be mixed, and there is nothing to mix with.
    """
    if options.wise and (len(phases) == 1 or not judged):
        raise RecipeError(
            "there is nothing to mix with: weights of one phase are mixed with those of the phase before, by validation images",
            where="--wise",
            advice="use it with --strategy lp-ft, gradual or auto",
        )
    return replace(options, wise=options.wise or (auto and judged))


def _finished(job: Job, first: Trained, trained: Trained, ledger: Ledger, resolved: ResolvedPlan) -> Finished:
    train, val = trained.sources.train, trained.sources.val
    train_labels = train.labels.cpu()
    train_logits, train_looked = _judged(job, trained, train, trained.images.train)
    val_logits, val_looked = (None, None) if val is None or trained.images.val is None else _judged(job, trained, val, trained.images.val)
    val_labels = None if val is None else val.labels.cpu()
    fit = None
    if val_logits is not None and val_labels is not None:
        rights = [int((logits.argmax(1) == labels).sum()) for logits, labels in ((train_logits, train_labels), (val_logits, val_labels))]
        fit = overfitting(rights[0], len(train_labels), rights[1], len(val_labels))
    held_out = trained.images.val
    if held_out is None or len(held_out) < FEWEST:
        held_out = trained.images.everything
    forgot = forgetting_of(job.model, job.original, held_out) if job.original else None
    guards = Guards(fit, forgot)
    return Finished(
        ledger.best_epoch,
        ledger.epochs,
        resolved,
        ledger.audit,
        guards,
        train_logits,
        train_labels,
        val_logits,
        val_labels,
        ledger.seconds,
        tuple(ledger.decisions),
        _seen(job, first),
        None if train_looked is None or val_looked is None else (train_looked, val_looked),
    )


def _judged(job: Job, trained: Trained, source: Source, images: ImageSet) -> tuple[torch.Tensor, Seen | None]:
    """Logits of all images; where the backbone had to be run for them, some of them with their features as well."""
    if trained.module is job.model.head:
        return logits_of(trained.module, source, trained.eval_batch), None
    return looked_at(trained.module, job.model.head, source, images, trained.eval_batch, job.given.seed)


def _seen(job: Job, trained: Trained) -> tuple[Seen, Seen] | None:
    """Images with their features, where those are vectors in memory, of the whole backbone as it was opened and of the plain view."""
    if trained.module is not job.model.head or job.given.views.augment != "none" or trained.images.val is None:
        return None
    found: list[Seen] = []
    for source, images in ((trained.sources.train, trained.images.train), (trained.sources.val, trained.images.val)):
        rows = source.views[0] if isinstance(source, FeatureRows) else None
        if not isinstance(rows, torch.Tensor) or not isinstance(source, FeatureRows) or len(source.layout.parts[0].shape) > 1:
            return None
        found.append(Seen(images, rows))
    return found[0], found[1]


def _labelled(train: Images, val: Images | None, held: ExitStack) -> Labelled:
    """The images of a job; what is no file is written to a folder that ``held`` removes in the end."""

    def of(images: Images, known: Sequence[str] | None = None) -> ImageSet | Manifest:
        if isinstance(images, ImageSet | Manifest):
            return images
        if is_dataset(images):
            return manifest_of(images, Path(held.enter_context(tempfile.TemporaryDirectory(prefix="frostline-"))), known)
        return read_data(Path(images))  # pyright: ignore[reportArgumentType]

    first = of(train)
    both = is_dataset(train) and is_dataset(val)
    second = None if val is None else of(val, first.classes if both and isinstance(first, Manifest) else None)
    sets = [i if i is None or isinstance(i, ImageSet) else ImageSet.of(i) for i in (first, second)]
    assert sets[0] is not None
    return Labelled(sets[0], sets[1])
