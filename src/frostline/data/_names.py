"""Names that come from outside: how they are shown, and which of them are splits."""

from __future__ import annotations

from collections.abc import Sequence

SPLITS = ("train", "val", "test")
_ALIASES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def split_called(name: str) -> str | None:
    """The split a folder or a cell of a manifest names, or None.

    Args:
        name: ``train``, ``val``, ``valid``, ``validation`` or ``test``, in any case.
    """
    return _ALIASES.get(name.strip().casefold())


def shown(name: object) -> str:
    r"""A name that is safe to print: control characters and bytes that are no UTF-8 are escaped.

    Args:
        name: a file name, a path or a class name.

    >>> shown("caf\udce9")
    'caf\\udce9'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names in a row, safe to print, cut after ``most``.

    Args:
        names: the names.
        most: how many to show.
    """
    head = ", ".join(shown(n) for n in names[:most])
    return head if len(names) <= most else f"{head} and {len(names) - most} more"
