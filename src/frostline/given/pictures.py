"""Pictures as a program has them, as files: so that every pixel goes through the one decoder, and features are kept by content."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import ExifTags, Image

from frostline._atomic import write_bytes
from frostline.errors import DataError
from frostline.use import list_images

Pictures = str | Path | Sequence[str | Path] | Sequence[Image.Image] | Sequence[np.ndarray[Any, Any]] | np.ndarray[Any, Any]

_WRITTEN_AS = {"CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "La": "LA", "PA": "RGBA"}
"""Modes that PNG does not have, and what the decoder makes of them."""


def picture_files(X: Pictures, scratch: Path) -> list[Path]:  # noqa: N803
    """Files as they are; pictures in memory are written losslessly, so that every pixel goes through the one decoder."""
    if isinstance(X, str | Path):
        return list_images([Path(X)])
    alone = isinstance(X, Image.Image) or (isinstance(X, np.ndarray) and X.ndim == 3 and X.shape[2] in (3, 4))
    if alone or not isinstance(cast("object", X), Iterable):
        raise DataError(f"a single {type(X).__name__}, expected a list of pictures", where="X", advice="give a list: [picture]")
    paths: list[Path] = []
    for number, item in enumerate(cast("Iterable[object]", X)):
        if isinstance(item, str | Path):
            paths.append(Path(item))
            continue
        path = scratch / f"{number:07}.png"
        write_bytes(path, png_of(item, f"X[{number}]"))
        paths.append(path)
    return paths


def png_of(item: object, where: str) -> bytes:
    """A PIL image or an array ``(H, W, 3)``, ``(H, W, 4)`` or ``(H, W)`` of uint8 as a PNG.

    Raises:
        DataError: it is neither, or cannot be used as a picture.
    """
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
