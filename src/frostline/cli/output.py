"""What goes to stdout: results, as JSON or in words."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on one line."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
    sys.stdout.flush()


def printable(path: Path | str) -> str:
    """A file name as text; bytes that are no UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def interval(scores: Mapping[str, Any]) -> str:
    """``0.961 (95 % interval 0.917 to 0.982, 153 images)``."""
    low, high = scores["interval"]
    return f"{scores['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}, {scores['n']} images)"


def print_summary(summary: Mapping[str, Any]) -> None:
    """The outcome of a training run in words."""
    audit, cache, seconds = summary["audit"], summary["cache"], summary["seconds"]
    print(
        f"{', '.join(summary['classes'][:12])}{' ...' if len(summary['classes']) > 12 else ''}: {summary['images_used']} images used, "
        f"{len(summary['images_skipped'])} skipped"
    )
    print(f"backbone    {summary['backbone']}, {summary['weights']}")
    print(
        f"trained     {summary['trainable_parameters']:,} parameters ({summary['head']} head"
        + (f" and {', '.join(summary['unfrozen_blocks'])}" if summary["unfrozen_blocks"] else "")
        + f"), {summary['frozen_parameters']:,} frozen"
    )
    print(
        f"proof       {audit['frozen_tensors']} frozen tensors, batch-norm statistics included, are bit-identical"
        if audit["frozen_unchanged"]
        else "proof       FROZEN LAYERS CHANGED"
    )
    engine = summary["engine"]
    error = "" if engine["error"] is None else f", {engine['error']:.1e} from the module itself"
    print(f"engine      {engine['name']} in {engine['precision']}{error}")
    print(
        f"training    {summary['train']['accuracy']:.3f} ({summary['train']['n']} images), "
        f"epoch {summary['best_epoch']} of {summary['epochs_run']} kept"
    )
    if summary["depth"]:
        print(f"depth       {summary['depth']['chosen']}: {summary['depth']['why']}")
    for what, choice in (("sweep", summary["sweep"]), (summary["head"], summary["solved"])):
        if choice:
            print(f"{what:<11} {_choice(choice)}")
    for number, step in enumerate(summary["auto"] or [], start=1):
        print(f"step {number:<7}{step}")
    if summary["val"]:
        chose = "" if summary["test"] else "; it also chose the epoch, no test set was given"
        print(f"validation  {interval(summary['val'])}{chose}")
    if summary["nested"]:
        print(f"nested      {interval(summary['nested'])}; of {summary['nested']['folds']} models, none of them chosen by these images")
    if summary["baselines"]:
        print(f"baselines   {_baselines(summary['baselines'])}")
    if summary["calibration"]:
        print(f"calibration {_calibration(summary['calibration'])}")
    if summary["test"]:
        print(f"test        {interval(summary['test'])}")
    print(
        f"seconds     {seconds['total']:.1f}: start {seconds['startup']:.1f}, features {seconds['features']:.1f}"
        f"{' (cached)' if cache['hit'] else ''}, training {seconds['train']:.1f}"
    )
    if summary["duplicates_across_splits"]:
        print(
            f"warning     {len(summary['duplicates_across_splits'])} images lie byte for byte in two splits, the first is "
            f"{summary['duplicates_across_splits'][0][0]}"
        )
    near = summary["near_duplicates_across_splits"]
    if near:
        print(
            f"warning     {len({b for _, b in near})} validation images show nearly the same picture as a training image, the first is "
            f"{near[0][1]} (like {near[0][0]}); frostline data shows them"
        )
    forgot = summary["guards"]["forgetting"]
    if forgot:
        answers = "" if forgot["agreement"] is None else f", {forgot['agreement']:.0%} of the original classifier's answers unchanged"
        print(f"forgetting  features {forgot['similarity']:.3f} similar to those before (CKA){answers}")
    for warning in summary["warnings"]:
        print(f"warning     {warning}")
    for note in summary["notes"]:
        print(f"note        {note}")


def _baselines(baselines: Mapping[str, Any]) -> str:
    nearest = "" if baselines["neighbours"] is None else f", {baselines['neighbours']:.3f} by the five nearest training images"
    return f"{baselines['majority']:.3f} by always giving the most frequent class{nearest}"


def _calibration(calibration: Mapping[str, Any]) -> str:
    off = f"probabilities are off by {calibration['error_after']:.3f} on average"
    if calibration["temperature"] == 1.0:
        return f"{off}; no temperature does better"
    return (
        f"{off} ({calibration['error_before']:.3f} before), log loss {calibration['log_loss_after']:.3f} "
        f"({calibration['log_loss_before']:.3f} before), by temperature {calibration['temperature']:.2f}"
    )


def _choice(choice: Mapping[str, Any]) -> str:
    best = choice["chosen"]
    settings = [f"{name.replace('_', ' ')} {best[name]:.2g}" for name in ("lr", "weight_decay", "strength") if best[name] is not None]
    return (
        f"{len(choice['candidates'])} candidates, {choice['folds']} folds of the training images: {best['head']}, {', '.join(settings)}; "
        f"{best['accuracy']:.3f} where held out"
    )


def print_next(run: str, data: str) -> None:
    """The commands that come next: look at it, use it, hand it on, find out whether more is to be had."""
    print("next")
    print(f"  frostline report {run}")
    print(f"  frostline predict {run} PICTURE.jpg")
    print(f"  frostline {'serve' if find_spec('fastapi') and find_spec('uvicorn') else 'export'} {run}")
    print(f"  frostline advise {data}")
