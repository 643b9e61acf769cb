"""Choose the engine that a prefix is run by, on images of the job. docs/design/0004-engines.md has the reasons."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from frostline.errors import DecodeError, EngineError
from frostline.features import _compile, _openvino
from frostline.features.engine import ENGINES, Crossing, Engine, EngineName, Run, difference, plain, timed, tolerance_of
from frostline.features.fold import folded
from frostline.features.images import ImageSet
from frostline.features.key import batch_on
from frostline.features.pixels import full_batches, pixel_batches
from frostline.features.ready import Passed, Subject, remember, remembered
from frostline.features.store import FeatureStore

VERIFIED_ON = 8
"""Images of the job that an engine is verified on: a multiple of what OpenVINO is given at once."""
FEWEST = 128
"""Images below which another engine than the module itself does not pay for being made and verified."""
LEAST_WORK = 3e10
"""Floating-point operations of a whole job below which nothing else pays either: half a second on one core. Counted, not timed, so that
the choice is the same every time."""
WORTH_COMPILING = 120.0
"""Seconds of work for the module itself from which ``torch.compile`` pays for half a minute of compiling."""
LEAST_SPEED = 0.8
"""Of the module's own, below which an engine is not taken: less than one, so that a busy moment does not decide."""
LARGE = 2000
"""Images from which ``--precision auto`` looks at bf16 at all."""
AUTO_BF16 = 2e-3
"""Largest relative L2 difference from fp32 with which ``--precision auto`` takes bf16."""


def decided_engine(subject: Subject, count: int, cache: Path | None) -> Engine | None:
    """The engine for a job of ``count`` images, where it is known without running anything: by rule, or because it was chosen before.

    Raises:
        EngineError: the engine that was asked for is unknown.
    """
    if subject.asked not in ENGINES:
        raise EngineError(f"no engine is called {subject.asked!r}", where="--engine", advice=f"use {', '.join(ENGINES)}")
    if subject.asked == "plain":
        return plain(subject.body, _fixed(subject), "it was asked for")
    if subject.asked == "auto" and count < FEWEST:
        return plain(subject.body, _fixed(subject), f"fewer than {FEWEST} images do not pay for another")
    return None if cache is None else remembered(_folder(subject, count, cache), subject)


def choose_engine(subject: Subject, images: ImageSet, cache: Path | None, *, wanted: ImageSet | None = None) -> Engine:
    """The engine for a prefix: by rule, one that was chosen before, or else the first that passes on images of this job.

    Args:
        subject: the prefix, and what was asked for.
        images: of the job; the first that can be decoded are used.
        cache: folder that choices are remembered in; None remembers nothing.
        wanted: images whose features are to be in the cache afterwards; None where they are not kept there.

    Raises:
        CacheError: features are wanted that are not in the cache, and cannot be written there.
        EngineError: the engine that was asked for is unknown, cannot be had, fails, or gives other numbers.
    """
    decided = decided_engine(subject, len(images), cache)
    if decided is not None:
        return decided
    if cache is not None and wanted is not None:
        FeatureStore.check_writable(cache, subject.settings, wanted.digests)
    began = time.perf_counter()
    pictures = _pictures(subject, images)
    if pictures is None:
        return plain(subject.body, _fixed(subject), "no image can be decoded to verify another on")
    if subject.asked == "auto" and _work(subject, pictures[:1]) * len(images) < LEAST_WORK:
        return plain(subject.body, _fixed(subject), "the network is so small that another does not pay")
    passed = _first_that_passes(subject, pictures, len(images))
    engine = replace(passed.engine, pictures_per_second=_decode_rate(subject, images.paths[:VERIFIED_ON]))
    passed = replace(passed, engine=replace(engine, seconds_to_choose=time.perf_counter() - began))
    if cache is None:
        return passed.engine
    remember(_folder(subject, len(images), cache), subject, passed)
    kept = remembered(_folder(subject, len(images), cache), subject)
    return passed.engine if kept is None or kept.identity == passed.engine.identity else kept  # of several processes the first decides


def _fixed(subject: Subject) -> str:
    return "fp32" if subject.precision == "auto" else subject.precision


def _folder(subject: Subject, count: int, cache: Path) -> Path:
    return subject.folder(cache, large=subject.precision == "auto" and count >= LARGE)


def _decode_rate(subject: Subject, paths: Sequence[Path]) -> float:
    """Files a second, as they lie: what was decoded ahead would tell how fast memory is."""
    began = time.perf_counter()
    for _ in pixel_batches(paths, subject.preprocess, full_batches(len(paths), VERIFIED_ON)):
        pass
    return len(paths) / (time.perf_counter() - began)


def _pictures(subject: Subject, images: ImageSet) -> torch.Tensor | None:
    """Some of the job's images ``(VERIFIED_ON, 3, H, W)`` uint8, repeated where there are fewer."""
    names = sorted(dict(zip(images.digests, images.paths, strict=True)).items())[: 4 * VERIFIED_ON]
    found: list[torch.Tensor] = []
    for batch in pixel_batches([p for _, p in names], subject.preprocess, full_batches(len(names), VERIFIED_ON), [d for d, _ in names]):
        found.extend(p for p in batch if not isinstance(p, DecodeError))
        if len(found) >= VERIFIED_ON:
            break
    return _repeated(torch.stack(found[:VERIFIED_ON]), VERIFIED_ON) if found else None


def _repeated(rows: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` of them, from the beginning again where there are fewer."""
    return rows[torch.arange(count, device=rows.device) % len(rows)]


@dataclass(frozen=True, eq=False)
class _Candidate:
    """What may be tried.

    Attributes:
        name: of the engine.
        precision: ``fp32`` or ``bf16``.
        make: the engine, and OpenVINO's model where it is one.
        tolerance: its difference may be no more.
        batch: images that it is verified on at once, at least.
    """

    name: EngineName
    precision: str
    make: Callable[[], tuple[Run, Any]]
    tolerance: float
    batch: int = VERIFIED_ON


def _first_that_passes(subject: Subject, pictures: torch.Tensor, images: int) -> Passed:
    reference = plain(subject.body, "fp32")
    on_cpu = subject.device.type == "cpu"
    batch = subject.normalised(pictures if on_cpu else _repeated(pictures, batch_on(subject.device, subject.preprocess.crop)))
    reference.run(batch[:1])
    wanted, speed = timed(reference.run, batch, passes=1 if on_cpu else 2)  # a GPU is timed on the batch that it will be given, once warm
    refused: list[str] = []
    passed: dict[str, Passed] = {}
    for candidate in _candidates(subject, batch, images / speed, images):
        if candidate.precision in passed:
            continue
        found = _tried(candidate, batch, wanted, speed if subject.asked == "auto" else 0.0)
        if isinstance(found, str):
            refused.append(found)
        else:
            engine, model = found
            passed[candidate.precision] = Passed(engine, candidate.tolerance, pictures, wanted, model)
    if not passed and (subject.asked != "auto" or subject.precision == "bf16"):
        raise EngineError("; ".join(refused), where="--engine" if subject.asked != "auto" else "--precision", advice="leave it out")
    if not passed:
        engine = replace(reference, images_per_second=speed, why="; ".join(refused) or "nothing else is to be had")
        return Passed(engine, 0.0, pictures, wanted)
    best = passed.get("fp32") or next(iter(passed.values()))
    halved = passed.get("bf16", best)
    if _speed(halved) > 1.3 * _speed(best):
        best = halved
    why = f"verified on {len(pictures)} images when it was made, {_speed(best) / speed:.1f} times as fast as the module itself"
    return replace(best, engine=replace(best.engine, why="; ".join([why, *refused])))


def _speed(passed: Passed) -> float:
    return passed.engine.images_per_second or 0.0


def _candidates(subject: Subject, batch: torch.Tensor, seconds: float, images: int) -> Iterator[_Candidate]:
    """What may be tried, the best of each precision first."""
    asked, body, fixed = subject.asked, subject.body, _fixed(subject)
    tolerance = tolerance_of(fixed, subject.device)
    full = batch_on(subject.device, subject.preprocess.crop)

    def openvino(precision: str, recorded_on: int) -> tuple[Run, Any]:
        model = _openvino.convert(body, batch, recorded_on=recorded_on)
        return _openvino.compiled(model, precision, torch.get_num_threads()), model

    if asked == "openvino" and (subject.device.type != "cpu" or not _openvino.is_installed()):
        why = "runs on the CPU only" if subject.device.type != "cpu" else "is not installed"
        raise EngineError(f"OpenVINO {why}", where="--engine", advice='pip install "frostline[openvino]", or use --engine eager')
    if asked == "openvino" or (asked == "auto" and subject.device.type == "cpu" and _openvino.is_installed()):
        for recorded_on in (1, _openvino.AT_ONCE):  # one image is quick; a network that counts its images is recorded on as many as it gets
            yield _Candidate("openvino", fixed, lambda n=recorded_on: openvino(fixed, n), tolerance)
        if subject.precision == "auto" and images >= LARGE:
            yield _Candidate("openvino", "bf16", lambda: openvino("bf16", 1), AUTO_BF16)
    if asked == "compile" or (asked == "auto" and seconds > WORTH_COMPILING):
        yield _Candidate("compile", fixed, lambda: (_compile.compiled(body, fixed), None), tolerance, full)
    if asked in ("auto", "eager"):
        yield _Candidate("eager", fixed, lambda: (plain(folded(body) or body, fixed).run, None), tolerance)


def _tried(candidate: _Candidate, batch: torch.Tensor, wanted: Crossing, at_least: float) -> tuple[Engine, Any] | str:
    """The engine, with OpenVINO's model where it is one; or in words why not."""
    count = max(candidate.batch, len(batch))
    try:
        run, model = candidate.make()
        found, speed = timed(run, _repeated(batch, count))
    except Exception as fault:  # converters and compilers raise anything on a network they do not know
        first = (str(fault).strip() or type(fault).__name__).splitlines()[0][:120]
        return f"{candidate.name} fails ({type(fault).__name__}: {first})"
    error = difference(found, tuple(_repeated(t, count) for t in wanted))
    if not error <= candidate.tolerance:
        return f"{candidate.name} in {candidate.precision} differs by {error:.1e}, more than {candidate.tolerance:.0e}"
    if speed < LEAST_SPEED * at_least:
        return f"{candidate.name} is slower than the module itself ({speed:.0f} against {at_least:.0f} images/s)"
    version = _openvino.identity() if candidate.name == "openvino" else ""
    return Engine(candidate.name, candidate.precision, version, run, error, speed), model


def _work(subject: Subject, picture: torch.Tensor) -> int:
    """Floating-point operations for one image."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        plain(subject.body, "fp32").run(subject.normalised(picture))
    return counter.get_total_flops()
