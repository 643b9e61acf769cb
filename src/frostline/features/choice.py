"""Choose the engine that a prefix is run by, on images of the job, and remember the choice. docs/design/0004-engines.md has the reasons."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save
from torch import nn

from frostline._atomic import write_bytes, write_text
from frostline._digest import file_digest, settings_digest
from frostline.backbone.preprocess import Preprocess
from frostline.errors import CacheError, DecodeError, EngineError
from frostline.features import _compile, _openvino
from frostline.features.engine import ENGINE_FACTS, ENGINES, TOLERANCE, Crossing, Engine, EngineName, Run, difference, plain, timed
from frostline.features.fold import folded
from frostline.features.images import ImageSet
from frostline.features.pixels import full_batches, pixel_batches

VERIFIED_ON = 8
"""Images of the job that an engine is verified on: a multiple of what OpenVINO is given at once."""
FEWEST = 128
"""Images below which another engine than the module itself does not pay for being made and verified."""
LEAST_WORK = 3e10
"""Floating-point operations of a whole job below which nothing else pays either: half a second on one core. Counted, not timed, so that
the choice is the same every time."""
WORTH_COMPILING = 120.0
"""Seconds of work for the module itself from which ``torch.compile`` pays for half a minute of compiling."""
_LEAST_SPEED = 0.8
LARGE = 2000
"""Images from which ``--precision auto`` looks at bf16 at all."""
AUTO_BF16 = 2e-3
"""Largest relative L2 difference from fp32 with which ``--precision auto`` takes bf16."""


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

    @property
    def digest(self) -> str:
        """The identity of what is chosen for, and of what there is to choose from."""
        available = _openvino.version() if self.device.type == "cpu" and _openvino.is_installed() else ""
        choice = {"asked": self.asked, "precision": self.precision, "openvino": available, "threads": torch.get_num_threads()}
        return settings_digest({"prefix": dict(self.settings), "device": self.device.type, **choice})


def remembered_engine(subject: Subject, cache: Path) -> Engine | None:
    """The engine that was chosen for a prefix before, if any; nothing is read but its record until it is run."""
    return _remembered(_folder(subject, cache), subject)


def choose_engine(subject: Subject, images: ImageSet, cache: Path | None) -> Engine:
    """The engine for a prefix: one that was chosen before, or else the first that passes on images of this job.

    Args:
        subject: the prefix, and what was asked for.
        images: of the job; the first that can be decoded are used.
        cache: folder that choices are remembered in; None remembers nothing.

    Raises:
        EngineError: the engine that was asked for is unknown, cannot be had, fails, or gives other numbers.
    """
    if subject.asked not in ENGINES:
        raise EngineError(f"no engine is called {subject.asked!r}", where="--engine", advice=f"use {', '.join(ENGINES)}")
    fixed = "fp32" if subject.precision == "auto" else subject.precision
    if subject.asked == "plain":
        return plain(subject.body, fixed, "it was asked for")
    folder = None if cache is None else _folder(subject, cache)
    if folder is not None and (ready := _remembered(folder, subject)) is not None:
        return ready
    if subject.asked == "auto" and len(images) < FEWEST:
        return plain(subject.body, fixed, f"fewer than {FEWEST} images do not pay for another")
    began = time.perf_counter()
    pictures, decoded = _pictures(subject, images)
    rate = decoded / (time.perf_counter() - began)
    if pictures is None:
        return plain(subject.body, fixed, "no image can be decoded to verify another on")
    if subject.asked == "auto" and _work(subject, pictures[:1]) * len(images) < LEAST_WORK:
        return plain(subject.body, fixed, "the network is so small that another does not pay")
    passed = _first_that_passes(subject, pictures, len(images))
    passed = replace(passed, engine=replace(passed.engine, pictures_per_second=rate))
    if folder is not None and passed.engine.name != "plain":
        _remember(folder, passed, pictures)
    return passed.engine


def _folder(subject: Subject, cache: Path) -> Path:
    return cache / "engines" / subject.digest[:32]


def _pictures(subject: Subject, images: ImageSet) -> tuple[torch.Tensor | None, int]:
    """Some of the job's images ``(VERIFIED_ON, 3, H, W)`` uint8, repeated where there are fewer, and the number of files decoded."""
    names = sorted(dict(zip(images.digests, images.paths, strict=True)).items())[: 4 * VERIFIED_ON]
    found: list[torch.Tensor] = []
    tried = 0
    for batch in pixel_batches([p for _, p in names], subject.preprocess, full_batches(len(names), VERIFIED_ON), [d for d, _ in names]):
        tried += len(batch)
        found.extend(p for p in batch if not isinstance(p, DecodeError))
        if len(found) >= VERIFIED_ON:
            break
    return (torch.stack([found[i % len(found)] for i in range(VERIFIED_ON)]) if found else None), tried


@dataclass(frozen=True, eq=False)
class _Candidate:
    name: EngineName
    precision: str
    make: Callable[[], tuple[Run, Any]]
    tolerance: float


@dataclass(frozen=True, eq=False)
class _Passed:
    """An engine that gives what the module gives, with OpenVINO's model where it is one, and what the module gave."""

    engine: Engine
    model: Any
    wanted: Crossing


def _first_that_passes(subject: Subject, pictures: torch.Tensor, images: int) -> _Passed:
    reference = plain(subject.body, "fp32")
    batch = _normalised(subject, pictures)
    reference.run(batch[:1])
    wanted, speed = timed(reference.run, batch, passes=1)
    wanted = tuple(t.cpu() for t in wanted)
    refused: list[str] = []
    passed: _Passed | None = None
    for candidate in _candidates(subject, batch, images / speed, images):
        if passed is not None and candidate.precision == passed.engine.precision:
            continue  # one of this precision passed already
        said, engine, model = _tried(candidate, batch, wanted, speed if subject.asked == "auto" else 0.0)
        if engine is None:
            refused.append(said)
        elif passed is None or (engine.images_per_second or 0) > 1.3 * (passed.engine.images_per_second or 0):
            passed = _Passed(engine, model, wanted)
    if passed is None and (subject.asked != "auto" or subject.precision == "bf16"):
        raise EngineError("; ".join(refused), where="--engine" if subject.asked != "auto" else "--precision", advice="leave it out")
    if passed is None:
        engine = replace(reference, images_per_second=speed, why="; ".join(refused) or "nothing else is to be had")
        return _Passed(engine, None, wanted)
    ratio = (passed.engine.images_per_second or 0.0) / speed
    why = f"verified on {len(pictures)} images of this job, {ratio:.1f} times as fast as the module itself"
    return replace(passed, engine=replace(passed.engine, why="; ".join([why, *refused])))


def _candidates(subject: Subject, batch: torch.Tensor, seconds: float, images: int) -> Iterator[_Candidate]:
    """What may be tried, the best first."""
    asked, body = subject.asked, subject.body
    fixed = "fp32" if subject.precision == "auto" else subject.precision
    tolerance = TOLERANCE[fixed]

    def openvino(precision: str, recorded_on: int) -> tuple[Run, Any]:
        model = _openvino.convert(body, batch, recorded_on=recorded_on)
        return _openvino.compiled(model, precision), model

    def eager(precision: str) -> tuple[Run, Any]:
        return plain(folded(body) or body, precision).run, None

    if asked == "openvino" and (subject.device.type != "cpu" or not _openvino.is_installed()):
        why = "runs on the CPU only" if subject.device.type != "cpu" else "is not installed"
        raise EngineError(f"OpenVINO {why}", where="--engine", advice='pip install "frostline[openvino]", or use --engine eager')
    if asked == "openvino" or (asked == "auto" and subject.device.type == "cpu" and _openvino.is_installed()):
        if subject.precision == "auto" and images >= LARGE:
            yield _Candidate("openvino", "fp32", lambda: openvino("fp32", 1), TOLERANCE["fp32"])
            yield _Candidate("openvino", "bf16", lambda: openvino("bf16", 1), AUTO_BF16)
        else:
            yield _Candidate("openvino", fixed, lambda: openvino(fixed, 1), tolerance)
        yield _Candidate("openvino", fixed, lambda: openvino(fixed, len(batch)), tolerance)
    if asked == "compile" or (asked == "auto" and seconds > WORTH_COMPILING):
        yield _Candidate("compile", fixed, lambda: (_compile.compiled(body, fixed), None), tolerance)
    if asked in ("auto", "eager"):
        yield _Candidate("eager", fixed, lambda: eager(fixed), tolerance)


def _tried(candidate: _Candidate, batch: torch.Tensor, wanted: Crossing, at_least: float) -> tuple[str, Engine | None, Any]:
    """Why not, or the engine with OpenVINO's model."""
    try:
        run, model = candidate.make()
        found, speed = timed(run, batch)
    except Exception as fault:  # converters and compilers raise anything on a network they do not know
        first = (str(fault).strip() or type(fault).__name__).splitlines()[0][:120]
        return f"{candidate.name} fails ({type(fault).__name__}: {first})", None, None
    error = difference(tuple(t.cpu() for t in found), wanted)
    if not error <= candidate.tolerance:
        said = f"{candidate.name} in {candidate.precision} differs by {error:.1e}, more than {candidate.tolerance:.0e}"
        return said, None, None
    if speed < _LEAST_SPEED * at_least:
        return f"{candidate.name} is slower than the module itself ({speed:.0f} against {at_least:.0f} images/s)", None, None
    version = _openvino.version() if candidate.name == "openvino" else ""
    return "", Engine(candidate.name, candidate.precision, version, run, error, speed), model


def _normalised(subject: Subject, pictures: torch.Tensor) -> torch.Tensor:
    return subject.preprocess.normalise(pictures.to(subject.device))


def _work(subject: Subject, picture: torch.Tensor) -> int:
    """Floating-point operations for one image."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        plain(subject.body, "fp32").run(_normalised(subject, picture))
    return counter.get_total_flops()


_RECORD, _MODEL, _PROBE = "engine.json", "model.xml", "probe.safetensors"


def _remember(folder: Path, passed: _Passed, pictures: torch.Tensor) -> None:
    """Keep the choice, and what it takes to use and verify it without the network; the record comes last."""
    engine = passed.engine
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files: dict[str, str] = {}
        if engine.name == "openvino":
            probe = {f"crossing_{i:03}": t.contiguous() for i, t in enumerate(passed.wanted)} | {"pictures": pictures.contiguous()}
            write_bytes(folder / _PROBE, save(probe))
            _openvino.save(passed.model, folder / _MODEL)
            files = {n: file_digest(folder / n) for n in (_MODEL, "model.bin", _PROBE)}
        record = {n: getattr(engine, n) for n in ENGINE_FACTS}
        write_text(folder / _RECORD, json.dumps({**record, "files": files}, indent=1))
    except OSError:  # a cache that cannot be written: the choice is made anew next time
        return


def _remembered(folder: Path, subject: Subject) -> Engine | None:
    """The engine that was chosen before; it is read and verified when it is first run. None where there is none, or it is damaged."""
    try:
        record = cast("dict[str, Any]", json.loads((folder / _RECORD).read_text(encoding="utf-8")))
        if any(file_digest(folder / n) != digest for n, digest in record["files"].items()):
            raise ValueError("digest differs")
        known = {n: record[n] for n in ENGINE_FACTS}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        _forget(folder)
        return None
    made = _Later(folder, subject, str(known["name"]), str(known["precision"]))
    return Engine(**known, run=made)


class _Later:
    """Makes a remembered engine when it is first run, and verifies it."""

    def __init__(self, folder: Path, subject: Subject, name: str, precision: str) -> None:
        self._folder, self._subject, self._name, self._precision = folder, subject, name, precision
        self._run: Run | None = None

    def __call__(self, images: torch.Tensor) -> Crossing:
        if self._run is None:
            self._run = self._made(images)
        return self._run(images)

    def _made(self, images: torch.Tensor) -> Run:
        if self._name == "openvino":
            probe = load_file(self._folder / _PROBE)
            given = _normalised(self._subject, probe.pop("pictures"))
            run, wanted = _openvino.load(self._folder / _MODEL, self._precision), tuple(t for _, t in sorted(probe.items()))
        else:
            body = self._subject.body
            run = plain(folded(body) or body, self._precision).run if self._name == "eager" else _compile.compiled(body, self._precision)
            given, wanted = images, plain(body, "fp32").run(images)
        error = difference(tuple(t.cpu() for t in run(given)), tuple(t.cpu() for t in wanted))
        if not error <= TOLERANCE[self._precision]:
            _forget(self._folder)
            raise CacheError(
                f"the engine {self._name} does not give what it gave when it was made (differs by {error:.1e})",
                where=self._folder,
                advice="it was removed: run the same command again",
            )
        return run


def _forget(folder: Path) -> None:
    for name in (_RECORD, _MODEL, "model.bin", _PROBE):
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)
