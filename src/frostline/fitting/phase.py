"""One phase of training: freeze, split, run the prefix once, train the suffix, prove that nothing else moved, keep it or not."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from frostline.backbone.sealed import Sealed
from frostline.backbone.tap import recorded_inputs
from frostline.data.views import Views
from frostline.features.depths import ALL
from frostline.features.extract import Prefix
from frostline.fitting.adamw import AdamW
from frostline.fitting.auto import Gain, another_step, gain_of, losses_of
from frostline.fitting.budget import Budget, Clock
from frostline.fitting.calibrate import fit_temperature
from frostline.fitting.candidates import Judged
from frostline.fitting.events import Event, PhaseDone, Planned
from frostline.fitting.forget import HELD_OUT, changing_names
from frostline.fitting.hyper import Hyper, Options, default_hyper, override
from frostline.fitting.ledger import Ledger
from frostline.fitting.loop import Task, logits_of, put_back, train
from frostline.fitting.objective import Objective, balanced_weights
from frostline.fitting.optim import load_state_by_name, make_optimizer, state_by_name
from frostline.fitting.phases import Phase
from frostline.fitting.prepare import Compute, Labelled, Sources, prefix_of, prepare, shortage
from frostline.fitting.snapshot import Progress, Snapshot, copies
from frostline.fitting.solved import AT_ONCE, solve_phase
from frostline.fitting.sources import FeatureRows, ImageRows, Source
from frostline.fitting.weigh import weigh_depths
from frostline.fitting.wise import interpolate
from frostline.freeze.apply import evaluating
from frostline.freeze.audit import audit, fingerprint
from frostline.freeze.cut import Split, split_resolved, whole
from frostline.freeze.plan import ResolvedPlan
from frostline.heads.contract import MOST_MEASURED, InputScale
from frostline.heads.linear import LinearHead
from frostline.model import TransferModel


@dataclass(frozen=True)
class Given:
    """What a person asked for, or a sweep chose; None where the documented rule decides. See :func:`frostline.fit`.

    Attributes:
        solution: of a sweep.
        auto: whether each phase decides if there is another.
        budget: the time that there is.
    """

    epochs: int | None
    batch_size: int | None
    lr: float | None
    backbone_lr: float | None
    weight_decay: float | None
    options: Options
    views: Views
    seed: int
    solution: Judged | None = None
    auto: bool = False
    budget: Budget | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """What all phases share.

    Attributes:
        model: changed in place.
        device: where it is.
        compute: cache and precision.
        given: what a person asked for.
        phases: how many there are.
        images: how many were given to train on, those that turn out to be none included: the rule must not depend on the phase
            in which it is asked.
        original: backbone tensors as they were, by name; see :func:`frostline.fitting.forget.originals`.
    """

    model: TransferModel
    device: torch.device
    compute: Compute
    given: Given
    phases: int
    images: int
    original: Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Ready:
    """Features of the job's images that a sweep has computed already.

    Attributes:
        parts: the split that they are of.
        prefix: what computed them.
        sources: the features.
        images: those that could be read.
    """

    parts: Split
    prefix: Prefix
    sources: Sources
    images: Labelled

    def under(self, head: nn.Module) -> tuple[Split, Prefix]:
        """The split under the head that was chosen, and its prefix."""
        return replace(self.parts, suffix=head), self.prefix


@dataclass(frozen=True, eq=False)
class Trained:
    """What a phase leaves behind.

    Attributes:
        module: gives logits for what the sources give.
        sources: what it was trained on and judged by.
        images: those that could be read.
        eval_batch: images a batch of evaluation.
    """

    module: nn.Module
    sources: Sources
    images: Labelled
    eval_batch: int


def run_phase(
    job: Job, phase: Phase, images: Labelled, ledger: Ledger, resume: Snapshot | None, ready: Ready | None = None
) -> Generator[Event, None, Trained]:
    """Run the phase that the ledger says is under way.

    Args:
        job: what all phases share.
        phase: this one.
        images: to train on and to judge by.
        ledger: what the phases before have done; kept up to date.
        resume: a snapshot taken in this phase, or right before it, to go on from.
        ready: features that a sweep has computed for the same cut, or None.
    """
    model, number, clock = job.model, ledger.phase, Clock(job.given.budget)
    resolved = phase.plan.apply(model)
    changing = changing_names(model, resolved)
    ledger.touch(changing)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if resume is not None:
        put_back(tensors, resume.part("start"))
    parts, prefix = _cut(job, resolved, images) if ready is None else ready.under(model.head)
    ledger.use(prefix.engine.identity, resumed=resume is not None and "progress" in resume.facts)
    hyper = _hyper(job, phase, resolved)
    yield Planned(phase.name, number + 1, job.phases, resolved, parts.cut, hyper)

    before = fingerprint(model, resolved)
    if ready is None:
        sources, images = yield from prepare(parts, prefix, images, job.given.views, job.compute, job.given.seed, ledger.epochs)
    else:
        sources, images = ready.sources, ready.images
    eval_batch = _eval_batch(parts)
    if number == 0:
        _measure_scale(job, parts, sources, eval_batch)
    start = {n: tensors[n].detach().clone() for n in ledger.touched}

    inside = {n: tensors[n] for n in changing}
    clock.features_ready()
    judged_before = _judged(parts, sources.val, eval_batch)[0] if number and sources.val is not None else None
    clock.judged(_seconds_after(job, resolved, prefix, images, sources, judged=judged_before is not None), _times(sources, judged_before))
    task = _task(job, phase.name, number, parts, sources, hyper, inside, clock)
    optimizer = make_optimizer(model, resolved, hyper, job.given.options.layer_decay)
    progress = _progress(job, resume, tensors, optimizer)

    clock.training()
    held = {n: tensors[n] for n in ledger.touched}
    if _solves(job, resolved) and isinstance(model.head, LinearHead):
        yield from solve_phase(task, model.head, model.head_spec, job.given.solution, progress)
    else:
        yield from train(task, optimizer, progress, partial(_snapshot, ledger.snapshot(), held, start, optimizer))
    loss, alpha, unfinished = progress.best_loss, None, _unfinished(progress, clock)
    if job.given.options.wise and number and sources.val is not None and not unfinished:
        alpha, loss = _mix(task, inside, start)
    proof = audit(before, fingerprint(model, resolved))
    proof.check()
    gain = None if judged_before is None or unfinished else _gain(ledger, judged_before, *_judged(parts, sources.val, eval_batch))
    kept = not unfinished and (ledger.val_loss is None or loss is None or loss < ledger.val_loss)
    kept = kept and (gain is None or gain.sure or not job.given.auto)
    if not kept:  # what half an epoch, or no number, has made of the weights is judged by nobody
        put_back(tensors, start)
    seconds = clock.trained(progress.epoch)
    ledger.seconds += seconds
    done = progress.best_epoch, progress.epoch, ledger.val_loss, loss
    ledger.close(kept, progress.best_epoch, progress.epoch, loss, proof)
    judges = _judges(sources) if job.given.auto else None
    step = (True, phase.name) if judges is None else another_step(phase.name, gain, kept=kept, judges=judges, unfinished=unfinished)
    last, why = _decide(job, ledger, *step, late=clock.too_late_for_another())
    between = partial(_between_phases, ledger.snapshot(), held)
    yield PhaseDone(phase.name, kept, *done, alpha, gain, proof, seconds, last, why, between)
    return Trained(parts.suffix, sources, images, eval_batch)


def _progress(job: Job, resume: Snapshot | None, tensors: dict[str, torch.Tensor], optimizer: AdamW) -> Progress:
    """Where the phase stands: at its beginning, or where it was interrupted; weights and optimizer are put back."""
    if resume is None or "progress" not in resume.facts:
        return Progress()
    put_back(tensors, resume.part("model"))
    load_state_by_name(optimizer, resume.part("optimizer"))
    on_device = {k: {n: t.to(job.device) for n, t in resume.part(k).items()} for k in ("best", "average")}
    return Progress.of(resume.facts["progress"], on_device["best"], on_device["average"])


def _unfinished(progress: Progress, clock: Clock) -> str:
    """Why no epoch of the phase was finished; empty where one was."""
    if progress.best_epoch:
        return ""
    return "the time was up before its first epoch ended (--budget)" if clock.late() else "its loss became no number in its first epoch"


def _decide(job: Job, ledger: Ledger, go_on: bool, why: str, *, late: bool) -> tuple[bool, str]:
    """Whether the phase that has ended is the last one, and of ``auto`` why."""
    if late and go_on and ledger.phase < job.phases:
        go_on, why = False, f"{why}; nothing more is unfrozen for want of time (--budget)"
    if job.given.auto or not go_on:
        ledger.decide(go_on, why)
    return ledger.over or ledger.phase == job.phases, ledger.decisions[-1] if ledger.decisions else ""


def _task(
    job: Job, name: str, number: int, parts: Split, sources: Sources, hyper: Hyper, inside: dict[str, torch.Tensor], clock: Clock
) -> Task:
    """What the loop is given; ``inside`` is everything that may change."""
    named = {n: p for n, p in job.model.named_parameters() if p.requires_grad}
    objective, size = _objective(job, named, sources, number), _eval_batch(parts)
    late = clock.late
    return Task(name, number, parts.suffix, inside, named, sources.train, sources.val, hyper, objective, job.given.seed, size, late)


def _judged(parts: Split, val: Source | None, eval_batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of the validation images; there are some."""
    assert val is not None
    return logits_of(parts.suffix, val, eval_batch), val.labels.cpu()


def _gain(ledger: Ledger, before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor) -> Gain:
    """Of a phase, both at the temperature that suits them best, for how sure answers are is set right afterwards.

    The first that has one before it finds the linear probe.
    """
    before, after = (logits / fit_temperature(logits, labels) for logits in (before, after))
    if ledger.probe is None:
        ledger.probe = losses_of(before, labels)
    return gain_of(ledger.probe, before, after, labels)


def _eval_batch(parts: Split) -> int:
    return 256 if parts.cut.way == "backbone" else 32


def _judges(sources: Sources) -> int:
    return 0 if sources.val is None else len(sources.val.labels)


def _times(sources: Sources, judged_before: torch.Tensor | None) -> float:
    """Training images for each validation image; 0 where none were judged."""
    return 0.0 if judged_before is None else len(sources.train.labels) / len(judged_before)


def _seconds_after(job: Job, resolved: ResolvedPlan, prefix: Prefix, images: Labelled, sources: Sources, *, judged: bool) -> float:
    """Of running images through the network once training is done; 0 where nobody counts.

    A test, what forgetting is measured on, and in the first phase, of which nothing was judged before, all images of the job, where their
    features are not kept.
    """
    if job.given.budget is None:
        return 0.0
    own = 0 if judged else 2 * len(images.everything)
    if resolved.backbone_trained:
        return (job.given.budget.after + 2 * HELD_OUT + own) * _seconds_an_image(job)
    count = job.given.budget.after + (own if isinstance(sources.train, ImageRows) else 0)
    rates = prefix.engine.images_per_second, prefix.engine.pictures_per_second
    if rates[0] is not None and rates[1] is not None:
        return count * (1 / rates[0] + 1 / rates[1])
    return 0.0 if isinstance(job.model.backbone, Sealed) or not count else count * _seconds_an_image(job)


def _seconds_an_image(job: Job) -> float:
    """Of the network itself."""
    example = job.model.example(4)
    with evaluating(job.model), torch.no_grad():
        job.model(example)
        began = time.perf_counter()
        job.model(example)
    return (time.perf_counter() - began) / len(example)


def _cut(job: Job, resolved: ResolvedPlan, images: Labelled) -> tuple[Split, Prefix]:
    """The split, and its prefix with an engine; where the features that are missing do not fit on the disk, nearer to the input."""
    model, opened, views = job.model, job.model.opened, job.given.views
    example = model.example(2)
    if views.live:
        parts = whole(model, example, "every epoch draws new augmentation: the whole network is run on every image in every epoch")
        return parts, prefix_of(parts, opened, images, job.compute, job.device)
    parts = split_resolved(model, resolved, example)
    prefix = prefix_of(parts, opened, images, job.compute, job.device)
    short = shortage(prefix, images, views.cached(job.given.seed), job.compute)
    if short is not None:
        moved = split_resolved(model, resolved, example, short.room)
        parts = replace(moved, cut=replace(moved.cut, why=f"{short}: {moved.cut.why}"))
        prefix = prefix_of(parts, opened, images, job.compute, job.device)
    return parts, prefix


def _hyper(job: Job, phase: Phase, resolved: ResolvedPlan) -> Hyper:
    if _solves(job, resolved):
        return replace(AT_ONCE, batch_size=job.images)
    kind = type(job.model.head).__name__.removesuffix("Head").lower()
    deep = job.model.head_spec.at == ALL
    rule = default_hyper(images=job.images, head=kind, backbone_trained=resolved.backbone_trained, all_depths=deep)
    asked = job.given
    return override(
        rule,
        epochs=asked.epochs if phase.epochs is None else phase.epochs,
        batch_size=asked.batch_size,
        lr=asked.lr if phase.lr is None else phase.lr,
        backbone_lr=asked.backbone_lr if phase.backbone_lr is None else phase.backbone_lr,
        weight_decay=asked.weight_decay,
    )


def _solves(job: Job, resolved: ResolvedPlan) -> bool:
    """Whether the phase computes the head at once; with a part of the backbone it goes on from there step by step."""
    return job.model.head_spec.solved and not resolved.backbone_trained


def _objective(job: Job, named: Mapping[str, nn.Parameter], sources: Sources, number: int) -> Objective:
    options = job.given.options
    weights = balanced_weights(sources.train.labels, job.model.num_classes) if options.class_weights == "balanced" else None
    anchors = {f"backbone.{n}": t for n, t in job.original.items() if f"backbone.{n}" in named} if options.l2_sp else {}
    return Objective(options, weights, anchors, job.given.seed, number)


def _measure_scale(job: Job, parts: Split, sources: Sources, eval_batch: int) -> None:
    """Fit the head's fixed scaling to what enters it, over the training images; of several depths how much each counts, too."""
    model, train = job.model, sources.train
    scale = next((m for m in model.head.modules() if isinstance(m, InputScale)), None)
    if scale is None:
        return
    if parts.cut.way == "backbone" and isinstance(train, FeatureRows):
        rows = train.views[0]
        if len(parts.layout.parts[0].shape) > 1:  # with positions a sample is enough, and only it is read
            rows = rows[torch.arange(0, len(rows), max(1, len(rows) // MOST_MEASURED))]
            rows = parts.layout.unpack(rows)[0]
    else:
        with recorded_inputs(model.head) as met:
            logits_of(parts.suffix, train, eval_batch)
        rows = torch.cat(met)
    weights = None
    if scale.parts:
        units = train.units if isinstance(train, FeatureRows) else train.images.units if isinstance(train, ImageRows) else ()
        weights = weigh_depths(rows, scale.parts, train.labels, model.num_classes, job.given.seed, units)
    scale.measure(rows, weights)


def _mix(task: Task, inside: dict[str, torch.Tensor], start: Mapping[str, torch.Tensor]) -> tuple[float, float]:
    """WiSE-FT over what the phase changed; the model holds the chosen mixture. Gives the share and the validation loss."""
    assert task.val is not None
    val = task.val
    end = {n: t.detach().clone() for n, t in inside.items()}

    def loss_of(mixture: dict[str, torch.Tensor]) -> float:
        put_back(inside, mixture)
        return float(nn.functional.cross_entropy(logits_of(task.module, val, task.eval_batch), val.labels.cpu()))

    share, loss, mixture = interpolate({n: start[n] for n in end}, end, loss_of)
    put_back(inside, mixture)
    return share, loss


def _snapshot(
    ledger: Snapshot, held: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor], optimizer: AdamW, progress: Progress
) -> Snapshot:
    tensors = copies(held, "model") | copies(start, "start") | copies(progress.best, "best") | copies(progress.average, "average")
    tensors |= copies(state_by_name(optimizer), "optimizer")
    return Snapshot({**ledger.facts, "progress": progress.facts()}, {**ledger.tensors, **tensors})


def _between_phases(ledger: Snapshot, held: Mapping[str, torch.Tensor]) -> Snapshot:
    return Snapshot(ledger.facts, {**ledger.tensors, **copies(held, "start")})
