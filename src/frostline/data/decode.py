"""The one way from a file's bytes to a picture, for train, cache, predict and serve alike.

The content decides what a file is, not its name. Every picture comes out as 8-bit RGB, upright, from its first frame.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from frostline.errors import DecodeError

FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 89_478_485
"""Pillow's own limit; beyond it Pillow only warns, here it is an error."""

_TRANSPARENT = {"LA", "PA", "RGBA", "La", "RGBa"}
_PLAIN = {"1": "black and white", "L": "grayscale", "P": "palette", "CMYK": "CMYK", "YCbCr": "YCbCr", "LAB": "LAB", "HSV": "HSV", "RGBX": "RGBX"}


@dataclass(frozen=True)
class Decoded:
    """A picture.

    Attributes:
        image: 8-bit RGB, upright.
        conversions: what was done to get there, in words.
    """

    image: Image.Image
    conversions: tuple[str, ...] = ()


def read_image_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DecodeError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as fault:
        raise DecodeError(f"cannot be read: {fault.strerror or fault}") from fault


def decode(data: bytes) -> Decoded:
    """Decode an image file's content.

    Raises:
        DecodeError: it is empty, no image of a format that is read here, damaged, too large, or of floating-point pixels.
    """
    if not data:
        raise DecodeError("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DecodeError(f"{image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS:,}")
            conversions = list[str]()
            if (frames := int(getattr(image, "n_frames", 1))) > 1 and image.format != "MPO":
                conversions.append(f"first of {frames} frames")
            image.seek(0)
            image.load()
            return _to_rgb(_upright(image, conversions), conversions)
    except UnidentifiedImageError as fault:
        raise DecodeError("not an image of a format that is read here") from fault
    except Image.DecompressionBombError as fault:
        raise DecodeError(f"more pixels than the limit of {MAX_PIXELS:,}") from fault
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError, AttributeError,
            ZeroDivisionError, NotImplementedError) as fault:
        raise DecodeError(f"damaged: {str(fault).splitlines()[0][:80] if str(fault) else type(fault).__name__}") from fault


def _upright(image: Image.Image, conversions: list[str]) -> Image.Image:
    try:
        turned = int(image.getexif().get(0x0112, 1))
        upright = ImageOps.exif_transpose(image) if 2 <= turned <= 8 else image
    except Exception:  # EXIF comes from the file and fails in many ways; a picture with a broken one is still a picture
        return image
    if upright is not image:
        conversions.append("EXIF orientation applied")
    return upright


def _to_rgb(image: Image.Image, conversions: list[str]) -> Decoded:
    if image.mode == "RGB" and "transparency" not in image.info:
        return Decoded(image, tuple(conversions))
    if image.mode == "F":
        raise DecodeError("floating-point pixels")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DecodeError("32-bit pixels beyond 16 bits")
        image = Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))
        conversions.append("16-bit to 8-bit")
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.new("RGBA", over.size, (255, 255, 255, 255))
        image.alpha_composite(over)
        conversions.append("transparency on white")
    elif image.mode in _PLAIN:
        conversions.append(f"{_PLAIN[image.mode]} to RGB")
    return Decoded(image.convert("RGB"), tuple(conversions))
