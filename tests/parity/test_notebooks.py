"""The notebooks of the three ways run from top to bottom, are kept without outputs, and reach what they should."""

from __future__ import annotations

import pytest

from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
LEAST = {"1-head": 0.9, "2-unfreeze": 0.6, "3-convolution": 0.6}


def read(path):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_kept_without_outputs(path):
    assert [cell.outputs for cell in read(path).cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_run(path, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    notebook = read(path)
    nbclient.NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.rstrip().endswith("\naccuracy")]
    assert len(said) == 1
    assert float(said[0].outputs[-1]["data"]["text/plain"]) > LEAST[path.stem]


def test_all_three_ways_have_one():
    assert [p.stem for p in NOTEBOOKS] == sorted(LEAST)
