"""A zoo of folders, each with its declared outcome."""

import os
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from frostline.data.folder import read_folder, read_labelled_folder
from frostline.errors import DataError


def grow(root: Path, files: Iterable[str]) -> Path:
    root.mkdir(exist_ok=True)
    for name in files:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode(errors="surrogateescape"))
    return root


REFUSED = {
    "nothing": ([], "no images"),
    "loose images": (["1.jpg", "2.png"], "2 image files but no class folders; sort them into one folder a class"),
    "empty classes": (["a/", "b/"], "no images"),
    "one class": (["a/1.jpg"], "one class only"),
    "one class and an empty one": (["a/1.jpg", "b/"], "one class only"),
    "only dot files": (["a/.1.jpg", ".b/1.jpg"], "no images"),
    "twins": (["caf\u00e9/1.jpg", "cafe\u0301/1.jpg"], r"'caf\xe9'"),
    "val knows more": (["train/a/1", "train/b/1", "val/c/1"], "classes unknown to training: c"),
    "test knows more": (["train/a/1", "train/b/1", "test/ab/1"], "did you mean"),
    "val and valid": (["train/a/1", "train/b/1", "val/a/1", "valid/a/1"], "both val and valid"),
    "no train": (["val/a/1", "test/a/1"], "no train folder"),
    "one class in train": (["train/a/1", "val/a/1"], "one class only"),
    "train empty": (["train/a/", "val/a/1"], "no images"),
    "a split or a class": (["train/a/1", "plane/1"], "lies beside plane"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str):
    files, fact = REFUSED[name]
    with pytest.raises(DataError) as caught:
        read_folder(grow(tmp_path / "data", files))
    assert fact in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_no_such_folder_names_the_near_one(tmp_path: Path):
    grow(tmp_path / "ants_bees", ["a/1", "b/1"])
    with pytest.raises(DataError, match=r"no such folder; did you mean ants_bees\?"):
        read_folder(tmp_path / "ant_bees")


def test_a_file_is_no_folder(tmp_path: Path):
    (tmp_path / "data").write_text("")
    with pytest.raises(DataError, match="is a file"):
        read_folder(tmp_path / "data")


def test_class_folders(tmp_path: Path):
    root = grow(tmp_path / "data", ["b/2.jpg", "b/10.jpg", "a/deep/er/3.jpg", "B/1", "a/.hidden", "empty/", "readme.txt", ".git/x/1"])
    manifest = read_folder(root)
    assert manifest.classes == ("B", "a", "b")
    assert [(r.path.relative_to(root).as_posix(), r.label, r.split) for r in manifest.records] == [
        ("B/1", 0, None),
        ("a/deep/er/3.jpg", 1, None),
        ("b/10.jpg", 2, None),
        ("b/2.jpg", 2, None),
    ]
    assert any("empty class folder" in note and "empty" in note for note in manifest.notes)
    assert any("readme.txt" in note for note in manifest.notes)


@pytest.mark.parametrize("alias", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path: Path, alias: str):
    root = grow(tmp_path / "data", ["train/a/1", "train/b/1", f"{alias}/b/2", "test/a/3", "docs/x/1"])
    manifest = read_folder(root)
    assert [(r.path.name, r.label, r.split) for r in manifest.records] == [
        ("1", 0, "train"),
        ("1", 1, "train"),
        ("2", 1, "val"),
        ("3", 0, "test"),
    ]
    assert any("beside the splits" in note for note in manifest.notes)


def test_a_flat_test_folder_is_noted_and_ignored(tmp_path: Path):
    manifest = read_folder(grow(tmp_path / "data", ["train/a/1", "train/b/1", "test/1.jpg"]))
    assert {r.split for r in manifest.records} == {"train"}
    assert "test/1.jpg" in "".join(manifest.notes)


def test_a_class_may_be_called_train(tmp_path: Path):
    assert read_folder(grow(tmp_path / "data", ["train/1", "plane/1"])).classes == ("plane", "train")


@pytest.mark.parametrize("name", ["<script>alert(1)", "a b", "-rf", "$(reboot)", "new\nline", "\x1b[31mred", "名前"])
def test_class_names_are_only_names(tmp_path: Path, name: str):
    root = grow(tmp_path / "data", ["plain/1", f"{name}/1", "empty\n/"])
    manifest = read_folder(root)
    assert name in manifest.classes
    assert all(note.isprintable() for note in manifest.notes)


def test_names_that_are_no_utf8(tmp_path: Path):
    name = os.fsdecode(b"caf\xe9")
    manifest = read_folder(grow(tmp_path / "data", [f"{name}/{name}.jpg", "b/1"]))
    assert name in manifest.classes
    with pytest.raises(DataError, match="one class only") as caught:
        read_folder(grow(tmp_path / "other", [f"{name}/1"]))
    assert str(caught.value).encode()


def test_links(tmp_path: Path):
    outside = grow(tmp_path / "outside", ["secret.jpg", "more/1"])
    root = grow(tmp_path / "data", ["a/1", "b/1"])
    (root / "a" / "inside").symlink_to(root / "b" / "1")
    (root / "a" / "escape").symlink_to(outside / "secret.jpg")
    (root / "a" / "loop").symlink_to(root)
    (root / "b" / "self").symlink_to(root / "b")
    (root / "b" / "broken").symlink_to(root / "nothing")
    (root / "b" / "circle").symlink_to(root / "b" / "circle")
    (root / "c").symlink_to(outside / "more")
    manifest = read_folder(root)
    assert [r.path.relative_to(root).as_posix() for r in manifest.records] == ["a/1", "a/inside", "b/1"]
    notes = "\n".join(manifest.notes)
    assert "2 x link that leaves the folder" in notes
    assert "2 x link to a folder" in notes
    assert "link to nothing" in notes


def test_the_root_may_be_a_link_and_a_neighbour_is_outside(tmp_path: Path):
    root = grow(tmp_path / "data", ["a/1", "b/1"])
    grow(tmp_path / "data2", ["x"])
    (root / "a" / "x").symlink_to(tmp_path / "data2" / "x")
    (tmp_path / "link").symlink_to(root)
    assert len(read_folder(tmp_path / "link")) == 2


def test_what_is_no_regular_file_is_no_image(tmp_path: Path):
    root = grow(tmp_path / "data", ["a/1", "b/1"])
    os.mkfifo(root / "a" / "pipe")
    assert len(read_folder(root)) == 2


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = grow(tmp_path / "data", ["a/1", "b/1"])
    scandir = os.scandir

    def refuse(folder: Path):
        if folder.name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cannot be listed: Permission denied"):
        read_folder(root)


@pytest.mark.slow
def test_twenty_thousand_classes(tmp_path: Path):
    for i in range(20_000):
        (tmp_path / f"{i:05}").mkdir()
        (tmp_path / f"{i:05}" / "1.jpg").touch()
    tracemalloc.start()
    try:
        assert len(read_folder(tmp_path).classes) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 500e6
    finally:
        tracemalloc.stop()


def test_nothing_is_written(tmp_path: Path):
    root = grow(tmp_path / "data", ["a/1", "b/1"])
    before = sorted(tmp_path.rglob("*"))
    read_folder(root)
    assert sorted(tmp_path.rglob("*")) == before


def test_labels_go_by_name(tmp_path: Path):
    root = grow(tmp_path / "data", ["b/1"])
    manifest = read_labelled_folder(root, ["a", "b"])
    assert [(r.label, r.split) for r in manifest.records] == [(1, None)]
    assert manifest.classes == ("a", "b")


def test_labels_keep_a_strange_order(tmp_path: Path):
    root = grow(tmp_path / "data", ["a/1", "b/1"])
    assert [r.label for r in read_labelled_folder(root, ("b", "z", "a")).records] == [2, 0]


@pytest.mark.parametrize("splits", [["test", "val", "train"], ["validation", "train"]])
def test_of_splits_the_best_is_measured(tmp_path: Path, splits: list[str]):
    root = grow(tmp_path / "data", [f"{s}/a/{s}.jpg" for s in splits])
    manifest = read_labelled_folder(root, ["a", "b"])
    assert [r.path.name for r in manifest.records] == [f"{splits[0]}.jpg"]
    assert f"measured on {splits[0]}" in manifest.notes[0]


@pytest.mark.parametrize(
    ("files", "fact"),
    [
        (["a/1", "c/1"], "classes unknown to training: c"),
        (["ant/1", "a/1"], "unknown to training"),
        (["train/a/1"], "unknown to training: train"),
        (["1.jpg"], "sort them into one folder a class"),
        (["a/"], "no images"),
    ],
)
def test_labelled_refused(tmp_path: Path, files: list[str], fact: str):
    with pytest.raises(DataError, match=fact):
        read_labelled_folder(grow(tmp_path / "data", files), ["a", "ants"])
