"""Pictures and labels as scikit-learn hands them over: ``X`` and ``y``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from sklearn.utils.multiclass import check_classification_targets
from torch.utils.data import Dataset

from frostline._atomic import write_bytes
from frostline.data._names import shown
from frostline.data.manifest import ImageRecord, Manifest
from frostline.data.read import read_data
from frostline.data.shards import is_there
from frostline.errors import DataError
from frostline.given import is_dataset, labelled_files, png
from frostline.use import list_images

Pictures = str | Path | Sequence[str | Path] | Sequence[Image.Image] | Sequence[np.ndarray[Any, Any]] | np.ndarray[Any, Any] | Dataset[Any]


def labelled_manifest(X: Pictures, y: Any, scratch: Path) -> tuple[Manifest, np.ndarray[Any, Any]]:  # noqa: N803
    """What is trained on, and the classes as they were given.

    Args:
        X: a folder, table or data set (``y`` is None), or ``N`` pictures.
        y: ``N`` class labels.
        scratch: pictures that are no files are written there.

    Raises:
        DataError: no labels, files that are missing, one class only, or ``X`` and ``y`` of different length.
    """
    if y is None and is_dataset(X):
        return labelled_manifest(*unpacked(X, scratch), scratch)
    if y is None:
        if not isinstance(X, str | Path):
            raise DataError("no labels", where="y", advice="give one label for each picture, or a folder of class folders")
        manifest = read_data(Path(X))
        return manifest, np.asarray(manifest.classes)
    paths, labels = picture_files(X, scratch), class_labels(y)
    check_same_length(len(paths), labels)
    missing = [p for p in paths if not is_there(p)]
    if missing:
        raise DataError(f"{len(missing)} of {len(paths)} files are missing, the first is {shown(missing[0])}", where="X")
    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"one class only, {shown(classes[0])}", where="y", advice="give at least two classes")
    records = tuple(ImageRecord(p, int(i)) for p, i in zip(paths, index, strict=True))
    return Manifest(tuple(str(c) for c in classes), records), classes


def unpacked(X: object, scratch: Path) -> tuple[list[Path], list[Any]]:  # noqa: N803
    """The pictures of a data set as files, and their labels: the names of the classes where it has any."""
    files, labels, names = labelled_files(X, scratch)
    return files, [n if names is None or isinstance(n, str) else names[n] for n in labels]


def class_labels(y: Any) -> np.ndarray[Any, Any]:
    """``(N,)`` class labels; what scikit-learn's own classifiers refuse (NaN, fractions, mixed types) is refused."""
    try:
        labels = np.asarray(y)
        if labels.ndim != 1 or not len(labels):
            raise DataError(f"shape {labels.shape}, expected one label for each picture", where="y")
        check_classification_targets(labels)
    except (ValueError, TypeError) as fault:
        raise DataError(f"no class labels: {fault}", where="y", advice="give strings, whole numbers or booleans") from fault
    return labels


def check_same_length(pictures: int, labels: np.ndarray[Any, Any]) -> None:
    """Refuse pictures and labels of different number.

    Raises:
        DataError: they differ.
    """
    if pictures != len(labels):
        raise DataError(f"{pictures} pictures and {len(labels)} labels", where="X, y", advice="give one label for each picture")


def picture_files(X: Pictures, scratch: Path) -> list[Path]:  # noqa: N803
    """Files as they are; pictures in memory are written losslessly, so that every pixel goes through the one decoder."""
    if isinstance(X, str | Path):
        return list_images([Path(X)])
    if is_dataset(X):
        return labelled_files(X, scratch)[0]
    alone = isinstance(X, Image.Image) or (isinstance(X, np.ndarray) and X.ndim == 3 and X.shape[2] in (3, 4))
    if alone or not isinstance(cast("object", X), Iterable):
        raise DataError(f"a single {type(X).__name__}, expected a list of pictures", where="X", advice="give a list: [picture]")
    paths: list[Path] = []
    for number, item in enumerate(cast("Iterable[object]", X)):
        if isinstance(item, str | Path):
            paths.append(Path(item))
            continue
        path = scratch / f"{number:07}.png"
        write_bytes(path, png(item, f"X[{number}]"))
        paths.append(path)
    return paths


def without_folder(manifest: Manifest, scratch: Path) -> Manifest:
    """Pictures in memory keep their number as a name, not the folder they were in for a moment."""
    records = tuple(replace(r, path=Path(r.path.name)) if r.path.parent == scratch else r for r in manifest.records)
    return replace(manifest, records=records)
