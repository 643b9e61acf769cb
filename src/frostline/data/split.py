"""Who trains and who validates: seeded, stratified, by content, and never apart what belongs together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frostline._digest import bytes_digest
from frostline.data.manifest import Manifest
from frostline.errors import DataError


def ensure_splits(manifest: Manifest, digests: Sequence[str], seed: int, fraction: float = 0.2) -> Manifest:
    """Make a validation split where there is none; what has one is given back unchanged.

    Without groups each class is ordered by SHA-256 of seed and content, and the first fifth validates: the same images
    land on the same side whatever their names, copies of one image stay together, and adding images moves only those
    next to the boundary. With groups scikit-learn's ``StratifiedGroupKFold`` decides.

    Args:
        manifest: images with labels.
        digests: SHA-256 of each image's content.
        seed: another seed gives another split.
        fraction: share of each class that validates.

    Raises:
        DataError: a class would keep no training image, or there are too few groups.
    """
    if any(r.split == "val" for r in manifest.records):
        _check_training(manifest)
        return manifest
    mine = [i for i, r in enumerate(manifest.records) if r.split in (None, "train")]
    if any(manifest.records[i].group for i in mine):
        held = _by_group(manifest, mine, seed, fraction)
    else:
        held = _by_content(manifest, mine, digests, seed, fraction)
    taken = set(held)
    records = tuple(
        replace(r, split="val" if i in taken else r.split or "train") for i, r in enumerate(manifest.records)
    )
    done = Manifest(manifest.classes, records, manifest.notes)
    _check_training(done)
    if not taken:
        raise DataError("too few images to hold any out for validation", advice="add images, or give --val DIR")
    return done


def duplicates_across(manifest: Manifest, digests: Sequence[str]) -> list[tuple[Path, Path]]:
    """Pairs of byte-identical images in different splits: one pair for each split beyond an image's first."""
    first: dict[str, dict[str | None, Path]] = defaultdict(dict)
    for record, digest in zip(manifest.records, digests, strict=True):
        first[digest].setdefault(record.split, record.path)
    return [(next(iter(places.values())), other) for places in first.values() for other in list(places.values())[1:]]


def _by_content(manifest: Manifest, mine: list[int], digests: Sequence[str], seed: int, fraction: float) -> list[int]:
    held: list[int] = []
    for label in range(len(manifest.classes)):
        members = [i for i in mine if manifest.records[i].label == label]
        order = {i: bytes_digest(f"{seed}:{digests[i]}".encode()) for i in members}
        members.sort(key=lambda i: order[i])
        count = max(1, round(fraction * len(members))) if len(members) >= 2 else 0
        while 0 < count < len(members) and order[members[count]] == order[members[count - 1]]:
            count += 1
        held.extend(members[:count] if count < len(members) else [])
    return held


def _by_group(manifest: Manifest, mine: list[int], seed: int, fraction: float) -> list[int]:
    from sklearn.model_selection import StratifiedGroupKFold

    groups = [manifest.records[i].group or f"alone {i}" for i in mine]
    folds = round(1 / fraction)
    if len(set(groups)) < folds:
        raise DataError(f"{len(set(groups))} groups cannot be split into {folds} parts", advice="give a split column or --val DIR")
    labels = [manifest.records[i].label for i in mine]
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    _, held = next(iter(splitter.split(labels, labels, groups)))
    return [mine[int(i)] for i in held]


def _check_training(manifest: Manifest) -> None:
    counts = manifest.only("train").counts()
    if empty := [name for name, count in counts.items() if not count]:
        raise DataError(f"class {empty[0]} has no training image", advice="add images of it, or leave the class out")
