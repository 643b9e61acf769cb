"""Features on disk: shards of rows, found by the digest of the image they came from, verified before they are read.

A key's folder holds pairs of files, ``NAME.npy`` (rows, never pickled) and ``NAME.json`` (which image each row is, the
images that could not be decoded and why, and the SHA-256 of both). The JSON is written last: a shard without it does
not exist. A shard that fails its check is put aside and its images count as missing.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock, Timeout

from frostline._atomic import check_writable, write_bytes, write_text
from frostline._digest import bytes_digest, file_digest, settings_digest
from frostline.errors import CacheError
from frostline.features.key import BATCH, FeatureKey

A_MOMENT = 0.5
"""Seconds that the right to write is waited for before whoever asks may do something else."""
SHARD_IMAGES = 256
SHARD_BYTES = 32 << 20
"""A shard holds no more images, and about no more bytes unless one batch has more: one is held in memory while it is computed."""
MOST_FILES = 1 << 16
"""Files that a process is allowed to open at once where its shards take more than it was given."""


def shard_images(row_bytes: int, batch: int = BATCH) -> int:
    """Images a shard, a multiple of the batch; a function of what the key says alone, so that a repaired cache has the same shards.

    >>> shard_images(5120), shard_images(800_000), shard_images(800_000, 128)
    (256, 32, 128)
    """
    return max(batch, min(SHARD_IMAGES, SHARD_BYTES // row_bytes) // batch * batch)


@dataclass
class FeatureStore:
    """The features of one key.

    Attributes:
        folder: where the shards lie.
        storage: ``fp32``, ``fp16`` or ``bf16``.
        rows: for every image digest, the shard that holds it and the row there.
        skipped: images that are no pictures: digest and reason.
        shards: memory maps, by name.
        unreadable: names of shards that are there and cannot be read, which says nothing against them.
        error: the largest relative L2 difference of a shard from what was computed; 0 in float32.
    """

    folder: Path
    storage: str = "fp32"
    rows: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    error: float = 0.0
    shards: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict[str, "np.ndarray[Any, Any]"])
    unreadable: set[str] = field(default_factory=set[str])

    @staticmethod
    def open(root: Path, key: FeatureKey) -> FeatureStore:
        """Open the store of ``key`` below the cache folder ``root``; it may be empty."""
        store = FeatureStore(root / "features" / key.digest[:32], str(key.settings["storage"]))
        store.refresh()
        return store

    @staticmethod
    def claimed(root: Path, key: FeatureKey) -> set[str]:
        """Digests of the images that the records of a key name, unverified: enough to guess whether something will be computed."""
        return _named_in(root / "features" / key.digest[:32])

    @staticmethod
    def check_writable(root: Path, prefix: Mapping[str, object], digests: Sequence[str]) -> None:
        """Refuse features of a prefix that are not there and cannot be written, before it is known which engine computes them.

        Args:
            root: the cache folder.
            prefix: see :func:`frostline.features.key.prefix_settings`.
            digests: of the images whose features are wanted.

        Raises:
            CacheError: the folder cannot be written, and some of the images are in no store of this prefix, whatever its engine.
        """
        try:
            check_writable(root / "features")
        except OSError as fault:
            missing = set(digests)
            for marker in (root / "features").glob("*/key.json"):
                if missing and _is_of(marker, prefix):
                    missing -= _named_in(marker.parent)
            if missing:
                raise _unwritable(root, fault) from fault

    def refresh(self, *, locked: bool = False) -> None:
        """Read which shards there are; each is verified the first time.

        Args:
            locked: the right to write is held: what is damaged is removed. Without it another process may be mending it.

        Raises:
            CacheError: this process may not open so many files.
        """
        if not self.folder.is_dir():
            return
        for record in sorted(self.folder.glob("*.json")):
            if record.stem not in self.shards and record.stem != "key":
                self._open_shard(record, locked=locked)

    def missing(self, digests: Sequence[str]) -> list[str]:
        """Those of ``digests``, each once and sorted, that are neither stored nor known to be no picture."""
        return sorted({d for d in digests if d not in self.rows and d not in self.skipped})

    def gather(self, digests: Sequence[str]) -> torch.Tensor:
        """The features of ``digests``, in their order: ``(N, size)`` float32, in memory.

        Raises:
            CacheError: one of them is not stored.
        """
        rows = self.rows_of(digests)
        return rows[torch.arange(len(rows))] if len(rows) else torch.empty(0)

    def rows_of(self, digests: Sequence[str]) -> StoredRows:
        """The features of ``digests``, in their order, left where they are until they are asked for.

        Raises:
            CacheError: one of them is not stored.
        """
        try:
            places = [self.rows[d] for d in digests]
        except KeyError as fault:
            raise CacheError(f"image {str(fault)[1:13]} is not in the feature cache", where=self.folder) from fault
        names = sorted({shard for shard, _ in places})
        number = {name: i for i, name in enumerate(names)}
        return StoredRows(
            tuple(self.shards[name] for name in names),
            torch.tensor([number[shard] for shard, _ in places], dtype=torch.int32),
            torch.tensor([row for _, row in places], dtype=torch.int32),
            self.storage,
        )

    def bytes_of(self, digests: Sequence[str]) -> int:
        """Bytes on disk that the features of these images take."""
        return sum(self.shards[self.rows[d][0]][0].nbytes for d in set(digests) if d in self.rows)

    def add(self, digests: Sequence[str], rows: torch.Tensor, skipped: Mapping[str, str]) -> None:
        """Write one shard: ``rows[i]`` are the features of ``digests[i]``.

        Raises:
            CacheError: the folder cannot be written, the disk is full, or a value is too large for the storage.
        """
        name = settings_digest({"digests": list(digests), "skipped": sorted(skipped)})[:32]
        buffer = io.BytesIO()
        encoded = encode(rows, self.storage)
        np.save(buffer, encoded, allow_pickle=False)
        data = buffer.getvalue()
        error = _error(rows, encoded, self.storage)
        record: dict[str, object] = {"digests": list(digests), "skipped": dict(skipped), "sha256": bytes_digest(data), "error": error}
        record["self"] = settings_digest(record)
        try:
            write_bytes(self.folder / f"{name}.npy", data)
            write_text(self.folder / f"{name}.json", json.dumps(record))
        except OSError as fault:
            raise _unwritable(self.folder, fault) from fault
        self._open_shard(self.folder / f"{name}.json", locked=True)

    @contextlib.contextmanager
    def locked(self, key: FeatureKey) -> Iterator[bool]:
        """Hold the right to write this store; a killed owner's lock is released by the operating system.

        Yields:
            False where another still holds it after a moment: try again.

        Raises:
            CacheError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            lock.acquire(timeout=A_MOMENT)
        except Timeout:
            yield False
            return
        except OSError as fault:
            raise _unwritable(self.folder, fault) from fault
        try:
            if not (self.folder / "key.json").exists():
                write_text(self.folder / "key.json", json.dumps(key.settings, indent=1))
            self.refresh(locked=True)
            yield True
        finally:
            lock.release()

    def _open_shard(self, record_path: Path, *, locked: bool) -> None:
        rows_path = record_path.with_suffix(".npy")
        try:
            record, rows = _read_shard(record_path, rows_path)
        except OSError as fault:
            if fault.errno == errno.EMFILE and _more_files():
                self._open_shard(record_path, locked=locked)
            elif fault.errno in (errno.EMFILE, errno.ENFILE):
                raise _too_many(self.folder) from fault
            elif not isinstance(fault, FileNotFoundError):  # says nothing against the shard: the disk is away, or it is not ours
                self.unreadable.add(record_path.stem)
            elif locked:
                _remove(record_path, rows_path)
            return
        except (ValueError, KeyError, TypeError, EOFError, AttributeError):
            if locked:
                _remove(record_path, rows_path)
            return
        self.shards[record_path.stem] = rows
        self.unreadable.discard(record_path.stem)
        self.rows.update({d: (record_path.stem, i) for i, d in enumerate(record["digests"])})
        self.skipped.update(record["skipped"])
        self.error = max(self.error, record["error"])


def _named_in(folder: Path) -> set[str]:
    """Digests of the images that the records in a folder name, unverified."""
    found: set[str] = set()
    for record in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            values = cast("dict[str, Any]", json.loads(record.read_bytes()))
            found.update(values.get("digests", ()), values.get("skipped", ()))
    return found


def _is_of(marker: Path, prefix: Mapping[str, object]) -> bool:
    """Whether a store, by its key, holds features of a prefix."""
    try:
        kept = cast("dict[str, Any]", json.loads(marker.read_bytes()))
        return settings_digest({n: kept.get(n) for n in prefix}) == settings_digest(prefix)
    except (OSError, ValueError, AttributeError):
        return False


def _read_shard(record_path: Path, rows_path: Path) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """A shard's record, and its rows as a memory map.

    Raises:
        OSError: one of the files cannot be opened.
        ValueError: it is damaged; of which KeyError, TypeError, EOFError and AttributeError tell as well.
    """
    record = cast("dict[str, Any]", json.loads(record_path.read_bytes()))
    claimed = record.pop("self")
    if settings_digest(record) != claimed or file_digest(rows_path) != record["sha256"]:
        raise ValueError("digest differs")
    rows = cast("np.ndarray[Any, Any]", np.load(rows_path, mmap_mode="r", allow_pickle=False))
    if len(rows) != len(record["digests"]):
        raise ValueError("row count differs")
    return record, rows


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows of shards, read when they are asked for; what was read is not kept in memory.

    Attributes:
        shards: memory maps; only their place in their file is used, for pages that are mapped stay resident, unless the file was removed.
        shard: which of them each row is in, ``(N,)``.
        row: which row there, ``(N,)``.
        storage: ``fp32``, ``fp16`` or ``bf16``.
    """

    shards: tuple[np.ndarray[Any, Any], ...]
    shard: torch.Tensor
    row: torch.Tensor
    storage: str

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: torch.Tensor | slice) -> torch.Tensor:
        """``(n, size)`` float32 on the CPU.

        Raises:
            CacheError: a shard's file is gone and was damaged before, or cannot be read.
        """
        which, row = self.shard[index].numpy(), self.row[index].numpy()
        first = self.shards[0]
        found = np.empty((len(row), *first.shape[1:]), dtype=first.dtype)
        for number in np.unique(which):
            places = np.flatnonzero(which == number)
            _read_rows(self.shards[number], row[places], found, places)
        return decode(found, self.storage)


def _read_rows(shard: np.ndarray[Any, Any], rows: np.ndarray[Any, Any], into: np.ndarray[Any, Any], places: np.ndarray[Any, Any]) -> None:
    mapped = cast("np.memmap[Any, Any]", shard)
    path = Path(str(mapped.filename))
    length = shard[0].nbytes
    try:
        with path.open("rb", buffering=0) as file:
            for place, row in zip(places, rows, strict=True):
                file.seek(mapped.offset + int(row) * length)
                if file.readinto(into[place].data) != length:
                    raise OSError("the file is shorter than it was")
    except OSError as fault:
        if isinstance(fault, FileNotFoundError) and _is_whole(mapped):  # thrown out of the cache meanwhile: what is mapped is still there
            into[places] = shard[rows]
            return
        raise CacheError(f"cannot be read any more ({fault})", where=path, advice="run the same command again") from fault


def _is_whole(mapped: np.memmap[Any, Any]) -> bool:
    """Whether the file behind a memory map, which may have no name any more, is as long as it was; reading past its end is fatal."""
    return cast("Any", mapped)._mmap.size() >= mapped.offset + mapped.nbytes


def _error(rows: torch.Tensor, stored: np.ndarray[Any, Any], storage: str) -> float:
    size = float(rows.double().norm())
    return float((decode(stored, storage).double() - rows.double()).norm()) / size if size and storage != "fp32" else 0.0


def encode(rows: torch.Tensor, storage: str) -> np.ndarray[Any, Any]:
    """Float32 rows as they are stored; bfloat16, which NumPy does not know, as its bits.

    Raises:
        CacheError: a value is too large for fp16.
    """
    if storage == "fp32":
        return rows.numpy()
    if storage == "bf16":
        return rows.to(torch.bfloat16).view(torch.uint16).numpy()
    halved = rows.to(torch.float16)
    if bool(torch.isinf(halved).any()):
        raise CacheError("a feature is too large for fp16", where="--storage fp16", advice="use bf16 or fp32")
    return halved.numpy()


def decode(stored: np.ndarray[Any, Any], storage: str) -> torch.Tensor:
    """The reverse of :func:`encode`, in float32; what rounding took is gone."""
    plain = torch.from_numpy(stored)
    return plain.view(torch.bfloat16).float() if storage == "bf16" else plain.float()


def _remove(*damaged: Path) -> None:
    for path in damaged:
        with contextlib.suppress(OSError):  # a read-only cache: the shard is left where it is and not used
            path.unlink(missing_ok=True)


def _more_files() -> bool:
    """Let this process open as many files as it may: a memory map takes one. Whether that is more than before."""
    if sys.platform == "win32":
        return False
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return True


def _too_many(folder: Path) -> CacheError:
    return CacheError("this process may not open as many files as there are shards", where=folder, advice="allow more with ulimit -n")


def _unwritable(folder: Path, fault: OSError) -> CacheError:
    return CacheError(
        f"the feature cache cannot be written ({fault.strerror or fault})",
        where=folder,
        advice="give another folder with --cache-dir, or run with --no-cache",
    )
