"""Nested cross-validation, and the other ways in which other images are run through what a training has left behind."""

from __future__ import annotations

import pytest

from conftest import make_images, needs_openvino
from frostline import Recipe, pipeline
from frostline.features import choice
from frostline.fitting import FeaturesReady, depth
from frostline.pipeline import extract, train


def trained(out, cache, **given):
    return train(Recipe(epochs=2, **given), out, cache=cache, listen=lambda _: None, offline=True)


@pytest.fixture
def few(monkeypatch):
    """From 40 images on another engine is made, as otherwise from 128."""
    needs_openvino()
    monkeypatch.setattr(choice, "FEWEST", 40)
    monkeypatch.setattr(choice, "LEAST_WORK", 0.0)


def test_the_depth_is_chosen_anew_in_every_fold(tiny_module, images, tmp_path, monkeypatch):
    """The whole run cuts its backbone at the depth that it chooses; the images that a fold is judged by took part in that."""
    monkeypatch.syspath_prepend(str(tiny_module))
    met = []
    real = depth.at_depths
    monkeypatch.setattr(depth, "at_depths", lambda opened: met.append(real(opened).names) or real(opened))
    told = trained(tmp_path / "run", tmp_path / "cache", data=str(images), backbone="tiny_net:build", head="linear@auto", nested=2)
    assert told["nested"]["n"] == 60
    assert len(met) == 3
    assert len({tuple(names) for names in met}) == 1
    assert len(met[0]) > 1


@pytest.mark.parametrize("head", ["linear@all", "linear@stem.0", "conv:4"])
def test_the_models_of_the_folds_are_that_of_the_run(tiny_module, images, tmp_path, monkeypatch, head):
    """What the head had made of the backbone is not made of it once more."""
    monkeypatch.syspath_prepend(str(tiny_module))
    met = []
    fit = pipeline._fit
    monkeypatch.setattr(pipeline, "_fit", lambda recipe, model, *rest: met.append(model) or fit(recipe, model, *rest))
    trained(tmp_path / "run", tmp_path / "cache", data=str(images), backbone="tiny_net:build", head=head, nested=2)
    assert len(met) == 3
    assert len({tuple((n, tuple(t.shape)) for n, t in m.state_dict().items()) for m in met}) == 1
    assert len({m.opened.architecture for m in met}) == 1


def test_after_another_engine_has_run_all_images(few, tmp_path):
    """The folds have so few that the rule gives them the network itself, which therefore is opened."""
    data = make_images(tmp_path / "data", {"green": 22, "red": 22})
    first = trained(tmp_path / "first", tmp_path / "cache", data=str(data))
    assert first["engine"]["name"] == "openvino"
    assert trained(tmp_path / "second", tmp_path / "cache", data=str(data), nested=2)["nested"]["n"] == 44


def test_what_is_extracted_is_what_training_takes(few, tmp_path):
    """Training chooses its engine by the images of training and validation; a test has none to add."""
    for split, count, seed in (("train", 12, 0), ("val", 4, 1), ("test", 12, 2)):
        make_images(tmp_path / "data" / split, {"green": count, "red": count}, seed)
    recipe = Recipe(data=str(tmp_path / "data"))
    ready = extract(recipe, cache=tmp_path / "cache", listen=lambda _: None, offline=True)
    assert isinstance(ready, FeaturesReady)
    assert ready.engine["name"] == "plain"
    told = trained(tmp_path / "run", tmp_path / "cache", data=str(tmp_path / "data"))
    assert told["cache"]["hit"]
