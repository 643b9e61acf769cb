"""``frostline data``: planted faults in small images, in JSON, in words and on the page."""

from __future__ import annotations

import csv
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from conftest import make_images

TINY = ("--backbone", "tiny_net:build")
EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags, attributes and text of a page; every tag that is opened must be closed."""

    EMPTY = frozenset({"meta", "img", "br", "rect", "link"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def smooth(seed, size=(96, 64)):
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A manifest of two classes, one of an evil name: a leaked copy, a contradictory one, a near one, a gray, a tiny and a broken file."""
    root = tmp_path_factory.mktemp("planted")
    for split, seed in (("train", 0), ("val", 1)):
        make_images(root / split, {"tame": 20, "evil": 20}, seed)
    shutil.copy(root / "train" / "tame" / "003.png", root / "val" / "tame" / "leaked.png")
    shutil.copy(root / "train" / "tame" / "004.png", root / "train" / "evil" / "contradictory.png")
    smooth(5).save(root / "train" / "evil" / "near.png")
    smooth(5).save(root / "val" / "evil" / "near.jpg", quality=60)
    smooth(6).convert("L").save(root / "train" / "evil" / "gray.png")
    smooth(7, (12, 12)).save(root / "val" / "evil" / "tiny.png")
    (root / "train" / "evil" / "broken.jpg").write_bytes(b"no picture")
    labels = {"tame": "a & b", "evil": EVIL}
    rows = [(p.relative_to(root), labels[p.parent.name], p.parent.parent.name) for p in sorted(root.rglob("*.*"))]
    with (root / "all.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "split"), *rows])
    return root / "all.csv"


@pytest.fixture(scope="module")
def found(frostline, planted, tmp_path_factory):
    page = tmp_path_factory.mktemp("page") / "page.html"
    done = frostline("data", planted, *TINY, "--json", "--out", page)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), page.read_text(encoding="utf-8")


def named(paths):
    return {path.rpartition("/")[2] for path in paths}


def test_json(found, planted):
    said, _ = found
    assert said["images"] == 40 + 40 + 6
    assert said["classes"] == [EVIL, "a & b"]
    assert said["counts"]["train"]["a & b"] == 20
    assert said["counts"]["val"]["a & b"] == 21
    assert [(s["path"].rpartition("/")[2], bool(s["why"])) for s in said["images_skipped"]] == [("broken.jpg", True)]
    assert said["converted"] == {"PNG grayscale": 1}
    assert named(said["tiny"]) == {"tiny.png"}
    assert said["rules"]["near_likeness"] == 0.9
    assert said["held_out"]["images"] == said["images"]
    assert sum(map(sum, said["held_out"]["confusion"])) == said["images"]
    assert len(said["outliers"]) >= 20


def test_copies_in_json(found):
    said, _ = found
    copies = {frozenset(named(c["paths"])): c for c in said["exact_duplicates"]}
    assert set(copies) == {frozenset({"003.png", "leaked.png"}), frozenset({"004.png", "contradictory.png"})}
    leaked, contradictory = copies[frozenset({"003.png", "leaked.png"})], copies[frozenset({"004.png", "contradictory.png"})]
    assert (leaked["across_splits"], leaked["contradictory"]) == (True, False)
    assert (contradictory["across_splits"], contradictory["contradictory"]) == (False, True)
    assert {"near.png", "near.jpg"} in [named(c["paths"]) for c in said["near_duplicates"]]
    assert all(c["likeness"] >= 0.9 for c in said["near_duplicates"])


def test_the_page_is_sound_and_needs_nothing_else(found):
    _, text = found
    page = Page(text)
    assert page.all("script") == []
    assert page.all("link") == []
    assert EVIL in "".join(page.text)
    images = page.all("img")
    assert len(images) >= 10
    assert all(i["src"].startswith("data:image/jpeg;base64,") and i["alt"] for i in images)
    assert not any(value.startswith(("http", "//")) for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href"))
    assert "prefers-color-scheme: dark" in text
    assert ("name", "viewport") in [item for attrs in page.all("meta") for item in attrs.items()]
    assert page.all("svg")[0]["aria-label"]


def test_words(frostline, planted):
    done = frostline("data", planted, *TINY)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "86 in 2 classes" in lines[0]
    assert any(line.startswith("leakage     ") for line in lines)
    assert any("exact LEAKAGE" in line and "003.png" in line and "leaked.png" in line for line in lines)
    assert any("exact TWO LABELS" in line and "contradictory.png" in line for line in lines)
    assert any(line.startswith("skipped     ") and "broken.jpg" in line for line in lines)
    assert "nothing computed" in done.stderr


def test_after_training_nothing_is_decoded_or_forwarded(frostline, images, tmp_path):
    assert frostline("train", images, *TINY, "--epochs", "1", "--out", tmp_path / "run", "--cache-dir", tmp_path / "cache").returncode == 0
    said = json.loads(frostline("data", images, *TINY, "--json", "--cache-dir", tmp_path / "cache").stdout)
    assert said["cache"] == {"hit": True, "decoded": 0, "forwarded": 0}
    assert said["exact_duplicates"] == said["near_duplicates"] == []
    assert said["page"] is None


def test_without_a_cache_nothing_is_written_and_the_same_is_said(frostline, images, tmp_path):
    kept = json.loads(frostline("data", images, *TINY, "--json", "--quiet").stdout)
    done = frostline("data", images, *TINY, "--json", "--quiet", "--no-cache", "--cache-dir", tmp_path / "cache")
    said = json.loads(done.stdout)
    assert done.stderr == ""
    assert not (tmp_path / "cache").exists()
    assert said["cache"]["decoded"] == 60
    for key in ("outliers", "suspect_labels", "held_out", "near_duplicates"):
        assert said[key] == kept[key]


def test_training_warns_of_near_copies(frostline, planted, tmp_path):
    done = frostline("train", planted, *TINY, "--epochs", "1", "--out", tmp_path / "a", "--json")
    said = json.loads(done.stdout)
    assert {"near.png", "near.jpg"} in [named(pair) for pair in said["near_duplicates_across_splits"]]
    assert not any("leaked" in path for pair in said["near_duplicates_across_splits"] for path in pair)
    assert "nearly the same picture" in frostline("train", planted, *TINY, "--epochs", "1", "--out", tmp_path / "b").stdout
    unfrozen = frostline("train", planted, *TINY, "--unfreeze", "last:1", "--epochs", "1", "--out", tmp_path / "c", "--json")
    assert json.loads(unfrozen.stdout)["near_duplicates_across_splits"] is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "frostline: DATA: no images were named"),
        (("nowhere",), "frostline: nowhere: no such folder"),
        (("nowhere", "--out", "page.txt"), "frostline: --out page.txt: is no name for a page"),
        (("nowhere", "--seed", "-1"), "frostline: --seed -1: "),
    ],
)
def test_faults_in_one_line(frostline, tmp_path, arguments, line):
    done = frostline("data", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_page_that_cannot_be_written(frostline, images, tmp_path):
    (tmp_path / "file").write_text("")
    done = frostline("data", images, *TINY, "--quiet", "--out", tmp_path / "file" / "page.html")
    assert done.returncode == 2
    assert done.stderr.startswith("frostline: --out ")
    assert len(done.stderr.splitlines()) == 1


def test_no_picture_at_all(frostline, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "data" / name / f"{number}.jpg").write_text(f"{name}{number}")
    done = frostline("data", tmp_path / "data", *TINY, "--quiet")
    assert done.returncode == 2
    assert "none of the 8 files is an image that can be read" in done.stderr
