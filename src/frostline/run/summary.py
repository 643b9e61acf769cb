"""The outcome of a run as plain JSON values: what ``--json`` prints and ``summary.json`` keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frostline.data.manifest import Manifest
from frostline.fitting.baselines import Baselines
from frostline.fitting.calibrate import Calibration
from frostline.fitting.candidates import Judged, SteppedHead
from frostline.fitting.events import DepthChosen, Event, FeaturesReady, Finished, PhaseDone, Planned, Solved, Stopped, Swept
from frostline.fitting.metrics import Scores, score
from frostline.run.read import Run


@dataclass(frozen=True)
class Timing:
    """Seconds before the pipeline began, and the clock at its beginning and end."""

    startup: float
    began: float
    ended: float


@dataclass(frozen=True)
class Leaks:
    """Copies of one image in two splits.

    Attributes:
        exact: byte for byte.
        near: the same picture in other bytes, in training and validation; None where nobody looked.
    """

    exact: Sequence[tuple[Path, Path]]
    near: Sequence[tuple[Path, Path]] | None


@dataclass(frozen=True)
class Honest:
    """What a result is to be read with.

    Attributes:
        test: scores on test images, where there are any.
        nested: what the recipe reaches in nested cross-validation, as plain values; None where it was not asked for.
        baselines: what is reached without training; None without validation images.
        calibration: what was done to the probabilities; None where nothing was.
        leaks: copies of images in two splits.
    """

    test: Scores | None
    nested: object
    baselines: Baselines | None
    calibration: Calibration | None
    leaks: Leaks


def summarise(
    run: Run,
    events: Sequence[Event],
    honest: Honest,
    manifest: Manifest,
    phases: Sequence[Mapping[str, Any]],
    choices: Mapping[str, Any],
    timing: Timing,
) -> dict[str, Any]:
    """Put the outcome together. Keys are the contract of ``train --json``.

    Args:
        run: recipe, classes and the trained model.
        events: of this process; after ``--resume`` those from there on.
        honest: what it is to be read with.
        manifest: the images.
        phases: :func:`phase_json` of every phase, those before a resume included.
        choices: :func:`choice_json` of every choice, likewise.
        timing: of this process.
    """
    planned = [e for e in events if isinstance(e, Planned)]
    ready = [e for e in events if isinstance(e, FeaturesReady)]
    finished = next(e for e in events if isinstance(e, Finished))
    stopped = [e.why for e in events if isinstance(e, Stopped)]
    total = timing.startup + timing.ended - timing.began
    return {
        "run": str(run.folder),
        "classes": list(run.classes),
        **_settings(run, planned[-1], finished),
        "phases": list(phases),
        "epochs_run": finished.epochs,
        "best_epoch": finished.best_epoch,
        "stopped": stopped[-1] if stopped else None,
        "train": {
            "n": len(finished.train_labels),
            "accuracy": score(finished.train_logits, finished.train_labels).accuracy,
        },
        "val": None
        if finished.val_logits is None or finished.val_labels is None
        else scores_json(score(finished.val_logits, finished.val_labels)),
        "val_chose_epoch": finished.val_logits is not None,
        "test": None if honest.test is None else scores_json(honest.test),
        "cache": _cache(planned[-1], ready),
        "engine": dict(ready[-1].engine),
        **{kind: choices.get(kind) for kind in ("depth", "sweep", "solved")},
        "seconds": {
            "total": total,
            "startup": timing.startup,
            "features": sum(r.extracted.seconds for r in ready),
            "train": finished.seconds,
            "write": 0.0,
        },
        "images_used": len(finished.train_labels)
        + (0 if finished.val_labels is None else len(finished.val_labels))
        + (honest.test.n if honest.test else 0),
        "images_skipped": [{"path": str(p), "why": why} for r in ready for p, why in r.skipped],
        "duplicates_across_splits": _pairs(honest.leaks.exact),
        "near_duplicates_across_splits": None if honest.leaks.near is None else _pairs(honest.leaks.near),
        "nested": honest.nested,
        "baselines": None if honest.baselines is None else asdict(honest.baselines),
        "calibration": None if honest.calibration is None else asdict(honest.calibration),
        "guards": _guards(finished),
        "warnings": finished.guards.warnings(),
        "notes": list(manifest.notes),
        "auto": list(finished.decisions) or None,
        "audit": _audit(finished),
    }


def _pairs(pairs: Sequence[tuple[Path, Path]]) -> list[list[str]]:
    return [[str(a), str(b)] for a, b in pairs]


def _settings(run: Run, planned: Planned, finished: Finished) -> dict[str, Any]:
    sizes = {n: p.numel() for n, p in run.model.named_parameters()}
    solved = planned.hyper.lr == 0  # a phase that takes no steps
    return {
        "backbone": run.model.opened.name,
        "weights": str(run.model.opened.report),
        "unfreeze": run.recipe.unfreeze,
        "unfrozen_blocks": list(finished.resolved.matched),
        "head": str(run.model.head_spec),
        "strategy": run.recipe.strategy,
        "trainable_parameters": sum(sizes[n] for n in finished.resolved.trainable),
        "frozen_parameters": sum(sizes[n] for n in finished.resolved.frozen),
        "epochs": planned.hyper.epochs,
        "batch_size": planned.hyper.batch_size,
        "lr": None if solved else planned.hyper.lr,
        "backbone_lr": planned.hyper.backbone_lr if planned.resolved.backbone_trained else None,
        "weight_decay": None if solved else planned.hyper.weight_decay,
        "seed": run.recipe.seed,
    }


def choice_json(event: Event) -> dict[str, Any]:
    """What was chosen among heads or depths, as plain JSON values under the key that the summary has for it; empty for other events."""
    if isinstance(event, DepthChosen):
        tried = dict(zip(event.names, event.accuracies, strict=True))
        return {"depth": {"chosen": event.chosen, "why": event.why, "images": event.images, "accuracy": tried}}
    if isinstance(event, Swept):
        return {"sweep": {**_choice(event), "heads": event.heads, "epochs": event.epochs}}
    return {"solved": _choice(event)} if isinstance(event, Solved) else {}


def choices_json(events: Sequence[Event]) -> dict[str, Any]:
    """The first choice of each kind."""
    return {kind: told for event in reversed(events) for kind, told in choice_json(event).items()}


def _choice(event: Swept | Solved) -> dict[str, Any]:
    return {
        "candidates": [_judged_json(j) for j in event.judged],
        "chosen": _judged_json(event.chosen),
        "folds": event.folds,
        "seconds": event.seconds,
    }


def _judged_json(judged: Judged) -> dict[str, Any]:
    key = judged.candidate
    stepped = isinstance(key, SteppedHead)
    return {
        "head": str(key.head),
        "lr": key.lr if stepped else None,
        "weight_decay": key.weight_decay if stepped else None,
        "strength": None if stepped else key.strength,
        "accuracy": judged.accuracy,
        "log_loss": judged.log_loss if math.isfinite(judged.log_loss) else None,
    }


def _audit(finished: Finished) -> dict[str, Any]:
    return {
        "frozen_unchanged": finished.audit.frozen_unchanged,
        "trainable_moved": finished.audit.trainable_moved,
        "frozen_tensors": len(finished.resolved.frozen) + len(finished.resolved.frozen_buffers),
        "still": list(finished.audit.still),
    }


def phase_json(done: PhaseDone, planned: Planned) -> dict[str, Any]:
    """What one phase did, as plain JSON values."""
    return {
        "name": done.phase,
        "kept": done.kept,
        "unfrozen_blocks": list(planned.resolved.matched),
        "cut": planned.cut.name,
        "epochs": done.epochs,
        "best_epoch": done.best_epoch,
        "val_loss_before": done.loss_before,
        "val_loss_after": done.loss_after,
        "alpha": done.alpha,
        "gain": None if done.gain is None else asdict(done.gain),
    }


def phases_json(events: Sequence[Event]) -> list[dict[str, Any]]:
    """:func:`phase_json` of every phase among the events of a fit."""
    planned = [e for e in events if isinstance(e, Planned)]
    done = [e for e in events if isinstance(e, PhaseDone)]
    return [phase_json(d, p) for d, p in zip(done, planned, strict=True)]


def _cache(planned: Planned, ready: Sequence[FeaturesReady]) -> dict[str, Any]:
    return {
        "cut": planned.cut.name,
        "way": planned.cut.way,
        "why": planned.cut.why,
        "hit": all(r.extracted.hit for r in ready),
        "bytes": sum(r.bytes for r in ready),
        "decoded": sum(r.extracted.decoded for r in ready),
        "forwarded": sum(r.extracted.forwarded for r in ready),
        "storage_error": max((r.extracted.storage_error for r in ready), default=0.0),
    }


def _guards(finished: Finished) -> dict[str, Any]:
    fit, forgot = finished.guards.overfitting, finished.guards.forgetting
    return {
        "overfitting": None if fit is None else {"gap": fit.gap, "interval": list(fit.interval), "warned": fit.warned},
        "forgetting": None
        if forgot is None
        else {
            "distance": dict(forgot.distance),
            "similarity": forgot.similarity,
            "agreement": forgot.agreement,
            "images": forgot.images,
            "warned": forgot.warned,
        },
    }


def scores_json(scores: Scores, classes: Sequence[str] = ()) -> dict[str, Any]:
    """Scores as plain JSON values; with class names also the per-class table and the confusion matrix."""
    plain: dict[str, Any] = {
        "n": scores.n,
        "accuracy": scores.accuracy,
        "balanced_accuracy": scores.balanced_accuracy,
        "interval": list(scores.interval),
        "log_loss": scores.log_loss,
        "calibration_error": scores.calibration_error,
    }
    if classes:
        columns = [sum(row[i] for row in scores.confusion) for i in range(len(classes))]
        plain["per_class"] = {
            name: {
                "n": sum(row),
                "recall": row[i] / sum(row) if sum(row) else None,
                "precision": row[i] / columns[i] if columns[i] else None,
            }
            for i, (name, row) in enumerate(zip(classes, scores.confusion, strict=True))
        }
        plain["confusion"] = [list(row) for row in scores.confusion]
    return plain
