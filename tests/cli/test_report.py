"""``frostline report``: a real run on small images, its page in words, side by side with another, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from html.parser import HTMLParser

import pytest

from conftest import make_images

TINY = ("--backbone", "tiny_net:build")
EVIL = "<img src=x onerror=alert(1)>"


class Words(HTMLParser):
    """The text of a page, and its pictures."""

    def __init__(self, text):
        super().__init__()
        self.said, self.pictures, self.styled = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.styled = tag == "style"
        if tag == "img":
            self.pictures.append(dict(attrs))

    def handle_data(self, data):
        if not self.styled:
            self.said.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.said).replace("\u00a0", " ").split())


def words(run, name="report.html"):
    return Words((run / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def trained(frostline, tmp_path_factory):
    """A run with a test set, a class of an evil name and a file whose name is no UTF-8; and its data."""
    root = tmp_path_factory.mktemp("report")
    for split, count, seed in (("train", 24, 0), ("val", 12, 1), ("test", 10, 2)):
        make_images(root / "data" / split, {"tame": count, EVIL: count}, seed)
    folder = root / "data" / "test" / "tame"
    (folder / "000.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    done = frostline("train", root / "data", *TINY, "--epochs", "6", "--out", root / "run", "--json")
    assert done.returncode == 0, done.stderr
    return root / "run", json.loads(done.stdout)


def test_after_training_nothing_but_thumbnails_is_decoded(frostline, trained):
    run, summary = trained
    done = frostline("report", run, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["report"] == str(run / "report.html")
    assert said["bytes"] == (run / "report.html").stat().st_size
    assert (said["split"], said["images"], said["images_missing"], said["decoded"]) == ("test", 20, 0, 0)
    assert said["comparisons"] == []
    assert summary["test"]["n"] == 20


def test_the_page_has_the_numbers_of_the_run(frostline, trained):
    run, summary = trained
    assert frostline("report", run).returncode == 0
    page = words(run)
    for split in ("test", "val"):
        assert f"{100 * summary[split]['accuracy']:.1f} %" in page.text
        assert f"{100 * summary[split]['interval'][0]:.1f}\u2013{100 * summary[split]['interval'][1]:.1f} %" in page.text
        assert f"{summary[split]['log_loss']:.3f}" in page.text
    wrong = round(20 * (1 - summary["test"]["accuracy"]))
    assert f"{wrong} picture{'s' if wrong != 1 else ''} of 20" in page.text or wrong == 0
    assert "would get 50" in page.text
    assert EVIL in page.text
    assert len(page.pictures) >= 12
    assert "frozen tensors, batch-norm statistics included" in page.text
    assert "caf\\udce9.png" in (run / "report.html").read_text(encoding="utf-8") or summary["test"]["accuracy"] == 1.0
    assert frostline("report", run, "--out", run / "again.html").returncode == 0
    assert (run / "again.html").read_bytes() == (run / "report.html").read_bytes()


def test_a_page_of_validation_says_who_chose_the_epoch(frostline, images, tmp_path):
    assert frostline("train", images, *TINY, "--epochs", "2", "--out", tmp_path / "run").returncode == 0
    done = frostline("report", tmp_path / "run", "--json")
    assert json.loads(done.stdout)["split"] == "val"
    assert "they chose the epoch, and no test set was given" in words(tmp_path / "run").text


def test_missing_pictures_are_said(frostline, trained, tmp_path):
    run, summary = trained
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(run.parent / "data", tmp_path / "data")
    table = (run / "split.csv").read_text(encoding="utf-8").replace(str(run.parent / "data"), str(tmp_path / "data"))
    (tmp_path / "run" / "split.csv").write_text(table, encoding="utf-8")
    (tmp_path / "data" / "test" / "tame" / "003.png").unlink()
    (tmp_path / "data" / "test" / "tame" / "004.png").write_bytes(b"no picture")
    said = json.loads(frostline("report", tmp_path / "run", "--json").stdout)
    assert (said["images"], said["images_missing"]) == (18, 2)
    page = words(tmp_path / "run").text
    assert "2 pictures of the test set are not there any more or cannot be read" in page
    assert "about the 18 pictures that are left" in page
    assert f"{100 * summary['test']['accuracy']:.1f} %" in page
    shutil.rmtree(tmp_path / "data")
    said = json.loads(frostline("report", tmp_path / "run", "--json").stdout)
    assert (said["images"], said["split"]) == (0, "test")
    assert "None of the test pictures can be read any more" in words(tmp_path / "run").text


def test_runs_side_by_side(frostline, trained, tmp_path):
    run, first = trained
    other, third = tmp_path / "other", tmp_path / "third"
    assert frostline("train", run.parent / "data", *TINY, "--unfreeze", "last:1", "--epochs", "2", "--out", other).returncode == 0
    assert frostline("train", run.parent / "data", *TINY, "--head", "ridge", "--out", third).returncode == 0
    out = tmp_path / "both.html"
    done = frostline("report", run, "--compare", other, third, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [c["run"] for c in said["comparisons"]] == ["other", "third"]
    for found, folder in zip(said["comparisons"], (other, third), strict=True):
        second = json.loads((folder / "summary.json").read_text())
        assert found["n"] == 20
        assert found["difference"] == pytest.approx(second["test"]["accuracy"] - first["test"]["accuracy"])
        assert found["interval"][0] <= found["difference"] <= found["interval"][1]
        assert found["noise"] == (found["chance"] >= 0.05)
    page = words(tmp_path, "both.html").text
    assert "other against run" in page
    assert said["comparisons"][1]["words"].replace("\u00a0", " ") in page
    assert frostline("report", other).returncode == 0
    assert "the trained layers have seen the labels" in words(other).text
    assert frostline("report", third).returncode == 0
    assert "there are no epochs to draw" in words(third).text
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nowhere",), "frostline: nowhere: no such run directory"),
        (("one", "two"), "frostline: RUN: 2 runs were named"),
        (("nowhere", "--out", "page.txt"), "frostline: --out page.txt: is no name for a page"),
    ],
)
def test_faults_in_one_line(frostline, tmp_path, arguments, line):
    done = frostline("report", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_runs_of_other_images_or_classes_and_damaged_ones_are_refused(frostline, trained, images, tmp_path):
    run, _ = trained
    assert frostline("train", images, *TINY, "--epochs", "1", "--out", tmp_path / "classes").returncode == 0
    done = frostline("report", run, "--compare", tmp_path / "classes")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "has other classes than" in done.stderr
    for split, seed in (("train", 5), ("val", 6)):
        make_images(tmp_path / "data" / split, {"tame": 8, EVIL: 8}, seed)
    assert frostline("train", tmp_path / "data", *TINY, "--epochs", "1", "--out", tmp_path / "images").returncode == 0
    done = frostline("report", run, "--compare", tmp_path / "images")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "was judged on other images than" in done.stderr
    (tmp_path / "images" / "metrics.jsonl").write_text("{")
    done = frostline("report", tmp_path / "images")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "metrics.jsonl: is damaged" in done.stderr
    (tmp_path / "classes" / "file").write_text("")
    done = frostline("report", tmp_path / "classes", "--out", tmp_path / "classes" / "file" / "page.html")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "cannot be written" in done.stderr
