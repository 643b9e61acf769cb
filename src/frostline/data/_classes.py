"""Labels are matched by name, never by position: what a set of classes must satisfy."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from frostline.data._names import listed, shown
from frostline.errors import DataError, FrostlineError, near_names


@contextlib.contextmanager
def naming(classes: Sequence[object]) -> Iterator[None]:
    """Have an error that is raised inside call a class by its name: deep code knows its number only.

    Args:
        classes: names, in the order of the labels.
    """
    try:
        yield
    except FrostlineError as fault:
        if fault.label is not None:
            fault.fact = fault.fact.replace(f"class number {fault.label}", f"class {shown(classes[fault.label])}")
            fault.label = None
        raise


def sorted_classes(names: Iterable[str], where: object) -> tuple[str, ...]:
    """The classes to train on, by code point (no locale, no natural order), so that every machine agrees.

    Args:
        names: names of the classes that have training images.
        where: the folder or manifest, for the error.

    Raises:
        DataError: fewer than two classes, or two that differ in their Unicode form only.
    """
    classes = tuple(sorted(set(names)))
    refuse_twins(classes, where)
    if len(classes) == 1:
        raise DataError(f"one class only, {shown(classes[0])}", where=shown(where), advice="give at least two classes")
    return classes


def refuse_twins(names: Sequence[str], where: object) -> None:
    """Refuse names that look alike: the same text composed (NFC) and decomposed (NFD).

    Args:
        names: names of classes.
        where: the folder or manifest, for the error.

    Raises:
        DataError: two of the names are such twins.
    """
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if twin != name:
            fact = f"classes {twin!a} and {name!a} are the same text in two Unicode forms"
            raise DataError(fact, where=shown(where), advice="merge them under one name")


def refuse_unknown(names: Iterable[str], known: Sequence[str], where: object) -> None:
    """Refuse classes that were not trained on.

    Args:
        names: the classes met.
        known: the classes of the training images.
        where: the folder or manifest, for the error.

    Raises:
        DataError: one of ``names`` is not known.
    """
    unknown = sorted(set(names) - set(known))
    if unknown:
        fact = f"classes unknown to training: {listed(unknown)} (known: {listed(known)})"
        raise DataError(fact, where=shown(where), advice=near_names(unknown[0], known) or "remove or rename them")
