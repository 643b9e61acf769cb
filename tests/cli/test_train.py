"""The command line on real and on small images: JSON keys, files, counts, exit codes."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from safetensors import safe_open

TINY = ("--backbone", "tiny_net:build")
FILES = {
    "recipe.toml",
    "summary.json",
    "metrics.jsonl",
    "split.csv",
    "model.safetensors",
    "familiar.safetensors",
    "labels.json",
    "preprocess.json",
    "environment.json",
}


@pytest.fixture(scope="module")
def run(frostline, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = frostline("train", images, *TINY, "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_json_has_the_keys_of_the_contract(run):
    _, said = run
    for key in (
        "run",
        "classes",
        "backbone",
        "unfreeze",
        "head",
        "strategy",
        "trainable_parameters",
        "frozen_parameters",
        "epochs",
        "best_epoch",
        "train",
        "val",
        "test",
        "cache",
        "seconds",
        "images_skipped",
        "audit",
    ):
        assert key in said
    assert set(said["val"]) >= {"n", "accuracy", "interval", "log_loss"}
    assert set(said["cache"]) >= {"cut", "hit", "bytes"}
    assert set(said["seconds"]) >= {"total", "startup", "features", "train", "write"}
    assert 0 < said["seconds"]["write"] < said["seconds"]["total"]
    assert said["classes"] == ["green", "red"]
    assert said["train"]["n"] == 48
    assert said["val"]["n"] == 12
    assert said["test"] is None
    assert said["trainable_parameters"] == 8 * 2 + 2
    assert said["audit"] == {"frozen_unchanged": True, "trainable_moved": True, "frozen_tensors": 14, "still": []}


def test_the_task_is_learnt(run):
    assert run[1]["val"]["accuracy"] >= 0.75


def test_files_of_a_run(run):
    folder, said = run
    assert {p.name for p in folder.iterdir()} == FILES
    assert json.loads((folder / "summary.json").read_text()) == said
    assert json.loads((folder / "labels.json").read_text()) == ["green", "red"]
    assert tomllib.loads((folder / "recipe.toml").read_text())["backbone"] == "tiny_net:build"
    rows = list(csv.DictReader((folder / "split.csv").open()))
    assert sorted(r["split"] for r in rows) == ["train"] * 48 + ["val"] * 12
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in epochs] == list(range(1, said["epochs_run"] + 1))
    assert min(epochs, key=lambda e: e["val_loss"])["epoch"] == said["best_epoch"]


def test_an_own_network_is_stored_whole(run):
    with safe_open(run[0] / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "backbone.stem.0.weight" in names
    assert "head.linear.weight" in names


def test_same_command_same_bytes_and_nothing_computed(frostline, images, run, tmp_path):
    folder, first = run
    done = frostline("train", images, *TINY, "--out", tmp_path / "again", "--json")
    second = json.loads(done.stdout)
    assert second["cache"]["hit"] is True
    assert second["cache"]["decoded"] == second["cache"]["forwarded"] == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert second["val"] == first["val"]


def test_another_seed_gives_other_weights(frostline, images, run, tmp_path):
    assert frostline("train", images, *TINY, "--seed", "1", "--out", tmp_path / "r", "--quiet").returncode == 0
    assert (tmp_path / "r" / "model.safetensors").read_bytes() != (run[0] / "model.safetensors").read_bytes()


def test_evaluate_says_what_training_said(frostline, run, tmp_path, images):
    folder, said = run
    rows = [r for r in csv.DictReader((folder / "split.csv").open()) if r["split"] == "val"]
    (tmp_path / "val.csv").write_text("path,label\n" + "".join(f"{r['path']},{r['label']}\n" for r in rows))
    scores = json.loads(frostline("evaluate", folder, tmp_path / "val.csv", "--json").stdout)
    assert set(scores) >= {"n", "accuracy", "balanced_accuracy", "interval", "log_loss", "calibration_error", "per_class", "confusion"}
    assert scores["accuracy"] == said["val"]["accuracy"]
    assert scores["log_loss"] == pytest.approx(said["val"]["log_loss"], abs=1e-12)
    assert sum(map(sum, scores["confusion"])) == 12


@pytest.mark.parametrize("head", ["conv:4", "attention"])
def test_evaluate_reads_the_maps_that_training_cached(frostline, images, tmp_path, head):
    done = frostline("train", images, *TINY, "--head", head, "--epochs", "3", "--out", tmp_path / "run", "--json")
    said = json.loads(done.stdout)
    rows = [r for r in csv.DictReader((tmp_path / "run" / "split.csv").open()) if r["split"] == "val"]
    (tmp_path / "val.csv").write_text("path,label\n" + "".join(f"{r['path']},{r['label']}\n" for r in rows))
    cached = json.loads(frostline("evaluate", tmp_path / "run", tmp_path / "val.csv", "--json").stdout)
    anew = json.loads(frostline("evaluate", tmp_path / "run", tmp_path / "val.csv", "--json", "--no-cache").stdout)
    assert cached["log_loss"] == pytest.approx(anew["log_loss"], abs=1e-6) == pytest.approx(said["val"]["log_loss"], abs=1e-6)


def test_predict_keeps_the_order_and_goes_on_after_a_bad_file(frostline, run, tmp_path, images):
    (tmp_path / "bad.jpg").write_text("no picture")
    files = [images / "red" / "000.png", tmp_path / "bad.jpg", images / "green" / "001.png"]
    done = frostline("predict", run[0], *files, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert [r["path"] for r in rows] == [str(f) for f in files]
    assert set(rows[1]) == {"path", "error"}
    assert set(rows[0]) == {"path", "label", "probability", "probabilities", "unfamiliar", "unfamiliarity"}
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert rows[0]["probability"] == max(rows[0]["probabilities"].values())


def test_prediction_does_not_depend_on_company(frostline, run, images):
    alone = json.loads(frostline("predict", run[0], images / "red" / "005.png", "--json").stdout)
    together = [json.loads(line) for line in frostline("predict", run[0], images, "--json").stdout.splitlines()]
    assert len(together) == 60
    assert next(r for r in together if r["path"] == alone["path"]) == alone


def test_stdout_is_only_json_and_quiet_is_quiet(frostline, images, tmp_path):
    done = frostline("train", images, *TINY, "--epochs", "1", "--json", "--out", tmp_path / "a")
    json.loads(done.stdout)
    assert "features" in done.stderr
    assert frostline("train", images, *TINY, "--epochs", "1", "--quiet", "--out", tmp_path / "b").stderr == ""


def test_unfreezing_moves_the_cut_and_is_proved(frostline, images, tmp_path):
    done = frostline("train", images, *TINY, "--unfreeze", "last:1", "--epochs", "2", "--json", "--out", tmp_path / "r")
    said = json.loads(done.stdout)
    assert (said["cache"]["cut"], said["cache"]["way"]) == ("stem.0", "graph")
    assert said["unfrozen_blocks"] == ["body.0"]
    assert said["audit"]["frozen_unchanged"]
    assert said["audit"]["trainable_moved"]
    assert json.loads(frostline("evaluate", tmp_path / "r", images, "--json").stdout)["n"] == 60


def test_inspect(frostline):
    said = json.loads(frostline("inspect", "tf_efficientnet_lite0", "--unfreeze", "last:2", "--json").stdout)
    assert said["matched"] == ["blocks.6.0", "conv_head"]
    assert said["weights"].startswith("loaded 296 of 296 tensors")
    assert said["layers"][0]["output_shape"] == [32, 112, 112]
    assert [r["state"] for r in said["layers"]][-3:] == ["trainable"] * 3
    words = frostline("inspect", "tf_efficientnet_lite0").stdout
    assert "cut: above it is computed once" in words
    assert "1280x7x7" in words


def test_help_is_quick_and_imports_nothing_heavy():
    times = []
    for _ in range(5):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "frostline", "--help"], capture_output=True, text=True)
        times.append(time.perf_counter() - began)
        assert done.returncode == 0
        assert "train" in done.stdout
    # not a benchmark: what would make it slow is an import, and that is what is checked
    probe = "import sys, frostline.cli.main; print([m for m in ('torch', 'timm', 'torchvision', 'sklearn', 'numpy', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout.strip() == "[]"
    assert min(times) < 1.0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_signals(number, code, images, tiny_module, tmp_path):
    import os

    environment = {**os.environ, "FROSTLINE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(tiny_module)}
    command = [
        sys.executable,
        "-m",
        "frostline",
        "train",
        str(images),
        *TINY,
        "--unfreeze",
        "all",
        "--epochs",
        "100000",
        "--out",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("training"):
            break
    process.send_signal(number)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == code
    assert rest.strip().splitlines()[-1].startswith("frostline: ")
    assert "Traceback" not in rest


def test_ants_and_bees(anew, hymenoptera, tmp_path):
    """The numbers that the first issue asks for, on the real images."""
    first = json.loads(anew("train", hymenoptera, "--json", "--out", tmp_path / "a").stdout)
    assert first["val"]["n"] == 153
    assert first["val"]["accuracy"] >= 0.93
    assert first["train"]["n"] == 245  # 244 JPEGs and the placeholder GIF, which decodes
    assert first["images_skipped"] == []
    assert first["audit"]["frozen_unchanged"]
    assert first["audit"]["trainable_moved"]
    second = json.loads(anew("train", hymenoptera, "--json", "--out", tmp_path / "b").stdout)
    assert second["cache"]["hit"] is True
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    scores = json.loads(anew("evaluate", tmp_path / "a", hymenoptera / "val", "--json").stdout)
    assert scores["accuracy"] == first["val"]["accuracy"]
    assert (tmp_path / "a" / "model.safetensors").stat().st_size < 100_000


def test_demo(anew, tmp_path):
    said = json.loads(anew("demo", "--json", "--out", tmp_path / "demo", cwd=tmp_path).stdout)
    assert said["test"]["n"] == 359
    assert said["test"]["accuracy"] >= 0.93
    assert said["evaluated"]["accuracy"] == said["test"]["accuracy"]
    assert len(said["predicted"]) == 10
    assert Path(said["run"]).is_dir()


@pytest.mark.parametrize(("flags", "key"), [(("--sweep", 16), "sweep"), (("--head", "ridge"), "solved")])
def test_heads_chosen_by_cross_validation(frostline, images, tmp_path, flags, key):
    done = frostline("train", images, *TINY, *flags, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said[key]["chosen"] in said[key]["candidates"]
    assert said["head"] == said[key]["chosen"]["head"]
    assert f"judged on {said[key]['folds']} folds" in done.stderr


@pytest.mark.parametrize(
    ("flags", "where"),
    [
        (("--sweep", 1), "--sweep: 1 heads"),
        (("--sweep", 8, "--lr", 0.1, "--mixup", 0.2), "--lr, --mixup: --sweep chooses"),
        (("--head", "ridge", "--epochs", 3), "--epochs: --head ridge is solved at once"),
    ],
)
def test_flags_without_meaning_are_refused_in_one_line(frostline, images, tmp_path, flags, where):
    done = frostline("train", images, *TINY, *flags, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith(f"frostline: {where}")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
