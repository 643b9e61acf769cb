"""The outcome in plain English, for a person who is no expert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from frostline.data._names import shown

_PERCENT = "\u00a0%"  # does not break before the sign

SPLITS = {"test": "test", "val": "validation", "train": "training"}


def of_100(share: float) -> str:
    """A share as a number of 100, with a decimal only where a whole number would say all or none.

    >>> of_100(0.948), of_100(0.998), of_100(1.0), of_100(0.9999)
    ('95', '99.8', '100', 'more than 99.9')
    """
    if share in (0.0, 1.0) or 0.5 <= 100 * share < 99.5:
        return f"{100 * share:.0f}"
    if share > 0.9995:
        return "more than 99.9"
    return "fewer than 0.1" if share < 0.0005 else f"{100 * share:.1f}"


def percent(share: float) -> str:
    """A share to a tenth of a per cent.

    >>> percent(0.948)
    '94.8\\xa0%'
    """
    return f"{100 * share:.1f}{_PERCENT}"


def whole(share: float) -> str:
    """A share to a per cent; all and none only where that is so.

    >>> whole(0.45), whole(0.999)
    ('45\\xa0%', '>99\\xa0%')
    """
    if 0.995 <= share < 1:
        return f">99{_PERCENT}"
    return f"<1{_PERCENT}" if 0 < share < 0.005 else f"{100 * share:.0f}{_PERCENT}"


def counted(count: int, one: str, several: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "picture"), counted(1200, "class", "classes")
    ('1 picture', '1,200 classes')
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def headline(scores: Mapping[str, Any], majority: tuple[str, float] | None) -> str:
    """The one sentence that a reader must take away.

    Args:
        scores: ``accuracy`` and ``interval``, as in ``summary.json``.
        majority: the most frequent class among the judged images, and its share of them.
    """
    low, high = scores["interval"]
    sentence = f"{of_100(scores['accuracy'])} of 100 pictures like these are labelled right (between {of_100(low)} and {of_100(high)})"
    if majority is None:
        return f"{sentence}."
    return f"{sentence}; always saying “{shown(majority[0])}” would get {of_100(majority[1])}."


def judged_on(summary: Mapping[str, Any], split: str) -> str:
    """Which images the result is of, and what that is worth."""
    count = counted(summary[split]["n"], "picture")
    if split == "test":
        return f"Measured on {count} of the test set, which training never saw and by which nothing was chosen."
    if not summary.get("val_chose_epoch", True):
        return f"Measured on {count} of the validation set, which training never saw and by which nothing was chosen."
    return (
        f"Measured on {count} of the validation set. Training never saw them, but they chose the epoch, and no test set was given: "
        "new pictures may do a little worse. Give a test folder for a result that nothing was chosen by."
    )


def against_baselines(scores: Mapping[str, Any], majority: tuple[str, float] | None, neighbours: float | None) -> list[str]:
    """What simpler ways would get, and whether this is better than they are."""
    low, high = scores["interval"]
    said: list[str] = []
    if majority is not None:
        if low > majority[1]:
            said.append("That is clearly better than always giving the most frequent class.")
        elif high < majority[1]:
            said.append("That is worse than always giving the most frequent class: something is wrong.")
        else:
            said.append(
                "That cannot be told from always giving the most frequent class: nothing useful was learnt, or there are too few pictures."
            )
    if neighbours is not None:
        inside = "inside the noise of that" if low <= neighbours <= high else "clearly less" if neighbours < low else "clearly more"
        said.append(
            f"Giving each picture the class of the training pictures that look most like it would get {of_100(neighbours)}, {inside}."
        )
    return said


def margin(scores: Mapping[str, Any]) -> str:
    """What the interval means."""
    low, high = scores["interval"]
    return (
        f"With {counted(scores['n'], 'picture')} the true share is known no better than {of_100(low)} to {of_100(high)} of 100 (a 95 % "
        "interval). Another model whose result lies in there may be just as good."
    )


def listed_names(names: Sequence[str], most: int = 6) -> str:
    """Names in a row, safe to print.

    >>> listed_names(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    head = ", ".join(shown(n) for n in names[:most])
    return head if len(names) <= most else f"{head} and {len(names) - most} more"
