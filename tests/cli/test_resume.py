"""``frostline train --resume``: after a signal, after kill -9, across an unfreeze; the same bytes as without an interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from PIL import Image

from conftest import make_images

SLOW = ("--backbone", "tiny_net:build", "--strategy", "gradual", "--unfreeze", "last:2", "--epochs", "40", "--batch-size", "4")


@pytest.fixture(scope="module")
def environment(tiny_module):
    return {**os.environ, "PYTHONPATH": str(tiny_module)}


@pytest.fixture(scope="module")
def run(frostline):
    return partial(frostline, "train")


@pytest.fixture(scope="module")
def whole(run, images, tmp_path_factory):
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = run(images, *SLOW, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def begun(environment, images, folder, until):
    """Start a run and wait for a line of its progress."""
    command = [sys.executable, "-m", "frostline", "train", str(images), *SLOW, "--out", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    for line in process.stderr:
        if line.startswith(until):
            return process
    raise AssertionError(f"{until!r} never came")


def epochs(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize(
    ("number", "code", "until"),
    [
        (signal.SIGINT, 130, "phase 1"),
        (signal.SIGTERM, 75, "phase 3"),
        pytest.param(signal.SIGTERM, 75, "phase 1", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, "phase 3", marks=pytest.mark.slow),
    ],
)
def test_a_signal_writes_a_checkpoint_and_resuming_gives_the_same_bytes(environment, run, images, whole, tmp_path, number, code, until):
    folder = tmp_path / "run"
    process = begun(environment, images, folder, until)
    time.sleep(0.3 if until == "phase 1" else 0.05)  # the last phase is soon over, and behind it there is nothing to stop
    process.send_signal(number)
    began = time.monotonic()
    _, rest = process.communicate(timeout=30)
    assert process.returncode == code
    assert time.monotonic() - began < 6
    assert rest.strip().splitlines()[-1].endswith(f"go on with: frostline train --resume {folder}")
    assert "Traceback" not in rest
    assert not (folder / "summary.json").exists()
    assert list((folder / "checkpoints").glob("*.safetensors"))
    done = run("--resume", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert epochs(folder) == epochs(whole)
    said, theirs = json.loads(done.stdout), json.loads((whole / "summary.json").read_text())
    assert (said["val"], said["phases"], said["audit"]) == (theirs["val"], theirs["phases"], theirs["audit"])
    assert not (folder / "checkpoints").exists()


def test_after_kill_9_the_run_goes_on_from_its_start_or_a_checkpoint(environment, run, images, whole, tmp_path):
    folder = tmp_path / "run"
    process = begun(environment, images, folder, "phase 2")
    process.kill()
    process.wait(30)
    assert run(images, *SLOW, "--out", folder, "--resume", folder).returncode == 0
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def interrupted(environment, images, tmp_path_factory):
    """A copy of images and a run on them that was interrupted; not to be gone on with."""
    home = tmp_path_factory.mktemp("interrupted")
    shutil.copytree(images, home / "data")
    process = begun(environment, home / "data", home / "run", "phase 3")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75
    return home


def refused(done, *words):
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    line = done.stderr.strip()
    assert "\n" not in line, line
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--epochs", "41"), ("--epochs", "begun with 40, not 41")),
        (("--unfreeze", "last:1"), ("--unfreeze", "last:2")),
        (("--precision", "bf16"), ("--precision",)),
        (("--backbone", "timm:resnet18"), ("--backbone", "tiny_net:build")),
        (("--out", "elsewhere"), ("--out", "where it lies")),
    ],
)
def test_flags_that_differ_are_refused_and_change_nothing(run, interrupted, flags, words):
    before = {p: p.read_bytes() for p in (interrupted / "run").rglob("*") if p.is_file()}
    refused(run("--resume", interrupted / "run", *flags, "--quiet"), *words)
    assert {p: p.read_bytes() for p in (interrupted / "run").rglob("*") if p.is_file()} == before


def test_other_data_is_refused(run, images, interrupted, tmp_path):
    refused(run(images, "--resume", interrupted / "run", "--quiet"), "DATA", "was begun with")
    shutil.copytree(interrupted / "run", tmp_path / "run")
    path = interrupted / "data" / "red" / "000.png"
    good = path.read_bytes()
    try:
        Image.new("RGB", (40, 40)).save(path)
        refused(run("--resume", tmp_path / "run", "--quiet"), "data is not what the run was begun with")
    finally:
        path.write_bytes(good)
    make_images(interrupted / "data", {"blue": 4})
    try:
        refused(run("--resume", tmp_path / "run", "--quiet"), "classes is not what", "green")
    finally:
        shutil.rmtree(interrupted / "data" / "blue")


def test_the_newest_checkpoint_damaged_is_said_and_the_one_before_is_used(run, interrupted, whole, tmp_path):
    shutil.copytree(interrupted / "run", tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    done = run("--resume", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert f"checkpoint {newest.stem} is damaged" in done.stderr
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_where_nothing_can_be_gone_on_with(run, images, whole, interrupted, tmp_path):
    refused(run("--resume", tmp_path / "none"), "no such run directory")
    refused(run("--resume", whole), "is finished")
    (tmp_path / "empty").mkdir()
    refused(run("--resume", tmp_path / "empty"), "recipe.toml is missing")
    refused(run(images, *SLOW, "--out", interrupted / "run"), "was interrupted", "--resume")
    refused(run(), "DATA", "no images were named")


def test_a_run_that_failed_before_its_first_step_does_not_block_its_folder(run, images, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(images, tmp_path / "data")
    for path in (tmp_path / "data" / "red").iterdir():
        path.write_text("no picture")
    refused(
        run(tmp_path / "data", "--backbone", "tiny_net:build", "--out", folder, "--quiet"),
        "class red, that of ",
        "no readable training image",
    )
    assert run(images, "--backbone", "tiny_net:build", "--epochs", "1", "--out", folder).returncode == 0
