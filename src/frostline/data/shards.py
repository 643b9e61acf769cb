"""Labelled images in tar files, as webdataset writes them: members that share a key are one item, such as ``7.jpg`` and ``7.cls``.

Nothing is extracted. An image in a shard has the path ``SHARD.tar/MEMBER``; its bytes are read from where they lie in the tar file.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from frostline.data._classes import refuse_unknown, sorted_classes
from frostline.data._names import shown, split_called
from frostline.data.manifest import ImageRecord, Manifest
from frostline.errors import DataError

_PICTURES = {"jpg", "jpeg", "png", "gif", "bmp", "tif", "tiff", "webp", "ppm"}
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS, _MOST_LABEL = 100_000, 1 << 20


@dataclass(frozen=True, slots=True)
class _Item:
    path: Path
    label: str
    split: str | None


def is_shards(data: Path) -> bool:
    """Whether ``data`` is a tar file, a row of them (``shards-{000..003}.tar``), or a folder of tar files and splits of them."""
    if data.suffix.lower() == ".tar" and not data.is_dir():
        return True
    try:
        return data.is_dir() and any(_by_split(data).values())
    except OSError:  # it cannot be listed, which is for the reader of folders to say
        return False


def read_shards(data: Path) -> Manifest:
    """The images to train on.

    Args:
        data: see :func:`is_shards`; a folder may have ``train``, ``val`` and ``test`` with tar files in them.

    Raises:
        DataError: a shard is missing, damaged or hostile, an image has no label, or there are fewer than two classes.
    """
    items = _items(data)
    classes = sorted_classes((i.label for i in items if i.split in (None, "train")), data)
    refuse_unknown((i.label for i in items), classes, data)
    return Manifest(classes, _records(items, classes))


def read_labelled_shards(data: Path, classes: Sequence[str]) -> Manifest:
    """Labelled images to measure on; where there are splits, those of ``test``, or else of ``val``.

    Raises:
        DataError: as for :func:`read_shards`, or a class is not among ``classes``.
    """
    items = _items(data)
    split = next((s for s in ("test", "val") if any(i.split == s for i in items)), None)
    items = [i for i in items if split is None or i.split == split]
    refuse_unknown((i.label for i in items), classes, data)
    return Manifest(tuple(classes), tuple(ImageRecord(r.path, r.label) for r in _records(items, classes)))


def member_bytes(path: Path) -> bytes:
    """The content of one image in a shard.

    Args:
        path: ``SHARD.tar/MEMBER``.

    Raises:
        FileNotFoundError: there is no such shard, or no such member in it.
        OSError: it cannot be read.
    """
    shard = _shard_of(path)
    where = None if shard is None else _index(shard, *_state(shard)).get(path.relative_to(shard).as_posix())
    if shard is None or where is None:
        raise FileNotFoundError(2, "no such file", str(path))
    with shard.open("rb") as file:
        file.seek(where[0])
        return file.read(where[1])


def is_member(path: Path) -> bool:
    """Whether a path leads into a tar file."""
    return _shard_of(path) is not None


def is_there(path: Path) -> bool:
    """Whether there is such a file, in a folder or in a tar file."""
    try:
        shard = _shard_of(path)
        return path.is_file() if shard is None else path.relative_to(shard).as_posix() in _index(shard, *_state(shard))
    except (OSError, DataError):
        return False


def _shard_of(path: Path) -> Path | None:
    return next((p for p in path.parents if p.suffix.lower() == ".tar" and p.is_file()), None)


def _by_split(folder: Path) -> dict[str | None, list[Path]]:
    """The tar files of a folder, by split; none at all where anything else lies beside them."""
    found = dict[str | None, list[Path]]()
    for place in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
        split = split_called(place.name)
        if place.suffix.lower() == ".tar" and place.is_file():
            found.setdefault(None, []).append(place)
        elif split is not None and place.is_dir() and (inner := _tars_alone(place)):
            found[split] = inner
        elif place.is_dir():
            return {}
    return found


def _tars_alone(folder: Path) -> list[Path]:
    inner = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    return [p for p in inner if p.suffix.lower() == ".tar"] if not any(p.is_dir() for p in inner) else []


def _items(data: Path) -> list[_Item]:
    by_split = _by_split(data) if data.is_dir() else {None: _row(data)}
    if None in by_split and len(by_split) > 1:
        raise DataError("tar files beside the splits", where=shown(data), advice="move them into train, val or test")
    items = [item for split, shards in by_split.items() for shard in shards for item in _in_shard(shard, split)]
    if not any(i.split in (None, "train") for i in items):
        raise DataError("no images in the shards to train on", where=shown(data), advice="put KEY.jpg and KEY.cls into them")
    return items


def _row(pattern: Path) -> list[Path]:
    """The files that ``shards-{000..003}.tar`` stands for."""
    found = _RANGE.search(pattern.name)
    if found is None:
        names = [pattern.name]
    else:
        first, last, width = int(found[1]), int(found[2]), len(found[1])
        if not 0 <= last - first < _MOST_SHARDS:
            raise DataError(f"{found[0]} is no range of shards", where=shown(pattern), advice="write {000..003}")
        names = [f"{pattern.name[: found.start()]}{n:0{width}}{pattern.name[found.end() :]}" for n in range(first, last + 1)]
    shards = [pattern.with_name(n) for n in names]
    missing = [s for s in shards if not s.is_file()]
    if missing:
        raise DataError(f"{len(missing)} of {len(shards)} shards are missing, the first is {shown(missing[0])}", where=shown(pattern))
    return shards


def _state(shard: Path) -> tuple[int, int]:
    about = shard.stat()
    return about.st_mtime_ns, about.st_size


@functools.lru_cache(maxsize=4096)
def _index(shard: Path, changed: int, size: int) -> Mapping[str, tuple[int, int]]:  # noqa: ARG001 (a changed file is another one)
    """Where each file of a shard begins, and its length.

    Raises:
        DataError: the tar file is damaged, or has a member that is no plain file below its root.
    """
    found: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.TarFile(shard) as tar:
            for member in tar:
                if member.isdir():
                    continue
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts or "\0" in member.name or "\\" in member.name:
                    raise DataError(f"the member {shown(member.name)} leads out of the shard", where=shown(shard))
                if not member.isreg() or member.issparse():
                    raise DataError(f"the member {shown(member.name)} is a link or a device, not a file", where=shown(shard))
                if member.offset_data + member.size > size:
                    raise DataError(f"ends inside the member {shown(member.name)}", where=shown(shard), advice="fetch it again")
                if name.as_posix() in found:
                    raise DataError(f"has the member {shown(member.name)} twice", where=shown(shard))
                found[name.as_posix()] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError, EOFError) as fault:
        why = f"is no tar file that can be read ({shown(fault)[:80]})"
        raise DataError(why, where=shown(shard), advice="give uncompressed tar files") from fault
    return found


def _in_shard(shard: Path, split: str | None) -> Iterator[_Item]:
    def key_of(name: str) -> str:
        folder, slash, file = name.rpartition("/")
        return f"{folder}{slash}{file.partition('.')[0]}"

    shown_names = [n for n in _index(shard, *_state(shard)) if not n.rpartition("/")[2].startswith(".")]
    for key, names in itertools.groupby(sorted(shown_names, key=lambda n: (key_of(n), n)), key_of):
        group = {n.rpartition(".")[2].lower(): n for n in names}
        picture = next((n for kind, n in group.items() if kind in _PICTURES), None)
        if picture is not None:
            yield _Item(shard / picture, _label(shard, key, group), split)


def _label(shard: Path, key: str, group: Mapping[str, str]) -> str:
    """From ``KEY.cls`` (a name or a number), or the field ``label`` (or ``cls``) of ``KEY.json``."""
    kind = next((k for k in ("cls", "json") if k in group), None)
    if kind is None:
        fact = f"the image {shown(key)} has no label"
        raise DataError(fact, where=shown(shard), advice="put KEY.cls beside it, or KEY.json with a field label")
    index = _index(shard, *_state(shard))
    if index[group[kind]][1] > _MOST_LABEL:
        raise DataError(f"{shown(group[kind])} has {index[group[kind]][1]} bytes, too many for a label", where=shown(shard))
    try:
        text = member_bytes(shard / group[kind]).decode("utf-8").strip()
        if kind == "json":
            read = cast("object", json.loads(text))
            said = cast("dict[str, object]", read) if isinstance(read, dict) else {}
            text = next((str(said[n]).strip() for n in ("label", "cls") if isinstance(said.get(n), str | int)), "")
    except (ValueError, RecursionError) as fault:
        raise DataError(f"{shown(group[kind])} is no {kind} file that can be read", where=shown(shard)) from fault
    if not text:
        raise DataError(f"{shown(group[kind])} names no label", where=shown(shard))
    return text


def _records(items: Sequence[_Item], classes: Sequence[str]) -> tuple[ImageRecord, ...]:
    label = {name: i for i, name in enumerate(classes)}
    return tuple(ImageRecord(i.path, label[i.label], i.split) for i in items)
