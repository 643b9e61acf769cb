"""Images listed in a CSV or Parquet file with the columns ``path,label[,split][,group]``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from frostline.data.folder import ALIASES
from frostline.data.manifest import ImageRecord, Manifest
from frostline.errors import DataError, near_names

SUFFIXES = (".csv", ".parquet")
_COLUMNS = ("path", "label", "split", "group")


def read_table(path: Path) -> Manifest:
    """Read a manifest file; its paths are absolute or relative to its own folder. Labels are taken as written.

    Raises:
        DataError: missing columns, a split that is none, an empty label, one class only, or images that do not exist.
    """
    rows = _rows(path)
    training = {r["label"] for r in rows if ALIASES.get(r["split"], "train") == "train"}
    classes = tuple(sorted(training))
    if len(classes) < 2:
        raise DataError("one class only" if classes else "lists no training images", where=path, advice="a classifier needs at least two classes")
    return Manifest(classes, _records(rows, classes, path))


def read_labelled_table(path: Path, classes: Sequence[str]) -> Manifest:
    """Read a manifest file for classes that are known already.

    Where it has splits, the rows of ``test`` are used, or else those of ``val``.

    Raises:
        DataError: as :func:`read_table`, or a class that is not among ``classes``.
    """
    rows = _rows(path)
    splits = {ALIASES.get(r["split"]) for r in rows}
    chosen = next((s for s in ("test", "val") if s in splits), None)
    kept = [r for r in rows if chosen is None or ALIASES.get(r["split"]) == chosen]
    notes = () if chosen is None else (f"the {chosen} rows of {path} are used",)
    return Manifest(tuple(classes), _records(kept, tuple(classes), path), notes)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError("no such manifest file", where=path)
    columns, raw = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    for needed in ("path", "label"):
        if needed not in columns:
            raise DataError(f"has no column {needed!r}, but {', '.join(columns) or 'none'}", where=path,
                            advice=near_names(needed, columns) or "columns are path,label[,split][,group]")
    rows = [{c: str(r.get(c) if r.get(c) is not None else "").strip() for c in _COLUMNS} for r in raw]
    for number, row in enumerate(rows, start=2):
        if not row["path"] or not row["label"]:
            raise DataError(f"row {number} has an empty {'path' if not row['path'] else 'label'}", where=path)
        if row["split"] and row["split"] not in ALIASES:
            raise DataError(f"row {number} has the split {row['split']!r}", where=path, advice="use train, val or test")
    if not rows:
        raise DataError("lists no images", where=path)
    if len({bool(r["split"]) for r in rows}) > 1:
        raise DataError("some rows have a split and some have none", where=path, advice="fill in the column or leave it out")
    return rows


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            return list(reader.fieldnames or ()), cast("list[dict[str, Any]]", rows)
    except (UnicodeDecodeError, csv.Error) as fault:
        raise DataError(f"is no CSV in UTF-8 ({fault})", where=path) from fault


def _read_parquet(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        import pyarrow as pa  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]
    except ImportError as fault:
        raise DataError("reading Parquet needs pyarrow", where=path, advice='pip install "frostline[parquet]"') from fault
    try:
        table = cast("Any", pq).read_table(path)
    except (cast("Any", pa).ArrowException, OSError) as fault:
        raise DataError(f"is no Parquet file ({str(fault).splitlines()[0][:80]})", where=path) from fault
    return list(table.column_names), cast("list[dict[str, Any]]", table.to_pylist())


def _records(rows: list[dict[str, str]], classes: tuple[str, ...], path: Path) -> tuple[ImageRecord, ...]:
    index = {name: i for i, name in enumerate(classes)}
    unknown = sorted({r["label"] for r in rows} - set(index))
    if unknown:
        raise DataError(f"class {', '.join(unknown[:3])} is not one of {', '.join(classes[:6])}", where=path, advice=near_names(unknown[0], classes))
    records = tuple(ImageRecord(path.parent / r["path"], index[r["label"]], ALIASES.get(r["split"]), r["group"] or None) for r in rows)
    missing = [r.path for r in records if not r.path.is_file()]
    if missing:
        raise DataError(f"{len(missing)} of the {len(records)} files do not exist, the first is {missing[0]}", where=path,
                        advice="paths are relative to the manifest's folder")
    return records
