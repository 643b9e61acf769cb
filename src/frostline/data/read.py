"""Read labelled images, however they are given: class folders, split folders, CSV or Parquet, tar files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frostline.data._names import shown
from frostline.data.folder import read_folder, read_labelled_folder
from frostline.data.manifest import Manifest
from frostline.data.shards import is_shards, read_labelled_shards, read_shards
from frostline.data.table import TABLES, read_labelled_table, read_table
from frostline.errors import DataError


def read_data(data: Path, val: Path | None = None) -> Manifest:
    """The images to train and validate on.

    Args:
        data: a folder, a table or tar files.
        val: separate validation images, whose classes are matched by name to those of ``data``.

    Raises:
        DataError: they cannot be used, or ``val`` is given though ``data`` has validation images of its own.
    """
    manifest = read_table(data) if _is_table(data) else read_shards(data) if is_shards(data) else read_folder(data)
    return manifest if val is None else _with_val(manifest, data, val)


def read_labelled(data: Path, classes: Sequence[str]) -> Manifest:
    """Labelled images to measure on, their classes matched by name.

    Args:
        data: a folder, a table or tar files.
        classes: the classes of the model.

    Raises:
        DataError: they cannot be used, or a class is not among ``classes``.
    """
    if _is_table(data):
        return read_labelled_table(data, classes)
    return read_labelled_shards(data, classes) if is_shards(data) else read_labelled_folder(data, classes)


def _is_table(data: Path) -> bool:
    return data.suffix.lower() in TABLES and not data.is_dir()


def _with_val(manifest: Manifest, data: Path, val: Path) -> Manifest:
    if any(r.split == "val" for r in manifest.records):
        fact = f"has validation images of its own, but {shown(val)} was given too"
        raise DataError(fact, where=shown(data), advice="give one of the two")
    other = read_labelled(val, manifest.classes)
    # Test images stay test images: turned into training images they would be scored on what they taught.
    own = tuple(replace(r, split=r.split or "train") for r in manifest.records)
    added = tuple(replace(r, split="val") for r in other.records)
    return Manifest(manifest.classes, own + added, manifest.notes + other.notes)
