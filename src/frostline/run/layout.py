"""The files of a run directory."""

from __future__ import annotations

from pathlib import Path

from frostline.errors import RunError

RECIPE = "recipe.toml"
SUMMARY = "summary.json"
METRICS = "metrics.jsonl"
SPLIT = "split.csv"
WEIGHTS = "model.safetensors"
LABELS = "labels.json"
PREPROCESS = "preprocess.json"
ENVIRONMENT = "environment.json"
FAMILIAR = "familiar.safetensors"
IDENTITY = "identity.json"
CHECKPOINTS = "checkpoints"


def claim(folder: Path) -> None:
    """Refuse a run directory that exists already and holds anything worth keeping.

    Raises:
        RunError: it does; one that was begun and interrupted is to be gone on with.
    """
    if not folder.exists():
        return
    held = {p.name for p in folder.iterdir()} if folder.is_dir() else {folder.name}
    if folder.is_dir() and held <= {RECIPE, IDENTITY}:
        return
    if RECIPE in held and SUMMARY not in held:
        raise RunError("holds a run that was interrupted", where=folder, advice=f"go on with --resume {folder}, or give another --out")
    raise RunError("exists already", where=folder, advice="give another --out, or remove it")


def check_begun(folder: Path) -> None:
    """Refuse a folder that no run can be gone on with in.

    Raises:
        RunError: it is missing, was never begun, or is finished.
    """
    if not folder.is_dir():
        raise RunError("no such run directory", where=folder, advice="give the folder of a run that was interrupted")
    if (folder / SUMMARY).is_file():
        raise RunError("is finished, there is nothing to go on with", where=folder, advice="train into another --out")
    for name in (RECIPE, IDENTITY):
        if not (folder / name).is_file():
            raise RunError(f"is no run that was begun: {name} is missing", where=folder, advice="start it anew with frostline train DATA")


def check_run(folder: Path) -> None:
    """Refuse a folder that is no finished run.

    Raises:
        RunError: it is missing, or lacks a file.
    """
    if not folder.is_dir():
        raise RunError("no such run directory", where=folder, advice="give the folder that frostline train wrote")
    for name in (SUMMARY, RECIPE, WEIGHTS, LABELS, PREPROCESS):
        if not (folder / name).is_file():
            raise RunError(
                f"is no finished run: {name} is missing",
                where=folder,
                advice="give the folder that frostline train wrote",
            )
