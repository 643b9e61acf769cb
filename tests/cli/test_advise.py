"""``frostline advise``, ``--strategy auto``, ``--head linear@auto`` and ``--budget``, as a person runs them."""

from __future__ import annotations

import json
import re

import pytest

from conftest import make_images

TINY = ("--backbone", "tiny_net:build", "--quiet")


@pytest.fixture(scope="module")
def split_images(tmp_path_factory):
    root = tmp_path_factory.mktemp("split") / "data"
    for split, seed in (("train", 0), ("val", 1), ("test", 2)):
        make_images(root / split, {"green": 24, "red": 24}, seed)
    return root


def test_json_has_the_keys_of_the_contract(frostline, split_images):
    ran = frostline("advise", split_images, *TINY, "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert {"recommended", "candidates", "evidence", "why"} <= set(told)
    assert {"unfreeze", "strategy"} <= set(told["recommended"])
    for candidate in told["candidates"]:
        assert {"unfreeze", "strategy", "val_accuracy", "interval", "seconds", "peak_memory_bytes"} <= set(candidate)
    assert told["evidence"]["tiny_net:build"]["images"] == 96


def test_words_draw_every_depth_and_say_what_to_run(frostline, split_images):
    ran = frostline("advise", split_images, *TINY)
    assert ran.returncode == 0, ran.stderr
    for name in ("stem.0", "body.0", "backbone", "the head alone", "--unfreeze all"):
        assert name in ran.stdout
    told = json.loads(frostline("advise", split_images, *TINY, "--json").stdout)["recommended"]
    first, second = (line.strip() for line in ran.stdout.rstrip().splitlines()[-2:])
    wanted = {f"--{name} {value}" for name, value in told.items() if value not in ("none", "linear", "plain")}
    assert first.startswith(f"frostline train {split_images} --backbone tiny_net:build")
    assert set(re.findall(r"--\S+ \S+", first)) == wanted | {"--backbone tiny_net:build"}
    assert second == f"frostline train {split_images} --backbone tiny_net:build --strategy auto"
    assert "█" in ran.stdout


@pytest.mark.slow
def test_two_backbones_are_compared(frostline, split_images):
    ran = frostline("advise", split_images, *TINY, "--backbone", "tf_efficientnet_lite0", "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert set(told["evidence"]) == {"tiny_net:build", "tf_efficientnet_lite0"}
    assert {c["backbone"] for c in told["candidates"]} == {"tiny_net:build", "tf_efficientnet_lite0"}


def test_a_class_of_one_image_is_one_clear_line(frostline, tmp_path):
    make_images(tmp_path / "train", {"green": 8, "red": 1})
    make_images(tmp_path / "val", {"green": 4})
    ran = frostline("advise", tmp_path / "train", "--val", tmp_path / "val", *TINY)
    assert ran.returncode == 2
    assert len(ran.stderr.strip().splitlines()) == 1


def test_auto_tells_its_steps_and_never_ends_below_the_probe(frostline, split_images, tmp_path):
    ran = frostline("train", split_images, *TINY, "--strategy", "auto", "--out", tmp_path / "run", "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["audit"]["frozen_unchanged"]
    assert len(told["auto"]) == len(told["phases"])
    assert told["depth"]["chosen"] in told["depth"]["accuracy"]
    assert told["phases"][0]["name"] == "linear probe"
    assert len(told["phases"]) > 1
    for phase in told["phases"][1:]:
        assert phase["gain"] is not None
        assert not phase["kept"] or phase["gain"]["total"] > 2 * phase["gain"]["total_error"]
        assert not phase["kept"] or phase["val_loss_after"] < phase["val_loss_before"]
    ran = frostline("evaluate", tmp_path / "run", split_images / "test", "--json")
    assert json.loads(ran.stdout)["accuracy"] == pytest.approx(told["test"]["accuracy"])


@pytest.mark.parametrize("more", [("--sweep", "4"), (), ("--head", "ridge@auto")])
def test_the_depth_of_a_head_is_chosen_on_training_images(frostline, split_images, tmp_path, more):
    head = () if "--head" in more else ("--head", "linear@auto")
    ran = frostline("train", split_images, *TINY, *head, *more, "--out", tmp_path / "run", "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert set(told["depth"]["accuracy"]) == {"stem.0", "body.0", "backbone", "all"}
    at = told["head"].partition("@")[2] or "backbone"
    assert at == told["depth"]["chosen"]
    assert told["cache"]["cut"] == ("backbone" if at == "all" else at)
    ran = frostline("predict", tmp_path / "run", split_images / "test" / "green" / "000.png", "--json")
    assert ran.returncode == 0, ran.stderr


def test_a_head_on_all_depths_from_training_to_onnx(frostline, split_images, tmp_path):
    ran = frostline("train", split_images, *TINY, "--head", "linear@all", "--out", tmp_path / "run", "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["head"] == "linear@all"
    assert told["audit"]["frozen_unchanged"]
    ran = frostline("evaluate", tmp_path / "run", split_images / "test", "--json")
    assert json.loads(ran.stdout)["accuracy"] == pytest.approx(told["test"]["accuracy"])
    ran = frostline("export", tmp_path / "run", "--format", "onnx", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["max_abs_difference"] < 1e-4
    ran = frostline("export", tmp_path / "run", "--format", "safetensors")
    assert ran.returncode == 2
    assert "the head sits on what all layers give" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    ran = frostline("explain", tmp_path / "run", split_images / "test" / "green" / "000.png", "--out", tmp_path / "why.png")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("words", ["soon", "0s", "-3", "5 parsecs"])
def test_no_length_of_time(frostline, split_images, words):
    ran = frostline("train", split_images, *TINY, "--budget", words)
    assert ran.returncode == 2
    assert "--budget" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


def test_too_short_a_budget_says_what_there_would_be_time_for(anew, split_images, tmp_path):
    ran = anew("train", split_images, *TINY, "--budget", "0.1s", "--out", tmp_path / "run")
    assert ran.returncode == 2
    assert "a head on the frozen backbone needs about" in ran.stderr
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_budget_ends_training_with_a_usable_model(anew, split_images, tmp_path):
    flags = ("--unfreeze", "all", "--epochs", "100000", "--budget", "15s")
    ran = anew("train", split_images, *TINY, *flags, "--out", tmp_path / "run", "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["epochs_run"] < 100000
    assert told["seconds"]["total"] < 60  # a machine under load is late, but not for a hundred thousand epochs
    assert anew("predict", tmp_path / "run", split_images / "test" / "green" / "000.png").returncode == 0


def test_nested_cross_validation_judges_every_image_once(frostline, images, tmp_path):
    ran = frostline("train", images, *TINY, "--nested", "3", "--out", tmp_path / "run", "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)["nested"]
    assert (told["n"], told["folds"]) == (60, 3)
    assert told["interval"][0] <= told["accuracy"] <= told["interval"][1]


@pytest.fixture
def in_two_groups(images, tmp_path):
    """A table in which the class red lies in two groups."""
    groups = {"red": ("g0", "g1"), "green": ("", "")}
    rows = [f"{p},{p.parent.name},{groups[p.parent.name][int(p.stem) % 2]}" for p in sorted(images.rglob("*.png"))]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label,group", *rows]))
    return table


def test_nested_cross_validation_with_few_groups(frostline, in_two_groups, tmp_path):
    """Two groups of a class are two folds; where nothing would be left to train on, that is said before anything is trained."""
    ran = frostline("train", in_two_groups, *TINY, "--nested", "3", "--out", tmp_path / "run", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["nested"]["folds"] == 2
    ran = frostline("train", in_two_groups, *TINY, "--nested", "3", "--head", "ridge", "--out", tmp_path / "solved")
    assert ran.returncode == 2
    assert "class red has too few groups of training images" in ran.stderr
    assert not (tmp_path / "solved").exists()


def test_auto_does_without_a_depth_where_a_class_lies_in_one_group(frostline, in_two_groups, tmp_path):
    """Two groups, one to train on and one to validate on: what was asked for is refused, what was not asked for is left out."""
    ran = frostline("train", in_two_groups, *TINY, "--strategy", "auto", "--out", tmp_path / "run", "--json")
    assert ran.returncode == 0, ran.stderr
    ran = frostline("train", in_two_groups, *TINY, "--head", "linear@auto", "--out", tmp_path / "asked")
    assert ran.returncode == 2
    assert "too few groups" in ran.stderr


@pytest.mark.parametrize("flags", [("--nested", "1"), ("--nested", "3", "--unfreeze", "last:1"), ("--nested", "3", "--budget", "60s")])
def test_what_nested_cross_validation_cannot_go_with(frostline, images, tmp_path, flags):
    ran = frostline("train", images, *TINY, *flags, "--out", tmp_path / "run")
    assert ran.returncode == 2
    assert "--nested" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("strategy", ["lp-ft", "auto"])
def test_a_phase_that_comes_to_no_number_is_undone_and_the_run_is_there(frostline, split_images, tmp_path, strategy):
    flags = ("--strategy", strategy, "--backbone-lr", "1e12", "--epochs", "2", "--out", tmp_path / "run", "--json")
    ran = frostline("train", split_images, *TINY, *flags)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert [p["kept"] for p in told["phases"]][:2] == [True, False]
    assert told["test"]["accuracy"] > 0.5


def test_what_is_unfrozen_has_the_baselines_too(frostline, split_images, tmp_path):
    flags = ("--strategy", "lp-ft", "--unfreeze", "last:1", "--epochs", "2", "--out", tmp_path / "run", "--json")
    ran = frostline("train", split_images, *TINY, *flags)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["baselines"]["neighbours"] is not None
    assert told["near_duplicates_across_splits"] is not None


def test_auto_down_to_a_layer_by_name_keeps_the_layer(frostline, split_images, tmp_path):
    ran = frostline(
        "train", split_images, *TINY, "--strategy", "auto", "--unfreeze", "from:body", "--epochs", "2", "--out", tmp_path / "run"
    )
    assert ran.returncode == 0, ran.stderr
