"""Time that a training may take: read from a person's words, and kept to."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from frostline.errors import RecipeError
from frostline.features.extract import FeatureProgress
from frostline.fitting.events import CachePlanned, Event
from frostline.fitting.wise import SHARES

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
MIXTURES = len(SHARES)
WRITING = 0.8
"""Seconds kept for writing the run, and for the interpreter, which began before anybody counted."""


def seconds_of(text: str) -> float:
    """``90``, ``90s``, ``1.5m`` or ``2h`` as seconds.

    Raises:
        RecipeError: something else, or nothing at all.

    >>> seconds_of("1.5m")
    90.0
    """
    met = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    if met is None or float(met[1]) == 0:
        raise RecipeError(f"{text!r} is no length of time", where="--budget", advice="use for example 90s, 10m or 2h")
    return float(met[1]) * _UNITS[met[2] or ""]


@dataclass(frozen=True)
class Budget:
    """A deadline.

    Attributes:
        seconds: how long the process may take.
        started: when it began, by :func:`time.perf_counter`.
        after: images that are run through the whole network once training is done: a test, and what forgetting is measured on.
    """

    seconds: float
    started: float
    after: int = 0

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def over(self, reserve: float = 0.0) -> bool:
        """Whether training has to end now, to leave ``reserve`` seconds and those that writing takes."""
        return self.spent + reserve + WRITING >= self.seconds

    def check(self, event: Event) -> None:
        """Refuse to go on where not even the features will be there in time; what was computed stays cached.

        Raises:
            RecipeError: says what there would be time for.
        """
        if isinstance(event, CachePlanned) and event.seconds is not None:
            needed = self.spent + event.seconds * (1 + self.after / event.images) + WRITING + 0.5
            if needed > self.seconds:
                raise self._refusal(f"the features of {event.images} images take about {event.seconds:.0f} s more", needed)
        if isinstance(event, FeatureProgress) and event.done < event.total and self.over():
            needed = self.spent * event.total / max(1, event.done) + WRITING + 0.5
            raise self._refusal(f"the features of {event.done} of {event.total} images are there, and stay cached", needed)

    def too_late(self, event: Event) -> bool:
        """Whether the features of a phase that is not the first one will not be there in time: it need not be begun."""
        if isinstance(event, CachePlanned):
            return event.seconds is not None and self.over(event.seconds)
        return isinstance(event, FeatureProgress) and event.done < event.total and self.over()

    def begin(self) -> None:
        """Refuse to begin where the time is up already.

        Raises:
            RecipeError: says what there would be time for.
        """
        if self.over():
            raise self._refusal("the backbone has been opened, no image was looked at", 2 * self.spent + 2)

    def _refusal(self, what: str, needed: float) -> RecipeError:
        return RecipeError(
            f"{self.seconds:g} s are not enough: {self.spent:.1f} s are gone, {what}",
            where="--budget",
            advice=f"a head on the frozen backbone needs about {needed:.0f} s in all, and every unfrozen layer more",
        )


class Clock:
    """The watch of one phase, against the budget.

    Args:
        budget: None is never over.
    """

    def __init__(self, budget: Budget | None) -> None:
        self._budget, self._began = budget, time.perf_counter()
        self._waited = self._epoch = self._reserve = 0.0
        self._trains = self._began

    def features_ready(self) -> None:
        """What the phase is trained on is there."""
        self._waited = time.perf_counter() - self._began

    def judged(self, after: float, times: float) -> None:
        """The validation images have been judged once: what comes after training can be told.

        Args:
            after: seconds of the network itself once training is done.
            times: training images for each validation image; 0 where none were judged.
        """
        judging = time.perf_counter() - self._began - self._waited
        self._reserve = after + (judging * (MIXTURES + 1 + times) if times else 0.0)

    def training(self) -> None:
        """The first step is about to be taken."""
        self._trains = time.perf_counter()

    def trained(self, epochs: int) -> float:
        """Seconds since then; so many epochs were run."""
        seconds = time.perf_counter() - self._trains
        self._epoch = seconds / max(1, epochs)
        return seconds

    def late(self) -> bool:
        """Whether training has to end now."""
        return self._budget is not None and self._budget.over(self._reserve)

    def too_late_for_another(self) -> bool:
        """Whether there is no time for the features of another phase and two of its epochs, if it is like this one, or twice as dear."""
        if self._budget is None:
            return False
        return self._budget.over(self._reserve + self._waited + 4 * self._epoch)
