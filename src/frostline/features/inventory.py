"""What lies in the cache: features, engines and records of backbones; verified, counted, thrown away."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from filelock import FileLock, Timeout

from frostline._atomic import remove_folder
from frostline.backbone.sealed import is_record
from frostline.errors import CacheError
from frostline.features.ready import RECORD, is_whole
from frostline.features.store import FeatureStore

Kind = Literal["features", "engine", "backbone"]
_KINDS: dict[str, Kind] = {"features": "features", "engines": "engine", "backbones": "backbone"}


@dataclass(frozen=True)
class Entry:
    """One thing in the cache.

    Attributes:
        kind: ``features``, ``engine`` or ``backbone`` (a record of one).
        path: its folder or file.
        what: what it is, in words.
        images: of features: how many have some.
        bytes: on disk.
        written: when it was last written to, seconds since 1970.
    """

    kind: Kind
    path: Path
    what: str
    images: int
    bytes: int
    written: float


def entries(cache: Path) -> list[Entry]:
    """Everything in a cache folder, the oldest first; what is unknown there is left alone.

    Raises:
        CacheError: the folder cannot be read.
    """
    try:
        there: list[tuple[Kind, Path]] = [
            (kind, p) for name, kind in _KINDS.items() if (cache / name).is_dir() for p in (cache / name).iterdir()
        ]
    except OSError as fault:
        raise CacheError(
            f"cannot be read ({fault.strerror or fault})", where=cache, advice="give another folder with --cache-dir"
        ) from fault
    found = [_entry(kind, path) for kind, path in there if _is_ours(kind, path)]
    return sorted(found, key=lambda e: (e.written, str(e.path)))


@dataclass(frozen=True)
class Checked:
    """What was found in an entry.

    Attributes:
        damaged: parts that are not what was written.
        left: of these, parts that could not be removed: another process is writing, or the folder is not ours.
        unreadable: parts that cannot be read, of another user for example; whether they are damaged is not known, and they stay.
    """

    damaged: int = 0
    left: int = 0
    unreadable: int = 0


def checked(entry: Entry) -> Checked:
    """Check every byte of an entry against its digest; damaged parts are removed, and computed again when they are wanted."""
    if not _can_be_read(entry.path):
        return Checked(unreadable=1)
    if entry.kind == "features":
        before = len(_records(entry.path))
        store = FeatureStore(entry.path, str(_json(entry.path / "key.json").get("storage", "fp32")))
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(FileLock(entry.path / ".lock", timeout=0))
                store.refresh(locked=True)
            except OSError:  # another process is writing, or we may not: nothing is removed
                store.refresh()
        damaged = before - len(store.shards) - len(store.unreadable)
        return Checked(damaged, min(damaged, len(_records(entry.path)) - before + damaged), len(store.unreadable))
    files = sum(not _can_be_read(p) for p in entry.path.iterdir()) if entry.path.is_dir() else 0
    if files:
        return Checked(unreadable=files)
    sound = is_whole(entry.path) if entry.kind == "engine" else is_record(entry.path)
    return Checked() if sound else Checked(1, 1 - len(remove([entry])))


def _can_be_read(path: Path) -> bool:
    """Whether a file can be read, a folder looked into; of one that is not there, too, it is not known that it cannot."""
    if path.is_dir():
        return os.access(path, os.R_OK | os.X_OK)
    try:
        path.open("rb").close()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def remove(some: Iterable[Entry]) -> list[Entry]:
    """Throw entries away; one that another process is writing to stays.

    Returns:
        Those that are gone.
    """
    gone: list[Entry] = []
    for entry in some:
        if entry.kind == "backbone":
            with contextlib.suppress(OSError):
                entry.path.unlink()
        elif entry.kind == "engine":
            remove_folder(entry.path)
        else:
            with contextlib.suppress(Timeout, OSError), FileLock(entry.path / ".lock", timeout=0):
                remove_folder(entry.path)
        if not entry.path.exists():
            gone.append(entry)
    return gone


def older_than(some: Iterable[Entry], days: float) -> list[Entry]:
    """Entries that nothing was written to for so long."""
    return [e for e in some if time.time() - e.written > days * 86_400]


def beyond(some: list[Entry], most: int) -> list[Entry]:
    """The oldest entries, as many as have to go for the others to take no more than ``most`` bytes."""
    total, chosen = sum(e.bytes for e in some), list[Entry]()
    for entry in some:
        if total <= most:
            break
        chosen.append(entry)
        total -= entry.bytes
    return chosen


def _is_ours(kind: Kind, path: Path) -> bool:
    """Whether something was put there by frostline: by its name, and by what it must hold. All else is never touched."""
    if re.fullmatch(r"[0-9a-f]{32}" + (r"\.json" if kind == "backbone" else ""), path.name) is None:
        return False
    marker = {"features": path / "key.json", "engine": path / RECORD, "backbone": path}[kind]
    try:
        return marker.is_file()
    except PermissionError:  # by its name it is
        return True


def _entry(kind: Kind, path: Path) -> Entry:
    files = [*path.rglob("*")] if path.is_dir() else [path]
    sizes = [found for p in files if (found := _stat(p)) is not None and stat.S_ISREG(found.st_mode)]
    images = sum(len(cast("list[str]", _json(r).get("digests", []))) for r in _records(path)) if kind == "features" else 0
    written = max((s.st_mtime for s in sizes), default=0.0)
    return Entry(kind, path, _words(kind, path), images, sum(s.st_size for s in sizes), written)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # renamed or removed by another process, or in a folder that is not ours
        return None


def _words(kind: Kind, path: Path) -> str:
    if kind == "features":
        key = _json(path / "key.json")
        view: object = key.get("view", "plain")
        seen = view if isinstance(view, str) else " ".join(str(v) for v in cast("dict[str, object]", view).values())
        name, cut, storage, engine = (key.get(n, "?") for n in ("backbone", "cut", "storage", "engine"))
        return f"{name} up to {cut}, {seen} view, {storage}, {engine}"
    if kind == "engine":
        record = _json(path / RECORD)
        return f"{record.get('name', 'unfinished')} in {record.get('precision', '?')}"
    record = _json(path)
    return f"{record.get('name', 'unknown')}, {record.get('weights', '?')} weights"


def _records(folder: Path) -> list[Path]:
    return [p for p in folder.glob("*.json") if p.name != "key.json"]


def _json(path: Path) -> dict[str, Any]:
    try:
        read: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", read) if isinstance(read, dict) else {}
