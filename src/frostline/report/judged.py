"""What a run says about the images it is reported on: those of the test, or where there are none those of validation."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from frostline.data.manifest import Manifest
from frostline.data.shards import is_there
from frostline.features import FeatureStore, ImageSet, ensure_features
from frostline.features.extract import Extracted, Prefix
from frostline.fitting.loop import logits_of
from frostline.fitting.sources import FeatureRows
from frostline.run import Run


@dataclass(frozen=True, eq=False)
class Listed:
    """The images of a run that are still there.

    Attributes:
        images: by split; a split may be empty.
        groups: the group of each image, by its path; None where it has none.
        missing: files that are not there any more, by split.
    """

    images: dict[str, ImageSet]
    groups: dict[Path, str | None]
    missing: dict[str, tuple[Path, ...]]

    @property
    def reported(self) -> str | None:
        """``test`` where the run has such images, else ``val``, else None."""
        return next((s for s in ("test", "val") if len(self.images[s]) or self.missing[s]), None)


@dataclass(frozen=True, eq=False)
class Judged:
    """Answers for images whose class is known.

    Attributes:
        split: ``test`` or ``val``.
        images: that could be read.
        logits: of them, ``(N, classes)`` float32.
        decoded: images that had to be decoded and run through the backbone; 0 where their features were cached.
        missing: files that are not there any more, or are no images.
    """

    split: str
    images: ImageSet
    logits: torch.Tensor
    decoded: int
    missing: tuple[Path, ...]

    @property
    def labels(self) -> torch.Tensor:
        """``(N,)`` int64."""
        return torch.tensor(self.images.labels, dtype=torch.int64)

    @property
    def probabilities(self) -> torch.Tensor:
        """``(N, classes)`` float64."""
        return self.logits.double().softmax(1)


def still_there(manifest: Manifest) -> Listed:
    """The labelled images of a run whose files are there, with the digest of each one's content."""
    images: dict[str, ImageSet] = {}
    missing: dict[str, tuple[Path, ...]] = {}
    for split in ("train", "val", "test"):
        records = [r for r in manifest.records if r.split == split and r.label is not None]
        there = [r for r in records if is_there(r.path)]
        missing[split] = tuple(r.path for r in records if not is_there(r.path))
        images[split] = ImageSet.of(Manifest(manifest.classes, tuple(there)))
    return Listed(images, {r.path: r.group for r in manifest.records}, missing)


def prefix_of_run(run: Run, listed: Listed, cache: Path | None, device: torch.device) -> Prefix:
    """The run's backbone with the engine that training chose, so that the features which training cached are found."""
    return run.prefix_as_trained(device, listed.images["train"] + listed.images["val"], cache)


def judge(run: Run, listed: Listed, prefix: Prefix, cache: Path | None) -> Judged | None:
    """The run's answers for the images it is reported on; None where none of them can be read.

    Args:
        run: the run.
        listed: its images.
        prefix: of :func:`prefix_of_run`.
        cache: folder of the feature cache; None keeps nothing.
    """
    split = listed.reported
    if split is None or not len(listed.images[split]):
        return None
    images, key = listed.images[split], prefix.key()
    with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
        store = FeatureStore.open(cache or Path(scratch), key)
        extracted = _ensured(store, prefix, images)
        usable = images.without(store.skipped)
        if not len(usable):
            return None
        rows = FeatureRows((store.rows_of(usable.digests),), torch.tensor(usable.labels, device=prefix.device), prefix.layout)
        logits = logits_of(run.model.head, rows)
    unreadable = tuple(p for p, d in zip(images.paths, images.digests, strict=True) if d in store.skipped)
    return Judged(split, usable, logits, extracted.decoded, listed.missing[split] + unreadable)


def _ensured(store: FeatureStore, prefix: Prefix, images: ImageSet) -> Extracted:
    steps = ensure_features(store, prefix.key(), prefix, images)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
