"""Augmented views of an image: each is a function of (seed, image, index) and nothing else, so that it can be cached.

Crops, flips and colours are torchvision's ``transforms.v2``. They draw from torch's global generator, which is seeded for
the one picture and given back: views are made in the thread that asks for them, never in a pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast

import numpy as np
import torch
from PIL import Image

from frostline._rng import seeded
from frostline.errors import RecipeError

Augment = Literal["none", "light", "strong"]
_RULES = 1  # raise it whenever a view changes


@dataclass(frozen=True)
class View:
    """One augmentation of every image.

    Attributes:
        augment: ``none`` is the picture as the backbone wants it; ``light``: a crop of 60 to 100 % of the area, flipped
            half the time; ``strong``: 25 to 100 %, flipped, two operations of RandAugment (Cubuk 2020), colours shifted.
        seed: another seed gives other views.
        index: the number of the view.
    """

    augment: Augment = "none"
    seed: int = 0
    index: int = 0

    @property
    def plain(self) -> bool:
        """Whether nothing is changed."""
        return self.augment == "none"

    def settings(self) -> object:
        """What a cached feature depends on, as a plain JSON value."""
        return "plain" if self.plain else {"augment": self.augment, "seed": self.seed, "index": self.index, "rules": _RULES}

    def pixels(self, image: Image.Image, digest: str, size: tuple[int, int], interpolation: str) -> torch.Tensor:
        """The view of a picture: ``(3, H, W)`` uint8.

        Args:
            image: RGB.
            digest: SHA-256 of the file's content.
            size: height and width in pixels.
            interpolation: Pillow filter, by torchvision's name.
        """
        with seeded(self.seed, f"view {digest}", self.index):
            made = _transform(self.augment, size, interpolation)(image)
        return torch.from_numpy(np.array(made, dtype=np.uint8)).permute(2, 0, 1)


PLAIN = View()


@dataclass(frozen=True)
class Views:
    """Which views of the training images are trained on.

    Attributes:
        augment: how they are made.
        count: how many of each image are made and cached; epochs go round them.
        live: a new one every epoch, of which nothing can be cached.

    Raises:
        RecipeError: an unknown augmentation, no view at all, or several that would all be the same.
    """

    augment: Augment = "none"
    count: int = 1
    live: bool = False

    def __post_init__(self) -> None:
        if self.augment not in ("none", "light", "strong"):
            raise RecipeError(f"no augmentation is called {self.augment!r}", where="--augment", advice="use none, light or strong")
        if self.count < 1:
            raise _no_number(self.count)
        if self.augment == "none" and (self.live or self.count > 1):
            raise RecipeError(
                f"{'live' if self.live else self.count} views without augmentation are all the same",
                where="--views",
                advice="add --augment light or strong",
            )

    @staticmethod
    def parse(augment: str, views: str) -> Views:
        """Read ``--augment`` and ``--views``.

        Raises:
            RecipeError: an unknown augmentation, no whole number of views, or several views that would all be the same.

        >>> Views.parse("light", "4")
        Views(augment='light', count=4, live=False)
        """
        live = views == "live"
        if not live and not views.isdecimal():
            raise _no_number(views)
        return Views(cast("Augment", augment), 1 if live else int(views), live)

    def cached(self, seed: int) -> tuple[View, ...]:
        """The views to cache; one plain view where they are live or nothing is augmented."""
        if self.live or self.augment == "none":
            return (PLAIN,)
        return tuple(View(self.augment, seed, index) for index in range(self.count))


def _no_number(given: object) -> RecipeError:
    return RecipeError(f"{given!r} is no number of views", where="--views", advice="give a whole number of at least 1, or live")


@lru_cache(maxsize=8)
def _transform(augment: str, size: tuple[int, int], interpolation: str) -> Callable[[Image.Image], Image.Image]:
    from torchvision.transforms import v2

    filters = v2.InterpolationMode(interpolation)
    if augment == "light":
        steps = [v2.RandomResizedCrop(size, (0.6, 1.0), interpolation=filters), v2.RandomHorizontalFlip()]
    else:
        turning = v2.InterpolationMode.BICUBIC if interpolation == "lanczos" else filters  # Pillow turns and shears with none wider
        steps = [
            v2.RandomResizedCrop(size, (0.25, 1.0), interpolation=filters),
            v2.RandomHorizontalFlip(),
            v2.RandAugment(interpolation=turning),
            v2.ColorJitter(0.3, 0.3, 0.3),
        ]
    return cast("Callable[[Image.Image], Image.Image]", v2.Compose(steps))
