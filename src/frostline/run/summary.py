"""The outcome of a run as plain JSON values: what ``--json`` prints and ``summary.json`` keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frostline.data.manifest import Manifest
from frostline.fitting.events import Event, FeaturesReady, Finished, Planned, Stopped
from frostline.fitting.metrics import Scores, score
from frostline.run.read import Run


@dataclass(frozen=True)
class Timing:
    """Seconds before the pipeline began, and the clock at its beginning and end."""

    startup: float
    began: float
    ended: float


def summarise(
    run: Run,
    events: Sequence[Event],
    test: Scores | None,
    manifest: Manifest,
    leaks: Sequence[tuple[Path, Path]],
    timing: Timing,
) -> dict[str, Any]:
    """Put the outcome together. Keys are the contract of ``train --json``."""
    planned = next(e for e in events if isinstance(e, Planned))
    ready = next(e for e in events if isinstance(e, FeaturesReady))
    finished = next(e for e in events if isinstance(e, Finished))
    stopped = [e.why for e in events if isinstance(e, Stopped)]
    sizes = {n: p.numel() for n, p in run.model.named_parameters()}
    opened, hyper = run.model.opened, planned.hyper
    total = timing.startup + timing.ended - timing.began
    return {
        "run": str(run.folder),
        "classes": list(run.classes),
        "backbone": opened.name,
        "weights": str(opened.report),
        "unfreeze": run.recipe.unfreeze,
        "unfrozen_blocks": list(planned.resolved.matched),
        "head": run.recipe.head,
        "strategy": run.recipe.strategy,
        "trainable_parameters": sum(sizes[n] for n in planned.resolved.trainable),
        "frozen_parameters": sum(sizes[n] for n in planned.resolved.frozen),
        "epochs": hyper.epochs,
        "epochs_run": finished.epochs,
        "best_epoch": finished.best_epoch,
        "stopped": stopped[0] if stopped else None,
        "batch_size": hyper.batch_size,
        "lr": hyper.lr,
        "backbone_lr": hyper.backbone_lr if planned.resolved.backbone_trained else None,
        "weight_decay": hyper.weight_decay,
        "seed": run.recipe.seed,
        "train": {
            "n": len(finished.train_labels),
            "accuracy": score(finished.train_logits, finished.train_labels).accuracy,
        },
        "val": None
        if finished.val_logits is None or finished.val_labels is None
        else scores_json(score(finished.val_logits, finished.val_labels)),
        "val_chose_epoch": finished.val_logits is not None,
        "test": None if test is None else scores_json(test),
        "cache": _cache(planned, ready),
        "seconds": {
            "total": total,
            "startup": timing.startup,
            "features": ready.extracted.seconds,
            "train": finished.seconds,
            "write": 0.0,
        },
        "images_used": len(finished.train_labels)
        + (0 if finished.val_labels is None else len(finished.val_labels))
        + (test.n if test else 0),
        "images_skipped": [{"path": str(p), "why": why} for p, why in ready.skipped],
        "duplicates_across_splits": [[str(a), str(b)] for a, b in leaks],
        "notes": list(manifest.notes),
        "audit": _audit(planned, finished),
    }


def _cache(planned: Planned, ready: FeaturesReady) -> dict[str, Any]:
    return {
        "cut": planned.cut.name,
        "why": planned.cut.why,
        "hit": ready.extracted.hit,
        "bytes": ready.bytes,
        "decoded": ready.extracted.decoded,
        "forwarded": ready.extracted.forwarded,
    }


def _audit(planned: Planned, finished: Finished) -> dict[str, Any]:
    return {
        "frozen_unchanged": finished.audit.frozen_unchanged,
        "trainable_moved": finished.audit.trainable_moved,
        "frozen_tensors": len(planned.resolved.frozen) + len(planned.resolved.frozen_buffers),
        "still": list(finished.audit.still),
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
