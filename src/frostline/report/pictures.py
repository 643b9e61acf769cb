"""Thumbnails for the page: upright, small, inside the file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from frostline.data._names import shown
from frostline.data.shards import is_there
from frostline.errors import FrostlineError
from frostline.features.pixels import decode_threads, load_image

SIDE = 176


@dataclass(frozen=True)
class Wanted:
    """A picture that is to be shown.

    Attributes:
        path: its file.
        digest: SHA-256 of its content when it was listed; None where it was not.
        name: how the file is called on the page.
        title: what is said in one or two words.
        words: what is said below it.
        alt: what it is, for those who do not see it.
        wrong: whether the title names a mistake.
    """

    path: Path
    digest: str | None
    name: str
    title: str
    words: str
    alt: str
    wrong: bool = False


@dataclass(frozen=True)
class Tile:
    """A picture on the page.

    Attributes:
        wanted: what was to be shown.
        uri: the picture, as ``data:``; None where it cannot be read any more.
        why: the reason for that.
    """

    wanted: Wanted
    uri: str | None
    why: str = ""


def tiles(wanted: Sequence[Wanted]) -> list[Tile]:
    """The pictures, decoded in threads; one that cannot be read gives a tile that says so."""

    def one(picture: Wanted) -> Tile:
        try:
            return Tile(picture, data_uri(load_image(picture.path, picture.digest)))
        except FrostlineError as fault:
            return Tile(picture, None, shown(fault.fact) if is_there(picture.path) else "is not there any more")

    with ThreadPoolExecutor(decode_threads()) as pool:
        return list(pool.map(one, wanted))


def data_uri(image: Image.Image, side: int = SIDE) -> str:
    """An RGB picture of at most so many pixels a side as a JPEG in a ``data:`` address."""
    small = image.copy()
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
