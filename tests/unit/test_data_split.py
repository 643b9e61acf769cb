from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from frostline._digest import bytes_digest
from frostline.data.manifest import ImageRecord, Manifest
from frostline.data.split import duplicates_across, ensure_splits
from frostline.errors import DataError


def manifest(*labels: int | None, splits: list[str | None] | None = None, groups: list[str | None] | None = None) -> Manifest:
    n = len(labels)
    rows = zip(range(n), labels, splits or [None] * n, groups or [None] * n, strict=True)
    records = tuple(ImageRecord(Path(f"{i}.jpg"), label, split, group) for i, label, split, group in rows)
    return Manifest(tuple("abc"[: 1 + max((x for x in labels if x is not None), default=1)]), records)


def digests(n: int) -> list[str]:
    return [bytes_digest(str(i).encode()) for i in range(n)]


def val_of(divided: Manifest) -> set[Path]:
    return {r.path for r in divided.only("val").records}


def test_manifest():
    m = manifest(0, 2, 2, splits=["train", "train", "val"])
    assert len(m) == 3
    assert m.labels() == [0, 2, 2]
    assert m.counts() == {"a": 1, "b": 0, "c": 2}
    assert m.only("val").labels() == [2]
    assert m.only("test").classes == m.classes


def test_labels_that_are_missing():
    with pytest.raises(DataError, match="1 of 2 images have no label"):
        manifest(0, None).labels()


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_each_class_gives_its_share(fraction: float):
    m = manifest(*[0] * 100, *[1] * 30, *[2] * 2)
    val = ensure_splits(m, digests(132), 0, fraction).only("val")
    assert val.counts() == {"a": round(100 * fraction), "b": round(30 * fraction), "c": 1}


def test_the_split_depends_on_content_and_seed_only():
    m, d = manifest(*[0, 1] * 50), digests(100)
    one = val_of(ensure_splits(m, d, 1))
    assert one == val_of(ensure_splits(m, d, 1))
    assert one != val_of(ensure_splits(m, d, 2))
    backwards = replace(m, records=m.records[::-1])
    assert one == val_of(ensure_splits(backwards, d[::-1], 1))


def test_moving_files_moves_none_between_splits():
    m, d = manifest(*[0, 1] * 50), digests(100)
    before = val_of(ensure_splits(m, d, 0))
    renamed = replace(m, records=tuple(replace(r, path=Path("moved") / r.path) for r in m.records))
    assert {Path("moved") / p for p in before} == val_of(ensure_splits(renamed, d, 0))


@pytest.mark.parametrize("seed", range(20))
def test_copies_stay_together(seed: int):
    d = [x for x in digests(20) for _ in range(3)]
    labels = [i // 30 for i in range(60)]
    labels[0] = 1  # a copy of one image in another class
    divided = ensure_splits(manifest(*labels), d, seed)
    assert duplicates_across(divided, d) == []
    assert divided.only("val").counts().keys() == {"a", "b"}


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_groups_stay_together(seed: int):
    groups = [f"p{i // 4}" for i in range(80)]
    labels = [(i // 4) % 2 for i in range(80)]
    m, d = manifest(*labels, groups=list(groups)), digests(80)
    divided = ensure_splits(m, d, seed)
    sides = {(r.group, r.split) for r in divided.records}
    assert len(sides) == 20
    assert Counter(r.split for r in divided.records) == {"train": 64, "val": 16}
    assert divided.only("val").counts() == {"a": 8, "b": 8}
    assert divided == ensure_splits(m, d, seed)


def test_a_copy_in_two_groups_makes_them_one():
    groups = [f"p{i // 4}" for i in range(80)]
    content = digests(80)
    content[4] = content[77]  # one picture in p1 and in p19
    content[9] = content[33]  # and one in p2 and p8
    for seed in range(4):
        divided = ensure_splits(manifest(*[i % 2 for i in range(80)], groups=list(groups)), content, seed)
        split_of = {r.group: r.split for r in divided.records}
        assert split_of["p1"] == split_of["p19"]
        assert split_of["p2"] == split_of["p8"]
        assert not duplicates_across(divided, content)


def test_images_without_a_group_are_alone():
    groups = ["p", "p", *[None] * 38]
    divided = ensure_splits(manifest(*[0, 1] * 20, groups=groups), digests(40), 0)
    assert divided.records[0].split == divided.records[1].split
    assert len(val_of(divided)) in (7, 8, 9)


def test_given_splits_are_kept():
    m = manifest(0, 1, 0, splits=["train", "train", "val"])
    assert ensure_splits(m, digests(3), 0) is m


def test_validation_comes_from_train_and_leaves_test_alone():
    m = manifest(*[0, 1] * 10, splits=["train"] * 10 + ["test"] * 10)
    divided = ensure_splits(m, digests(20), 0)
    assert [r.split for r in divided.records[10:]] == ["test"] * 10
    assert Counter(r.split for r in divided.records) == {"train": 8, "val": 2, "test": 10}


@pytest.mark.parametrize(
    ("m", "fact"),
    [
        (Manifest(("a", "b"), ()), "no images"),
        (manifest(0, 1, splits=["train", None]), "some images are marked train"),
        (manifest(0, 1, splits=["val", "test"]), "no training images"),
        (manifest(0, 1), "too few images"),
        (manifest(0, 0, 1, splits=["train", "train", "val"]), "no training image is left for b"),
        (manifest(0, 1, 0, 1, groups=["p"] * 4), "one group only"),
        (manifest(0, 0, 0, 1, 1, 1, groups=["p"] * 3 + ["q"] * 3), "no training image is left"),
    ],
)
def test_refused(m: Manifest, fact: str):
    with pytest.raises(DataError, match=fact):
        ensure_splits(m, digests(len(m)), 0)


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="1 digests for 2 images"):
        ensure_splits(manifest(0, 1), digests(1), 0)
    with pytest.raises(ValueError, match="fraction"):
        ensure_splits(manifest(0, 1), digests(2), 0, 1.0)


def test_planted_duplicates_are_counted_exactly():
    m = manifest(0, 1, 0, 1, 0, 1, splits=["test", "train", "val", "val", "train", "test"])
    d = ["x", "x", "x", "y", "z", "y"]
    assert [(a.name, b.name) for a, b in duplicates_across(m, d)] == [("1.jpg", "2.jpg"), ("1.jpg", "0.jpg"), ("3.jpg", "5.jpg")]
