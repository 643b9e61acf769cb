"""Listeners show and write what training tells, and change nothing."""

from __future__ import annotations

import io
import json

import pytest
import torch

import frostline as fl
from conftest import said_without
from frostline.data import read_data
from frostline.features import ImageSet
from frostline.listening import ProgressBar


def scalars(folder):
    """What the event files in a folder say: tag to (step, value) pairs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_the_board_has_the_numbers_of_the_history(frostline, images, tmp_path):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    flags = ("--backbone", "tiny_net:build", "--strategy", "lp-ft", "--epochs", "2", "--log", "tensorboard", "--json", "--out", run)
    done = frostline("train", images, *flags)
    assert done.returncode == 0, done.stderr
    assert "log" not in (run / "recipe.toml").read_text()
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(history) == 4
    written = scalars(run / "tensorboard")
    names = {"loss/train": "train_loss", "accuracy/validation": "val_accuracy", "learning rate/head": "lr"}
    for tag, key in names.items():
        assert [step for step, _ in written[tag]] == [1, 2, 3, 4]
        assert [value for _, value in written[tag]] == pytest.approx([row[key] for row in history], rel=1e-6)


def test_another_logger_is_refused(frostline, images, tmp_path):
    done = frostline("train", images, "--log", "wandb", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("frostline: --log: nothing is written for 'wandb'; use tensorboard")
    assert not (tmp_path / "run").exists()


def test_a_board_without_its_package_says_what_to_install(tmp_path):
    said = said_without("tensorboard", "from frostline.listening import TensorBoard\nTensorBoard(None)", tmp_path)
    assert said == 'ExtraError --log: tensorboard is not installed; pip install "frostline[tensorboard]"'


def test_a_bar_shows_every_epoch_and_changes_nothing(tiny, images):
    known = ImageSet.of(read_data(images))
    heads = []
    for bar in (None, ProgressBar(shown := io.StringIO())):
        model = fl.TransferModel(tiny(), num_classes=2)
        for event in fl.fit(model, fl.FreezePlan(), known, known, epochs=3):
            if bar is not None:
                bar(event)
        heads.append(model.head.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(heads[0].values(), heads[1].values(), strict=True))
    said = shown.getvalue()
    assert "plain: 100%" in said
    assert "3/3" in said
    assert "loss=" in said
    assert "features: 100%" in said
