"""What an export is checked on: the run's own images, validation first; others that were named; or generated pictures, and says so."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from frostline._rng import stream
from frostline.backbone import Preprocess
from frostline.data.read import read_labelled
from frostline.data.shards import is_there
from frostline.data.table import TABLES
from frostline.errors import DataError, DecodeError
from frostline.features.pixels import full_batches, pixel_batches
from frostline.run import Run, layout
from frostline.use import list_images

CHUNK = 16
"""Pictures at once: two rounds of the batch sizes, and the batch that a run answers in."""
FEWEST = 8
"""Pictures in a chunk, repeated where there are fewer, so that every batch size is met."""
_MOST = 48
_NAMES = {"val": "validation", "test": "test", "train": "training"}


@dataclass(frozen=True)
class Pictures:
    """Pictures to check on.

    Attributes:
        paths: the files; none where pictures are generated.
        what: which they are, in words.
    """

    paths: tuple[Path, ...]
    what: str

    def chunks(self, preprocess: Preprocess) -> Iterator[tuple[torch.Tensor, int]]:
        """Resized and cropped ``(N, 3, H, W)`` uint8, N from 8 to 16, and how many of them are different pictures.

        Raises:
            DataError: none of the files is an image that can be read.
        """
        if not self.paths:
            yield _generated(preprocess.crop), CHUNK
            return
        read = 0
        for batch in pixel_batches(self.paths, preprocess, full_batches(len(self.paths), CHUNK)):
            good = [p for p in batch if not isinstance(p, DecodeError)]
            read += len(good)
            if good:
                yield torch.stack([good[i % len(good)] for i in range(max(FEWEST, len(good)))]), len(good)
        if not read:
            fact = f"none of {len(self.paths)} files is an image that can be read"
            raise DataError(fact, where=self.what, advice="name others with --check")


def pictures_of(run: Run) -> Pictures:
    """At most 48 of the run's images that are still where they were: validation, then test, then training images."""
    by_split = {split: [p for p in paths if is_there(p)] for split, paths in _listed(run.folder).items()}
    taken: list[Path] = []
    words: list[str] = []
    for split, name in _NAMES.items():
        some = _spread(by_split.get(split, []), _MOST - len(taken))
        taken.extend(some)
        words.extend([f"{len(some)} {name}"] if some else [])
    if not taken:
        return Pictures((), "generated pictures (the run's images are not there any more)")
    return Pictures(tuple(taken), f"{' and '.join(words)} images of the run")


def pictures_in(data: Path, classes: Sequence[str]) -> Pictures:
    """All images of a folder, a file or a table.

    Raises:
        DataError: there are none.
    """
    if data.suffix.lower() in TABLES and not data.is_dir():
        return Pictures(tuple(r.path for r in read_labelled(data, classes).records), f"the images listed in {data.name}")
    return Pictures(tuple(list_images([data])), f"the images in {data.resolve().name}")


def _listed(folder: Path) -> dict[str, list[Path]]:
    """The files of ``split.csv`` by split; none where it is not there or is no table of ours."""
    try:
        text = (folder / layout.SPLIT).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    found: dict[str, list[Path]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        found.setdefault(row.get("split") or "", []).append(Path(row.get("path") or ""))
    return found


def _spread(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many, evenly spread: they are listed class by class."""
    count = min(len(paths), most)
    return [paths[i * len(paths) // count] for i in range(count)]


def _generated(size: tuple[int, int]) -> torch.Tensor:
    """Sixteen blurred patterns with noise: plain noise looks the same to a network whatever its seed."""
    random = stream(0, "pictures for an export")
    rough = torch.rand(CHUNK, 3, 6, 6, generator=random)
    smooth = torch.nn.functional.interpolate(rough, size, mode="bilinear", align_corners=False)
    return (smooth * 235 + torch.rand(CHUNK, 3, *size, generator=random) * 20).to(torch.uint8)
