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


def claim(folder: Path) -> None:
    """Refuse a run directory that exists already and holds anything.

    Raises:
        RunError: it does.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError("exists already", where=folder, advice="give another --out, or remove it")


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
