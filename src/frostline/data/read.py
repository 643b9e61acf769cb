"""Read ``DATA``, whatever form it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frostline.data.folder import read_folder, read_labelled_folder
from frostline.data.manifest import Manifest
from frostline.data.table import SUFFIXES, read_labelled_table, read_table
from frostline.errors import DataError


def read_data(data: Path, val: Path | None = None) -> Manifest:
    """Read training data: a folder or a manifest file; with ``val``, a separate validation folder or file.

    Raises:
        DataError: the data are not usable, or ``val`` is given although the data have a validation split.
    """
    manifest = read_table(data) if data.suffix.lower() in SUFFIXES else read_folder(data)
    if val is None:
        return manifest
    if any(r.split == "val" for r in manifest.records):
        raise DataError(f"{data} has a validation split already", where="--val", advice="leave --val out")
    held = read_labelled(val, manifest.classes)
    records = (*(replace(r, split=r.split or "train") for r in manifest.records), *(replace(r, split="val") for r in held.records))
    return Manifest(manifest.classes, records, (*manifest.notes, *held.notes))


def read_labelled(data: Path, classes: Sequence[str]) -> Manifest:
    """Read labelled images for known classes, mapped by name.

    Raises:
        DataError: the data are not usable, or hold a class that is not among ``classes``.
    """
    return read_labelled_table(data, classes) if data.suffix.lower() in SUFFIXES else read_labelled_folder(data, classes)
