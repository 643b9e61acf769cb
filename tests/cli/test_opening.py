"""What ``frostline train`` says before it begins and when it is done."""

from __future__ import annotations

import json

import pytest

from frostline import Recipe
from frostline.cli.opening import opening

TINY = ["--backbone", "tiny_net:build", "--weights", "random"]


@pytest.fixture(scope="module")
def done(frostline, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("opening") / "run"
    return frostline("train", images, *TINY, "--epochs", "2", "--out", out), out


def test_it_says_what_it_will_do_before_it_does_it(done):
    said, out = done
    lines = said.stderr.splitlines()
    assert lines[:4] == [
        "images      train 48, val 12; to train on green: 24, red: 24",
        "backbone    tiny_net:build, RANDOM weights, unfreeze none",
        "head        linear",
        f"run         {out}",
    ]
    assert lines[4].startswith("2 tensors trained, 8 frozen; cut at backbone")
    assert lines[5] == "at most 2 epochs of 48 images in batches of 32, rate 0.003"
    assert lines[6].startswith("to cache: 60 images") or lines[6].startswith("features: ")


def test_it_says_what_comes_next(done):
    said, out = done
    following = said.stdout[said.stdout.index("next\n") :].splitlines()[1:]
    assert [line.split()[1] for line in following] == ["report", "predict", "serve", "advise"]
    assert all(str(out) in line for line in following[:3])


def test_json_stays_one_object_and_quiet_says_nothing(frostline, images, tmp_path):
    said = frostline("train", images, *TINY, "--epochs", "1", "--json", "--quiet", "--out", tmp_path / "run")
    assert json.loads(said.stdout)["epochs"] == 1
    assert said.stderr == ""


def test_what_is_refused_is_one_line_alone(frostline, images, tmp_path):
    said = frostline("train", images, *TINY, "--unfreeze", "from:nowhere", "--out", tmp_path / "run")
    assert said.returncode == 2
    assert len(said.stderr.splitlines()) == 1


def test_many_classes_are_counted_together():
    many = {"train": {str(i): 3 + i for i in range(20)}, "val": dict.fromkeys(map(str, range(20)), 1), "test": {}}
    recipe = Recipe(data="D", sweep=64, strategy="gradual", augment="light", views="4", budget="90s", weights="w.safetensors")
    lines = opening(recipe, "runs/x", many)
    assert lines[0] == "images      train 250, val 20; 20 classes, 3 to 22 of each to train on"
    assert lines[1] == "backbone    tf_efficientnet_lite0, weights of w.safetensors, unfreeze none"
    assert lines[2] == "head        linear, the best of 64, strategy gradual, augment light, views 4, within 90s"
