"""The one place where bytes become pixels: training, cache, prediction and serving all decode here.

The content decides what a file is, never its name. Every mode has a declared outcome, every failure is a
:class:`~frostline.errors.DecodeError`. Nothing here changes global state, so that any thread may decode.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from frostline.data._names import shown
from frostline.data.shards import is_member, member_bytes
from frostline.errors import DataError, DecodeError, FrostlineError

MAX_PIXELS = 89_478_485
"""The most pixels an image may have: Pillow's own threshold for a decompression bomb."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""What is opened. MPO (several pictures in one JPEG) is opened as JPEG."""

_PLUGINS = (TiffImagePlugin, WebPImagePlugin)  # imported here, so that Pillow need not load its forty others
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture as the network sees it.

    Attributes:
        image: RGB, 8 bits a channel, upright.
        conversions: what was done to get there, in words; empty for an RGB file.
    """

    image: Image.Image
    conversions: tuple[str, ...]


def decode(data: bytes) -> Decoded:
    """The first picture in a file's content.

    Args:
        data: the whole file.

    Raises:
        DecodeError: it is no image, is damaged, is too large, or has pixels without a declared conversion.
        DataError: there is not enough memory.
    """
    if not data:
        raise DecodeError("empty file")
    try:
        return _decode(data)
    except DecodeError:
        raise
    except MemoryError as fault:  # no fault of the file, which another time may be read
        raise DataError("there is not enough memory to decode an image", advice="free some and run the same command again") from fault
    except Exception as fault:  # Pillow's plugins let anything through on hostile bytes, from OSError to IndexError
        raise DecodeError(_reason(fault)) from fault


def read_image_bytes(path: Path) -> bytes:
    """A file's content.

    Args:
        path: the file; ``SHARD.tar/MEMBER`` is one in a tar file.

    Raises:
        DecodeError: it cannot be read.
    """
    try:
        return member_bytes(path) if is_member(path) else path.read_bytes()
    except FrostlineError as fault:  # the tar file was changed, and not for the better
        raise DecodeError(fault.fact, where=shown(path)) from fault
    except (OSError, ValueError) as fault:  # ValueError: a NUL in the name
        why = (fault.strerror if isinstance(fault, OSError) else None) or str(fault)
        raise DecodeError(f"cannot be read: {why}", where=shown(path)) from fault


def _decode(data: bytes) -> Decoded:
    conversions: list[str] = []
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
        if file.width * file.height > MAX_PIXELS:
            raise DecodeError(f"{file.width} x {file.height} pixels, more than the limit of {MAX_PIXELS}")
        # Pillow turns a TIFF while it loads it, and drops the tag; the others are turned here.
        turned_on_load = file.format == "TIFF" and _orientation(file) in _TURNS
        file.load()
        turn = _TURNS.get(_orientation(file))
        image = _to_rgb(file, conversions)
        frames = _frames(file)
    if turn is not None:
        image = image.transpose(turn)
    if turn is not None or turned_on_load:
        conversions.append("EXIF orientation applied")
    if frames > 1:
        conversions.append(f"first of {frames} frames")
    return Decoded(image, tuple(conversions))


def _to_rgb(image: Image.Image, conversions: list[str]) -> Image.Image:
    """RGB copy of an image; what was done is appended to ``conversions``."""
    mode = image.mode
    if mode == "F":
        raise DecodeError("floating-point pixels")
    if mode == "I" or mode.startswith("I;16"):
        image = _eight_bit(image)
        conversions.append("16-bit to 8-bit")
    if mode == "RGB" and not image.has_transparency_data:
        return image.copy()
    if image.mode in ("1", "L", "LA", "La"):
        conversions.append("grayscale to RGB")
    elif mode in ("P", "PA"):
        conversions.append("palette to RGB")
    elif mode not in ("RGB", "RGBA", "RGBa"):
        conversions.append(f"{mode} to RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    conversions.append("transparency on white")
    return _on_white(image)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise DecodeError("integer pixels beyond 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) where it is missing or broken."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF is no reason to lose a picture
        return 1


def _frames(image: Image.Image) -> int:
    """Number of pictures in the file, as far as they can be counted."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a later picture is broken; the first one is good
        return 1


def _reason(fault: Exception) -> str:
    if isinstance(fault, UnidentifiedImageError):
        return f"no image of a known format ({', '.join(FORMATS)})"
    if isinstance(fault, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more pixels than the limit of {MAX_PIXELS}"
    if "truncated" in str(fault).lower():
        return "truncated file"
    return f"damaged file: {shown(str(fault) or type(fault).__name__)[:80]}"
