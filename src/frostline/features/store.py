"""Features on disk: shards of rows, found by the digest of the image they came from, verified before they are read.

A key's folder holds pairs of files, ``NAME.npy`` (rows, never pickled) and ``NAME.json`` (which image each row is, the
images that could not be decoded and why, and the SHA-256 of both). The JSON is written last: a shard without it does
not exist. A shard that fails its check is put aside and its images count as missing.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock

from frostline._atomic import write_bytes, write_text
from frostline._digest import bytes_digest, file_digest, settings_digest
from frostline.errors import CacheError
from frostline.features.key import FeatureKey

SHARD_IMAGES = 256


@dataclass
class FeatureStore:
    """The features of one key.

    Attributes:
        folder: where the shards lie.
        rows: for every image digest, the shard that holds it and the row there.
        skipped: images that are no pictures: digest and reason.
    """

    folder: Path
    rows: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    _shards: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict[str, "np.ndarray[Any, Any]"])

    @staticmethod
    def open(root: Path, key: FeatureKey) -> FeatureStore:
        """Open the store of ``key`` below the cache folder ``root``; it may be empty."""
        store = FeatureStore(root / "features" / key.digest[:32])
        store.refresh()
        return store

    def refresh(self) -> None:
        """Read which shards there are; each is verified the first time."""
        if not self.folder.is_dir():
            return
        for record in sorted(self.folder.glob("*.json")):
            if record.stem not in self._shards and record.stem != "key":
                self._open_shard(record)

    def missing(self, digests: Sequence[str]) -> list[str]:
        """Those of ``digests``, each once and sorted, that are neither stored nor known to be no picture."""
        return sorted({d for d in digests if d not in self.rows and d not in self.skipped})

    def gather(self, digests: Sequence[str]) -> torch.Tensor:
        """The features of ``digests``, in their order: ``(N, ...)`` float32, in memory.

        Raises:
            CacheError: one of them is not stored.
        """
        try:
            places = [self.rows[d] for d in digests]
        except KeyError as fault:
            raise CacheError(f"image {str(fault)[1:13]} is not in the feature cache", where=self.folder) from fault
        if not places:
            return torch.empty(0)
        shape = self._shards[places[0][0]].shape[1:]
        gathered = np.empty((len(places), *shape), dtype=np.float32)
        order: dict[str, list[tuple[int, int]]] = {}
        for to, (shard, row) in enumerate(places):
            order.setdefault(shard, []).append((to, row))
        for shard, pairs in order.items():
            gathered[[to for to, _ in pairs]] = self._shards[shard][[row for _, row in pairs]]
        return torch.from_numpy(gathered)

    def bytes_of(self, digests: Sequence[str]) -> int:
        """Bytes on disk that the features of these images take."""
        return sum(self._shards[self.rows[d][0]][0].nbytes for d in set(digests) if d in self.rows)

    def add(self, digests: Sequence[str], rows: torch.Tensor, skipped: Mapping[str, str]) -> None:
        """Write one shard: ``rows[i]`` are the features of ``digests[i]``.

        Raises:
            CacheError: the folder cannot be written, or the disk is full.
        """
        name = settings_digest({"digests": list(digests), "skipped": sorted(skipped)})[:32]
        buffer = io.BytesIO()
        np.save(buffer, rows.numpy(), allow_pickle=False)
        record: dict[str, object] = {
            "digests": list(digests),
            "skipped": dict(skipped),
            "sha256": bytes_digest(buffer.getvalue()),
        }
        record["self"] = settings_digest(record)
        try:
            write_bytes(self.folder / f"{name}.npy", buffer.getvalue())
            write_text(self.folder / f"{name}.json", json.dumps(record))
        except OSError as fault:
            raise _unwritable(self.folder, fault) from fault
        self._open_shard(self.folder / f"{name}.json")

    @contextlib.contextmanager
    def locked(self, key: FeatureKey) -> Iterator[None]:
        """Hold the right to write this store; a killed owner's lock is released by the operating system.

        Raises:
            CacheError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            lock.acquire()
        except OSError as fault:
            raise _unwritable(self.folder, fault) from fault
        try:
            if not (self.folder / "key.json").exists():
                write_text(self.folder / "key.json", json.dumps(key.settings, indent=1))
            self.refresh()
            yield
        finally:
            lock.release()

    def _open_shard(self, record_path: Path) -> None:
        rows_path = record_path.with_suffix(".npy")
        try:
            record = cast("dict[str, Any]", json.loads(record_path.read_bytes()))
            claimed = record.pop("self")
            if settings_digest(record) != claimed or file_digest(rows_path) != record["sha256"]:
                raise ValueError("digest differs")
            rows = cast("np.ndarray[Any, Any]", np.load(rows_path, mmap_mode="r", allow_pickle=False))
            if len(rows) != len(record["digests"]):
                raise ValueError("row count differs")
        except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError):
            for damaged in (record_path, rows_path):
                with contextlib.suppress(OSError):  # a read-only cache: the shard is left where it is and not used
                    damaged.unlink(missing_ok=True)
            return
        self._shards[record_path.stem] = rows
        self.rows.update({d: (record_path.stem, i) for i, d in enumerate(record["digests"])})
        self.skipped.update(record["skipped"])


def _unwritable(folder: Path, fault: OSError) -> CacheError:
    return CacheError(
        f"the feature cache cannot be written ({fault.strerror or fault})",
        where=folder,
        advice="give another folder with --cache-dir, or run with --no-cache",
    )
