"""A run in a notebook: its facts, its figures, and tables in which nothing is markup that should be text."""

from __future__ import annotations

import json

import pytest

import frostline as fl
from conftest import make_images, said_without
from frostline.data import read_data
from frostline.errors import RunError
from frostline.features import ImageSet

NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(frostline, tmp_path_factory):
    root = tmp_path_factory.mktemp("opened")
    data = make_images(root / "data", {"a": 16, NASTY.replace("/", "_"): 16})
    flags = (
        "--backbone",
        "tiny_net:build",
        "--strategy",
        "lp-ft",
        "--epochs",
        "3",
        "--out",
        root / "run",
        "--cache-dir",
        root / "c",
        "--quiet",
    )
    done = frostline("train", data, *flags)
    assert done.returncode == 0, done.stderr
    return root / "run"


@pytest.fixture
def opened(run, tiny):
    tiny()
    return fl.open_run(run)


def test_the_facts_are_those_of_the_files(opened, run):
    assert opened.summary == json.loads((run / "summary.json").read_text())
    assert list(opened.history) == [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shown = opened._repr_html_()
    assert f"{opened.summary['val']['accuracy']:.3f}" in shown
    assert "<td" in shown


def test_facts_and_epochs_need_no_network_and_no_images(run, monkeypatch):
    monkeypatch.setattr("frostline.opened.examine", lambda *_, **__: pytest.fail("the images were answered again"))
    opened = fl.open_run(run)
    assert opened.summary["epochs_run"] == len(opened.history)
    assert opened.plot.history().axes
    assert "<table>" in opened._repr_html_()
    with pytest.raises(pytest.fail.Exception, match="answered again"):
        opened.plot.confusion()


def test_history_draws_the_epochs(opened):
    figure = opened.plot.history()
    loss, accuracy = figure.axes
    assert list(loss.lines[0].get_ydata()) == [row["train_loss"] for row in opened.history]
    assert list(accuracy.lines[1].get_ydata()) == [row["val_accuracy"] for row in opened.history]
    assert len(loss.lines) == 3  # training, validation, where a phase ends


def test_confusion_and_calibration_count_every_image(opened):
    n = opened.summary["val"]["n"]
    texts = opened.plot.confusion().axes[0].texts
    assert sum(int(t.get_text()) for t in texts) == n
    right = sum(int(texts[i].get_text()) for i in (0, 3))
    assert right / n == pytest.approx(opened.summary["val"]["accuracy"])
    points = opened.plot.calibration().axes[0].lines[1]
    assert all(0 <= y <= 1 for y in points.get_ydata())


def test_depths_need_an_advice(opened):
    with pytest.raises(RunError, match="accuracy by depth is not known; run frostline advise"):
        opened.plot.depths()


def test_figures_leave_pyplot_alone(opened):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    opened.plot.calibration()
    assert pyplot.get_fignums() == before


def test_depths_after_an_advice(frostline, images, tiny, tmp_path):
    tiny()
    flags = ("--backbone", "tiny_net:build", "--cache-dir", tmp_path / "c")
    assert frostline("advise", images, *flags).returncode == 0
    assert frostline("train", images, *flags, "--epochs", "1", "--out", tmp_path / "run").returncode == 0
    figure = fl.open_run(tmp_path / "run", cache=tmp_path / "c").plot.depths()
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[-1] == "backbone"
    assert len(names) > 2


def test_without_matplotlib_one_line_says_what_to_install(tmp_path):
    said = said_without("matplotlib", "from frostline.plotting import Plots\nPlots(None, (), None)", tmp_path)
    assert said == 'ExtraError plot: matplotlib is not installed; pip install "frostline[plot]"'


def test_plans_and_results_show_themselves(tiny, images):
    known = ImageSet.of(read_data(images))
    model = fl.TransferModel(tiny(), num_classes=2)
    plan = fl.FreezePlan("none")
    assert "none" in plan._repr_html_()
    assert "freeze plan, resolved" in plan.resolve(model)._repr_html_()
    *_, finished = fl.fit(model, plan, known, known, epochs=2)
    right = int((finished.val_logits.argmax(1) == finished.val_labels).sum())
    assert f"{right / 60:.3f} (" in finished._repr_html_()
    assert "60 images" in finished._repr_html_()


def test_nothing_in_a_table_is_markup():
    shown = fl.FreezePlan(NASTY)._repr_html_()
    assert NASTY not in shown
    assert "&lt;script&gt;" in shown


def test_a_run_that_is_none_is_refused(tmp_path):
    with pytest.raises(RunError, match="no such run directory"):
        fl.open_run(tmp_path / "nothing")
