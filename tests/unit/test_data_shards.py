"""Images in tar files: the same images as in folders; what is hostile or damaged is refused."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest

import frostline as fl
from frostline.data.decode import read_image_bytes
from frostline.data.read import read_data, read_labelled
from frostline.errors import DataError, DecodeError
from frostline.features.images import digest_files


def add(tar, name, data=b"", **about):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in about.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def write_shards(files, folder, count=2, kind="cls"):
    """The images dealt to ``count`` tar files, labelled by the name of their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(count):
        with tarfile.open(folder / f"shards-{shard:03}.tar", "w") as tar:
            for number, path in list(enumerate(files))[shard::count]:
                label = path.parent.name
                add(tar, f"a/{number:05}.png", path.read_bytes())
                add(tar, f"a/{number:05}.{kind}", label.encode() if kind == "cls" else json.dumps({"label": label}).encode())
    return folder


@pytest.fixture(scope="module")
def files(images):
    return sorted(images.rglob("*.png"))


@pytest.fixture
def shards(files, tmp_path):
    return write_shards(files, tmp_path / "shards")


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_the_images_are_those_of_the_folder(files, images, tmp_path, kind):
    manifest = read_data(write_shards(files, tmp_path / "shards", kind=kind))
    assert manifest.classes == read_data(images).classes
    records = [(read_image_bytes(r.path), manifest.classes[r.label]) for r in manifest.records]
    assert sorted(records) == sorted((p.read_bytes(), p.parent.name) for p in files)
    assert sorted(digest_files([r.path for r in manifest.records])) == sorted(digest_files(files))


def test_a_row_of_shards_one_shard_and_splits(shards, files, tmp_path):
    assert read_data(tmp_path / "shards" / "shards-{000..001}.tar").records == read_data(shards).records
    assert len(read_data(shards / "shards-000.tar")) == 30
    write_shards(files[::2], tmp_path / "split" / "train")
    write_shards(files[1::2], tmp_path / "split" / "val", count=1)
    manifest = read_data(tmp_path / "split")
    assert [len(manifest.only(s)) for s in ("train", "val", "test")] == [30, 30, 0]
    assert len(read_labelled(tmp_path / "split", manifest.classes)) == 30
    with pytest.raises(DataError, match="unknown to training: green"):
        read_labelled(shards, ["blue", "red"])


def test_a_folder_with_one_tar_file_among_classes_is_a_folder(images, tmp_path):
    for name in ("green", "red"):
        (tmp_path / "d" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name / "1.png").write_bytes(next((images / name).iterdir()).read_bytes())
    with tarfile.open(tmp_path / "d" / "old.tar", "w"):
        pass
    assert len(read_data(tmp_path / "d")) == 2


def test_training_finds_the_features_of_the_folder(files, images, shards, tiny, tmp_path):
    compute = fl.Compute(tmp_path / "cache", engine="plain")
    hits = []
    for data in (images, shards):
        events = list(fl.fit(fl.TransferModel(tiny()), fl.FreezePlan("none"), str(data), str(data), epochs=1, compute=compute))
        hits += [e.extracted.hit for e in events if type(e).__name__ == "FeaturesReady"]
    assert hits == [False, True]


def test_a_run_on_shards(shards, frostline, tmp_path):
    common = ("--backbone", "tiny_net:build", "--epochs", "2", "--quiet", "--json", "--out", tmp_path / "run")
    done = frostline("train", tmp_path / "shards" / "shards-{000..001}.tar", *common)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["classes"], summary["train"]["n"] + summary["val"]["n"]) == (["green", "red"], 60)
    clf = fl.ImageClassifier.load(tmp_path / "run")
    assert clf.score(shards) == pytest.approx(np.mean(clf.predict([r.path for r in read_data(shards).records]) == labels(shards)))


def test_what_is_made_of_a_run_on_shards_shows_and_checks_its_pictures(shards, frostline, tmp_path):
    run = tmp_path / "run"
    for command in (
        ("train", shards, "--backbone", "tiny_net:build", "--epochs", "1", "--out", run),
        ("report", run),
        ("export", run, "--format", "torch-export", "--json"),
        ("data", shards, "--backbone", "tiny_net:build", "--json"),
    ):
        done = frostline(*command)
        assert done.returncode == 0, done.stderr
        if command[0] == "export":
            assert json.loads(done.stdout)["checked_on"]["pictures"].endswith("images of the run")
    page = (run / "report.html").read_text()
    assert "data:image/jpeg" in page
    assert "not there any more" not in page


def labels(shards):
    manifest = read_data(shards)
    return np.array([manifest.classes[r.label] for r in manifest.records])


def hostile(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, data, about in members:
            add(tar, name, data, **about)
    return path


GOOD = [("1.png", b"x", {}), ("1.cls", b"a", {}), ("2.png", b"y", {}), ("2.cls", b"b", {})]


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (("../out.png", b"x", {}), "leads out of the shard"),
        (("/etc/passwd.png", b"x", {}), "leads out of the shard"),
        (("3.png", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}), "is a link or a device"),
        (("3.png", b"", {"type": tarfile.LNKTYPE, "linkname": "1.png"}), "is a link or a device"),
        (("3.png", b"", {"type": tarfile.CHRTYPE}), "is a link or a device"),
        (("1.png", b"z", {}), "twice"),
        (("3.png", b"x", {}), "has no label"),
        (("1.cls", b" ", {}), "twice"),
    ],
)
def test_hostile_members(tmp_path, member, said):
    with pytest.raises(DataError, match=said):
        read_data(hostile(tmp_path / "a.tar", *GOOD, member))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("3.cls", b"\xff\xfe", "no cls file"),
        ("3.json", b"{", "no json file"),
        ("3.json", b"[1]", "names no label"),
        ("3.json", b"[" * 100_000, "no json file"),
        ("3.cls", b"a" * (2 << 20), "too many for a label"),
    ],
)
def test_labels_that_are_none(tmp_path, name, data, said):
    with pytest.raises(DataError, match=said):
        read_data(hostile(tmp_path / "a.tar", *GOOD, ("3.png", b"z", {}), (name, data, {})))


def test_shards_that_are_damaged_or_missing(shards, tmp_path):
    whole = (shards / "shards-000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    with pytest.raises(DataError, match=r"cut\.tar: (ends inside|is no tar file)"):
        read_data(tmp_path / "cut.tar")
    (tmp_path / "text.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(DataError, match="is no tar file"):
        read_data(tmp_path / "text.tar")
    with pytest.raises(DataError, match="1 of 3 shards are missing"):
        read_data(shards / "shards-{000..002}.tar")
    with pytest.raises(DataError, match="no range"):
        read_data(shards / "shards-{5..1}.tar")
    hostile(tmp_path / "empty.tar")
    with pytest.raises(DataError, match="no images in the shards"):
        read_data(tmp_path / "empty.tar")
    write_shards([], shards / "val")
    hostile(shards / "val" / "x.tar", *GOOD)
    with pytest.raises(DataError, match="beside the splits"):
        read_data(shards)


def test_a_shard_that_is_damaged_meanwhile(shards):
    path = read_data(shards).records[0].path
    (shards / "shards-000.tar").write_bytes(b"gone" * 300)
    with pytest.raises(DecodeError, match="is no tar file"):
        read_image_bytes(path)
    (shards / "shards-000.tar").unlink()
    with pytest.raises(DecodeError, match="cannot be read"):
        read_image_bytes(path)
