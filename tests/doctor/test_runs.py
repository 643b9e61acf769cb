"""A finished run: nothing is found in a sound one, and what was done to it is found in the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from conftest import make_images
from frostline import Recipe, read_run, train
from frostline._digest import tensors_digest
from frostline.doctor import examine
from frostline.errors import RunError


def make_run(folder: Path, images: Path, cache: Path | None, **settings) -> Path:
    recipe = Recipe(data=str(images), epochs=3, device="cpu", cache=cache is not None, **settings)
    train(recipe, folder, cache=cache, listen=lambda event: None, offline=True)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    return make_images(tmp_path_factory.mktemp("few") / "data", {"green": 6, "red": 6})


@pytest.fixture(scope="module")
def sound(tmp_path_factory, few, cache) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", few, cache)


@pytest.fixture
def run(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "run"))


def change(file: Path, **values) -> None:
    read = json.loads(file.read_text())
    file.write_text(json.dumps(read | values))


def only(folder: Path) -> tuple[int, str]:
    (finding,) = examine(folder, offline=True).findings
    return finding.trap, finding.evidence


def test_nothing_is_found_in_a_sound_run(sound):
    before = {p.name: p.read_bytes() for p in sound.iterdir() if p.is_file()}
    diagnosis = examine(sound, offline=True)
    assert diagnosis.findings == ()
    assert diagnosis.checked == (1, 6, 12, 15, 22)
    assert {p.name: p.read_bytes() for p in sound.iterdir() if p.is_file()} == before


def test_nothing_is_found_by_the_command(frostline, sound):
    done = frostline("doctor", sound, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["findings"] == []


def test_other_preprocessing_than_the_weights_want(run):
    change(run / "preprocess.json", mean=[0.485, 0.456, 0.406])
    assert only(run) == (12, "preprocess.json has mean [0.485, 0.456, 0.406] instead of [0.5, 0.5, 0.5]")


def test_an_audit_that_failed(run):
    audit = json.loads((run / "summary.json").read_text())["audit"]
    change(run / "summary.json", audit=audit | {"frozen_unchanged": False})
    assert only(run) == (1, "summary.json says that frozen tensors changed during training")
    change(run / "summary.json", audit=audit | {"trainable_moved": False, "still": ["head.bias"]})
    assert only(run) == (6, "summary.json says that trainable tensors did not move: head.bias")
    change(run / "summary.json", epochs_run=1)  # one step on balanced classes leaves a bias where it was
    assert examine(run, offline=True).findings == ()


def test_frozen_tensors_that_are_not_the_published_ones(run):
    """As a training that moves batch-norm statistics would write it: consistent in itself."""
    file, name = run / "model.safetensors", "bn1.running_mean"
    state = read_run(run, offline=True).model.backbone.state_dict()
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["frostline"])
    state[name] = state[name] + 0.1
    about["backbone_sha256"] = tensors_digest(state)
    save_file(load_file(file) | {f"backbone.{name}": state[name]}, file, metadata={"frostline": json.dumps(about)})
    assert only(run) == (1, "1 frozen tensor differs from the published backbone: backbone.bn1.running_mean")


def test_random_weights_by_the_recipe(tmp_path, few, cache):
    assert only(make_run(tmp_path / "run", few, cache, weights="random")) == (
        15,
        "recipe.toml asks for weights = 'random', and the backbone is frozen",
    )


def test_random_weights_of_ones_own_network_and_no_cache(tmp_path, few, tiny_module, monkeypatch):
    monkeypatch.syspath_prepend(str(tiny_module))
    random, uncached = examine(make_run(tmp_path / "run", few, None, backbone="tiny_net:build"), offline=True).findings
    assert (random.trap, random.severity) == (15, "mistake")
    assert random.evidence.startswith("2 of 2 frozen layers are as initialised: backbone.stem.1, backbone.body.1")
    assert (uncached.trap, uncached.severity) == (22, "advice")
    assert "cache = false" in uncached.evidence


def test_a_damaged_run_is_refused(run):
    (run / "model.safetensors").write_bytes(b"none")
    with pytest.raises(RunError, match="is damaged"):
        examine(run, offline=True)
