"""The report: its words, drawings and numbers, each against a known value or another implementation; and names that want to be markup."""

from __future__ import annotations

import base64
import csv
import io
import math
import os
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from frostline.data.manifest import Manifest
from frostline.features.images import ImageSet
from frostline.fitting.metrics import wilson
from frostline.freeze.table import LayerRow
from frostline.recipe import Recipe
from frostline.report.album import album_of, below
from frostline.report.clock import clock, shares_of
from frostline.report.compare import Contender, Difference, difference_of, paired_interval
from frostline.report.confusion import cells_of, class_rows, confusion_of, pairs_of
from frostline.report.contents import Report
from frostline.report.curves import curves, marks_of
from frostline.report.depths import Depth, by_depth
from frostline.report.doubtful import Doubts
from frostline.report.judged import Judged, still_there
from frostline.report.listed import listed
from frostline.report.mistakes import answers, least_sure, surest_mistakes
from frostline.report.network import folded, network, rows_above
from frostline.report.page import page
from frostline.report.pictures import Wanted, tiles
from frostline.report.reliability import bins_of, reliability
from frostline.report.strip import strip
from frostline.report.words import against_baselines, headline, judged_on
from frostline.run import Run

EVIL = "<script>alert(1)</script>"
CLASSES = ("a & b", EVIL, "c\udce9\n'\"")


def scores(n=100, right=96):
    low, high = wilson(right, n)
    return {
        "n": n,
        "accuracy": right / n,
        "interval": [low, high],
        "balanced_accuracy": 0.9123,
        "log_loss": 0.4567,
        "calibration_error": 0.0789,
    }


def summary(**more):
    return {
        "backbone": EVIL,
        "weights": "loaded 2 of 2",
        "unfreeze": "last:1",
        "unfrozen_blocks": [EVIL],
        "head": "linear",
        "strategy": "lp-ft",
        "trainable_parameters": 2562,
        "frozen_parameters": 3371008,
        "seed": 7,
        "phases": [
            {"name": "probe", "kept": True, "unfrozen_blocks": [], "epochs": 2, "best_epoch": 2, "gain": None},
            {
                "name": EVIL,
                "kept": True,
                "unfrozen_blocks": [EVIL],
                "epochs": 2,
                "best_epoch": 1,
                "gain": {"loss": 0.1, "error": 0.01, "repaired": 3, "broken": 1, "chance": 0.625},
            },
        ],
        "stopped": EVIL,
        "train": {"n": 300, "accuracy": 0.9876},
        "val": scores(),
        "val_chose_epoch": True,
        "test": None,
        "cache": {"cut": "body.0", "why": f"because {EVIL}", "hit": False},
        "engine": {"name": "plain", "precision": "fp32", "images_per_second": 100.0, "pictures_per_second": 300.0, "why": EVIL},
        "sweep": None,
        "seconds": {"total": 20.0, "startup": 2.0, "features": 8.0, "train": 3.0, "write": 0.5},
        "images_skipped": [{"path": f"/x/{EVIL}", "why": EVIL}],
        "duplicates_across_splits": [],
        "near_duplicates_across_splits": None,
        "guards": {"overfitting": None, "forgetting": {"similarity": 0.94}},
        "warnings": [EVIL],
        "notes": [EVIL],
        "auto": [EVIL],
        "audit": {"frozen_unchanged": True, "frozen_tensors": 294},
        **more,
    }


EPOCHS = [
    {"phase": p, "epoch": e, "train_loss": 1.0 / n, "train_accuracy": 0.5 + n / 10, "val_loss": 1.1 / n, "val_accuracy": 0.4 + n / 10}
    for n, (p, e) in enumerate((("probe", 1), ("probe", 2), (EVIL, 1), (EVIL, 2)), start=1)
]
LAYERS = (
    LayerRow("backbone.stem", "Conv2d", 900, 0, ("backbone.stem",)),
    LayerRow("backbone.body.0", "Block", 5000, 0, ("backbone.body.0",)),
    LayerRow(f"backbone.{EVIL}", "Block", 90_000, 90_000, ()),
    LayerRow("head", "Linear", 2562, 2562, ("head",)),
)


@pytest.fixture
def judged(tmp_path):
    """Twelve images of three classes, five labelled wrong; names are hostile, one file is gone and one no picture."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(12, 3, generator=generator)
    labels = logits.argmax(1).tolist()
    for row in (0, 3, 5, 7, 9):
        labels[row] = (labels[row] + 1) % 3
    paths = [tmp_path / f"{EVIL.replace('/', '')}{i}.png" for i in range(11)] + [Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))]
    for i, path in enumerate(paths):
        Image.new("RGB", (30, 20), (20 * i, 0, 0)).save(path)
    paths[0].unlink()
    paths[3].write_bytes(b"nothing")
    return Judged("val", ImageSet(tuple(paths), ("",) * 12, tuple(labels)), logits, 0, ())


def report(judged, album, **more):
    found = () if judged is None else tuple(answers(judged.probabilities, judged.labels))
    settings = {
        "name": EVIL,
        "folder": f"runs/{EVIL}",
        "summary": summary(),
        "environment": {"platform": EVIL, "device": "cpu", "threads": 2, "python": "3", "packages": {"torch": EVIL, "frostline": "0"}},
        "recipe": Recipe(data=f"/data/{EVIL}", unfreeze="last:1", strategy="lp-ft", epochs=2),
        "classes": CLASSES,
        "counts": {"train": [1, 2, 3], "val": [4, 4, 4]},
        "split": "val",
        "majority": (EVIL, 0.54),
        "answers": found,
        "missing": 1,
        "layers": LAYERS,
        "epochs": tuple(EPOCHS),
        "depths": (Depth(EVIL, 0.7, (0.6, 0.8)), Depth("backbone", 0.9, (0.8, 0.95))),
        "album": album,
        "contenders": (),
        "differences": (),
    }
    return Report(**{**settings, **more})


def doubts(judged):
    return Doubts(judged.images, ("val",) * len(judged.images), None, EVIL)


def album(judged, tmp_path):
    with_bytes = Judged(judged.split, ImageSet(judged.images.paths, (None,) * 12, judged.images.labels), judged.logits, 0, ())
    pair = ((str(judged.images.paths[1]), "training"), (str(judged.images.paths[2]), "validation"))
    return album_of(with_bytes, doubts(judged), [pair], CLASSES, tmp_path)


class Page(HTMLParser):
    """Tags with their attributes, and all text; every tag that is opened must be closed, and headings never skip a level."""

    EMPTY = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
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
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_headline_is_what_a_person_takes_away():
    said = headline({"accuracy": 0.96, "interval": [0.92, 0.981]}, ("bees", 0.542))
    assert said == "96 of 100 pictures like these are labelled right (between 92 and 98); always saying “bees” would get 54."
    assert headline({"accuracy": 0.96, "interval": [0.92, 0.981]}, None).endswith("(between 92 and 98).")


def test_whether_validation_chose_the_epoch_is_said():
    chosen = judged_on({"val": {"n": 153}, "val_chose_epoch": True}, "val")
    assert "they chose the epoch" in chosen
    assert "no test set" in chosen
    assert "nothing was chosen" in judged_on({"test": {"n": 40}}, "test")
    assert "they chose the epoch" not in judged_on({"val": {"n": 153}, "val_chose_epoch": False}, "val")


@pytest.mark.parametrize(
    ("right", "majority", "neighbours", "said"),
    [
        (96, 0.54, None, ["clearly better"]),
        (50, 0.54, None, ["cannot be told from"]),
        (10, 0.54, None, ["worse"]),
        (96, 0.54, 0.95, ["clearly better", "inside the noise"]),
        (96, 0.54, 0.5, ["clearly better", "clearly less"]),
        (60, 0.54, 0.99, ["cannot be told from", "clearly more"]),
    ],
)
def test_baselines_are_held_against_the_interval(right, majority, neighbours, said):
    found = against_baselines(scores(100, right), ("bees", majority), neighbours)
    assert len(found) == len(said)
    assert all(words in sentence for words, sentence in zip(said, found, strict=True))


def test_bins_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.34, 1.0, 500)
    right = generator.uniform(size=500) < confidence**2
    found = [b for b in bins_of(confidence.tolist(), right.tolist()) if b.count]
    shares, means = calibration_curve(right, confidence, n_bins=10)
    assert [b.right for b in found] == pytest.approx(shares.tolist())
    assert [b.confidence for b in found] == pytest.approx(means.tolist())
    assert sum(b.count for b in found) == 500
    assert all(b.interval[0] <= b.right <= b.interval[1] for b in found)
    assert sum(b.count for b in bins_of([0.0, 1.0], [False, True])) == 2


def test_confusion_and_classes_are_those_of_scikit_learn():
    generator = np.random.default_rng(1)
    labels, predicted = generator.integers(0, 4, 200).tolist(), generator.integers(0, 4, 200).tolist()
    counts = confusion_of(labels, predicted, 4)
    assert counts == confusion_matrix(labels, predicted).tolist()
    precision, recall, _, support = precision_recall_fscore_support(labels, predicted)
    rows = class_rows(counts, ["a", "b", "c", "d"])
    assert [r.found / r.count for r in rows] == pytest.approx(recall.tolist())
    assert [r.found / r.named for r in rows] == pytest.approx(precision.tolist())
    assert [r.count for r in rows] == support.tolist()
    pairs = pairs_of(counts, ["a", "b", "c", "d"], most=3)
    assert [p.count for p in pairs] == sorted((counts[i][j] for i in range(4) for j in range(4) if i != j), reverse=True)[:3]


def test_a_class_without_pictures_has_no_share():
    rows = class_rows([[2, 0], [0, 0]], ["a", "b"])
    assert (rows[1].count, rows[1].interval, rows[1].named) == (0, None, 0)
    assert [c.shade for c in cells_of([[3, 1], [0, 0]])[0]] == [4, 2]
    assert [c.shade for c in cells_of([[1000, 1], [0, 0]])[0]] == [6, 1], "a single mistake stays visible"


def test_mistakes_come_surest_first_and_the_unsure_closest_first():
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45], [0.3, 0.7], [0.51, 0.49]], dtype=torch.float64)
    found = answers(probabilities, torch.tensor([1, 0, 0, 1, 1]))
    assert [a.row for a in surest_mistakes(found)] == [0, 1, 4]
    assert [a.row for a in surest_mistakes(found, 1)] == [0]
    assert [a.row for a in least_sure(found, 3)] == [4, 2, 3]
    assert found[0].own == pytest.approx(0.1)


@pytest.mark.parametrize("counts", [(40, 5, 3, 2), (10, 20, 1, 0), (0, 0, 0, 9), (30, 0, 0, 0), (1, 8, 9, 33)])
def test_the_paired_interval_turns_with_its_sides_and_holds_the_difference(counts):
    both, one, other, neither = counts
    low, high = paired_interval(both, one, other, neither)
    assert paired_interval(both, other, one, neither) == pytest.approx((-high, -low))
    assert -1 <= low <= (one - other) / sum(counts) <= high <= 1


def test_the_paired_interval_covers():
    """The probability that it holds the truth, summed over every outcome of 30 images: about 95 %."""
    n, p = 30, {"both": 0.7, "one": 0.15, "other": 0.05}
    rest = 1 - sum(p.values())
    covered = 0.0
    for both in range(n + 1):
        for one in range(n + 1 - both):
            for other in range(n + 1 - both - one):
                neither = n - both - one - other
                ways = math.comb(n, both) * math.comb(n - both, one) * math.comb(n - both - one, other)
                chance = ways * p["both"] ** both * p["one"] ** one * p["other"] ** other * rest**neither
                if chance > 1e-9:
                    low, high = paired_interval(both, one, other, neither)
                    covered += chance * (low <= p["one"] - p["other"] <= high)
    assert 0.935 < covered < 0.985


def test_a_difference_says_when_it_is_noise():
    noise = Difference("a", "b", 153, 140, 2, 4, 7, 2 / 153, (-0.02, 0.05), 0.6875)
    assert noise.words().startswith("Inside the noise")
    assert "69\u00a0%" in noise.words()
    better = Difference("a", "b", 153, 100, 1, 20, 32, 19 / 153, (0.07, 0.18), 0.00002)
    assert better.words().startswith("b is better")
    assert "12.4 more of 100 right" in better.words()
    assert Difference("a", "b", 153, 100, 20, 1, 32, -19 / 153, (-0.18, -0.07), 0.00002).words().startswith("a is better")
    assert "exactly the same" in Difference("a", "b", 9, 9, 0, 0, 0, 0.0, (-0.3, 0.3), 1.0).words()


def contender(name, classes, digests, labels, logits):
    run = Run(Path(name), Recipe(data="d"), {}, classes, torch.nn.Identity())
    paths = tuple(Path(d) for d in digests)
    return Contender(run, Judged("val", ImageSet(paths, tuple(digests), tuple(labels)), torch.tensor(logits), 0, ()))


def test_runs_are_compared_by_content_and_class_names():
    first = contender("runs/one", ("x", "y"), ["d1", "d2", "d3"], [0, 1, 1], [[2.0, 1], [0, 1], [3, 0]])
    other = contender("runs/two", ("y", "x"), ["d3", "d4", "d1"], [0, 1, 1], [[1.0, 0], [0, 1], [1, 0]])
    found = difference_of(first, other)
    assert (found.first, found.other, found.n) == ("one", "two", 2)
    assert (found.both, found.only_first, found.only_other, found.neither) == (0, 1, 1, 0)
    assert (found.value, found.chance) == (0.0, 1.0)


def test_runs_that_cannot_be_compared_are_refused():
    first = contender("runs/one", ("x", "y"), ["d1"], [0], [[2.0, 1]])
    with pytest.raises(Exception, match="other images than runs/one; compare runs with the same"):
        difference_of(first, contender("runs/two", ("x", "y"), ["d2"], [0], [[2.0, 1]]))
    with pytest.raises(Exception, match="other classes than runs/one"):
        difference_of(first, contender("runs/two", ("x", "z"), ["d1"], [0], [[2.0, 1]]))


def drawings():
    marks = marks_of(EPOCHS, summary()["phases"])
    losses, shares = [r["train_loss"] for r in EPOCHS], [r["train_accuracy"] for r in EPOCHS]
    return {
        "network": network(LAYERS, "body.0"),
        "network, nothing frozen": network(LAYERS, "input"),
        "loss": curves(EVIL, losses, [r["val_loss"] for r in EPOCHS], marks, shares=False),
        "accuracy without validation": curves("Accuracy", shares, [None] * 4, marks, shares=True),
        "flat": curves("Loss", [0.0, 0.0], [0.0, 0.0], marks_of(EPOCHS[:2], []), shares=False),
        "reliability": reliability(bins_of([0.4, 0.8, 1.0], [True, False, True])),
        "strip": strip(1.0, (0.96, 1.0), [(EVIL, 0.5), ("most similar", 0.98)]),
        "time": clock(shares_of(summary())),
        "depths": by_depth([Depth(EVIL, 0.7, (0.6, 0.8)), Depth("backbone", 0.9, (0.3, 0.95))]),
    }


@pytest.mark.parametrize("what", drawings())
def test_drawings_are_well_formed_say_what_they_show_and_stay_inside(what):
    drawn = drawings()[what]
    assert "<script" not in drawn
    root = ET.fromstring(drawn)
    assert root.attrib["role"] == "img"
    assert len(root.attrib["aria-label"]) > 20
    _, _, wide, high = map(float, root.attrib["viewBox"].split())
    for node in root.iter():
        for name, most in (("x", wide), ("y", high), ("x1", wide), ("x2", wide), ("y1", high), ("y2", high), ("cx", wide), ("cy", high)):
            if name in node.attrib:
                assert -0.01 <= float(node.attrib[name]) <= most + 0.01, f"{node.tag} {node.attrib}"
        if "points" in node.attrib:
            assert all(0 <= float(x) <= wide and 0 <= float(y) <= high for x, y in (p.split(",") for p in node.attrib["points"].split()))


def test_curves_mark_phases_and_the_kept_epoch():
    marks = marks_of(EPOCHS, summary()["phases"])
    assert marks.phases == (("probe", 1), (EVIL, 3))
    assert marks.kept == 3
    undone = [summary()["phases"][0], {**summary()["phases"][1], "kept": False}]
    assert marks_of(EPOCHS, undone).kept == 2
    drawn = ET.fromstring(drawings()["loss"])
    lines = [n.attrib for n in drawn.iter() if n.attrib.get("class") in ("line training", "line validation") and "points" in n.attrib]
    assert [len(a["points"].split()) for a in lines] == [4, 4]
    assert "kept" in [n.attrib.get("class") for n in drawn.iter()]


def test_the_cut_lies_where_the_run_says():
    assert rows_above(LAYERS, "body.0") == 2
    assert rows_above(LAYERS, "backbone") == 3
    assert rows_above(LAYERS, "input") == 0
    drawn = ET.fromstring(drawings()["network"])
    cut = next(float(n.attrib["y1"]) for n in drawn.iter() if n.attrib.get("class") == "cut")
    bars = {n.attrib["class"]: float(n.attrib["y"]) for n in drawn.iter() if n.attrib.get("class") in ("frozen", "trained")}
    frozen = [float(n.attrib["y"]) for n in drawn.iter() if n.attrib.get("class") == "frozen"]
    assert frozen[0] < frozen[1] < cut < bars["trained"]


def test_a_deep_network_is_folded_without_losing_a_parameter_or_the_cut():
    layers = [LayerRow(f"backbone.layer{i // 20}.{i % 20}", "Block", 10 + i, (10 + i) * (i >= 70), ()) for i in range(80)]
    layers.append(LayerRow("head", "Linear", 7, 7, ()))
    found, at = folded(layers, rows_above(layers, "layer3.9"))
    assert [(r.name, r.blocks) for r in found] == [
        ("layer0", 20),
        ("layer1", 20),
        ("layer2", 20),
        ("layer3", 10),
        ("layer3", 10),
        ("head", 1),
    ]
    assert at == 4
    assert sum(r.parameters for r in found) == sum(r.parameters for r in layers)
    assert sum(r.trained for r in found) == sum(r.trained for r in layers)
    ET.fromstring(network(layers, "layer3.9"))


def test_time_is_split_and_adds_up():
    found = shares_of(summary())
    assert sum(s.seconds for s in found) == pytest.approx(20.0)
    named = {s.what: s.seconds for s in found}
    assert named["decoding pictures, about"] == pytest.approx(2.0)
    assert named["frozen layers, about"] == pytest.approx(6.0)
    cached = shares_of(summary(cache={"hit": True}))
    assert any("cache" in s.what for s in cached)
    assert len(cached) == len(found) - 1


def test_every_name_on_the_page_is_harmless(judged, tmp_path):
    text = page(report(judged, album(judged, tmp_path)))
    found = Page(text)
    assert found.all("script") == []
    assert found.all("link") == []
    assert "alert(1)</script>" not in text
    assert EVIL in found.text
    assert "\udce9" not in text
    assert r"c\udce9\n'" in found.text
    assert not any(name.startswith("on") for _, attrs in found.tags for name in attrs)
    assert all(attrs["src"].startswith("data:image/jpeg;base64,") and attrs["alt"] for attrs in found.all("img"))
    assert all(attrs["href"].startswith("#") for attrs in found.all("a"))
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for attrs in found.all("a")} <= set(ids)
    assert "default-src 'none'" in next(a["content"] for a in found.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert text.encode("utf-8")


def test_numbers_on_the_page_are_those_of_the_summary(judged, tmp_path):
    found = Page(page(report(judged, album(judged, tmp_path))))
    for words in ("96.0 %", "91.2 %", "0.457", "7.9 %", "98.8 %", "3,371,008", "2,562", "294 frozen tensors", "20.0 seconds"):
        assert words in found.text.replace("\u00a0", " "), words
    low, high = summary()["val"]["interval"]
    assert f"{100 * low:.1f}\u2013{100 * high:.1f}" in found.text.replace("\u00a0", " ")
    assert "96 of 100 pictures like these" in found.text
    assert "would get 54" in found.text
    assert "1 picture of the validation set is not there any more" in found.text
    assert "temperature" not in found.text


def test_answers_that_are_no_more_those_of_the_run_are_said(judged, tmp_path):
    right = sum(a.right for a in answers(judged.probabilities, judged.labels))
    same = report(judged, album(judged, tmp_path), missing=0, summary=summary(val=scores(12, right)))
    assert "Judged again for this page" not in page(same)
    other = report(judged, album(judged, tmp_path), missing=0, summary=summary(val=scores(12, right + 1)))
    assert f"Judged again for this page, {right} of 12 pictures are labelled right" in Page(page(other)).text


def test_baselines_and_calibration_are_shown_where_they_are_known(judged, tmp_path):
    more = summary(
        baselines={"majority": 0.54, "neighbours": 0.937},
        calibration={"temperature": 1.37, "error_before": 0.081, "error_after": 0.021, "n": 245},
    )
    found = Page(page(report(judged, album(judged, tmp_path), summary=more))).text.replace("\u00a0", " ")
    assert "would get 94, inside the noise" in found
    assert "temperature of 1.37" in found
    assert "from 8.1 % to 2.1 %" in found


def test_of_many_classes_the_pairs_that_are_confused_most_are_listed(judged, tmp_path):
    classes = tuple(f"class {i:03}" for i in range(100))
    labels = torch.arange(100).repeat(3)
    logits = torch.nn.functional.one_hot(torch.where(labels == 7, 8, labels), 100).double()
    many = report(
        judged,
        album(judged, tmp_path),
        classes=classes,
        answers=tuple(answers(logits, labels)),
        counts={"train": [9] * 99 + [2], "val": [3] * 100},
    )
    found = Page(page(many))
    assert "matrix" not in [a.get("class") for a in found.all("table")]
    assert "Confused most label taken for pictures class 007 class 008 3 of 3" in found.text
    assert "30 classes that are found least often are listed, 70 are left out" in found.text
    assert "class 028 9 3 class 099 2 3 all 100 classes 893 300" in found.text
    assert found.text.partition("How each class fares")[2].index("class 007") < 80, "the worst class comes first"


def test_what_is_not_known_is_said(judged, tmp_path):
    empty = album_of(None, Doubts(ImageSet((), (), ()), (), None, "no features are cached"), None, CLASSES, tmp_path)
    bare = summary(val=None, auto=None, stopped=None, phases=[], engine=None)
    found = Page(
        page(report(None, empty, split=None, summary=bare, majority=None, epochs=(), depths=(), environment={}, missing=0, counts={}))
    )
    assert "was not measured" in found.text
    assert "there are no epochs to draw" in found.text
    assert "Not looked for here: no features are cached" in found.text
    assert "Not looked for in this run" in found.text
    gone = Page(page(report(None, empty)))
    assert "None of the validation pictures can be read any more" in gone.text


def test_pictures_that_cannot_be_read_are_said_and_not_fatal(judged, tmp_path):
    found = album(judged, tmp_path)
    shown = {t.wanted.path: t for t in (*found.surest_mistakes, *found.least_sure)}
    assert shown[judged.images.paths[0]].why == "is not there any more"
    assert shown[judged.images.paths[3]].uri is None
    assert "no image" in shown[judged.images.paths[3]].why
    assert shown[judged.images.paths[11]].uri.startswith("data:image/jpeg;base64,")
    assert shown[judged.images.paths[11]].wanted.name == "caf\\udce9.png"
    assert found.mistakes == 5
    assert len(found.surest_mistakes) == 5


def test_thumbnails_are_upright_and_small(tmp_path):
    image = Image.new("RGB", (400, 200), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    tile = tiles([Wanted(tmp_path / "turned.jpg", None, "n", "t", "w", "a")])[0]
    small = Image.open(io.BytesIO(base64.b64decode(tile.uri.partition(",")[2])))
    assert small.size == (88, 176)


def test_names_are_shown_below_the_data():
    assert below(Path("/d/train/a/1.png"), Path("/d")) == "train/a/1.png"
    assert below(Path("/elsewhere/train/a/1.png"), Path("/d")) == "a/1.png"


def run_with(folder, rows, classes=("a", "b")):
    with (folder / "split.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        csv.writer(stream).writerows([("path", "label", "split", "group"), *rows])
    return Run(folder, Recipe(data="d"), {}, classes, torch.nn.Identity())


def test_images_are_found_again_by_the_bytes_of_their_names(tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    odd.write_bytes(b"x")
    run = run_with(tmp_path, [(str(odd), "a", "val", ""), (str(tmp_path / "gone.png"), "b", "val", "g"), (str(odd), "", "train", "")])
    manifest = listed(run)
    assert [r.label for r in manifest.records] == [0, 1, None]
    assert manifest.records[0].path == odd
    there = still_there(manifest)
    assert there.images["val"].paths == (odd,)
    assert there.missing["val"] == (tmp_path / "gone.png",)
    assert there.reported == "val"
    assert there.groups[tmp_path / "gone.png"] == "g"


def test_a_damaged_list_of_images_is_an_error_and_a_missing_one_is_not(tmp_path):
    with pytest.raises(Exception, match=r"split\.csv: is damaged"):
        listed(run_with(tmp_path, [("x.png", "unheard of", "val", "")]))
    (tmp_path / "split.csv").unlink()
    assert listed(Run(tmp_path, Recipe(data="d"), {}, ("a",), torch.nn.Identity())) == Manifest(("a",), ())


def test_the_command_that_makes_the_run_again_has_what_differs_from_the_defaults():
    recipe = Recipe(data="/data/a b", unfreeze="last:1", epochs=3, wise=True, cache=False, lr=0.01)
    assert recipe.command() == "frostline train '/data/a b' --unfreeze last:1 --epochs 3 --lr 0.01 --wise --no-cache"
