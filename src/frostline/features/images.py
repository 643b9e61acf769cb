"""A list of labelled images with the digest of each one's content."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from frostline._digest import bytes_digest, file_digest
from frostline.data.manifest import Manifest
from frostline.data.shards import is_member, member_bytes
from frostline.errors import FrostlineError


@dataclass(frozen=True)
class ImageSet:
    """Images, in order.

    Attributes:
        paths: the files.
        digests: SHA-256 of each file's content.
        labels: index of each image's class; empty where there are none.
    """

    paths: tuple[Path, ...]
    digests: tuple[str, ...]
    labels: tuple[int, ...] = ()

    @staticmethod
    def of(manifest: Manifest, digests: Sequence[str] | None = None) -> ImageSet:
        """The images of a manifest; their files are read for the digests unless those are given."""
        paths = tuple(r.path for r in manifest.records)
        return ImageSet(paths, tuple(digest_files(paths) if digests is None else digests), tuple(manifest.labels()))

    def __len__(self) -> int:
        return len(self.paths)

    def __add__(self, other: ImageSet) -> ImageSet:
        return ImageSet(self.paths + other.paths, self.digests + other.digests, self.labels + other.labels)

    def without(self, digests: Collection[str]) -> ImageSet:
        """The images whose digest is not among ``digests``."""
        return self.only([i for i, d in enumerate(self.digests) if d not in digests])

    def only(self, rows: Sequence[int]) -> ImageSet:
        """The images at some places, in that order."""
        labels = tuple(self.labels[i] for i in rows) if self.labels else ()
        return ImageSet(tuple(self.paths[i] for i in rows), tuple(self.digests[i] for i in rows), labels)


def digest_files(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file's content; a file that cannot be read gets a digest of its own, and fails when decoded."""

    def one(path: Path) -> str:
        try:
            return bytes_digest(member_bytes(path)) if is_member(path) else file_digest(path)
        except (OSError, FrostlineError):
            return bytes_digest(b"unreadable " + str(path).encode(errors="surrogateescape"))

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, paths))
