"""Tar shards in the form of webdataset, as class folders.

Members of one sample lie next to each other and share a name up to its first dot: ``a/001.jpg`` and ``a/001.cls``. The class is in ``.cls``
(a name or a number) or in ``.json`` under ``label``, ``cls`` or ``class``. Files are written under names of our own: what a member is
called is never a path.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

from frostline._atomic import atomic_folder, write_bytes
from frostline.data._names import shown
from frostline.errors import DataError

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")
MOST_BYTES = 256 << 20
"""The largest member that is read."""


def unpack_shards(shards: Sequence[Path | str], out: Path | str) -> int:
    """Write the images of tar shards into ``out``, one folder a class; gives their number.

    Args:
        shards: tar files, plain or compressed.
        out: a folder that is not there yet; it is complete or not there at all.

    Raises:
        DataError: a shard is no tar file or is damaged, a sample has no image or no class, or a class has a name that is no folder's.
    """
    if Path(out).exists():
        raise DataError("exists already", where=Path(out), advice="give another --out, or remove it")
    if not shards:
        raise DataError("no shards were named", where="SHARDS", advice="give tar files")
    count = 0
    with atomic_folder(Path(out)) as folder:
        for number, shard in enumerate(map(Path, shards)):
            for name, label, kind, data in _samples(shard):
                place = folder / _folder_name(label, f"{shown(shard)}: {shown(name)}")
                place.mkdir(exist_ok=True)
                write_bytes(place / f"{number:05}-{count:08}.{kind}", data)
                count += 1
        if not count:
            raise DataError("holds no images", where=shards[0])
    if not Path(out).is_dir():
        raise DataError("cannot be written", where=Path(out), advice="give another --out")
    return count


def _samples(shard: Path) -> Iterator[tuple[str, str, str, bytes]]:
    """Name, class, kind of file and content of each image."""
    try:
        with shard.open("rb") as stream, tarfile.open(fileobj=stream) as file:
            key, parts = "", dict[str, bytes]()
            for member in file:
                if not member.isreg():
                    continue
                path = PurePosixPath(member.name)
                stem, _, kind = path.name.partition(".")
                if not stem or not kind:
                    continue
                if f"{path.parent}/{stem}" != key and parts:
                    yield _sample(shard, key, parts)
                    parts = {}
                key = f"{path.parent}/{stem}"
                if member.size > MOST_BYTES:
                    raise DataError(f"{shown(member.name)} has {member.size >> 20} MB", where=shard, advice=f"at most {MOST_BYTES >> 20}")
                content = file.extractfile(member)
                parts[kind.lower()] = b"" if content is None else content.read()
            if parts:
                yield _sample(shard, key, parts)
    except FileNotFoundError as fault:
        raise DataError("no such file", where=shard) from fault
    except (tarfile.TarError, OSError, EOFError) as fault:
        raise DataError(f"is no tar file, or is damaged ({fault})", where=shard) from fault


def _sample(shard: Path, key: str, parts: Mapping[str, bytes]) -> tuple[str, str, str, bytes]:
    kind = next((k for k in IMAGES if k in parts), None)
    if kind is None:
        raise DataError(f"{shown(key)} has no image (found .{', .'.join(sorted(parts))})", where=shard, advice=f"use .{', .'.join(IMAGES)}")
    return key, _label(shard, key, parts), kind, parts[kind]


def _label(shard: Path, key: str, parts: Mapping[str, bytes]) -> str:
    try:
        if "cls" in parts:
            return parts["cls"].decode("utf-8").strip()
        facts: object = json.loads(parts.get("json", b"null"))
    except ValueError as fault:
        raise DataError(f"the class of {shown(key)} is not text", where=shard) from fault
    for name in ("label", "cls", "class"):
        value = cast("Mapping[str, Any]", facts).get(name) if isinstance(facts, Mapping) else None
        if isinstance(value, str | int):
            return str(value)
    raise DataError(f"{shown(key)} has no class", where=shard, advice="give it in .cls, or as label in .json")


def _folder_name(label: str, where: str) -> str:
    if not label or label.startswith(".") or any(c in label for c in "/\\\0") or label != label.strip():
        raise DataError(f"the class {label!r} is no name of a folder", where=where, advice="rename it")
    return label
