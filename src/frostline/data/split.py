"""Divide images into training and validation, by content, so that the same images always fall the same way."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frostline._digest import bytes_digest
from frostline.data._names import SPLITS, listed
from frostline.data.manifest import Manifest
from frostline.data.units import units_of
from frostline.errors import DataError


def ensure_splits(manifest: Manifest, digests: Sequence[str], seed: int, fraction: float = 0.2) -> Manifest:
    """The manifest with every image in a split; one that has training and validation images is returned as it is.

    The split is stratified by class. Copies of one image stay together, and so do images of one group.

    Args:
        manifest: the images.
        digests: SHA-256 of each image's content, in the order of the records.
        seed: another seed gives another split.
        fraction: share of the images of a class to validate on, between 0 and 1.

    Raises:
        DataError: some images have a split and others none, there are too few images or groups, or a class would be
            left without a training image.
        ValueError: ``digests`` or ``fraction`` is not as described.
    """
    if len(digests) != len(manifest) or not 0 < fraction < 1:
        raise ValueError(f"{len(digests)} digests for {len(manifest)} images, fraction {fraction}")
    given = {r.split for r in manifest.records}
    _check_given(given)
    divided = manifest if "val" in given else _divide(manifest, digests, seed, fraction)
    _check_trained(divided)
    return divided


def duplicates_across(manifest: Manifest, digests: Sequence[str]) -> list[tuple[Path, Path]]:
    """Images that are byte for byte in two splits: one pair for each image beyond the first split it is in.

    Args:
        manifest: the images, split.
        digests: SHA-256 of each image's content, in the order of the records.

    Returns:
        Pairs of the first copy (training before validation before test) and the copy in another split.
    """
    first: dict[str, tuple[str, Path]] = {}
    pairs: list[tuple[Path, Path]] = []
    for split in SPLITS:
        for record, digest in zip(manifest.records, digests, strict=True):
            if record.split == split:
                home, path = first.setdefault(digest, (split, record.path))
                if home != split:
                    pairs.append((path, record.path))
    return pairs


def _check_given(given: set[str | None]) -> None:
    if not given:
        raise DataError("no images")
    if None in given and len(given) > 1:
        named = listed(sorted(s for s in given if s is not None))
        raise DataError(f"some images are marked {named}, others not at all", advice="mark all of them or none")
    if None not in given and "train" not in given:
        raise DataError(f"no training images, only {listed(sorted(s for s in given if s is not None))}")


def _check_trained(manifest: Manifest) -> None:
    missing = [name for name, n in manifest.only("train").counts().items() if n == 0]
    if missing:
        fact = f"no training image is left for {listed(missing)}"
        raise DataError(fact, advice="add images of it, or give a validation set of your own")


def _divide(manifest: Manifest, digests: Sequence[str], seed: int, fraction: float) -> Manifest:
    open_ = [i for i, r in enumerate(manifest.records) if r.split in (None, "train")]
    part = replace(manifest, records=tuple(manifest.records[i] for i in open_))
    grouped = any(r.group is not None for r in part.records)
    choose = _whole_groups if grouped else _by_digest
    chosen = {open_[i] for i in choose(part, [digests[i] for i in open_], seed, fraction)}
    if not chosen:
        raise DataError("too few images to set some aside for validation", advice="add images, or give --val")
    splits = ["val" if i in chosen else r.split or "train" for i, r in enumerate(manifest.records)]
    return replace(manifest, records=tuple(replace(r, split=s) for r, s in zip(manifest.records, splits, strict=True)))


def _by_digest(manifest: Manifest, digests: Sequence[str], seed: int, fraction: float) -> list[int]:
    """Of each class the images whose seeded hashes come first. An image in two classes counts in the first."""
    owner: dict[str, int] = {}
    for digest, label in zip(digests, manifest.labels(), strict=True):
        owner[digest] = min(label, owner.get(digest, label))
    by_class: dict[int, list[str]] = {}
    for digest, label in owner.items():
        by_class.setdefault(label, []).append(digest)
    chosen: set[str] = set()
    for members in by_class.values():
        members.sort(key=lambda digest: bytes_digest(f"{seed}:{digest}".encode()))
        chosen.update(members[: min(max(1, round(fraction * len(members))), len(members) - 1)])
    return [i for i, digest in enumerate(digests) if digest in chosen]


def _whole_groups(manifest: Manifest, digests: Sequence[str], seed: int, fraction: float) -> list[int]:
    """First fold of scikit-learn's ``StratifiedGroupKFold``; a picture without a group is a group with its copies."""
    from sklearn.model_selection import StratifiedGroupKFold  # half a second, and only for this

    own = [f"image:{d}" if r.group is None else f"group:{r.group}" for r, d in zip(manifest.records, digests, strict=True)]
    groups = [own[first] for first in units_of(digests, [r.group for r in manifest.records])]  # a copy in two groups makes them one
    folds = min(max(2, round(1 / fraction)), len(set(groups)))
    if folds < 2:
        raise DataError("one group only, which cannot be split", advice="give at least two groups, or --val")
    fold = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed % 2**32)
    labels = manifest.labels()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a class is small: _check_trained decides
            _, chosen = next(iter(fold.split(labels, labels, groups)))
    except ValueError as fault:
        raise DataError(f"too few groups to split: {fault}", advice="add images, or give --val") from fault
    return [int(i) for i in chosen]
