"""``frostline extract`` fills the cache for a training; ``frostline cache`` lists, verifies and empties it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from frostline.cli.cache import verify
from frostline.features.inventory import Checked, beyond, checked, entries, older_than, remove

TINY = ("--backbone", "tiny_net:build")


@pytest.fixture
def filled(frostline, images, tmp_path):
    done = frostline("extract", images, *TINY, "--cache-dir", tmp_path / "c", "--json")
    assert done.returncode == 0, done.stderr
    return tmp_path / "c", json.loads(done.stdout)


def test_extracted_features_are_those_that_training_finds(frostline, images, filled, tmp_path):
    folder, said = filled
    assert (said["forwarded"], said["hit"], said["bytes"]) == (60, False, 60 * 8 * 4)
    done = frostline("train", images, *TINY, "--cache-dir", folder, "--out", tmp_path / "run", "--json")
    assert json.loads(done.stdout)["cache"] | {"hit": True, "forwarded": 0} == json.loads(done.stdout)["cache"]
    again = frostline("extract", images, *TINY, "--cache-dir", folder)
    assert again.stdout.startswith("0 images computed")


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("--unfreeze", "all"), "there is nothing to cache"),
        (("--augment", "light", "--views", "live"), "there is nothing to cache"),
        (("--storage", "fp8"), "--storage"),
        (("--engine", "warp"), "--engine"),
    ],
)
def test_what_cannot_be_extracted_is_refused(frostline, images, flags, what):
    done = frostline("extract", images, *TINY, *flags)
    assert done.returncode == 2
    assert what in done.stderr
    assert done.stderr.count("\n") <= 2


def test_a_cache_that_cannot_be_written_is_told_at_once_whoever_would_write(frostline, images, filled, hymenoptera, tmp_path):
    run, place = tmp_path / "run", tmp_path / "file" / "c"
    (tmp_path / "file").write_text("no folder")
    assert frostline("train", images, *TINY, "--epochs", "1", "--cache-dir", filled[0], "--out", run).returncode == 0
    for command in (("extract", hymenoptera), ("train", hymenoptera, "--out", tmp_path / "other"), ("evaluate", run, images)):
        done = frostline(*command, "--cache-dir", place, *(TINY if command[0] != "evaluate" else ()))
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith(f"frostline: {place}")
        assert "cannot be written (Not a directory)" in done.stderr
        assert "to cache:" not in done.stderr
    assert frostline("train", hymenoptera, *TINY, "--no-cache", "--epochs", "1", "--cache-dir", place, "--out", run / "b").returncode == 0


def test_extract_wants_images(frostline):
    done = frostline("extract")
    assert (done.returncode, "no images were named" in done.stderr) == (2, True)


def test_the_cache_is_listed_verified_and_emptied(frostline, filled):
    folder, _ = filled
    listed = json.loads(frostline("cache", "list", "--cache-dir", folder, "--json").stdout)
    (entry,) = listed["entries"]
    assert (entry["kind"], entry["images"]) == ("features", 60)
    assert "tiny_net:build up to backbone, plain view, fp32" in entry["what"]
    assert listed["bytes"] == entry["bytes"] >= 60 * 8 * 4
    assert "60 images" in frostline("cache", "list", "--cache-dir", folder).stdout
    assert "1 entries checked, 0 had damage" in frostline("cache", "verify", "--cache-dir", folder).stdout
    shard = next(folder.rglob("*.npy"))
    shard.write_bytes(shard.read_bytes()[:-1])
    said = json.loads(frostline("cache", "verify", "--cache-dir", folder, "--json").stdout)
    assert [d["parts"] for d in said["damaged"]] == [1]
    assert not shard.exists()
    assert "1 entries removed" in frostline("cache", "prune", "--all", "--cache-dir", folder).stdout
    assert "0 entries, 0.0 MB" in frostline("cache", "list", "--cache-dir", folder).stdout


@contextlib.contextmanager
def as_nobody():
    """Files that are root's with mode 0600 are another user's."""
    if os.name == "nt" or os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def shared(filled):
    """A filled cache in a folder that everybody may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(filled[0], Path(place) / "c")
        for path in (Path(place), *Path(place).rglob("*")):
            path.chmod(0o777)
        yield Path(place) / "c"


def test_what_another_user_does_not_let_us_read_is_not_called_damaged(shared, capsys):
    (store,) = (shared / "features").iterdir()
    (shard,) = store.glob("*.npy")
    broken, closed, engine = store.with_name("e" * 32), store.with_name("f" * 32), shared / "engines" / ("e" * 32)
    shutil.copytree(store, broken)
    shutil.copytree(store, closed)
    engine.mkdir(parents=True)
    (engine / "engine.json").write_text("{}")
    (broken / shard.name).write_bytes(b"damaged")
    for path, mode in ((shard, 0o600), (engine / "engine.json", 0o600), (closed, 0o700), (broken, 0o755)):
        path.chmod(mode)
    unreadable = Checked(unreadable=1)
    with as_nobody():
        verify(shared)
        found = {e.path: checked(e) for e in entries(shared)}
        assert remove(e for e in entries(shared) if e.path == closed) == []
    assert found == {store: unreadable, closed: unreadable, engine: unreadable, broken: Checked(damaged=1, left=1)}
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("cannot read 1 part, of another user perhaps: ") for line in said) == 3
    assert f"left 1 damaged part, in use or not to be removed: features {broken}" in said
    assert said[-1] == "4 entries checked, 1 had damage, 3 cannot be read in full"
    broken.chmod(0o777)
    with as_nobody():
        assert [checked(e) for e in entries(shared) if e.path == broken] == [Checked(damaged=1)]
    assert shard.exists()
    assert (engine / "engine.json").exists()


@pytest.mark.parametrize("flags", [(), ("--all", "--max-size", "3"), ("--max-size", "-1"), ("--max-size", "nan"), ("--older-than", "inf")])
def test_prune_wants_to_know_what(frostline, flags, tmp_path):
    done = frostline("cache", "prune", *flags, "--cache-dir", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("frostline: frostline cache prune:")


def test_the_oldest_go_first_and_what_is_in_use_stays(tmp_path):
    from filelock import FileLock

    for name, age in (("0" * 32, 9), ("f" * 32, 1)):
        folder = tmp_path / "features" / name
        folder.mkdir(parents=True)
        (folder / "key.json").write_text(json.dumps({"backbone": name}))
        moment = entries(tmp_path)[0].written - age * 86_400 if name[0] == "0" else None
        if moment:
            os.utime(folder / "key.json", (moment, moment))
    engine = tmp_path / "engines" / ("e" * 32)
    engine.mkdir(parents=True)
    (engine / "engine.json").write_text(json.dumps({"name": "openvino", "precision": "fp32", "files": {"model.bin": "0"}}))
    found = entries(tmp_path)
    assert found[0].path.name == "0" * 32
    assert [e.path.name for e in older_than(found, 5)] == ["0" * 32]
    assert older_than(found, 10) == []
    total = sum(e.bytes for e in found)
    assert beyond(found, total) == []
    assert [e.path.name for e in beyond(found, total - 1)] == ["0" * 32]
    assert beyond(found, 0) == found
    assert [checked(e).damaged for e in found if e.kind == "engine"] == [1]  # its model is missing
    assert not engine.exists()
    with FileLock(found[0].path / ".lock"):
        assert remove(found[:1]) == []
    assert remove(found[:1]) == found[:1]
    assert not Path(found[0].path).exists()


def test_what_is_not_frostlines_is_neither_listed_nor_touched(frostline, tmp_path):
    others = [tmp_path / n for n in ("backbones/my.pth", "engines/v8/block.bin", "features/mine/meta.json", f"features/{'a' * 32}/x.json")]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert entries(tmp_path) == []
    for command in (("verify",), ("prune", "--all")):
        assert frostline("cache", *command, "--cache-dir", tmp_path).returncode == 0
    assert all(p.read_text() == "mine" for p in others)
