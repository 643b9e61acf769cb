"""Runs side by side: the same images, by their content, judged by each; the differences tested in pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from frostline.data._names import shown
from frostline.errors import RunError
from frostline.fitting.metrics import mcnemar, wilson
from frostline.report.judged import Judged
from frostline.report.words import counted, percent, whole
from frostline.run import Run

NOISE = 0.05
"""Probability of so uneven a split by chance alone, from which a difference is inside the noise."""


@dataclass(frozen=True, eq=False)
class Contender:
    """A run and its answers.

    Attributes:
        run: the run.
        judged: its answers.
    """

    run: Run
    judged: Judged


@dataclass(frozen=True)
class Difference:
    """How another run differs from the first one on the same images.

    Attributes:
        first: name of the first.
        other: name of the other.
        n: images that both were judged on.
        both: that both label right.
        only_first: that only the first labels right.
        only_other: that only the other does.
        neither: that none does.
        value: accuracy of the other less that of the first.
        interval: of it (Newcombe 1998).
        chance: probability of a split at least as uneven by chance alone (McNemar 1947, exact).
    """

    first: str
    other: str
    n: int
    both: int
    only_first: int
    only_other: int
    neither: int
    value: float
    interval: tuple[float, float]
    chance: float

    @property
    def noise(self) -> bool:
        """Whether the difference cannot be told from chance."""
        return self.chance >= NOISE

    def words(self) -> str:
        """The outcome in plain English."""
        low, high = (100 * x for x in self.interval)
        if self.only_first == self.only_other == 0:
            return f"Judged on the same {counted(self.n, 'picture')}, both label exactly the same ones right."
        one, two = self.first, self.other
        better = two if self.value > 0 else one
        verdict = "Inside the noise: neither can be called better" if self.noise else f"{better} is better"
        return (
            f"{verdict}. Judged on the same {counted(self.n, 'picture')}, {two} gets {_more(100 * self.value)} of 100 right than {one} "
            f"(between {_more(low)} and {_more(high)}). {self.only_other} only {two} labels right, {self.only_first} only {one}: were both "
            f"equally good, a split as uneven as that would come up in {_probability(self.chance)} of such tests."
        )


def difference_of(first: Contender, other: Contender) -> Difference:
    """Compare two runs image by image.

    Raises:
        RunError: their classes differ, or they were judged on different images.
    """
    if set(first.run.classes) != set(other.run.classes):
        fact = f"has other classes than {first.run.folder}"
        raise RunError(fact, where=other.run.folder, advice="compare runs of one task")
    answers, others = _answers(first), _answers(other)
    common = [key for key in answers if key in others]
    if not common:
        fact = f"was judged on other images than {first.run.folder}"
        raise RunError(fact, where=other.run.folder, advice="compare runs with the same test or validation images")
    rights = [(answers[key], others[key]) for key in common]
    both, neither = sum(a and b for a, b in rights), sum(not a and not b for a, b in rights)
    only_first, only_other = sum(a and not b for a, b in rights), sum(b and not a for a, b in rights)
    low, high = paired_interval(both, only_other, only_first, neither)
    names = name_of(first.run), name_of(other.run)
    n = len(common)
    value = (only_other - only_first) / n
    return Difference(*names, n, both, only_first, only_other, neither, value, (low, high), mcnemar(only_first, only_other))


def paired_interval(both: int, one: int, other: int, neither: int) -> tuple[float, float]:
    """95 % interval of the difference of two shares measured on the same images: score intervals, joined (Newcombe 1998b, method 10).

    Args:
        both: images on which both are right.
        one: on which only the one is, whose share the other's is taken from.
        other: on which only the other is.
        neither: on which neither is.

    >>> tuple(round(x, 4) for x in paired_interval(36, 12, 2, 0))
    (0.0569, 0.3404)
    """
    n = both + one + other + neither
    p1, p2 = (both + one) / n, (both + other) / n
    (l1, u1), (l2, u2) = wilson(both + one, n), wilson(both + other, n)
    product = (both + one) * (other + neither) * (both + other) * (one + neither)
    gap = both * neither - one * other
    gap = max(gap - n / 2, 0.0) if gap > 0 else gap
    phi = gap / math.sqrt(product) if product else 0.0

    def joined(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    return p1 - p2 - joined(p1 - l1, u2 - p2), p1 - p2 + joined(u1 - p1, p2 - l2)


def name_of(run: Run) -> str:
    """How a run is called: its folder."""
    return shown(run.folder.resolve().name)


def facts_of(contender: Contender) -> dict[str, Any]:
    """What is laid side by side of one run."""
    summary, judged = contender.run.summary, contender.judged
    scores = summary[judged.split]
    return {
        "name": name_of(contender.run),
        "split": judged.split,
        "n": scores["n"],
        "accuracy": scores["accuracy"],
        "interval": scores["interval"],
        "log_loss": scores["log_loss"],
        "backbone": shown(summary["backbone"]),
        "unfreeze": shown(summary["unfreeze"]),
        "head": shown(summary["head"]),
        "strategy": summary["strategy"],
        "trained": summary["trainable_parameters"],
        "seconds": summary["seconds"]["total"],
    }


def compare(contenders: Sequence[Contender]) -> list[Difference]:
    """Each of the others against the first.

    Raises:
        RunError: two are not comparable.
    """
    return [difference_of(contenders[0], other) for other in contenders[1:]]


def _answers(contender: Contender) -> dict[tuple[str, str], bool]:
    """Whether each image is labelled right, by its content and its class's name."""
    judged, classes = contender.judged, contender.run.classes
    right = (judged.logits.argmax(1) == judged.labels).tolist()
    return {(d, classes[y]): r for d, y, r in zip(judged.images.digests, judged.images.labels, right, strict=True)}


def _more(points: float) -> str:
    return f"{abs(points):.1f} {'more' if points >= 0 else 'fewer'}"


def _probability(chance: float) -> str:
    return "less than 0.1\u00a0%" if chance < 0.001 else percent(chance) if chance < 0.1 else whole(chance)
