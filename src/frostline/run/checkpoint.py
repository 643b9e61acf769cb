"""Checkpoints of a run that is under way: safetensors for the tensors, JSON for the rest, two generations, verified when read.

``NNNNNN.json`` names the digest of ``NNNNNN.safetensors`` and is written last: a checkpoint without it does not exist. One that
fails its check is passed over for the one before it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load, save

from frostline._atomic import write_bytes, write_text
from frostline._digest import bytes_digest, settings_digest
from frostline.errors import RunError
from frostline.fitting.snapshot import Snapshot
from frostline.run import layout

GENERATIONS = 2
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A snapshot with what was known when it was taken.

    Attributes:
        snapshot: the state of training.
        epochs: one mapping an epoch, so far.
        phases: one mapping for each phase that has ended.
        number: counts the checkpoints of a run.
        choices: what was chosen among heads and depths, so far.
    """

    snapshot: Snapshot
    epochs: Sequence[Mapping[str, Any]]
    phases: Sequence[Mapping[str, Any]]
    number: int
    choices: Mapping[str, Any] = field(default_factory=dict[str, Any])


def write_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and remove those before the last two.

    Raises:
        RunError: the folder cannot be written; earlier checkpoints are untouched.
    """
    folder = run / layout.CHECKPOINTS
    number = checkpoint.number
    tensors = save(dict(checkpoint.snapshot.tensors))
    record: dict[str, Any] = {
        "format": _FORMAT,
        "facts": dict(checkpoint.snapshot.facts),
        "epochs": [dict(row) for row in checkpoint.epochs],
        "phases": [dict(row) for row in checkpoint.phases],
        "choices": dict(checkpoint.choices),
        "sha256": bytes_digest(tensors),
    }
    record["self"] = settings_digest(record)
    try:
        write_bytes(folder / f"{number:06}.safetensors", tensors)
        write_text(folder / f"{number:06}.json", json.dumps(record))
    except OSError as fault:
        raise RunError(f"a checkpoint cannot be written ({fault.strerror or fault})", where=folder, advice="free some space") from fault
    for old in _numbers(folder)[:-GENERATIONS]:
        _remove(folder, old)


def read_checkpoint(run: Path) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The newest checkpoint that is whole, or None; and the later ones that were damaged, by name."""
    folder = run / layout.CHECKPOINTS
    passed_over: list[str] = []
    for number in reversed(_numbers(folder)):
        try:
            record = cast("dict[str, Any]", json.loads((folder / f"{number:06}.json").read_bytes()))
            claimed = record.pop("self")
            data = (folder / f"{number:06}.safetensors").read_bytes()
            if settings_digest(record) != claimed or bytes_digest(data) != record["sha256"] or record["format"] != _FORMAT:
                raise ValueError("digest differs")
            found = Checkpoint(Snapshot(record["facts"], load(data)), record["epochs"], record["phases"], number, record.get("choices", {}))
            return found, tuple(passed_over)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
            passed_over.append(f"{number:06}")
    return None, tuple(passed_over)


def remove_checkpoints(run: Path) -> None:
    """Remove all checkpoints of a run that is finished."""
    folder = run / layout.CHECKPOINTS
    for number in _numbers(folder):
        _remove(folder, number)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _numbers(folder: Path) -> list[int]:
    return sorted(int(p.stem) for p in folder.glob("*.json") if p.stem.isdecimal()) if folder.is_dir() else []


def _remove(folder: Path, number: int) -> None:
    for suffix in (".json", ".safetensors"):
        (folder / f"{number:06}{suffix}").unlink(missing_ok=True)
