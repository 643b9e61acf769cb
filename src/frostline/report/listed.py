"""The images of a run, as its ``split.csv`` lists them."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path

from frostline.data.manifest import ImageRecord, Manifest
from frostline.errors import RunError
from frostline.run import Run, layout

_ESCAPED = re.compile(r"\\udc([89a-f][0-9a-f])")


def listed(run: Run) -> Manifest:
    """Every image of a run with its class, split and group; none where the run lists none. Files need not be there any more.

    Raises:
        RunError: ``split.csv`` is damaged, or names a class that the run does not know.
    """
    where = run.folder / layout.SPLIT
    if not where.is_file():
        return Manifest(run.classes, ())
    try:
        rows = list(csv.DictReader(io.StringIO(where.read_text(encoding="utf-8")), strict=True))
        number = {name: i for i, name in enumerate(_as_written(run.classes))}
        return Manifest(
            run.classes,
            tuple(
                ImageRecord(_found(r["path"]), None if r["label"] == "" else number[r["label"]], r["split"] or None, r["group"] or None)
                for r in rows
            ),
        )
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError) as fault:
        raise RunError(f"is damaged ({fault})", where=where) from fault


def _as_written(classes: tuple[str, ...]) -> list[str]:
    """Class names as a UTF-8 file has them: bytes that are no UTF-8 are escaped there."""
    return [name.encode("utf-8", "backslashreplace").decode() for name in classes]


def _found(written: str) -> Path:
    """The path; where it is not there and has escaped bytes, the one that those stand for."""
    if _ESCAPED.search(written) and not Path(written).exists():
        return Path(os.fsdecode(_ESCAPED.sub(lambda m: chr(0xDC00 + int(m[1], 16)), written).encode("utf-8", "surrogateescape")))
    return Path(written)
