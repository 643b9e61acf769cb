"""Packages that only some need."""

from __future__ import annotations

import importlib.util

from frostline.errors import ExtraError


def require(package: str, *, where: str, extra: str) -> None:
    """Refuse to go on without a package.

    Args:
        package: as it is imported.
        where: what needs it.
        extra: of frostline that brings it.

    Raises:
        ExtraError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise ExtraError(f"{package} is not installed", where=where, advice=f'pip install "frostline[{extra}]"')
