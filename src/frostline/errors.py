"""The errors frostline raises on purpose, and the one line that each of them prints.

Deep code states the *fact* (what was found, what was expected). The edge that knows more adds *where* (a path, a
flag, a layer) and *advice* (what to do instead) with :meth:`FrostlineError.at`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self


class FrostlineError(Exception):
    """A fault in what frostline was given; the command line answers it with one line and exit code 2.

    Args:
        fact: what was found and what was expected, without a trailing full stop.
        where: the path, flag or layer concerned.
        advice: what to do instead, in the imperative.
        label: of the class concerned, which the fact calls ``class number N``; see :func:`frostline.data._classes.naming`.
    """

    exit_code = 2

    def __init__(self, fact: str, *, where: object = None, advice: str | None = None, label: int | None = None) -> None:
        super().__init__(fact)
        self.fact = fact
        self.where = None if where is None else str(where)
        self.advice = advice
        self.label = label

    def at(self, where: object, advice: str | None = None) -> Self:
        """Add what only the caller knows, unless deeper code said it already."""
        if self.where is None:
            self.where = str(where)
        if self.advice is None:
            self.advice = advice
        return self

    def __str__(self) -> str:
        line = self.fact if self.where is None else f"{self.where}: {self.fact}"
        if self.advice is not None:
            line = f"{line}; {self.advice}"
        return " ".join(line.split())


class DataError(FrostlineError):
    """The images, folders, labels or manifest are not usable."""


class DecodeError(FrostlineError):
    """One file is no image that frostline reads; it is skipped and listed, never fatal by itself."""


class BackboneError(FrostlineError):
    """No such backbone, or one that cannot be used for this."""


class WeightsError(FrostlineError):
    """A weights file is missing, corrupt or does not fit the network."""


class SelectorError(FrostlineError):
    """A selector matched nothing, or is not of the selector language."""


class PlanError(FrostlineError):
    """A freeze plan that cannot be carried out (nothing left to train, for example)."""


class EngineError(FrostlineError):
    """An engine that is unknown, is not installed, or gives other numbers than the network."""


class HeadError(FrostlineError):
    """A head that is unknown or cannot sit on the features it met."""


class CacheError(FrostlineError):
    """The feature cache cannot be read or written."""


class RunError(FrostlineError):
    """A run directory that exists already, is incomplete or does not match."""


class ExportError(FrostlineError):
    """An export that cannot be made, or that disagrees with the run; nothing was written."""


class ServeError(FrostlineError):
    """The server cannot be started."""


class RecipeError(FrostlineError):
    """A setting that is unknown, out of range or contradicts another."""


class ExtraError(FrostlineError):
    """A package that only some need is not installed."""


class DeviceError(FrostlineError):
    """The device asked for is not there."""


class AuditError(FrostlineError):
    """Frozen layers changed or trainable ones did not: a bug, never the user's fault."""

    exit_code = 1


def near_names(wanted: str, names: Iterable[str], most: int = 3) -> str | None:
    """``did you mean a, b or c?`` for the names nearest to ``wanted``, or None where none is near.

    Args:
        wanted: what was asked for.
        names: the names that exist.
        most: how many names to offer at most.
    """
    near = difflib.get_close_matches(wanted, list(names), n=most, cutoff=0.5)
    if not near:
        return None
    listed = near[0] if len(near) == 1 else f"{', '.join(near[:-1])} or {near[-1]}"
    return f"did you mean {listed}?"
