"""Golden trajectories: the losses of every epoch stay what they are, unless somebody changes them on purpose.

Where a change of results is meant (see docs/design), run ``python tests/golden/rewrite.py`` and commit the new record with it.
"""

from __future__ import annotations

import copy

import pytest

from golden.trajectories import RUNS, TOLERANCE, differences, losses_of, on_record


@pytest.mark.parametrize("run", RUNS)
def test_the_losses_are_those_on_record(frostline, tmp_path, run):
    assert differences(losses_of(frostline, tmp_path, run), on_record()[run], TOLERANCE[run]) == []


def test_another_order_of_the_images_is_found(frostline, tmp_path):
    other = losses_of(frostline, tmp_path, "linear", seed=1)
    assert len(differences(other, on_record()["linear"], TOLERANCE["linear"])) == 6


def test_the_record_is_of_these_runs_and_they_differ():
    record = on_record()
    assert set(record) == set(RUNS)
    assert all(len(epochs) == 3 for epochs in record.values())
    assert all(differences(record[a], record[b], 1e-3) for a in RUNS for b in RUNS if a != b)


@pytest.mark.parametrize("name", ["train_loss", "val_loss"])
@pytest.mark.parametrize("run", RUNS)
def test_a_planted_change_is_found(run, name):
    wanted, tolerance = on_record()[run], TOLERANCE[run]
    found = copy.deepcopy(wanted)
    found[1][name] *= 1 + 2 * tolerance
    assert [line.partition(":")[0] for line in differences(found, wanted, tolerance)] == [f"epoch 2 {name}"]
    found[1][name] = float("nan")
    assert len(differences(found, wanted, tolerance)) == 1
    found[1][name] = wanted[1][name] * (1 + tolerance / 10)
    assert differences(found, wanted, tolerance) == []
    assert differences(wanted[:2], wanted, tolerance) == ["2 epochs instead of 3"]
