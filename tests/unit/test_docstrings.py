"""The examples in docstrings are run."""

from __future__ import annotations

import doctest
import importlib

import pytest

from frostline import __all__ as public
from frostline import __file__ as home


def modules():
    from pathlib import Path

    root = Path(home).parent
    for path in sorted(root.rglob("*.py")):
        if ">>>" in path.read_text():
            yield "frostline." + ".".join(path.relative_to(root).with_suffix("").parts)


@pytest.mark.parametrize("name", list(modules()))
def test_examples(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_the_public_surface_stays_small():
    assert len(public) <= 25
