"""What a result is read with: calibrated probabilities, baselines, and whether a step was more than chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from frostline import Compute, Finished, FreezePlan, ImageSet, TransferModel, fit
from frostline.data import ensure_splits, read_data
from frostline.fitting.auto import another_step, gain_of, losses_of
from frostline.fitting.baselines import baselines_of, nearest_classes
from frostline.fitting.calibrate import FEWEST, RANGE, calibrated, fit_temperature
from frostline.fitting.metrics import mcnemar, score


def drawn(count, classes, temperature, seed=0):
    """Logits, and labels that come true as often as ``logits / temperature`` say."""
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=g, dtype=torch.float64)
    labels = torch.multinomial((logits / temperature).softmax(1), 1, generator=g)[:, 0]
    return logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature):
    logits, labels = drawn(20000, 5, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_is_the_best_of_a_grid():
    logits, labels = drawn(300, 3, 2.0)
    smooth = 1 / 302
    losses = {t: float(nn.functional.cross_entropy(logits / t, labels, label_smoothing=smooth)) for t in np.geomspace(*RANGE, 2001)}
    assert fit_temperature(logits, labels) == pytest.approx(min(losses, key=losses.get), rel=0.01)


def test_images_that_are_all_right_do_not_ask_for_certainty():
    labels = torch.arange(40) % 2
    logits = 4.0 * nn.functional.one_hot(labels, 2).double()
    sure = (logits / fit_temperature(logits, labels)).softmax(1).amax(1)
    assert 0.97 < float(sure[0]) < 0.995


def finished(logits, labels):
    nothing = torch.zeros(4, logits.shape[1])
    return Finished(1, 1, None, None, None, nothing, torch.tensor([0, 1, 1, 0]), logits.float(), labels, 0.0)


def test_it_is_folded_into_the_head_and_every_image_judged_by_another_folds_temperature():
    logits, labels = drawn(2000, 4, 3.0)
    head = nn.Sequential()
    head.linear = nn.Linear(7, 4)
    before = head.linear.weight.detach().clone()
    told, calibration = calibrated(head, finished(logits, labels), seed=0)
    assert calibration.temperature == pytest.approx(3.0, rel=0.1)
    assert torch.allclose(head.linear.weight * calibration.temperature, before)
    assert calibration.error_after < 0.5 * calibration.error_before
    assert calibration.log_loss_after < calibration.log_loss_before
    assert score(told.val_logits, labels).log_loss == pytest.approx(calibration.log_loss_after)
    assert len((logits / told.val_logits).round(decimals=4).unique()) == 5  # a temperature a fold
    assert torch.equal(told.val_logits.argmax(1), logits.argmax(1))


def test_what_is_calibrated_already_stays_as_it_is():
    logits, labels = drawn(60, 3, 1.0, seed=4)
    t = fit_temperature(logits, labels)
    head = nn.Sequential()
    head.linear = nn.Linear(2, 3)
    before = head.linear.weight.detach().clone()
    told, calibration = calibrated(head, finished(logits / t, labels), seed=0)
    assert calibration.temperature == 1.0
    assert torch.equal(head.linear.weight, before)
    assert torch.equal(told.val_logits, (logits / t).float())


def test_too_few_images_are_not_calibrated_on():
    labels = torch.arange(FEWEST - 1) % 2
    head = nn.Sequential()
    head.linear = nn.Linear(2, 2)
    assert calibrated(head, finished(torch.randn(len(labels), 2), labels), seed=0)[1] is None


def test_a_class_of_one_image_does_not_hinder_one_temperature():
    logits, labels = drawn(400, 4, 3.0)
    logits, labels = torch.cat([logits, -logits], 1), torch.cat([labels[:-1], torch.tensor([7])])
    head = nn.Sequential()
    head.linear = nn.Linear(7, 8)
    told, calibration = calibrated(head, finished(logits, labels), seed=0)
    assert calibration.n == 400
    assert calibration.log_loss_after < calibration.log_loss_before
    assert bool(told.val_logits.isfinite().all())


@pytest.mark.parametrize(("one", "other"), [(0, 0), (3, 3), (10, 1), (0, 7), (40, 60)])
def test_mcnemar_is_the_exact_binomial_test(one, other):
    wanted = binomtest(one, one + other, 0.5).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(wanted, rel=1e-12)


def test_nearest_classes_are_those_of_scikit_learn():
    g = torch.Generator().manual_seed(3)
    train, asked, labels = torch.randn(80, 6, generator=g), torch.randn(50, 6, generator=g), torch.randint(0, 3, (80,), generator=g)
    theirs = KNeighborsClassifier(5, metric="cosine").fit(train.numpy(), labels.numpy()).predict(asked.numpy())
    assert nearest_classes(train, labels, asked, 3).tolist() == theirs.tolist()


def test_a_gain_is_told_from_noise_image_by_image():
    labels = torch.tensor([0, 0, 1, 1] * 10)
    flat = torch.zeros(40, 2)
    better = nn.functional.one_hot(labels, 2).float()
    probe = losses_of(flat, labels)
    sure = gain_of(probe, flat, better, labels)
    assert sure.sure
    assert (sure.repaired, sure.broken) == (20, 0)
    assert sure.chance == mcnemar(20, 0)
    assert sure.loss == pytest.approx(float(nn.functional.cross_entropy(flat, labels) - nn.functional.cross_entropy(better, labels)))
    noise = gain_of(probe, flat, torch.where(torch.arange(40)[:, None] < 26, better, -better), labels)
    assert not noise.sure
    assert another_step("a", sure, kept=True, judges=40)[0]
    assert not another_step("a", noise, kept=False, judges=40)[0]
    assert "inside its noise" in another_step("a", noise, kept=False, judges=40)[1]
    assert not another_step("a", sure, kept=False, judges=40)[0]
    assert "undone" in another_step("a", sure, kept=False, judges=40)[1]
    assert another_step("a", None, kept=True, judges=20)[0]
    assert another_step("a", None, kept=True, judges=0)[0]
    few = another_step("a", None, kept=True, judges=19)
    assert not few[0]
    assert "19 validation images are too few" in few[1]
    assert another_step("a", sure, kept=False, judges=40, unfinished="it was late") == (
        False,
        "a: undone and nothing more unfrozen, it was late",
    )


def test_small_gains_add_up_and_a_step_back_is_never_one():
    labels = torch.zeros(40, dtype=torch.long)
    uneven = torch.stack([torch.linspace(-1, 1, 40), torch.zeros(40)], 1)
    right = nn.functional.one_hot(labels, 2).float()
    little = right + 0.05 * uneven + 0.001 * right
    probe = losses_of(torch.zeros(40, 2), labels)
    step, first = gain_of(probe, right, little, labels), gain_of(losses_of(right, labels), right, little, labels)
    assert 0 < step.loss < step.error
    assert (step.loss, step.error) == (first.loss, first.error) == (first.total, first.total_error)
    assert step.sure
    assert not first.sure
    assert step.total == pytest.approx(float(math.log(2) - nn.functional.cross_entropy(little, labels)))
    assert "since the linear probe by" in str(step)
    assert "since" not in str(first)
    back = gain_of(probe, little, right, labels)
    assert back.total > back.total_error
    assert not back.sure


def test_baselines_of_a_training(tiny, images, tmp_path):
    listed = ImageSet.of(read_data(images))
    manifest = ensure_splits(read_data(images), listed.digests, 0)
    train, val = ImageSet.of(manifest.only("train")), ImageSet.of(manifest.only("val"))
    events = list(fit(TransferModel(tiny()), FreezePlan(), train, val, epochs=2, compute=Compute(tmp_path)))
    found = baselines_of(events[-1])
    frequent = max(set(train.labels), key=train.labels.count)
    assert found.majority == val.labels.count(frequent) / len(val)
    features = [s.features.numpy() for s in events[-1].seen]
    theirs = KNeighborsClassifier(5, metric="cosine").fit(features[0], train.labels).score(features[1], val.labels)
    assert found.neighbours == pytest.approx(theirs)
