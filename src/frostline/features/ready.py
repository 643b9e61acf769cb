"""Engines that were chosen before: kept below the cache folder, each in one folder that is there as a whole or not at all.

A record says what was chosen; beside it lie OpenVINO's model and a recording of what the module does, so that the engine can be used
and verified where the network itself is not loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from frostline._atomic import atomic_folder, remove_folder, write_text
from frostline._device import sent
from frostline._digest import file_digest, settings_digest
from frostline.backbone.preprocess import Preprocess
from frostline.backbone.sealed import Sealed
from frostline.errors import CacheError
from frostline.features import _compile, _openvino
from frostline.features.engine import ENGINE_FACTS, Crossing, Engine, Run, difference, plain
from frostline.features.fold import folded
from frostline.features.recording import RECORDED_ON, record, replay

RECORD, _MODEL, _WEIGHTS, _RECORDING = "engine.json", "model.xml", "model.bin", "module.json"
_FORMAT = 3


@dataclass(frozen=True, eq=False)
class Subject:
    """The prefix that an engine is wanted for.

    Attributes:
        body: normalised images to what crosses.
        settings: what its function depends on, as plain JSON values: see :func:`frostline.features.key.prefix_settings`.
        preprocess: what comes before it.
        device: where it is.
        precision: ``auto``, ``fp32`` or ``bf16``, as asked for.
        asked: the engine that was asked for, or ``auto``.
    """

    body: nn.Module
    settings: Mapping[str, object]
    preprocess: Preprocess
    device: torch.device
    precision: str = "auto"
    asked: str = "auto"

    def folder(self, cache: Path, *, large: bool) -> Path:
        """Where the choice for a job is kept: another for everything that it is made by.

        Args:
            cache: folder of the cache.
            large: whether the job is so large that the choice may be another.
        """
        available = _openvino.version() if self.device.type == "cpu" and _openvino.is_installed() else ""
        chosen_by = {"asked": self.asked, "precision": self.precision, "openvino": available, "threads": torch.get_num_threads()}
        known = {"prefix": dict(self.settings), "device": self.device.type, "large": large, **chosen_by}
        return cache / "engines" / settings_digest(known)[:32]

    def normalised(self, pictures: torch.Tensor) -> torch.Tensor:
        """``(N, 3, H, W)`` uint8 as the body takes them."""
        return self.preprocess.normalise(sent(pictures, self.device))


@dataclass(frozen=True, eq=False)
class Passed:
    """An engine that gives what the module gives.

    Attributes:
        engine: the engine.
        tolerance: what its difference from the module was held against.
        pictures: that it was verified on.
        wanted: what the module gives for them.
        model: OpenVINO's model, where it is one.
    """

    engine: Engine
    tolerance: float
    pictures: torch.Tensor
    wanted: Crossing
    model: Any = None


def remember(folder: Path, subject: Subject, passed: Passed) -> None:
    """Keep a choice; nothing where the cache cannot be written, or another process was first."""
    engine = passed.engine
    try:
        with atomic_folder(folder) as made:
            if engine.name == "openvino":
                _openvino.save(passed.model, made / _MODEL)
                recording = record(subject.body, subject.normalised(passed.pictures), passed.wanted)
                if recording is not None:
                    write_text(made / _RECORDING, recording)
            files = {file.name: file_digest(file) for file in sorted(made.iterdir())}
            known = {**engine.facts(), "format": _FORMAT, "tolerance": passed.tolerance, "files": files}
            write_text(made / RECORD, json.dumps({**known, "self": settings_digest(known)}, indent=1))
    except (OSError, RuntimeError):  # OpenVINO raises the latter where it cannot write
        return


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a choice of which every byte is as it was written."""
    return _read(folder) is not None


def remembered(folder: Path, subject: Subject) -> Engine | None:
    """The engine that was chosen before; it is made and verified when it is first run. What is damaged is removed."""
    kept = _read(folder) or _read(folder)  # another process may have put it there just now
    if kept is None:
        remove_folder(folder)
        return None
    known = {n: kept[n] for n in ENGINE_FACTS}
    if known["name"] == "plain":
        return Engine(**known, run=plain(subject.body, known["precision"]).run)
    return Engine(**known, run=_Later(folder, subject, kept))


def begin_to_make(engine: Engine) -> bool:
    """Begin to make a remembered engine that will be run soon without the network; False where it cannot be verified so."""
    return isinstance(engine.run, _Later) and engine.run.begin()


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        kept = cast("dict[str, Any]", json.loads((folder / RECORD).read_text(encoding="utf-8")))
        if kept.pop("self") != settings_digest(kept) or kept["format"] != _FORMAT:
            return None
        whole = all(file_digest(folder / n) == digest for n, digest in kept["files"].items())
        return kept if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


class _Later:
    """Makes a remembered engine when it is first run, and verifies it on images of that job."""

    def __init__(self, folder: Path, subject: Subject, kept: dict[str, Any]) -> None:
        self._folder, self._subject, self._kept = folder, subject, kept
        self._name, self._precision = cast("str", kept["name"]), cast("str", kept["precision"])
        self._run: Run | None = None

    def begin(self) -> bool:
        if _RECORDING not in self._kept["files"]:
            return False
        _openvino.begin_to_load(self._folder / _MODEL, self._precision)
        return True

    def __call__(self, images: torch.Tensor) -> Crossing:
        if self._run is not None:
            return self._run(images)
        self._run, found = self._verified(images)
        return found

    def _verified(self, images: torch.Tensor) -> tuple[Run, Crossing]:
        """The engine, and what it gives for images."""
        few = images[:RECORDED_ON].clone()  # a network may work in place
        try:
            run = self._made()
            found = run(images)
            error = difference(tuple(t[: len(few)].cpu() for t in found), tuple(t.cpu() for t in self._wanted(few)))
            if error <= self._kept["tolerance"]:
                return run, found
            fact = f"the engine {self._name} does not give what the module gives on images of this job (differs by {error:.1e})"
        except (
            OSError,
            RuntimeError,
            ImportError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
        ) as fault:  # it was removed or changed
            fact = f"the engine {self._name} cannot be used any more ({(str(fault).strip() or type(fault).__name__).splitlines()[0][:120]})"
        remove_folder(self._folder)
        raise CacheError(fact, where=self._folder, advice="it was removed: run the same command again")

    def _made(self) -> Run:
        body = self._subject.body
        if self._name == "openvino":
            return _openvino.load(self._folder / _MODEL, self._precision)
        return plain(folded(body) or body, self._precision).run if self._name == "eager" else _compile.compiled(body, self._precision)

    def _wanted(self, images: torch.Tensor) -> Crossing:
        """What the module gives, or where its code is not at hand, what was recorded of it."""
        body = self._subject.body
        if isinstance(body, Sealed):
            return replay((self._folder / _RECORDING).read_text(encoding="utf-8"), body.state_dict(), images)
        return plain(body, "fp32").run(images)
