"""The three ways: plain PyTorch and frostline reach the same accuracy within the noise."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

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


def test_every_example_has_its_plain_twin():
    folders = sorted(p for p in EXAMPLES.iterdir() if p.is_dir())
    assert [p.name for p in folders] == ["01_new_classifier", "02_unfreeze_last_layers", "03_new_conv_head"]
    for folder in folders:
        assert callable(load(folder / "with_frostline.py").main)
        assert callable(load(folder / "plain_torch.py").main)
