"""Images for the demonstration: scikit-learn's handwritten digits (real, shipped with the package) as PNG files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from frostline._atomic import write_bytes

SIDE = 64
"""Pixels a side; the originals are 8 x 8 (Alpaydin 1998, UCI Optical Recognition of Handwritten Digits)."""


def write_digits(folder: Path) -> int:
    """Write the 1797 digits as ``folder/{train,test}/{0..9}/*.png``; every fifth is for the test. Files that are there stay.

    Returns:
        The number of images.
    """
    from sklearn.datasets import load_digits

    loaded = cast("Any", load_digits())
    for number, (picture, label) in enumerate(zip(loaded.images, loaded.target, strict=True)):
        split = "test" if number % 5 == 4 else "train"
        path = folder / split / str(label) / f"{number:04}.png"
        if path.exists():
            continue
        gray = Image.fromarray((picture * (255 / 16)).round().astype(np.uint8))
        data = io.BytesIO()
        gray.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(data, "PNG")
        write_bytes(path, data.getvalue())
    return len(loaded.target)
