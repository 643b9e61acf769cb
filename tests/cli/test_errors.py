"""Bad input: exit code 2 and one clear line that says what, where and what to do instead."""

from __future__ import annotations

import importlib
import shutil

import pytest
import torch
from safetensors.torch import save_file

from conftest import make_images

TINY = ("--backbone", "tiny_net:build")


def refused(done, *wanted: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("frostline: ")
    for words in wanted:
        assert words in last, last
    assert done.stdout == ""


def test_no_such_folder(frostline, tmp_path):
    (tmp_path / "pictures").mkdir()
    refused(frostline("train", tmp_path / "picturs"), "no such folder", "pictures")


def test_no_images(frostline, tmp_path):
    refused(frostline("train", tmp_path), "no images", str(tmp_path))


def test_one_class_only(frostline, tmp_path):
    refused(frostline("train", make_images(tmp_path / "d", {"ants": 3})), "one class only", "ants")


def test_unknown_backbone_with_near_names(frostline, images):
    refused(frostline("train", images, "--backbone", "resnet81"), "resnet81", "did you mean", "resnet18")


def test_unknown_torchvision_backbone_with_near_names(frostline, images):
    refused(frostline("train", images, "--backbone", "torchvision:resnet19"), "resnet19", "did you mean", "resnet18")


def test_weights_that_do_not_fit(frostline, images, tmp_path):
    save_file({"conv_stem.weight": torch.zeros(32, 3, 3, 3), "other": torch.zeros(2)}, tmp_path / "w.safetensors")
    refused(frostline("train", images, "--weights", tmp_path / "w.safetensors"), "1 of 296 tensors match", "bn1.weight", "w.safetensors")


def test_weights_file_missing(frostline, images, tmp_path):
    refused(frostline("train", images, "--weights", tmp_path / "none.pth"), "no such weights file", "none.pth")


def test_weights_not_on_disk(frostline, images):
    refused(frostline("train", images, "--backbone", "timm:resnet18"), "not on disk", "model.safetensors", "--weights FILE")


def test_torchvision_weights_not_on_disk(frostline, images):
    refused(frostline("train", images, "--backbone", "torchvision:resnet18"), "not on disk", ".pth", "--weights FILE")


def test_selector_that_matches_nothing_with_near_names(frostline, images):
    refused(frostline("train", images, "--unfreeze", "blocks.66"), "'blocks.66' matches no layer", "did you mean", "blocks.6")


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("last:0", "at least 1"),
        ("last:999", "blocks there are"),
        ("params:9999", "tensors there are"),
        ("last:x", "whole number"),
        ("", "no selector"),
    ],
)
def test_selectors_out_of_range(frostline, images, selector, words):
    refused(frostline("train", images, *TINY, "--unfreeze", selector), "--unfreeze", words)


def test_run_directory_that_exists(frostline, images, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    refused(frostline("train", images, *TINY, "--out", tmp_path / "run"), "exists already", "--out")
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_one(frostline, images):
    refused(frostline("train", images, *TINY, "--device", "cuda"), "cuda", "--device cpu")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--epochs", "0"), "--epochs"),
        (("--lr", "-1"), "--lr"),
        (("--lr", "nan"), "--lr"),
        (("--weight-decay", "-0.1"), "--weight-decay"),
        (("--batch-size", "0"), "--batch-size"),
        (("--precision", "fp8"), "--precision"),
        (("--batch-norm", "thaw"), "--batch-norm"),
        (("--strategy", "magic"), "--strategy"),
        (("--head", "tree"), "--head"),
        (("--head", "mlp:0"), "--head"),
        (("--device", "tpu"), "--device"),
        (("--epochs", "many"), "epochs"),
        (("--epoch", "3"), "--epoch"),
    ],
)
def test_settings_out_of_range(frostline, images, flags, words):
    refused(frostline("train", images, *TINY, *flags), words)


def test_all_faults_of_a_recipe_at_once(frostline, images):
    refused(frostline("train", images, "--epochs", "0", "--lr", "-1", "--precision", "fp8"), "--epochs", "--lr", "--precision")


def test_missing_argument_and_unknown_verb(frostline):
    refused(frostline("train"), "DATA", "no images were named", "--resume")
    refused(frostline("evaluate"), "Missing argument", "RUN")
    refused(frostline("tarin", "x"), "tarin")


def test_own_network_that_cannot_be_imported(frostline, images):
    refused(frostline("train", images, "--backbone", "no_such:net"), "no_such", "cannot be imported")
    refused(frostline("train", images, "--backbone", "tiny_net:biuld"), "biuld", "did you mean", "build")


def test_run_that_is_none(frostline, images, tmp_path):
    refused(frostline("evaluate", tmp_path / "none", images), "no such run directory")
    refused(frostline("predict", tmp_path, images), "is no finished run")


def test_evaluate_on_unknown_classes(frostline, images, tmp_path):
    run = tmp_path / "run"
    assert frostline("train", images, *TINY, "--epochs", "1", "--out", run, "--quiet").returncode == 0
    refused(frostline("evaluate", run, make_images(tmp_path / "other", {"blue": 2, "green": 2})), "blue")
    refused(frostline("predict", run, tmp_path / "no.jpg"), "no.jpg")


def test_damaged_run(frostline, images, tmp_path):
    run = tmp_path / "run"
    assert frostline("train", images, *TINY, "--epochs", "1", "--out", run, "--quiet").returncode == 0
    weights = run / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-500] ^= 1
    shutil.copy(weights, tmp_path / "good")
    weights.write_bytes(bytes(damaged))
    refused(frostline("predict", run, images), "backbone is not the one")
    weights.write_bytes(b"none")
    refused(frostline("predict", run, images), "damaged")


def test_a_gpu_whose_memory_runs_out_is_one_line_and_other_faults_keep_their_traceback(monkeypatch, capsys):
    module = importlib.import_module("frostline.cli.main")
    faults = iter([torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), RuntimeError("a bug")])

    def app(*given, **more):
        raise next(faults)

    monkeypatch.setattr(module, "app", app)
    monkeypatch.setattr(module.SIGNALS, "install", lambda: None)
    assert module.run(["train", "data"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "--batch-size" in said[0]
    with pytest.raises(RuntimeError, match="a bug"):
        module.run(["train", "data"])
