"""Images listed in a CSV or Parquet file with the columns ``path,label[,split][,group]``."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frostline.data._classes import refuse_unknown, sorted_classes
from frostline.data._names import SPLITS, listed, shown, split_called
from frostline.data.manifest import ImageRecord, Manifest
from frostline.errors import DataError, near_names

_COLUMNS = ("path", "label", "split", "group")
TABLES = (".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    path: Path
    label: str
    split: str | None
    group: str | None


def read_table(path: Path) -> Manifest:
    """The images to train on, as a table lists them. Labels are text, as written.

    Args:
        path: a ``.csv`` or ``.parquet`` file; paths in it are absolute or relative to its folder.

    Raises:
        DataError: the table cannot be read, lacks a column, has a bad row or names files that are not there.
    """
    rows = _rows(path)
    trained = [r for r in rows if r.split in (None, "train")]
    if not trained:
        raise DataError("no rows to train on", where=shown(path), advice="mark some as train, or leave split empty")
    classes = sorted_classes((r.label for r in trained), path)
    refuse_unknown((r.label for r in rows), classes, path)
    return Manifest(classes, _records(rows, classes))


def read_labelled_table(path: Path, classes: Sequence[str]) -> Manifest:
    """Labelled images to measure on, their classes matched by name.

    Args:
        path: a ``.csv`` or ``.parquet`` file; where it has splits, its test rows are used, or else its val rows.
        classes: the classes of the model.

    Raises:
        DataError: as for :func:`read_table`, or a class that the model does not know.
    """
    rows = _rows(path)
    notes: tuple[str, ...] = ()
    split = next((s for s in ("test", "val") if any(r.split == s for r in rows)), None)
    if split is not None:
        rows = [r for r in rows if r.split == split]
        notes = (f"measured on the {split} rows of {shown(path)}",)
    elif any(r.split == "train" for r in rows):
        raise DataError("only train rows, nothing to measure on", where=shown(path), advice="mark some as test")
    refuse_unknown((r.label for r in rows), classes, path)
    records = tuple(ImageRecord(r.path, r.label, None, r.group) for r in _records(rows, classes))
    return Manifest(tuple(classes), records, notes)


def _records(rows: Iterable[_Row], classes: Sequence[str]) -> tuple[ImageRecord, ...]:
    label = {name: i for i, name in enumerate(classes)}
    return tuple(ImageRecord(r.path, label[r.label], r.split, r.group) for r in rows)


def _rows(path: Path) -> list[_Row]:
    if path.suffix.lower() not in TABLES:
        raise DataError(f"unknown kind of table {path.suffix!r}", where=shown(path), advice="give .csv or .parquet")
    if not path.is_file():
        raise DataError("no such file", where=shown(path))
    cells = _csv_cells(path) if path.suffix.lower() == ".csv" else _parquet_cells(path)
    rows = [_row(i, cell, path) for i, cell in enumerate(cells, start=1)]
    if not rows:
        raise DataError("no rows", where=shown(path))
    _refuse_missing(rows, path)
    return rows


def _csv_cells(path: Path) -> list[Mapping[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_columns(header, path)
            lines = [line for line in reader if line]
    except UnicodeDecodeError as fault:
        raise DataError("is not UTF-8 text", where=shown(path), advice="save it as UTF-8") from fault
    except (OSError, csv.Error) as fault:
        raise DataError(f"cannot be read: {fault}", where=shown(path)) from fault
    for i, line in enumerate(lines, start=1):
        if len(line) != len(header):
            raise DataError(f"row {i} has {len(line)} cells, expected {len(header)}", where=shown(path))
    return [dict(zip(header, line, strict=True)) for line in lines]


def _parquet_cells(path: Path) -> list[Mapping[str, str]]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as fault:
        advice = 'pip install "frostline[parquet]"'
        raise DataError("reading Parquet needs pyarrow, which is absent", where=shown(path), advice=advice) from fault
    try:
        header: list[str] = list(parquet.read_schema(path).names)
        _check_columns(header, path)
        table: dict[str, list[object]] = parquet.read_table(path, columns=_used(header)).to_pydict()
    except (OSError, ValueError) as fault:  # pyarrow's own errors are subclasses of these
        raise DataError(f"cannot be read as Parquet: {fault}", where=shown(path)) from fault
    columns = [["" if v is None else str(v) for v in table[name]] for name in table]
    return [dict(zip(table, values, strict=True)) for values in zip(*columns, strict=True)]


def _used(header: Sequence[str]) -> list[str]:
    return [name for name in _COLUMNS if name in header]


def _check_columns(header: Sequence[str], path: Path) -> None:
    missing = [name for name in ("path", "label") if name not in header]
    if missing:
        fact = f"no column {' and no column '.join(missing)}, found {listed(header) or 'nothing'}"
        raise DataError(fact, where=shown(path), advice=near_names(missing[0], header))
    twice = [name for name in _COLUMNS if header.count(name) > 1]
    if twice:
        raise DataError(f"column {twice[0]} is there twice", where=shown(path))


def _row(number: int, cell: Mapping[str, str], table: Path) -> _Row:
    for name in ("path", "label"):
        if not cell[name].strip():
            raise DataError(f"row {number} has an empty {name}", where=shown(table))
    written = cell.get("split", "").strip()
    split = split_called(written)
    if written and split is None:
        advice = near_names(written, SPLITS) or f"expected one of {', '.join(SPLITS)}"
        raise DataError(f"row {number} has the unknown split {shown(written)}", where=shown(table), advice=advice)
    return _Row(number, table.parent / cell["path"], cell["label"], split, cell.get("group") or None)


def _refuse_missing(rows: Sequence[_Row], table: Path) -> None:
    missing = [r for r in rows if not r.path.is_file()]
    if missing:
        first = f"first in row {missing[0].number}: {shown(missing[0].path)}"
        advice = f"paths are absolute or relative to {shown(table.parent)}"
        raise DataError(f"{len(missing)} of {len(rows)} files are missing, {first}", where=shown(table), advice=advice)
