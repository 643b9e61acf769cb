"""The list of images and labels that everything works from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image.

    Attributes:
        path: the file.
        label: index of its class, or None.
        split: ``train``, ``val``, ``test``, or None before a split is made.
        group: images of one subject share it and are never split apart.
    """

    path: Path
    label: int | None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Images and classes.

    Attributes:
        classes: class names; a record's label is an index into them.
        records: the images, in a fixed order.
        notes: what was left out or assumed while reading, in words.
    """

    classes: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def only(self, split: str) -> Manifest:
        """The records of one split."""
        return Manifest(self.classes, tuple(r for r in self.records if r.split == split), self.notes)

    def labels(self) -> list[int]:
        """The label of each labelled record, in order."""
        return [r.label for r in self.records if r.label is not None]

    def counts(self) -> dict[str, int]:
        """Number of images of each class."""
        labels = self.labels()
        return {name: labels.count(i) for i, name in enumerate(self.classes)}
