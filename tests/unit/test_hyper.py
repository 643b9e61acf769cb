import math
import subprocess
import sys

import pytest

from frostline.errors import RecipeError
from frostline.fitting.hyper import Hyper, default_hyper, override

SIZES = [1, 2, 31, 32, 33, 100, 245, 1000, 1437, 2000, 4500, 10_000, 60_000, 1_281_167]


def rule(images: int, *, head: str = "linear", trained: bool = False) -> Hyper:
    return default_hyper(images=images, head=head, backbone_trained=trained)


def steps(hyper: Hyper, images: int) -> int:
    return hyper.epochs * math.ceil(images / hyper.batch_size)


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("images", SIZES)
def test_every_setting_is_usable_at_every_size(images, trained, head):
    hyper = rule(images, head=head, trained=trained)
    assert hyper.epochs >= 1
    assert 1 <= hyper.batch_size <= 512
    assert 0 < hyper.backbone_lr <= hyper.lr / 10 * (1 + 1e-9)
    assert math.isfinite(hyper.lr)
    assert hyper.weight_decay >= 0
    assert 0 <= hyper.warmup_fraction < 0.5
    assert 1 <= hyper.patience <= hyper.epochs
    again = override(
        hyper,
        epochs=hyper.epochs,
        batch_size=hyper.batch_size,
        lr=hyper.lr,
        backbone_lr=hyper.backbone_lr,
        weight_decay=hyper.weight_decay,
    )
    assert again == hyper


@pytest.mark.parametrize("images", [245, 500, 1000, 1437, 2000])
def test_a_small_set_gets_its_steps_and_no_set_gets_many_more_than_it_needs(images):
    assert 600 <= steps(rule(images), images) <= 1300


def test_a_very_small_set_is_bounded_in_epochs():
    assert rule(60).epochs == rule(2).epochs <= 100


def test_steps_grow_with_the_set_and_epochs_never_do():
    counts = [steps(rule(n), n) for n in (2, 60, 245, 2000, 60_000)]
    assert counts == sorted(counts)
    epochs = [rule(n).epochs for n in SIZES]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] >= 20


def test_a_trained_backbone_means_fewer_epochs_and_a_slower_head():
    for images in SIZES:
        head, whole = rule(images), rule(images, trained=True)
        assert whole.epochs <= 20 <= head.epochs
        assert whole.batch_size == 32
        assert whole.lr <= head.lr


def test_the_rule_is_of_the_size_of_the_task_alone():
    assert rule(245) == rule(245)
    assert rule(245, head="mlp").lr < rule(245).lr


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"epochs": 0}, "--epochs"),
        ({"epochs": -3}, "--epochs"),
        ({"batch_size": 0}, "--batch-size"),
        ({"lr": 0.0}, "--lr"),
        ({"lr": -1e-3}, "--lr"),
        ({"lr": math.nan}, "--lr"),
        ({"lr": math.inf}, "--lr"),
        ({"backbone_lr": 0.0}, "--backbone-lr"),
        ({"backbone_lr": -math.inf}, "--backbone-lr"),
        ({"weight_decay": -0.1}, "--weight-decay"),
        ({"weight_decay": math.nan}, "--weight-decay"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line_that_names_the_flag(given, flag):
    with pytest.raises(RecipeError) as caught:
        override(rule(245), **given)
    assert caught.value.where == flag
    assert caught.value.advice
    line = str(caught.value)
    assert line.startswith(f"{flag}: ")
    assert str(next(iter(given.values()))) in line
    assert "\n" not in line


def test_what_is_given_changes_and_nothing_else_does():
    before = rule(245)
    after = override(before, epochs=20)
    assert after.epochs == 20
    assert (after.batch_size, after.lr, after.backbone_lr, after.weight_decay) == (
        before.batch_size,
        before.lr,
        before.backbone_lr,
        before.weight_decay,
    )
    assert override(before, weight_decay=0.0).weight_decay == 0.0
    assert override(before, batch_size=7).batch_size == 7
    assert override(before) == before


def test_a_given_head_rate_takes_the_backbone_along_unless_its_own_is_given():
    before = rule(245, trained=True)
    assert override(before, lr=0.02).backbone_lr == pytest.approx(0.002)
    assert override(before, lr=0.02, backbone_lr=0.5).backbone_lr == 0.5
    assert override(before, backbone_lr=0.5).lr == before.lr


def test_a_hyper_cannot_be_changed():
    with pytest.raises(AttributeError):
        rule(245).lr = 1.0  # type: ignore[misc]


def test_the_module_itself_asks_for_no_torch():
    """Run from its file: the package around it does import torch."""
    program = (
        "import runpy, sys, importlib.util as u;"
        "p = u.find_spec('frostline').submodule_search_locations[0];"
        "runpy.run_path(p + '/fitting/hyper.py', run_name='hyper');"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
