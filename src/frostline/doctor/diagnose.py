"""Examine a script or a run, judge what was observed, and say what could not be looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from frostline.doctor.data_checks import recomputed_prefix, single_last_sample, wrong_normalisation
from frostline.doctor.examination import Examination
from frostline.doctor.findings import TRAPS, Diagnosis, Finding
from frostline.doctor.layer_checks import active_dropout, moving_statistics, random_weights, woken_by_train
from frostline.doctor.observe import observe
from frostline.doctor.optimizer_checks import everything_frozen, frozen_in_optimizer, not_trained, nothing_to_train
from frostline.doctor.run import examine_run
from frostline.doctor.subject import NothingToTrainError, loaded, split_target

MISTAKES: tuple[Callable[[Examination], Finding | None], ...] = (
    moving_statistics,
    woken_by_train,
    active_dropout,
    frozen_in_optimizer,
    not_trained,
    wrong_normalisation,
    random_weights,
    single_last_sample,
)


def examine(target: str | Path, *, offline: bool = False) -> Diagnosis:
    """Look for the classic transfer-learning mistakes in a training script or a finished run.

    The script's function is called and three training steps are made on what it built; parameters, buffers, gradients, modes,
    optimizer and random state are as before afterwards, and nothing is written to disk.

    Args:
        target: ``script.py:build``, a function without arguments that returns ``(model, optimizer)`` or
            ``(model, optimizer, loader)`` (``build`` is taken where no function is named); or a run directory.
        offline: fetch nothing (a run may stand on published weights).

    Raises:
        ScriptError: no such script or function, it raises, it returns something else, or no batch can be had.
        RunError: the folder is no finished run, or it is damaged.
    """
    if Path(target).is_dir():
        return examine_run(Path(target), offline=offline)
    script, function = split_target(str(target))
    try:
        with loaded(script, function) as subject:
            return judge(subject.name, observe(subject))
    except NothingToTrainError as fault:
        return Diagnosis(f"{script}:{function}", "its optimizer could not be built", (everything_frozen(str(fault)),), _all_but(27))


def judge(name: str, seen: Examination) -> Diagnosis:
    """All findings of an examination. Advice is given only where there is no mistake: a cure may change what is worth advising."""
    nothing = nothing_to_train(seen)
    if nothing is not None:
        return Diagnosis(name, seen.data, (nothing,), _all_but(27))
    found = [finding for check in MISTAKES if (finding := check(seen)) is not None]
    unchecked = _unchecked(seen)
    if found:
        unchecked.setdefault(22, "it is looked for where there is no mistake")
    elif (advice := recomputed_prefix(seen)) is not None:
        found.append(advice)
    return Diagnosis(name, f"{seen.steps} training steps on {seen.data}", tuple(found), unchecked)


def _unchecked(seen: Examination) -> dict[int, str]:
    reasons: dict[int, str] = {}
    if seen.loader is None:
        reasons |= dict.fromkeys((12, 22, 25), "the script returns no loader")
        return reasons
    if seen.wanted is None:
        reasons[12] = "random weights want nothing" if seen.fresh.random else "nothing says what the model's weights want"
    elif seen.pixels is None:
        reasons[12] = "what reaches the pre-trained layers are no images"
    elif seen.pixels.noise:
        reasons[12] = "the images are noise"
    if seen.loader.repeats is None:
        reasons[22] = "it cannot be told whether the loader gives the same images again"
    if seen.loader.last is None:
        reasons[25] = "the loader does not tell the size of its last batch"
    return reasons


def _all_but(*traps: int) -> dict[int, str]:
    rest: Sequence[int] = [t for t in TRAPS if t not in traps]
    return dict.fromkeys(rest, "there is nothing to train")
