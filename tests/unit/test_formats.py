"""The pages of docs/formats against the files of a real run: exactly these files, keys and columns."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from dataclasses import fields

import pytest
from safetensors import safe_open

from conftest import ROOT
from frostline import Recipe
from frostline.fitting.calibrate import Calibration
from frostline.run import layout

PAGES = ROOT / "docs" / "formats"


def named(page: str, heading: str) -> list[str]:
    """The first column of the table that begins with ``heading``."""
    text = (PAGES / page).read_text(encoding="utf-8")
    tables = re.findall(rf"^\| {heading} \| \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [name for table in tables for name in re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)]


@pytest.fixture(scope="module")
def run(frostline, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    tiny = ("--backbone", "tiny_net:build", "--weights", "random", "--epochs", "2")
    done = frostline("train", images, *tiny, "--out", folder / "run", "--cache-dir", folder / "cache")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def as_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def about(path):
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["frostline"]), set(file.keys())


def test_a_run_has_these_files(run):
    assert {p.name for p in run.iterdir()} == set(named("run.md", "file"))
    text = (PAGES / "run.md").read_text(encoding="utf-8")
    assert f"`{layout.IDENTITY}`" in text
    assert f"`{layout.CHECKPOINTS}/`" in text


def test_the_small_files(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert all(list(row) == named("run.md", "key") for row in rows)
    with (run / "split.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.reader(file))
    assert table[0] == named("run.md", "column")
    assert len(table) == 61
    assert set(as_json(run / "preprocess.json")) == set(named("run.md", "setting"))
    assert set(as_json(run / "environment.json")) == set(named("run.md", "entry"))
    assert as_json(run / "labels.json") == ["green", "red"]


def test_the_weights(run):
    facts, tensors = about(run / "model.safetensors")
    assert list(facts) == named("run.md", "metadata")
    assert {name.partition(".")[0] for name in tensors} == {"head", "backbone"}
    facts, tensors = about(run / "familiar.safetensors")
    assert list(facts) == named("familiar.md", "metadata")
    assert tensors == set(named("familiar.md", "tensor"))


def test_the_recipe(run):
    assert named("recipe.md", "key") == list(Recipe.model_fields)
    assert set(tomllib.loads((run / "recipe.toml").read_text())) <= set(Recipe.model_fields)


def test_the_summary(run):
    found, said = as_json(run / "summary.json"), named("summary.md", "key")
    assert [key for key in said if "." not in key] == list(found)
    parts = {key.partition(".")[0] for key in said if "." in key}
    assert parts == {"train", "val", "cache", "engine", "seconds", "baselines", "calibration", "guards", "audit"}
    assert [key.partition(".")[2] for key in said if key.startswith("calibration.")] == [f.name for f in fields(Calibration)]
    assert all(f"`{key}`" in (PAGES / "summary.md").read_text() for key in found["phases"][0])
    for part in parts - {"calibration"}:  # these images are too few for it
        assert found[part] is not None, f"{part}: the run has to have it, or nothing is compared"
        assert [key.partition(".")[2] for key in said if key.startswith(f"{part}.")] == list(found[part]), part


def test_the_cache(run):
    cache = run.parent / "cache"
    assert {p.name for p in cache.iterdir()} <= set(named("feature-cache.md", "folder"))
    folder = next((cache / "features").iterdir())
    assert list(as_json(folder / "key.json")) == named("feature-cache.md", "key")
    shards = [p for p in folder.glob("*.json") if p.name != "key.json"]
    assert shards
    assert all(list(as_json(p)) == named("feature-cache.md", "entry") and p.with_suffix(".npy").is_file() for p in shards)
