"""What ``frostline train`` says before it does anything: which images, what on top of what, for how long, and where the run goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frostline.cli.screen import Screen
    from frostline.fitting import Event, Gathered, Planned
    from frostline.recipe import Recipe

_MOST_CLASSES = 12
"""Classes whose images are counted one by one."""


class Opening:
    """Listens in front of a screen. Nothing is said until the first event after the images: what is refused by then is one line alone."""

    def __init__(self, recipe: Recipe, out: Path, screen: Screen) -> None:
        self._recipe, self._out, self._screen = recipe, out, screen
        self._held: Gathered | None = None
        self._images = 0

    def listen(self, event: Event) -> None:
        """Take one event, and hand it on."""
        from frostline.fitting import Gathered, Planned

        if isinstance(event, Gathered):
            self._held, self._images = event, sum(event.images["train"].values())
            return
        if self._held is not None:
            for line in opening(self._recipe, self._out, self._held.images):
                self._screen.say(line)
            self._held = None
        self._screen.listen(event)
        if isinstance(event, Planned) and event.hyper.lr:  # of a head that is solved there is nothing to tell
            self._screen.say(duration(event, self._images))


def opening(recipe: Recipe, out: Path, images: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The lines before the first phase is planned."""
    heads = f", the best of {recipe.sweep}" if recipe.sweep else ""
    strategy = "" if recipe.strategy == "plain" else f", strategy {recipe.strategy}"
    budget = "" if recipe.budget is None else f", within {recipe.budget}"
    augmented = "" if recipe.augment == "none" else f", augment {recipe.augment}, views {recipe.views}"
    weights = {"default": "pre-trained", "random": "RANDOM weights"}.get(recipe.weights, f"weights of {recipe.weights}")
    return [
        f"images      {_counted(images)}",
        f"backbone    {recipe.backbone}, {weights}, unfreeze {recipe.unfreeze}",
        f"head        {recipe.head}{heads}{strategy}{augmented}{budget}",
        f"run         {out}",
    ]


def duration(event: Planned, images: int) -> str:
    """How long a phase lasts at most."""
    hyper = event.hyper
    rate = f"rate {hyper.lr:g}" + (f", {hyper.backbone_lr:g} in the backbone" if event.cut.way != "backbone" else "")
    return f"at most {hyper.epochs} epochs of {images} images in batches of {hyper.batch_size}, {rate}"


def _counted(images: Mapping[str, Mapping[str, int]]) -> str:
    """``train 1151, val 287, test 359; to train on 0: 114, 1: 117``."""
    splits = ", ".join(f"{split} {sum(counts.values())}" for split, counts in images.items() if sum(counts.values()))
    train = images["train"]
    if len(train) > _MOST_CLASSES:
        return f"{splits}; {len(train)} classes, {min(train.values())} to {max(train.values())} of each to train on"
    return f"{splits}; to train on {', '.join(f'{name}: {many}' for name, many in train.items())}"
