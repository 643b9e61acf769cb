"""The way of an advice, in order: images, backbones, evidence, cost, recommendation."""

from __future__ import annotations

import contextlib
import functools
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frostline._device import resolve_device
from frostline.advise.cost import Cost, Images, cost_of, head_seconds
from frostline.advise.evidence import AtDepth, Evidence, gather_evidence
from frostline.advise.recommend import Candidate, Recommendation, recommend
from frostline.advise.speeds import Speeds, measured_step, module_speed
from frostline.backbone import Backbone, open_backbone
from frostline.backbone.open import import_library
from frostline.data._classes import naming
from frostline.features.depths import ALL, END
from frostline.fitting.events import Event
from frostline.fitting.held import Held
from frostline.fitting.prepare import Compute
from frostline.freeze.layers import layers_of
from frostline.freeze.plan import FreezePlan
from frostline.gather import by_split, read_images
from frostline.heads import HeadSpec
from frostline.model import TransferModel
from frostline.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Advice:
    """What to freeze, with everything that speaks for it.

    Attributes:
        recommendation: the pick and all candidates.
        evidences: one a backbone, in the order they were asked for.
        seconds: wall time of it all.
    """

    recommendation: Recommendation
    evidences: tuple[Evidence, ...]
    seconds: float


def advise(
    recipe: Recipe,
    backbones: Sequence[str] = (),
    *,
    cache: Path | None,
    listen: Callable[[Event], None] = lambda _: None,
    offline: bool = False,
) -> Advice:
    """Measure, then recommend what to freeze; nothing is trained but heads on features.

    Args:
        recipe: its images, weights, seed and settings of features are used; what it says about training is not.
        backbones: to compare; the recipe's alone where there are none.
        cache: folder of the feature cache; None keeps no features on disk.
        listen: called with every event, for progress.
        offline: fetch nothing.

    Raises:
        FrostlineError: images or backbones cannot be had, or a class has one image only.
    """
    began = time.perf_counter()
    manifest, digests = read_images(recipe)
    images = by_split(manifest, digests)
    everything, counts = images["train"] + images["val"], Images(*(len(images[s]) for s in ("train", "val", "test")))
    listed = time.perf_counter() - began
    device = resolve_device(recipe.device)
    compute = Compute(cache, False, recipe.device, recipe.precision, recipe.engine, recipe.storage)
    evidences: list[Evidence] = []
    candidates: list[Candidate] = []
    imported: dict[str, float] = {}  # by library: a run of one backbone pays for its own, whoever pays here
    for name in backbones or [recipe.backbone]:
        opening = time.perf_counter()
        library = import_library(name)
        imported.setdefault(library, time.perf_counter() - opening)
        opening = time.perf_counter()
        opened = open_backbone(name, recipe.weights, replace=recipe.replace_layer, offline=offline)
        opened.body.to(device)
        opening = listed + imported[library] + time.perf_counter() - opening
        with naming(manifest.classes):
            evidence = gather_evidence(opened, everything, len(manifest.classes), compute, device, recipe.seed, listen)
        evidences.append(evidence)
        candidates += candidates_of(opened, evidence, counts, opening)
    return Advice(recommend(candidates, evidences, counts.val), tuple(evidences), time.perf_counter() - began)


def candidates_of(opened: Backbone, evidence: Evidence, images: Images, opening: float) -> Iterator[Candidate]:
    """The plans that are compared, each with its cost on this machine; the backbone is left frozen.

    Args:
        opened: the backbone, on ``device``.
        evidence: of the same.
        images: how many there are.
        opening: seconds that listing them and opening the backbone took.
    """
    few, name = evidence.some, evidence.backbone
    told, linear = evidence.told, HeadSpec("linear")
    start = told.advised if told.advised.at == ALL else linear
    model = TransferModel(opened, str(start), evidence.classes)
    speeds = _speeds(opened, evidence, opening)
    resident = _resident()
    frozen = measured_step(model, "none", few, speeds)

    @functools.cache
    def head_of(spec: HeadSpec) -> tuple[int, tuple[float, float]]:
        width = sum(d.channels for d in evidence.depths if (spec.at or END) in (ALL, d.name))
        return width, head_seconds(spec, width, evidence.classes, images, speeds, few.device)

    def cost(unfreeze: str, head: HeadSpec) -> Cost:
        step = frozen if unfreeze == "none" else measured_step(model, unfreeze, few, speeds)
        width, seconds = head_of(head)
        return cost_of(step, speeds, images, width, resident, seconds, probe=unfreeze != "none")

    yield Candidate(name, "none", "plain", "linear", told.ridge[END], cost("none", linear))
    everywhere = [told.best(ALL)] if any(h.at == ALL for h in told.own) else [HeadSpec("linear", at=ALL)] if ALL in told.ridge else []
    for spec in dict.fromkeys((*everywhere, told.advised)):
        if spec.at is not None:
            yield Candidate(name, "none", "plain", str(spec), told.own.get(spec, told.ridge[spec.at]), cost("none", spec))
    for unfreeze, held in evidence.reaches.items():
        yield Candidate(name, unfreeze, "lp-ft", str(start), held, cost(unfreeze, start))
    if "all" in evidence.reaches and layers_of(model.backbone).norms:
        yield Candidate(name, "norm", "lp-ft", str(start), evidence.reaches["all"], cost("norm", start))
    FreezePlan("none").apply(model)


def _speeds(opened: Backbone, evidence: Evidence, opening: float) -> Speeds:
    module, shares = module_speed(opened.body, evidence.some)
    timed, engine = evidence.timed, evidence.engine.images_per_second
    rate = 1 / module if engine is None else engine
    return Speeds(opening, timed.decode, rate, module, shares, timed.choosing, timed.weighing, timed.solving)


def _resident() -> int:
    """Bytes of memory that this process takes now; where the system does not say, the most it has taken."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return resource.getpagesize() * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def advice_json(advice: Advice) -> dict[str, Any]:
    """As plain JSON values; keys are the contract of ``advise --json``."""
    pick, second = advice.recommendation.pick, advice.recommendation.runner_up
    return {
        "recommended": _plan_json(pick),
        "runner_up": None if second is None else _plan_json(second),
        "candidates": [_candidate_json(c) for c in advice.recommendation.ranked],
        "evidence": {e.backbone: _evidence_json(e) for e in advice.evidences},
        "why": advice.recommendation.why,
        "seconds": advice.seconds,
    }


def _plan_json(candidate: Candidate) -> dict[str, Any]:
    return {n: getattr(candidate, n) for n in ("backbone", "unfreeze", "strategy", "head")}


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    cost = candidate.cost
    return {
        **_plan_json(candidate),
        "val_accuracy": candidate.held.accuracy,
        "interval": list(candidate.held.interval),
        "seconds": cost.seconds,
        "seconds_interval": list(cost.interval),
        "peak_memory_bytes": cost.peak_memory,
        "cache_bytes": cost.cache,
    }


def _held_json(held: Held) -> dict[str, Any]:
    return {"accuracy": held.accuracy, "interval": list(held.interval), "log_loss": held.log_loss}


def _depth_json(depth: AtDepth) -> dict[str, Any]:
    return {
        "name": depth.name,
        "channels": depth.channels,
        "ridge": _held_json(depth.ridge),
        "logistic": _held_json(depth.logistic),
        "neighbours": depth.neighbours.accuracy,
        "logme": depth.logme,
        "h_score": depth.h_score,
    }


def _evidence_json(evidence: Evidence) -> dict[str, Any]:
    unlike = evidence.unlikeness
    return {
        "images": evidence.images,
        "of": evidence.of,
        "classes": evidence.classes,
        "fewest_of_a_class": evidence.fewest,
        "majority": evidence.majority,
        "folds": evidence.folds,
        "depths": [_depth_json(d) for d in evidence.depths],
        "from_cut_to_end": {n: _held_json(h) for n, h in evidence.reaches.items()},
        "suspect_labels": evidence.suspects,
        "learning_curve": [{"n": n, **_held_json(h)} for n, h in evidence.curve],
        "unlikeness": {n: getattr(unlike, n) for n in ("images", "shift", "spread", "confidence", "classifier")},
        "engine": evidence.engine.facts(),
        "depth_unknown": evidence.why,
        "seconds": {"features": evidence.timed.features, "probes": evidence.timed.probes},
    }
