"""What the benchmarks compute and write, from records made here; nothing is timed."""

from __future__ import annotations

import importlib
import json
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from conftest import ROOT
from frostline.fitting.metrics import wilson


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield lambda name: importlib.import_module(f"harness.{name}")
    for name in [n for n in sys.modules if n.split(".")[0] == "harness"]:
        del sys.modules[name]


def contest(who, session, **more):
    common = {"machine": "m", "data": "d", "device": "cpu", "epochs": 20, "images": {"train": 244, "val": 153}, "classes": 2}
    shown = {"data_name": "x", "load_before": 0.1, "command": "c", "versions": {"peers": {"torch": "2"}}, "shown": who.title()}
    return {"kind": "contest", "who": who, "session": session, **common, **shown, **more}


def ran(seconds, right=145):
    return {"seconds": seconds, "cpu_seconds": seconds, "peak_mb": 900.0, "right": right, "n": 153, "trained": 2562}


def write(docs, *rows):
    (docs / "benchmarks.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def test_wilson_is_frostlines(harness):
    for right, n in ((0, 5), (145, 153), (7, 7), (1, 2)):
        assert harness("figures").wilson(right, n) == pytest.approx(wilson(right, n), abs=1e-4)


def test_the_line_is_least_squares(harness):
    xs, ys = [100, 1000, 5000, 20000], [7.0, 12.5, 40.0, 150.0]
    line = harness("figures").fit_line(xs, ys)
    assert (line.slope, line.start) == pytest.approx(tuple(np.polyfit(xs, ys, 1)))
    assert line.r2 == pytest.approx(np.corrcoef(xs, ys)[0, 1] ** 2)
    assert harness("figures").fit_line([5, 5], [1, 2]) is None


def test_peak_memory_is_that_of_the_process(harness, tmp_path):
    program = tmp_path / "measures.py"  # a small process, as the benchmarks are: Linux counts the parent's memory too
    program.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
        "from harness.process import run\n"
        "print(run([sys.executable, '-c', 'x = bytearray(200_000_000)']).peak_mb)\n"
    )
    assert 200 < float(harness("process").run([sys.executable, program]).out) < 260


def test_a_process_is_ended_in_time_and_its_failure_told(harness):
    run = harness("process").run
    assert run([sys.executable, "-c", "print('words'); print('{\"a\": 1}')"]).answer() == {"a": 1}
    late = run([sys.executable, "-c", "import time; time.sleep(60)"], limit=0.5)
    assert late.seconds < 30
    with pytest.raises(ValueError, match="killed after"):
        late.answer()
    with pytest.raises(ValueError, match=r"exit code 1: .*ZeroDivisionError"):
        run([sys.executable, "-c", "1 / 0"]).answer()


def test_medians_and_ratios(harness, tmp_path):
    rows = [contest("cold", "1", **ran(s)) for s in (6.0, 7.0, 30.0)] + [contest("tutorial", "1", **ran(280.0))]
    write(tmp_path, *rows, contest("timm", "1", cannot="no train.py"), contest("fastai", "1", failed="boom | bang"))
    harness("page").write_page(tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| **Cold** | 3 | 7.00 (6.00 to 30.00) | 1 |" in page
    assert "| Tutorial | 1 | 280.00 | 40 |" in page
    assert "0.948 (0.900 to 0.973)" in page
    assert "| tutorial's loop / frostline cold | 40.00 | 40 or more, 50 is wished for |" in page
    assert "| Timm | 0 | no train.py |" in page
    assert "failed: boom / bang" in page


def test_a_part_measured_again_replaces_it_and_keeps_the_ratios_of_the_others(harness, tmp_path):
    write(
        tmp_path,
        contest("cold", "1", **ran(10.0)),
        contest("tutorial", "1", **ran(300.0)),
        contest("cold", "2", **ran(5.0)),
        contest("cold", "3", **ran(1.0)) | {"machine": "another"},
        contest("cold", "4", **ran(6.0)),
    )
    harness("page").write_page(tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| **Cold** | 1 | 6.00 |" in page
    assert "| Tutorial † | 1 | 300.00 | 30 |" in page  # to the 10 s that it ran beside


def test_the_picture_is_xml_with_words_and_longer_bars_for_more(harness, tmp_path):
    write(tmp_path, contest("cold", "1", **ran(6.0)), contest("a & <b>", "1", **ran(600.0)))
    harness("page").write_page(tmp_path)
    svg = ElementTree.parse(tmp_path / "benchmarks.svg").getroot()
    space = {"s": "http://www.w3.org/2000/svg"}
    assert "A & <B>: 600" in svg.find("s:desc", space).text
    own, other = (float(svg.find(f"s:rect[@class='{kind}']", space).get("width")) for kind in ("own", "other"))
    assert own < other


def test_no_records_no_tables(harness, tmp_path):
    harness("page").write_page(tmp_path)
    assert (tmp_path / "benchmarks.md").read_text().startswith("# Benchmarks")
    assert not (tmp_path / "benchmarks.svg").exists()


def test_features_on_a_gpu_are_held_against_the_fastest_forward_pass_of_their_precision(harness, tmp_path):
    def measured(what, rate, **more):
        facts = {"kind": "gpu", "session": "1", "machine": "m", "command": "c", "versions": {}}
        return {**facts, "model": "resnet50", "what": what, "rate": rate, **more}

    write(
        tmp_path,
        contest("cold", "1", **ran(6.0)),
        measured("forward, cuda", 2000.0, difference=4e-4),
        measured("forward, cuda-bf16", 8000.0, difference=5e-3),
        measured("frostline's features, fp32", 1900.0, difference=4e-4),
        measured("frostline's features, bf16", 4000.0, difference=5e-3),
    )
    harness("page").write_page(tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| resnet50 | frostline's features, fp32 | 1900 | 0.95 | 4e-04 |" in page
    assert "| resnet50 | frostline's features, bf16 | 4000 | 0.50 | 5e-03 |" in page
