"""The table of which architectures cut how (docs/cuts.md), measured anew."""

from __future__ import annotations

import gc
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def table():
    spec = importlib.util.spec_from_file_location("cut_table", ROOT / "benchmarks" / "cut_table.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_architectures_are_cut_and_both_parts_in_a_row_are_the_network():
    cut_table = table()
    rows = []
    for name in cut_table.ARCHITECTURES:
        rows.append(cut_table.check(name))
        gc.collect()
    assert len(rows) >= 60
    not_cut = [row for row in rows if not row.cut]
    assert len(not_cut) <= 0.05 * len(rows), [(row.name, row.says) for row in not_cut]
    for row in not_cut:
        assert row.says, row  # a difference in numbers is never one of the ways to fall back
        assert all(re.search(r"the whole network is run|takes|is not known|no .* here", said) for said in row.says), row.says


def test_the_page_is_of_the_architectures_of_the_table():
    listed = re.findall(r"^\| ((?:timm|torchvision):\S+) \|", (ROOT / "docs" / "cuts.md").read_text(), re.MULTILINE)
    assert listed == list(table().ARCHITECTURES)


def test_the_table_shows_what_goes_wrong(monkeypatch):
    cut_table = table()
    monkeypatch.setattr(cut_table, "open_backbone", lambda *_: 1 / 0)
    text = "\n".join(cut_table.lines(iter([cut_table.check("timm:resnet18")])))
    assert "| timm:resnet18 | | failed | ZeroDivisionError: division by zero |" in text
    assert "0 of 1 are cut for all three plans (0%)" in text


def test_the_table_finds_parts_that_are_not_the_network(monkeypatch):
    """A planted fault: what crosses of two images is exchanged."""
    cut_table = table()
    right = cut_table._crossing
    monkeypatch.setattr(cut_table, "_crossing", lambda parts, batch: right(parts, batch).flip(0))
    row = cut_table.check("timm:test_vit")
    assert row.checks[0].cut
    assert not row.cut
    assert max(row.checks[0].evaluated, row.checks[0].trained) > 1e-5
