"""A list of labelled images with the digest of each one's content."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from frostline._digest import bytes_digest, file_digest
from frostline.data.manifest import Manifest
from frostline.data.shards import is_member, member_bytes
from frostline.data.units import units_of
from frostline.errors import FrostlineError


@dataclass(frozen=True)
class ImageSet:
    """Images, in order.

    Attributes:
        paths: the files.
        digests: SHA-256 of each file's content.
        labels: index of each image's class; empty where there are none.
        groups: of each image, or None; empty where there are none.
    """

    paths: tuple[Path, ...]
    digests: tuple[str, ...]
    labels: tuple[int, ...] = ()
    groups: tuple[str | None, ...] = ()

    @staticmethod
    def of(manifest: Manifest, digests: Sequence[str] | None = None) -> ImageSet:
        """The images of a manifest; their files are read for the digests unless those are given."""
        paths = tuple(r.path for r in manifest.records)
        groups = tuple(r.group for r in manifest.records) if any(r.group is not None for r in manifest.records) else ()
        return ImageSet(paths, tuple(digest_files(paths) if digests is None else digests), tuple(manifest.labels()), groups)

    def __len__(self) -> int:
        return len(self.paths)

    def __add__(self, other: ImageSet) -> ImageSet:
        groups = (*_named(self), *_named(other)) if self.groups or other.groups else ()
        return ImageSet(self.paths + other.paths, self.digests + other.digests, self.labels + other.labels, groups)

    @property
    def units(self) -> tuple[int, ...]:
        """For each image the number of what must be on one side of a split: see :func:`frostline.data.units.units_of`."""
        return units_of(self.digests, self.groups)

    def without(self, digests: Collection[str]) -> ImageSet:
        """The images whose digest is not among ``digests``."""
        return self.only([i for i, d in enumerate(self.digests) if d not in digests])

    def only(self, rows: Sequence[int]) -> ImageSet:
        """The images at some places, in that order."""
        labels = tuple(self.labels[i] for i in rows) if self.labels else ()
        groups = tuple(self.groups[i] for i in rows) if self.groups else ()
        return ImageSet(tuple(self.paths[i] for i in rows), tuple(self.digests[i] for i in rows), labels, groups)


def _named(images: ImageSet) -> tuple[str | None, ...]:
    return images.groups or (None,) * len(images)


def unreadable_digest(path: Path) -> str:
    """What stands for the digest of a file that cannot be read."""
    return bytes_digest(b"unreadable " + str(path).encode(errors="surrogateescape"))


def digest_files(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file's content; a file that cannot be read gets a digest of its own, and fails when decoded."""

    def one(path: Path) -> str:
        try:
            return bytes_digest(member_bytes(path)) if is_member(path) else file_digest(path)
        except (OSError, FrostlineError):
            return unreadable_digest(path)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, paths))
