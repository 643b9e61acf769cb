"""Data sets of torch, torchvision and Hugging Face as a manifest; none of the three is imported here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from frostline._atomic import write_bytes
from frostline.data._names import shown
from frostline.data.manifest import ImageRecord, Manifest
from frostline.errors import DataError
from frostline.given.pictures import png_of


def dataset_manifest(dataset: Any, folder: Path | str) -> Manifest:
    """The images of a data set as files, with their classes: what :func:`frostline.fit` takes.

    Images that lie in files already (``torchvision.datasets.ImageFolder``, and what else has ``samples``) are used where they are; others
    are written losslessly to ``folder``, once: one that is there is not written again. Features are cached by content all the same.

    Args:
        dataset: has a length, and gives ``(picture, label)`` for each number; or is a ``datasets.Dataset`` with one column of
            images and one of labels. A picture is a PIL image, a uint8 array ``(H, W, 3)`` or ``(H, W)``, or a tensor ``(3, H, W)`` or
            ``(1, H, W)``, uint8 or what torchvision's ``ToTensor`` makes of it. Class names are taken from the data set.
        folder: where files are written; made if it is needed.

    Raises:
        DataError: it is none of these, its pictures are normalised or augmented, or labels are missing.
    """
    if isinstance(dataset, str | Path) or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(f"{type(dataset).__name__} is no data set", where="X", advice="give one with a length that gives (picture, label)")
    if not len(dataset):
        raise DataError("holds no images", where=type(dataset).__name__)
    lying = _files(dataset)
    if lying is not None:
        pairs, names = lying, _names(dataset)
    else:
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        columns = _columns(dataset)
        names = _names(dataset) if columns is None else _column_names(dataset, columns[1])
        pairs = _written(_pairs(dataset, columns), place)
    return _manifest(pairs, names, type(dataset).__name__)


def _files(dataset: Any) -> list[tuple[Path, object]] | None:
    """Files and labels, where the data set has them and does nothing to the pictures."""
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, Sequence) or not samples or len(cast("Sequence[Any]", samples)) != len(dataset):
        return None
    if not all(isinstance(s, tuple) and len(cast("Any", s)) == 2 and isinstance(s[0], str | Path) for s in cast("Sequence[Any]", samples)):
        return None
    if getattr(dataset, "transform", None) is not None or getattr(dataset, "target_transform", None) is not None:
        raise DataError(
            "transforms its pictures, which frostline does itself", where=type(dataset).__name__, advice="make it without transform"
        )
    return [(Path(path), label) for path, label in cast("Sequence[Any]", samples)]


def _columns(dataset: Any) -> tuple[str, str] | None:
    """The columns of images and labels of a Hugging Face data set; None for any other."""
    features = getattr(dataset, "features", None)
    if not isinstance(features, Mapping) or not hasattr(dataset, "column_names"):
        return None
    kinds = {str(n): type(f).__name__ for n, f in cast("Mapping[str, Any]", features).items()}
    images = [n for n, kind in kinds.items() if kind == "Image"]
    labels = [n for n, kind in kinds.items() if kind == "ClassLabel"] or [n for n in ("label", "labels") if n in kinds]
    if len(images) != 1 or len(labels) != 1:
        fact = f"has columns {', '.join(f'{shown(n)} ({kind})' for n, kind in kinds.items())}"
        raise DataError(fact, where="data set", advice="keep one column of images and one of labels, with select_columns")
    return images[0], labels[0]


def _column_names(dataset: Any, column: str) -> list[str] | None:
    return getattr(dataset.features[column], "names", None)


def _names(dataset: Any) -> list[str] | None:
    names = getattr(dataset, "classes", None)
    return [str(n) for n in cast("Sequence[object]", names)] if isinstance(names, Sequence) and not isinstance(names, str) else None


def _pairs(dataset: Any, columns: tuple[str, str] | None) -> Iterator[tuple[object, object]]:
    for number in range(len(dataset)):
        item = dataset[number]
        if columns is not None:
            yield item[columns[0]], item[columns[1]]
        elif isinstance(item, tuple | list) and len(cast("Any", item)) >= 2:
            yield item[0], item[1]
        else:
            raise DataError(f"{type(item).__name__}, expected (picture, label)", where=f"X[{number}]")


def _written(pairs: Iterator[tuple[object, object]], folder: Path) -> list[tuple[Path, object]]:
    found: list[tuple[Path, object]] = []
    for number, (picture, label) in enumerate(pairs):
        path = folder / f"{number:07}.png"
        data = png_of(_picture(picture, f"X[{number}]"), f"X[{number}]")
        if not path.is_file() or path.read_bytes() != data:
            write_bytes(path, data)
        found.append((path, label))
    return found


def _picture(picture: Any, where: str) -> object:
    """A tensor ``(C, H, W)`` as an array ``(H, W, C)``; anything else as it is."""
    if isinstance(picture, Image.Image) or not hasattr(picture, "permute"):
        return picture
    if picture.ndim != 3 or picture.shape[0] not in (1, 3):
        raise DataError(f"tensor of shape {tuple(picture.shape)}", where=where, advice="give (3, H, W) or (1, H, W)")
    array: np.ndarray[Any, Any] = picture.detach().cpu().permute(1, 2, 0).numpy()
    if array.dtype != np.uint8:
        levels = np.rint(array.astype(float) * 255)
        if array.dtype.kind != "f" or levels.min() < 0 or levels.max() > 255 or float(np.abs(array * 255 - levels).max()) > 1e-2:
            raise DataError(
                "is normalised or augmented, and cannot be turned back into a picture",
                where=where,
                advice="make the data set without transforms; frostline does what the backbone wants",
            )
        array = levels.astype(np.uint8)
    return array[..., 0] if array.shape[2] == 1 else array


def _manifest(pairs: Sequence[tuple[Path, object]], names: Sequence[str] | None, where: str) -> Manifest:
    labels = [_label(label, f"{where}[{number}]") for number, (_, label) in enumerate(pairs)]
    if names is not None and all(isinstance(label, int) and 0 <= label < len(names) for label in labels):
        classes, index = tuple(names), [int(label) for label in labels]
    else:
        found = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
        classes, index = tuple(str(label) for label in found), [found.index(label) for label in labels]
    if len(set(index)) < 2:
        raise DataError(f"one class only, {shown(classes[index[0]])}", where=where, advice="give at least two classes")
    return Manifest(classes, tuple(ImageRecord(path, i) for (path, _), i in zip(pairs, index, strict=True)))


def _label(label: Any, where: str) -> int | str:
    if isinstance(label, str):
        return label
    value = label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) == 0 else label
    if isinstance(value, int) and not (isinstance(value, bool) or value < 0):
        return value
    raise DataError(f"{label!r} is no class label", where=where, advice="give names or whole numbers from 0")
