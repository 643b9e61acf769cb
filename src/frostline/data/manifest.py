"""What the data is, as a value: the classes, and one record an image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from frostline.errors import DataError


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One file that should be an image.

    Attributes:
        path: the file.
        label: index into the manifest's classes; None where it is not known.
        split: ``train``, ``val``, ``test``, or None where no split was made yet.
        group: images of one group (one patient, one camera) never lie on both sides of a split.
    """

    path: Path
    label: int | None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Classes and images, in a fixed order.

    Attributes:
        classes: names of the classes; a label is an index into them.
        records: the images.
        notes: what was left out or decided on the way, one sentence each.
    """

    classes: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def only(self, split: str) -> Manifest:
        """The images of one split, with the same classes.

        Args:
            split: ``train``, ``val`` or ``test``.
        """
        return replace(self, records=tuple(r for r in self.records if r.split == split))

    def labels(self) -> list[int]:
        """Label of each image, in order.

        Raises:
            DataError: an image has no label.
        """
        labels = [r.label for r in self.records if r.label is not None]
        if len(labels) != len(self.records):
            raise DataError(f"{len(self.records) - len(labels)} of {len(self.records)} images have no label")
        return labels

    def counts(self) -> dict[str, int]:
        """Number of images in each class, classes without any included."""
        found = Counter(r.label for r in self.records)
        return {name: found[i] for i, name in enumerate(self.classes)}
