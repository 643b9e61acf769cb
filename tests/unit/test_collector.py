"""The garbage collector is put off for the command line alone, and taken up again."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from frostline import _collector


@pytest.fixture(autouse=True)
def usual() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.unfreeze()
    gc.set_threshold(*before)


def test_put_off_and_taken_up(usual: tuple[int, int, int]) -> None:
    _collector.put_off()
    _collector.put_off()
    assert gc.get_threshold()[0] > 10 * usual[0]
    assert gc.isenabled()
    _collector.take_up()
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() > 0


def test_a_program_that_never_put_it_off_keeps_its_own(usual: tuple[int, int, int]) -> None:
    gc.set_threshold(123, 4, 5)
    _collector.take_up()
    assert gc.get_threshold() == (123, 4, 5)
    assert gc.get_freeze_count() == 0
