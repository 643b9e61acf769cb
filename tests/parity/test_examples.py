"""The first of the three ways: plain PyTorch and frostline reach the same accuracy within the noise."""

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
def test_new_classifier(hymenoptera):
    folder = EXAMPLES / "01_new_classifier"
    ours = load(folder / "with_frostline.py").main(hymenoptera)
    theirs = load(folder / "plain_torch.py").main(hymenoptera, epochs=2)
    low, high = wilson(round(ours * 153), 153)
    assert low <= theirs <= high
    assert min(ours, theirs) >= 0.9
