"""Nested cross-validation of a whole recipe: every image is labelled by a model that was neither trained on it nor chosen by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from frostline._device import resolve_device
from frostline.data._classes import naming
from frostline.errors import RecipeError
from frostline.features.images import ImageSet
from frostline.fitting.calibrate import calibrated
from frostline.fitting.events import Event, Finished
from frostline.fitting.folds import Fold, stratified_folds
from frostline.fitting.metrics import wilson
from frostline.gather import AtHand
from frostline.heads.contract import AUTO, HeadSpec
from frostline.model import TransferModel
from frostline.recipe import Recipe
from frostline.run import Run
from frostline.use import evaluate_images

INNER = 5
"""One in so many of a fold's training images chooses its epochs."""


@dataclass(frozen=True)
class Nested:
    """What the recipe reaches on images that no choice has seen.

    Attributes:
        n: images, each counted once.
        accuracy: share labelled right.
        interval: 95 % interval (Wilson 1927); folds share training images, it is a little too narrow (Bengio 2004).
        log_loss: mean, in nats.
        folds: how many models were trained.
    """

    n: int
    accuracy: float
    interval: tuple[float, float]
    log_loss: float
    folds: int


@dataclass(frozen=True)
class Part:
    """One of the models of nested cross-validation.

    Attributes:
        train: images to train it on.
        val: that choose its epochs.
        held: that it is judged by.
    """

    train: ImageSet
    val: ImageSet
    held: ImageSet


def parts_of(recipe: Recipe, at_hand: AtHand) -> list[Part]:
    """The images of each model; asked for before anything is trained, for they may be too few.

    Args:
        recipe: what to do; ``recipe.nested`` is the number of folds.
        at_hand: its images of training and validation are taken together.

    Raises:
        RecipeError: a class has too few images, or groups of them.
    """
    with naming(at_hand.manifest.classes):
        return _parts(recipe, at_hand.images["train"] + at_hand.images["val"])


def _parts(recipe: Recipe, images: ImageSet) -> list[Part]:
    found: list[Part] = []
    spec = HeadSpec.parse(recipe.head)
    for fold in stratified_folds(torch.tensor(images.labels), recipe.nested, recipe.seed, images.units):
        outer = images.only(fold.train.tolist())
        inner = _inner(outer, recipe.seed)
        train = outer.only(inner.train.tolist())
        if recipe.sweep or spec.solved or spec.at == AUTO:  # which cut them once more
            stratified_folds(torch.tensor(train.labels), INNER, recipe.seed, train.units)
        found.append(Part(train, outer.only(inner.held.tolist()), images.only(fold.held.tolist())))
    return found


def _inner(outer: ImageSet, seed: int) -> Fold:
    labels = torch.tensor(outer.labels)
    try:
        return stratified_folds(labels, INNER, seed, outer.units)[0]
    except RecipeError:  # one group of a class is left: it may choose epochs for itself, and judges nothing
        return stratified_folds(labels, INNER, seed)[0]


def nested(
    recipe: Recipe,
    at_hand: AtHand,
    parts: Sequence[Part],
    train: Callable[[TransferModel, ImageSet, ImageSet], Iterator[Event]],
    cache: Path | None,
) -> Nested:
    """Train the recipe once a fold, on the training and validation images together.

    Args:
        recipe: what to do.
        at_hand: images and backbone as they were before training.
        parts: from :func:`parts_of`.
        train: fits a model on some images, judged by others.
        cache: folder of the feature cache; with it, frozen layers are not run again.
    """
    images = at_hand.images["train"] + at_hand.images["val"]
    right, loss, count = 0, 0.0, 0
    device = resolve_device(recipe.device)
    at_hand.opened.body.to(device)  # all of it: the run has moved what its head sits on
    for part in parts:
        model = TransferModel(at_hand.opened, recipe.head, len(at_hand.manifest.classes), recipe.seed)
        with naming(at_hand.manifest.classes):
            finished = next(e for e in train(model, part.train, part.val) if isinstance(e, Finished))
        calibrated(model.head, finished, recipe.seed)
        run = Run(Path(), recipe, {}, at_hand.manifest.classes, model)
        prefix = run.prefix_as_trained(device, images, cache)
        scores, _ = evaluate_images(run, part.held, prefix, cache=cache)
        right, loss, count = right + round(scores.accuracy * scores.n), loss + scores.log_loss * scores.n, count + scores.n
    return Nested(count, right / count, wilson(right, count), loss / count, len(parts))


def check_nested(recipe: Recipe) -> None:
    """Refuse what nested cross-validation cannot go with.

    Raises:
        RecipeError: the backbone would be trained, and have to be opened anew for every fold; one fold; or a budget.
    """
    if recipe.nested == 1:
        raise RecipeError("one fold leaves nothing to train on", where="--nested", advice="give 2 or more, or 0 for none")
    if recipe.nested and recipe.budget is not None:
        raise RecipeError("trains everything once more for every fold, whatever that takes", where="--nested", advice="leave out --budget")
    if recipe.nested and not recipe.head_alone:
        raise RecipeError(
            "takes a frozen backbone and one phase", where="--nested", advice="leave it out, or --unfreeze, --strategy and --batch-norm"
        )
