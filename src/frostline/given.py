"""Pictures and data sets that are given in Python: written down losslessly, so that every pixel goes through the one decoder.

What is written has a digest of its content, by which features are cached as they are for files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import ExifTags, Image

from frostline._atomic import write_bytes
from frostline.data._classes import sorted_classes
from frostline.data._names import listed
from frostline.data.manifest import ImageRecord, Manifest
from frostline.errors import DataError

_WRITTEN_AS = {"CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "La": "LA", "PA": "RGBA"}
"""Modes that PNG does not have, and what the decoder makes of them."""

Label = str | int


def is_dataset(given: object) -> bool:
    """Whether something is a data set: of torch, of torchvision or of Hugging Face's ``datasets``."""
    return isinstance(given, torch.utils.data.Dataset) or type(given).__module__.partition(".")[0] == "datasets"


def manifest_of(given: object, folder: Path, known: Sequence[str] | None = None) -> Manifest:
    """A data set as a manifest.

    Args:
        given: what :func:`is_dataset` says yes to.
        folder: pictures that are no files are written there.
        known: names of the classes of the training images; None where these are they.

    Raises:
        DataError: as for :func:`labelled_files`, or a label is not among those of training.
    """
    files, labels, names = labelled_files(given, folder)
    if names is None and all(isinstance(n, int) for n in labels):
        names = tuple(map(str, range(max(cast("list[int]", labels)) + 1))) if known is None else tuple(known)
    if names is None:
        names = sorted_classes(map(str, labels), "labels") if known is None else tuple(known)
    if known is not None and tuple(known) != names:
        raise DataError(f"classes {listed(names)}, but training has {listed(known)}", where="val", advice="give both sets the same classes")
    place: dict[Label, int] = {n: i for i, n in enumerate(names)} | {i: i for i in range(len(names))}
    unknown = [n for n in labels if n not in place]
    if unknown:
        raise DataError(f"label {unknown[0]!r} is not among the classes {listed(names)}", where="val" if known else "train")
    return Manifest(names, tuple(ImageRecord(f, place[n]) for f, n in zip(files, labels, strict=True)))


def labelled_files(given: object, folder: Path) -> tuple[list[Path], list[Label], tuple[str, ...] | None]:
    """The pictures of a data set as files, their labels (names, or class numbers), and the names of the classes where it has any.

    Args:
        given: what :func:`is_dataset` says yes to.
        folder: pictures that are no files are written there.

    Raises:
        DataError: it has no length or no items, an item is no picture with its label, or is another one each time.
    """
    streamed = isinstance(given, torch.utils.data.IterableDataset)
    if streamed or not hasattr(given, "__len__") or not hasattr(given, "__getitem__"):
        raise DataError(f"a {type(given).__name__} has no length", where="X", advice="give a data set that is not streamed")
    if isinstance(given, dict):
        names = listed([str(n) for n in cast("dict[object, object]", given)])
        raise DataError(f"has the splits {names}", where="X", advice="give one of them")
    if not len(cast("Any", given)):
        raise DataError("the data set is empty", where="X")
    if hasattr(given, "column_names"):
        return _of_columns(given, folder)
    source: Any = given
    rows: Sequence[int] = range(len(source))
    while isinstance(source, torch.utils.data.Subset):
        subset = cast("Any", source)
        rows, source = [int(subset.indices[i]) for i in rows], subset.dataset
    classes = cast("object", getattr(source, "classes", None))
    names = tuple(map(str, cast("list[object]", classes))) if isinstance(classes, list | tuple) else None
    if hasattr(source, "samples") and not any(getattr(source, t, None) for t in ("transform", "target_transform", "transforms")):
        return [Path(source.samples[i][0]) for i in rows], [int(source.samples[i][1]) for i in rows], names
    return *_of_items(source, rows, folder), names


def _of_items(source: Any, rows: Sequence[int], folder: Path) -> tuple[list[Path], list[Label]]:
    files: list[Path] = []
    labels: list[Label] = []
    for number, row in enumerate(rows):
        picture, label = _pair(source, row)
        data = png(picture, f"item {row}")
        if number == 0 and png(_pair(source, row)[0], f"item {row}") != data:
            fact = f"item {row} is another picture each time"
            raise DataError(fact, where="X", advice="leave random transforms out, and use views or --augment")
        files.append(_written(folder, number, data))
        labels.append(_label(label, row))
    return files, labels


def _of_columns(given: Any, folder: Path) -> tuple[list[Path], list[Label], tuple[str, ...] | None]:
    """Of Hugging Face's: the column of pictures as the bytes that it holds, and the column of labels."""
    import datasets

    kinds = {name: type(feature).__name__ for name, feature in given.features.items()}
    image = next((n for n, kind in kinds.items() if kind == "Image"), None)
    label = next((n for n, kind in kinds.items() if kind == "ClassLabel"), None) or next(
        (n for n in ("label", "labels") if n in kinds), None
    )
    if image is None or label is None:
        what = "picture" if image is None else "label"
        raise DataError(f"no column of {what}s among {listed(list(kinds))}", where="X", advice="give columns image and label")
    given = given.select_columns([image, label]).with_format(None).cast_column(image, datasets.Image(decode=False))
    files: list[Path] = []
    labels: list[Label] = []
    for row in range(len(given)):
        item = given[row]
        held = cast("dict[str, Any]", item[image] or {})
        inside = held.get("bytes")
        if inside is None and not held.get("path"):
            raise DataError(f"row {row} has no picture", where="X")
        files.append(Path(held["path"]) if inside is None else _written(folder, row, inside))
        labels.append(_label(item[label], row))
    names = getattr(given.features[label], "names", None)
    return files, labels, None if names is None else tuple(names)


def _pair(source: Any, row: int) -> tuple[object, object]:
    item = source[row]
    if not isinstance(item, tuple | list) or len(cast("list[object]", item)) != 2:
        raise DataError(f"is a {type(item).__name__}, expected (picture, label)", where=f"item {row}")
    return cast("tuple[object, object]", tuple(cast("list[object]", item)))


def _label(label: object, row: int) -> Label:
    if isinstance(label, torch.Tensor | np.generic) and np.ndim(cast("Any", label)) == 0:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "" or (isinstance(label, int) and label < 0):
        raise DataError(f"{label!r} is no class: a name, or a number from 0", where=f"label of item {row}")
    return label


def _written(folder: Path, number: int, data: bytes) -> Path:
    path = folder / f"{number:07}.png"
    write_bytes(path, data)
    return path


def png(item: object, where: str) -> bytes:
    """A picture as a file that the decoder gives back pixel for pixel.

    Args:
        item: a PIL image, a uint8 array ``(H, W, 3)``, ``(H, W, 4)`` or ``(H, W)``, or a tensor ``(3, H, W)``, ``(1, H, W)`` or
            ``(H, W)`` of uint8 or of floats from 0 to 1.
        where: what it is, for the error.

    Raises:
        DataError: it is none of them.
    """
    if isinstance(item, torch.Tensor):
        item = _array_of(item, where)
    if isinstance(item, Image.Image):
        picture = item
    else:
        array = np.asarray(item)
        if array.dtype != np.uint8 or 0 in array.shape or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
            fact = f"{type(item).__name__} of {array.dtype} and shape {array.shape}"
            raise DataError(fact, where=where, advice="give a path, a PIL image, or a uint8 array (H, W, 3) or (H, W) of 0 to 255")
        picture = Image.fromarray(array)
    data = io.BytesIO()
    try:
        turn = Image.Exif()  # Pillow shows a photograph as it lies in the file; the decoder turns it upright
        turn[ExifTags.Base.Orientation] = picture.getexif().get(ExifTags.Base.Orientation, 1)
        picture.convert(_WRITTEN_AS.get(picture.mode, picture.mode)).save(data, "PNG", exif=turn)
    except (OSError, ValueError, SyntaxError) as fault:  # it is read from its file only now, or its mode has no meaning as colours
        raise DataError(f"cannot be used as a picture: {fault}", where=where) from fault
    return data.getvalue()


def _array_of(tensor: torch.Tensor, where: str) -> np.ndarray[Any, Any]:
    values = tensor.detach().cpu()
    if values.is_floating_point() and values.numel():
        low, high = float(values.min()), float(values.max())
        if not (low >= 0.0 and high <= 1.0):
            fact = f"floats from {low:.3g} to {high:.3g}, expected 0 to 1"
            raise DataError(fact, where=where, advice="leave Normalize out: the backbone's own preprocessing does it")
        values = (values * 255).round().to(torch.uint8)
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = values[0] if values.shape[0] == 1 else values.permute(1, 2, 0)
    elif values.ndim != 2:
        fact = f"a tensor of shape {tuple(values.shape)}"
        raise DataError(fact, where=where, advice="give (3, H, W), (1, H, W) or (H, W)")
    return values.numpy()
