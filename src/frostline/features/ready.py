"""Engines that were chosen before: kept below the cache folder, each in one folder that is there as a whole or not at all.

A record says what was chosen; beside it lie OpenVINO's model and some images with what the plain module gave for them, so that the
engine can be used and verified where the network itself is not loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save
from torch import nn

from frostline._atomic import atomic_folder, remove_folder, write_bytes, write_text
from frostline._device import sent
from frostline._digest import file_digest, settings_digest
from frostline.backbone.preprocess import Preprocess
from frostline.errors import CacheError
from frostline.features import _compile, _openvino
from frostline.features.engine import ENGINE_FACTS, Crossing, Engine, Run, difference, plain
from frostline.features.fold import folded

RECORD, _MODEL, _WEIGHTS, _PROBE = "engine.json", "model.xml", "model.bin", "probe.safetensors"


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


def remember(folder: Path, passed: Passed) -> None:
    """Keep a choice; nothing where the cache cannot be written, or another process was first."""
    engine = passed.engine
    try:
        with atomic_folder(folder) as made:
            files: dict[str, str] = {}
            if engine.name == "openvino":
                crossing = {f"crossing_{i:03}": t.contiguous() for i, t in enumerate(passed.wanted)}
                write_bytes(made / _PROBE, save(crossing | {"pictures": passed.pictures.contiguous()}))
                _openvino.save(passed.model, made / _MODEL)
                files = {n: file_digest(made / n) for n in (_MODEL, _WEIGHTS, _PROBE)}
            record = {**engine.facts(), "tolerance": passed.tolerance, "files": files}
            write_text(made / RECORD, json.dumps({**record, "self": settings_digest(record)}, indent=1))
    except (OSError, RuntimeError):  # OpenVINO raises the latter where it cannot write
        return


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a choice of which every byte is as it was written."""
    return _read(folder) is not None


def remembered(folder: Path, subject: Subject) -> Engine | None:
    """The engine that was chosen before; it is made and verified when it is first run. What is damaged is removed."""
    record = _read(folder) or _read(folder)  # another process may have put it there just now
    if record is None:
        remove_folder(folder)
        return None
    known = {n: record[n] for n in ENGINE_FACTS}
    if known["name"] == "plain":
        return Engine(**known, run=plain(subject.body, known["precision"]).run)
    return Engine(**known, run=_Later(folder, subject, known["name"], known["precision"], record["tolerance"]))


def begin_to_make(engine: Engine) -> None:
    """Begin to make a remembered engine that will be run soon, where that takes long and needs no network."""
    if isinstance(engine.run, _Later):
        engine.run.begin()


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        record = cast("dict[str, Any]", json.loads((folder / RECORD).read_text(encoding="utf-8")))
        if record.pop("self") != settings_digest(record):
            return None
        whole = all(file_digest(folder / n) == digest for n, digest in record["files"].items())
        return record if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


class _Later:
    """Makes a remembered engine when it is first run, and verifies it."""

    def __init__(self, folder: Path, subject: Subject, name: str, precision: str, tolerance: float) -> None:
        self._folder, self._subject, self._name, self._precision, self._tolerance = folder, subject, name, precision, tolerance
        self._run: Run | None = None

    def begin(self) -> None:
        if self._name == "openvino":
            _openvino.begin_to_load(self._folder / _MODEL, self._precision)

    def __call__(self, images: torch.Tensor) -> Crossing:
        if self._run is None:
            self._run = self._verified(images)
        return self._run(images)

    def _verified(self, images: torch.Tensor) -> Run:
        try:
            run, given, wanted = self._made(images)
            error = difference(tuple(t.cpu() for t in run(given)), tuple(t.cpu() for t in wanted))
            if error <= self._tolerance:
                return run
            fact = f"the engine {self._name} does not give what it gave when it was made (differs by {error:.1e})"
        except (OSError, RuntimeError, ImportError) as fault:  # it was removed meanwhile, or its library is another
            fact = f"the engine {self._name} cannot be used any more ({(str(fault).strip() or type(fault).__name__).splitlines()[0][:120]})"
        remove_folder(self._folder)
        raise CacheError(fact, where=self._folder, advice="it was removed: run the same command again")

    def _made(self, images: torch.Tensor) -> tuple[Run, torch.Tensor, Crossing]:
        """The engine, images to verify it on, and what the module gives for them."""
        body = self._subject.body
        if self._name == "openvino":
            run = _openvino.load(self._folder / _MODEL, self._precision)
            probe = load_file(self._folder / _PROBE)
            given = self._subject.normalised(probe.pop("pictures"))
            return run, given, tuple(t for _, t in sorted(probe.items()))
        run = plain(folded(body) or body, self._precision).run if self._name == "eager" else _compile.compiled(body, self._precision)
        return run, images, plain(body, "fp32").run(images)
