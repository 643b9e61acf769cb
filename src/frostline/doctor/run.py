"""Examine a finished run: are its frozen layers the published ones, and does it see images as its weights want them?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

from safetensors import safe_open

from frostline.backbone import open_backbone
from frostline.doctor.anatomy import freshness
from frostline.doctor.findings import TRAPS, Diagnosis, Finding, counted, listed
from frostline.errors import RunError
from frostline.fitting.phases import phases_of
from frostline.freeze import FreezePlan, ResolvedPlan
from frostline.run import Run, layout, read_run

_AGAIN = "train again with frostline train; if it happens again it is a bug in frostline or in a layer that writes to itself"


def examine_run(folder: Path, *, offline: bool = False) -> Diagnosis:
    """Check a run directory: weights, digests, preprocessing and audit. Nothing is trained and nothing is written.

    Raises:
        RunError: the folder is no finished run, or it is damaged.
        WeightsError: the published backbone that it stands on is not to be had.
    """
    run = read_run(folder, offline=offline)
    plan = FreezePlan(run.recipe.unfreeze, run.recipe.batch_norm)
    resolved = phases_of(run.recipe.strategy, plan, run.model.backbone)[-1].plan.resolve(run.model)  # the last phase trains the most
    about, stored = _stored(folder / layout.WEIGHTS)
    checks = (
        _frozen_changed(run, resolved, about, stored),
        _did_not_move(run),
        _preprocess(run, offline=offline),
        _random(run, resolved),
        _uncached(run),
    )
    unchecked = dict.fromkeys((t for t in TRAPS if t not in (1, 6, 12, 15, 22)), "a run of frostline's cannot have it")
    return Diagnosis(str(folder), "weights, digests, preprocessing and audit of the run", tuple(f for f in checks if f), unchecked)


def _stored(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    try:
        with safe_open(path, framework="pt") as file:
            opened = cast("Any", file)
            return cast("dict[str, Any]", json.loads(opened.metadata()["frostline"])), tuple(opened.keys())
    except (OSError, KeyError, TypeError, ValueError) as fault:
        raise RunError(f"is damaged ({fault})", where=path) from fault


def _frozen_changed(run: Run, resolved: ResolvedPlan, about: dict[str, Any], stored: tuple[str, ...]) -> Finding | None:
    """A published backbone's tensors are stored only where they differ from the published ones: a frozen one must not be there."""
    frozen = {*resolved.frozen, *resolved.frozen_buffers}
    audit = cast("dict[str, Any]", run.summary.get("audit") or {})
    evidence: list[str] = []
    if audit.get("frozen_unchanged") is not True:
        evidence.append(f"{layout.SUMMARY} says that frozen tensors changed during training")
    published = run.recipe.weights == "default" and not run.model.opened.report.source.startswith("built by")
    changed = [n for n in stored if n in frozen] if published else []
    if changed:
        differ = "differs" if len(changed) == 1 else "differ"
        evidence.append(f"{counted(len(changed), 'frozen tensor')} {differ} from the published backbone: {listed(changed)}")
    elif not resolved.backbone_trained and about.get("backbone_published_sha256") != about.get("backbone_sha256"):
        evidence.append("the digest of the backbone after training is not the one before, though all of it was frozen")
    return Finding(1, "; ".join(evidence), _AGAIN) if evidence else None


def _did_not_move(run: Run) -> Finding | None:
    audit = cast("dict[str, Any]", run.summary.get("audit") or {})
    if audit.get("trainable_moved") is True or _steps(run.summary) < 2:  # balanced classes give a bias no gradient in the first step
        return None
    still = [str(name) for name in audit.get("still") or ()]
    return Finding(6, f"{layout.SUMMARY} says that trainable tensors did not move: {listed(still) or 'it names none'}", _AGAIN)


def _steps(summary: dict[str, Any]) -> float:
    """Training steps that a run made, as far as its summary tells."""
    try:
        return float(summary["epochs_run"] * math.ceil(summary["train"]["n"] / summary["batch_size"]))
    except (KeyError, TypeError, ZeroDivisionError):
        return math.inf


def _preprocess(run: Run, *, offline: bool) -> Finding | None:
    recipe = run.recipe
    wanted = open_backbone(
        recipe.backbone, "default" if recipe.weights == "default" else "random", replace=recipe.replace_layer, offline=offline
    )
    want, have = wanted.preprocess.settings(), run.model.opened.preprocess.settings()
    differ = [f"{key} {have[key]} instead of {want[key]}" for key in want if have[key] != want[key]]
    if not differ:
        return None
    return Finding(12, f"{layout.PREPROCESS} has {'; '.join(differ)}", f"put back what {wanted.name} wants, or train again")


def _random(run: Run, resolved: ResolvedPlan) -> Finding | None:
    """Frozen random layers: by the recipe, or by what a network of one's own looks like."""
    if not any(name.startswith("backbone.") for name in resolved.frozen):
        return None
    fresh = freshness(run.model, resolved.pinned)
    cure = "train with pre-trained weights (--weights default or FILE), or unfreeze all"
    if run.recipe.weights == "random":
        return Finding(15, f"{layout.RECIPE} asks for weights = 'random', and the backbone is frozen", cure)
    if not fresh.random:
        return None
    names = fresh.untouched or fresh.initial
    return Finding(15, f"{len(names)} of {fresh.norms or fresh.weights} frozen layers are as initialised: {listed(names)}", cure)


def _uncached(run: Run) -> Finding | None:
    cache = cast("dict[str, Any]", run.summary.get("cache") or {})
    seconds = cast("dict[str, Any]", run.summary.get("seconds") or {})
    if run.recipe.cache or cache.get("cut") in (None, "input"):
        return None
    spent = seconds.get("train", 0.0)
    return Finding(
        22,
        f"{layout.RECIPE} says cache = false: the frozen layers up to {cache['cut']} ran in every epoch ({spent:.1f} s of training)",
        "train without --no-cache",
        severity="advice",
    )
