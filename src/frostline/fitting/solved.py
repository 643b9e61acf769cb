"""Heads that are solved, not trained step by step: ``ridge`` and ``logistic``. Cross-validation chooses how smooth they are."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence

import torch
from torch import nn

from frostline.errors import RecipeError
from frostline.fitting import logistic, ridge
from frostline.fitting.candidates import Judged, SolvedHead, best_of, judge
from frostline.fitting.events import EpochDone, Solved
from frostline.fitting.folds import Fold, scale_of, stratified_folds
from frostline.fitting.hyper import Hyper
from frostline.fitting.loop import Task, close_epoch, logits_of
from frostline.fitting.snapshot import Progress
from frostline.fitting.sources import FeatureRows
from frostline.heads.contract import HeadSpec, InputScale
from frostline.heads.linear import LinearHead

FOLDS = 5

MOST_NUMBERS = 2**26
"""Features of all folds together that logistic heads are solved on side by side, at most; of more, one fold after the other."""

AT_ONCE = Hyper(epochs=1, batch_size=1, lr=0.0, backbone_lr=0.0, weight_decay=0.0, warmup_fraction=0.0, patience=1)
"""The settings of a phase that takes no steps: one pass over all images."""


def cross_validate_solved(
    spec: HeadSpec, features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold]
) -> tuple[Judged, ...]:
    """Judge every strength of the grid on images that were held out.

    The strength is kept as it is when the chosen one is solved on all images, as scikit-learn's cross-validated estimators do.

    Args:
        spec: ``ridge`` or ``logistic``.
        features: ``(N, d)``, as they come from the backbone.
        labels: ``(N,)`` int64.
        classes: number of classes.
        folds: which images judge which solution.
    """
    strengths = torch.tensor(strengths_of(spec), dtype=torch.float64)
    answers, labels = held_out_answers(spec, features, labels, classes, folds, strengths), labels.cpu()
    factors = ridge.logit_scales(answers, labels) if spec.kind == "ridge" else torch.ones_like(strengths)
    keys = [SolvedHead(spec, strength) for strength in strengths_of(spec)]
    return judge(keys, answers.mul_(factors[:, None, None]), labels, factors)


def held_out_answers(
    spec: HeadSpec, features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold], strengths: torch.Tensor
) -> torch.Tensor:
    """What the head says of every image where it was solved on other folds.

    Args:
        spec: ``ridge`` or ``logistic``.
        features: ``(N, d)``, as they come from the backbone.
        labels: ``(N,)`` int64.
        classes: number of classes.
        folds: disjoint in what they hold; an image that none holds has no answer, and gets NaN.
        strengths: ``(S,)`` float64.

    Returns:
        ``(S, N, classes)`` float64: logits, or of a ridge what :func:`frostline.fitting.ridge.logit_scales` makes logits of.
    """
    features, labels = features.cpu(), labels.cpu()
    answers = torch.full((len(strengths), len(labels), classes), torch.nan, dtype=torch.float64)
    at_once = len(folds) if spec.kind == "logistic" and len(folds) * features.numel() <= MOST_NUMBERS else 1  # a ridge gains nothing
    for start in range(0, len(folds), at_once):
        here = folds[start : start + at_once]
        scaled = [_scaled(scale_of(features, fold.train), features) for fold in here]
        paths = _paths(spec, [x[f.train] for x, f in zip(scaled, here, strict=True)], [labels[f.train] for f in here], classes, strengths)
        for x, fold, (weights, intercepts) in zip(scaled, here, paths, strict=True):
            answers[:, fold.held] = x[fold.held] @ weights.transpose(1, 2) + intercepts[:, None]
    return answers


def _paths(
    spec: HeadSpec, features: list[torch.Tensor], labels: list[torch.Tensor], classes: int, strengths: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights and intercepts of each fold, for all strengths."""
    if spec.kind == "ridge":
        return [ridge.ridge_path(x, y, classes, strengths) for x, y in zip(features, labels, strict=True)]
    weights, intercepts = logistic.logistic_path(features, labels, classes, strengths, logistic.ROUGHLY)
    return list(zip(weights, intercepts, strict=True))


def strengths_of(spec: HeadSpec) -> tuple[float, ...]:
    """The strengths that are tried, the smoothest first: of equals it is the one to take."""
    return tuple(reversed(ridge.STRENGTHS)) if spec.kind == "ridge" else logistic.STRENGTHS


def work_of(spec: HeadSpec, images: int, size: int, classes: int, folds: int) -> float:
    """Multiplications of a solved head's cross-validation, about; one processor does some 10^10 a second."""
    count = images - images // folds
    rank = min(count, size)
    factoring = folds * (10.0 * rank**3 + 2.0 * count * size * rank)
    steps = 200 * count * rank if spec.kind == "logistic" else count * rank
    return factoring + folds * len(strengths_of(spec)) * classes * steps


@torch.no_grad()
def solve(head: LinearHead, chosen: Judged, features: torch.Tensor, labels: torch.Tensor) -> None:
    """Put the solution on all images into a linear head whose scaling has been measured.

    Args:
        head: changed in place.
        chosen: a :class:`SolvedHead` that has been judged.
        features: ``(N, d)``, as they come from the backbone.
        labels: ``(N,)`` int64.
    """
    key = chosen.candidate
    assert isinstance(key, SolvedHead)
    x, y = _scaled(head.scale, features), labels.cpu()
    strength = torch.tensor([key.strength], dtype=torch.float64)
    if key.head.kind == "ridge":
        weights, intercepts = (found[0] for found in ridge.ridge_path(x, y, head.linear.out_features, strength))
    else:
        weights, intercepts = (found[0, 0] for found in logistic.logistic_path([x], [y], head.linear.out_features, strength))
    head.linear.weight.copy_(weights * chosen.factor)
    head.linear.bias.copy_(intercepts * chosen.factor)


def solve_phase(
    task: Task, head: LinearHead, spec: HeadSpec, chosen: Judged | None, progress: Progress
) -> Generator[Solved | EpochDone, None, None]:
    """A whole phase: cross-validate unless a sweep has chosen already, solve, judge by the validation images.

    Args:
        task: whose training source is features in memory.
        head: solved in place.
        spec: ``ridge`` or ``logistic``.
        chosen: by a sweep, or None.
        progress: kept up to date, as after one epoch.

    Raises:
        RecipeError: the features are not in memory, or a class has one image only, or too few groups.
    """
    began = time.perf_counter()
    if not isinstance(task.train, FeatureRows):
        raise RecipeError(f"a {spec} head takes features in memory", where="--head", advice="leave out --no-cache")
    features, labels = task.train.first, task.train.labels
    if chosen is None:
        folds = stratified_folds(labels, FOLDS, task.seed, task.train.units)
        weighed = features.cpu() / head.scale.scale.cpu() if head.scale.parts else features
        judged = cross_validate_solved(spec, weighed, labels, head.linear.out_features, folds)
        chosen = best_of(judged)
        yield Solved(judged, chosen, len(folds), time.perf_counter() - began)
    solve(head, chosen, features, labels)
    logits = logits_of(task.module, task.train, task.eval_batch)
    val_loss = val_accuracy = None
    if task.val is not None:
        found, theirs = logits_of(task.module, task.val, task.eval_batch), task.val.labels.cpu()
        val_loss = float(nn.functional.cross_entropy(found, theirs))
        val_accuracy = float((found.argmax(1) == theirs).double().mean())
    close_epoch(task, progress, val_loss, val_accuracy)
    loss = float(nn.functional.cross_entropy(logits, labels.cpu()))
    accuracy = float((logits.argmax(1) == labels.cpu()).double().mean())
    yield EpochDone(task.phase, 1, loss, accuracy, val_loss, val_accuracy, 0.0, time.perf_counter() - began)


def _scaled(scale: InputScale, features: torch.Tensor) -> torch.Tensor:
    """Scaled features on the CPU in float64, which not every device has."""
    with torch.no_grad():
        return (features.cpu().double() - scale.mean.cpu().double()) / scale.scale.cpu().double()
