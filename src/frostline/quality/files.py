"""What the files themselves say: size and kind of every picture, from the first bytes of each, without decoding one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from frostline.data.decode import FORMATS, read_image_bytes
from frostline.data.shards import is_member


@dataclass(frozen=True)
class Header:
    """What a picture's file says of it.

    Attributes:
        width: in pixels.
        height: in pixels.
        kind: its format and how it holds colours, in words.
        plain: whether it is RGB with 8 bits a channel, so that nothing is converted.
    """

    width: int
    height: int
    kind: str
    plain: bool


_KINDS = {
    "L": "grayscale",
    "LA": "grayscale",
    "1": "black and white",
    "P": "palette",
    "RGBA": "transparency",
    "CMYK": "CMYK",
    "YCCK": "CMYK",
}


def read_header(path: Path) -> Header | None:
    """The header of one file; None where it is no picture."""
    try:
        with Image.open(BytesIO(read_image_bytes(path)) if is_member(path) else path, formats=FORMATS) as file:
            kind = _KINDS.get(file.mode, "16-bit" if file.mode.startswith("I") else file.mode)
            return Header(file.width, file.height, f"{file.format} {kind}", file.mode == "RGB")
    except Exception:  # as in decode: Pillow's plugins let anything through on hostile bytes
        return None


def read_headers(paths: Sequence[Path]) -> list[Header | None]:
    """The headers of files, in their order."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(read_header, paths))


def converted(headers: Sequence[Header | None]) -> dict[str, int]:
    """How many pictures of each kind are converted to RGB, the most frequent first."""
    return dict(Counter(h.kind for h in headers if h is not None and not h.plain).most_common())


def tiny(headers: Sequence[Header | None], side: int) -> list[int]:
    """Row numbers of pictures whose shorter side has fewer than ``side`` pixels, the smallest first."""
    found = [(min(h.width, h.height), row) for row, h in enumerate(headers) if h is not None and min(h.width, h.height) < side]
    return [row for _, row in sorted(found)]
