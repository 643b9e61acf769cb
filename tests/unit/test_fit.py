"""Heads, optimizer, schedule, loop and metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from frostline import Compute, EpochDone, Finished, FreezePlan, TransferModel, fit
from frostline._rng import permutation, seeded, stream
from frostline.data import ensure_splits, read_data
from frostline.errors import AuditError, HeadError, RecipeError
from frostline.features.images import digest_files
from frostline.fitting import Options, PhaseDone, Planned, StepDone, Stopped
from frostline.fitting.hyper import Hyper, default_hyper, override
from frostline.fitting.loop import Task, close_epoch, train
from frostline.fitting.metrics import score, wilson
from frostline.fitting.objective import Objective
from frostline.fitting.optim import check_groups, make_optimizer
from frostline.fitting.schedule import warmup_cosine
from frostline.fitting.snapshot import Progress, Snapshot
from frostline.fitting.sources import FeatureRows, merge_last
from frostline.freeze.crossing import Layout
from frostline.heads import FeatureShape, HeadSpec, InputScale, build_head

HYPER = Hyper(epochs=5, batch_size=8, lr=0.05, backbone_lr=0.001, weight_decay=0.01, warmup_fraction=0.1, patience=5)


def rows_of(features, labels):
    return FeatureRows((features,), labels, Layout.of([features]))


def blobs(count=64, features=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return rows_of(torch.randn(count, features, generator=random) + 3 * nn.functional.one_hot(labels, features), labels)


def run(module, train_rows, val_rows, hyper=None, seed=0, optimizer=None, progress=None):
    """The loop's events without its steps, and where it ended."""
    named = dict(module.named_parameters())
    tensors = {**named, **dict(module.named_buffers())}
    task = Task("plain", 0, module, tensors, named, train_rows, val_rows, hyper or HYPER, Objective(Options(), seed=seed), seed)
    progress = Progress() if progress is None else progress
    loop = train(task, optimizer or optimizer_of(module), progress, lambda p: Snapshot(p.facts(), {}))
    return [e for e in loop if not isinstance(e, StepDone)], progress


def optimizer_of(module, lr=0.05):
    return torch.optim.AdamW([{"params": list(module.parameters()), "lr": lr, "peak": lr}])


@pytest.mark.parametrize(("text", "parameters"), [("linear", 5 * 3 + 3), ("mlp:7", 5 * 7 + 7 + 7 * 3 + 3)])
def test_heads_take_their_shape_from_the_features(text, parameters):
    head = build_head(HeadSpec.parse(text), FeatureShape((5,)), 3)
    assert sum(p.numel() for p in head.parameters()) == parameters
    assert torch.equal(head(torch.randn(4, 5)), torch.zeros(4, 3))
    assert str(HeadSpec.parse(text)) == text


@pytest.mark.parametrize("text", ["", "tree", "mlp", "mlp:", "mlp:0", "mlp:x", "linear:3"])
def test_unknown_heads_are_refused(text):
    with pytest.raises(HeadError, match="--head"):
        HeadSpec.parse(text)


def test_a_head_that_cannot_fit_says_which_shape_it_met():
    with pytest.raises(HeadError, match=r"\(8, 7, 7\)"):
        build_head(HeadSpec.parse("linear"), FeatureShape((8, 7, 7)), 3)
    with pytest.raises(HeadError, match="at least 2 classes"):
        build_head(HeadSpec.parse("linear"), FeatureShape((8,)), 1)


def test_scaling_centres_each_feature_and_divides_by_one_number():
    scale = InputScale(3)
    features = torch.tensor([[1.0, 5.0, 100.0], [3.0, 5.0, 300.0], [5.0, 5.0, 500.0]])
    scale.measure(features)
    out = scale(features)
    assert torch.allclose(out.mean(0), torch.zeros(3), atol=1e-6)
    assert out.var(0, correction=0).mean() == pytest.approx(1.0)
    assert torch.allclose(out[:, 2], out[:, 0] * 100)
    scale.measure(torch.ones(4, 3))
    assert torch.equal(scale(torch.ones(4, 3)), torch.zeros(4, 3))


def test_scores_against_scikit_learn():
    from sklearn import metrics

    random = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(200, 4, generator=random), torch.randint(0, 4, (200,), generator=random)
    ours, predicted = score(logits, labels), logits.argmax(1)
    assert ours.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert ours.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert ours.log_loss == pytest.approx(metrics.log_loss(labels, logits.double().softmax(1).numpy()), rel=1e-9)
    assert np.array_equal(np.array(ours.confusion), metrics.confusion_matrix(labels, predicted))


def test_calibration_error_of_a_known_case():
    """Confidence 0.75 throughout, half of them right: off by a quarter."""
    logits = torch.tensor([[math.log(3.0), 0.0]] * 4)
    assert score(logits, torch.tensor([0, 0, 1, 1])).calibration_error == pytest.approx(0.25)


@pytest.mark.parametrize(("right", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)])
def test_wilsons_interval_against_newcombe_1998(right, n, low, high):
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-4)


def test_the_schedule_rises_then_falls_to_zero():
    factors = [warmup_cosine(s, 100, 0.1) for s in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1.0
    assert all(a > b for a, b in zip(factors[10:], factors[11:], strict=False))
    assert factors[-1] < 0.001
    assert warmup_cosine(0, 10, 0.0) == 1.0


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"lr": 0.0}, "--lr"),
        ({"lr": math.nan}, "--lr"),
        ({"epochs": 0}, "--epochs"),
        ({"batch_size": -1}, "--batch-size"),
        ({"weight_decay": -1.0}, "--weight-decay"),
        ({"backbone_lr": math.inf}, "--backbone-lr"),
    ],
)
def test_settings_out_of_range_are_refused(given, flag):
    with pytest.raises(RecipeError, match=flag):
        override(HYPER, **given)


def test_what_is_given_is_taken_and_the_backbone_follows_the_head():
    assert override(HYPER) == HYPER
    assert override(HYPER, epochs=3, weight_decay=0.0).epochs == 3
    assert override(HYPER, lr=0.2).backbone_lr < 0.2
    assert override(HYPER, lr=0.2, backbone_lr=0.003).backbone_lr == 0.003


@pytest.mark.parametrize("images", [2, 60, 245, 5000, 2_000_000])
@pytest.mark.parametrize("trained", [False, True])
def test_the_rule_gives_sane_settings_at_every_size(images, trained):
    hyper = default_hyper(images=images, head="linear", backbone_trained=trained)
    assert hyper == override(hyper, epochs=hyper.epochs, lr=hyper.lr, backbone_lr=hyper.backbone_lr)
    assert hyper.epochs >= 5
    assert hyper.backbone_lr <= hyper.lr / 5
    assert 1 <= hyper.patience <= hyper.epochs


def test_the_optimizer_holds_exactly_the_trainable_set_in_named_groups(tiny):
    model = TransferModel(tiny())
    resolved = FreezePlan("last:1").apply(model)
    optimizer = make_optimizer(model, resolved, HYPER)
    held = {name for group in optimizer.param_groups for name in group["names"]}
    assert held == set(resolved.trainable)
    groups = {g["group"]: (g["peak"], g["weight_decay"]) for g in optimizer.param_groups}
    assert groups == {"head": (0.05, 0.01), "head, no decay": (0.05, 0.0), "backbone": (0.001, 0.01), "backbone, no decay": (0.001, 0.0)}
    assert {n for g in optimizer.param_groups if g["weight_decay"] for n in g["names"]} == {"head.linear.weight", "backbone.body.0.weight"}


def test_an_optimizer_that_is_not_the_trainable_set_is_refused(tiny):
    model = TransferModel(tiny())
    resolved = FreezePlan().apply(model)
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    whole = [{"params": list(named.values())}]
    check_groups(whole, named, resolved)
    for wrong in ([{"params": list(named.values())[:1]}], [*whole, *whole], [{"params": list(model.parameters())}]):
        with pytest.raises(AuditError, match="optimizer holds"):
            check_groups(wrong, named, resolved)


def test_the_loop_learns_keeps_the_best_epoch_and_repeats_bit_for_bit():
    results = []
    for _ in range(2):
        head = build_head(HeadSpec.parse("mlp:16"), FeatureShape((5,)), 3, seed=4)
        events, progress = run(head, blobs(), blobs(seed=9), seed=4)
        losses = [e.val_loss for e in events if isinstance(e, EpochDone)]
        assert losses[progress.best_epoch - 1] == min(losses)
        assert score(head(blobs(seed=9).views[0]).detach(), blobs().labels).log_loss == pytest.approx(min(losses), rel=1e-5)
        assert events[-1].val_accuracy > 0.8
        results.append(head.state_dict())
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])


def test_without_validation_the_last_epoch_is_kept():
    head = build_head(HeadSpec.parse("linear"), FeatureShape((5,)), 3)
    assert run(head, blobs(), None)[1].best_epoch == 5


def test_early_stopping_says_why():
    head = build_head(HeadSpec.parse("linear"), FeatureShape((5,)), 3)
    wrong = rows_of(blobs().views[0], (blobs().labels + 1) % 3)  # the better it learns, the worse this gets
    hyper = Hyper(50, 8, 0.05, 0.005, 0.0, 0.0, patience=3)
    events, progress = run(head, blobs(), wrong, hyper)
    assert isinstance(events[-1], Stopped)
    assert "3 epochs" in events[-1].why
    assert (progress.best_epoch, events[-1].epoch) == (1, 4)


def test_accuracy_that_still_rises_keeps_training_from_stopping():
    progress = Progress(best_epoch=1, best_loss=0.1, best_accuracy=0.5, epoch=1)
    task = Task("plain", 0, nn.Identity(), {}, {}, blobs(), None, HYPER, Objective(Options()), 0)
    close_epoch(task, progress, 0.2, 0.6)
    assert (progress.stale, progress.best_epoch, progress.best_accuracy) == (0, 1, 0.6)
    close_epoch(task, progress, 0.2, 0.6)
    assert progress.stale == 1


def test_nan_stops_and_keeps_the_last_good_epoch():
    rows = blobs()
    head = build_head(HeadSpec.parse("linear"), FeatureShape((5,)), 3)
    calls = 0

    class Poisoned(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = head

        def forward(self, x):
            nonlocal calls
            calls += self.training
            return self.inner(x) * (math.nan if calls > 12 else 1.0)

    module = Poisoned()
    events, progress = run(module, rows, rows)
    assert isinstance(events[-1], Stopped)
    assert "NaN" in events[-1].why
    assert "epoch 2, step 5" in events[-1].why
    assert progress.best_epoch == 1
    assert all(torch.isfinite(p).all() for p in head.parameters())
    calls = 100
    with pytest.raises(RecipeError, match="try a tenth"):
        run(module, rows, rows)


def test_a_last_batch_of_one_is_merged():
    assert [len(p) for p in merge_last(list(torch.arange(9).split(4)))] == [4, 5]
    assert [len(p) for p in merge_last(list(torch.arange(8).split(4)))] == [4, 4]
    assert [len(p) for p in merge_last([torch.arange(1)])] == [1]


def test_random_labels_score_chance():
    random = torch.Generator().manual_seed(0)
    train_rows = rows_of(torch.randn(200, 5, generator=random), torch.randint(0, 2, (200,), generator=random))
    val_rows = rows_of(torch.randn(400, 5, generator=random), torch.randint(0, 2, (400,), generator=random))
    head = build_head(HeadSpec.parse("linear"), FeatureShape((5,)), 2)
    run(head, train_rows, val_rows)
    low, high = score(head(val_rows.views[0]).detach(), val_rows.labels).interval
    assert low < 0.5 < high + 0.03


def test_randomness_is_a_function_of_its_arguments_and_leaves_the_global_state():
    before = torch.get_rng_state()
    assert torch.equal(permutation(50, 1, 2), permutation(50, 1, 2))
    assert not torch.equal(permutation(50, 1, 2), permutation(50, 1, 3))
    assert stream(1, "a").initial_seed() != stream(1, "b").initial_seed()
    with seeded(1, "x"):
        first = torch.rand(3)
    with seeded(1, "x"):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("unfreeze", ["none", "last:1", "all"])
def test_fit_tells_its_events_in_order_and_runs_nothing_below_the_cut_again(tiny, images, tmp_path, unfreeze):
    model = TransferModel(tiny())
    calls = []
    model.backbone.stem.register_forward_hook(lambda *_: calls.append(1))
    manifest = read_data(images)
    manifest = ensure_splits(manifest, digest_files([r.path for r in manifest.records]), 0)
    events, first_epoch = [], 0
    for event in fit(model, FreezePlan(unfreeze), manifest.only("train"), manifest.only("val"), epochs=3, compute=Compute(tmp_path)):
        events.append(event)
        if isinstance(event, EpochDone) and not first_epoch:
            first_epoch = len(calls)
    assert isinstance(events[0], Planned)
    assert isinstance(events[-2], PhaseDone)
    assert isinstance(events[-1], Finished)
    assert [e.epoch for e in events if isinstance(e, EpochDone)] == [1, 2, 3]
    assert events[-1].audit.frozen_unchanged
    forgetting = 0 if unfreeze == "none" else 2 * math.ceil(min(64, len(manifest.only("val"))) / 16)
    assert (len(calls) == first_epoch + forgetting) == (unfreeze != "all")
    if unfreeze == "none":
        assert all(p.grad is None for p in model.backbone.parameters())


def test_fit_takes_folders(tiny, images):
    model = TransferModel(tiny())
    events = list(fit(model, FreezePlan(), images, images, epochs=2))
    assert events[-1].val_logits.shape == (60, 2)
