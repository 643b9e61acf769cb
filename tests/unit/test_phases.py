"""Strategies as lists of phases: what they unfreeze, what they keep, what they undo; and going on from every step."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from frostline import Compute, EpochDone, Finished, FreezePlan, ImageSet, Options, Phase, TransferModel, fit, pipeline
from frostline._rng import beta
from frostline.data import ensure_splits, read_data
from frostline.data.views import Views
from frostline.errors import PlanError, RecipeError
from frostline.features import FeatureProgress
from frostline.fitting import CachePlanned, FeaturesReady, PhaseDone, Planned, StepDone, Stopped, job, objective
from frostline.fitting.budget import Budget
from frostline.fitting.ledger import Ledger
from frostline.fitting.phases import phases_of
from frostline.fitting.sources import ImageRows
from frostline.recipe import make_recipe
from frostline.run.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

RATES = ("images_per_second", "pictures_per_second")


@pytest.fixture(scope="module")
def sets(images):
    manifest = read_data(images)
    listed = ImageSet.of(manifest)
    manifest = ensure_splits(manifest, listed.digests, 0)
    return ImageSet.of(manifest.only("train")), ImageSet.of(manifest.only("val"))


def plans(phases):
    return [p.plan.unfreeze for p in phases]


def test_what_strategies_unfreeze():
    backbone = TransferModel("tf_efficientnet_lite0").backbone
    assert plans(phases_of("plain", FreezePlan("last:2"), backbone)) == ["last:2"]
    assert plans(phases_of("lp-ft", FreezePlan("last:2"), backbone)) == ["none", "last:2"]
    assert plans(phases_of("lp-ft", FreezePlan(), backbone)) == ["none", "all"]
    assert plans(phases_of("gradual", FreezePlan(), backbone)) == ["none", "last:1", "last:2", "last:3"]
    assert plans(phases_of("gradual", FreezePlan("last:8"), backbone)) == ["none", "last:2", "last:4", "last:6", "last:8"]
    assert plans(phases_of("gradual", FreezePlan("from:blocks.6"), backbone)) == ["none", "last:1", "from:blocks.6"]
    assert plans(phases_of("gradual", FreezePlan("all"), backbone))[-1] == "all"
    assert {p.plan.batch_norm for p in phases_of("gradual", FreezePlan(batch_norm="affine"), backbone)} == {"affine"}


@pytest.mark.parametrize(
    ("strategy", "plan", "what"),
    [
        ("sudden", FreezePlan(), "no strategy is called"),
        ("gradual", FreezePlan("norm"), "whole blocks"),
        ("gradual", FreezePlan("params:3"), "whole blocks"),
        ([], FreezePlan(), "trains nothing"),
        ([Phase("idle", FreezePlan(), epochs=0)], FreezePlan(), "no epoch"),
    ],
)
def test_strategies_that_cannot_be_are_refused(strategy, plan, what):
    with pytest.raises(PlanError, match=what):
        phases_of(strategy, plan, TransferModel("tf_efficientnet_lite0").backbone)


def test_wise_needs_a_phase_to_mix_with(tiny, sets, tmp_path):
    with pytest.raises(RecipeError, match="--wise"):
        list(fit(TransferModel(tiny()), FreezePlan("last:1"), *sets, options=Options(wise=True), compute=Compute(tmp_path)))
    with pytest.raises(RecipeError, match="--wise"):
        list(fit(TransferModel(tiny()), FreezePlan(), sets[0], strategy="lp-ft", options=Options(wise=True), compute=Compute(tmp_path)))


def test_each_phase_has_its_own_cut_and_starts_from_the_best_before_it(tiny, sets, tmp_path):
    model = TransferModel(tiny())
    events = list(fit(model, FreezePlan(), *sets, strategy="gradual", epochs=3, lr=0.01, compute=Compute(tmp_path)))
    planned = [e for e in events if isinstance(e, Planned)]
    assert [e.cut.name for e in planned] == ["backbone", "stem.0", "input"]
    assert [len(e.resolved.matched) for e in planned] == [0, 1, 2]
    done = [e for e in events if isinstance(e, PhaseDone)]
    assert done[0].loss_before is None
    for before, after in zip(done, done[1:], strict=False):
        assert after.loss_before == (before.loss_after if before.kept else before.loss_before)
        assert after.kept == (after.loss_after < after.loss_before)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.audit.frozen_unchanged
    assert finished.epochs == sum(e.epochs for e in done)
    best = min(e.loss_after for e in done)
    assert float(torch.nn.functional.cross_entropy(finished.val_logits, finished.val_labels)) == pytest.approx(best, rel=1e-5)


def test_a_phase_that_does_not_help_is_undone_to_the_last_bit(tiny, sets, tmp_path):
    model = TransferModel(tiny())
    train, val = sets
    wrong = replace(train, labels=tuple(1 - label for label in train.labels))  # the better it learns, the worse on validation
    phases = [Phase("head", FreezePlan(), epochs=1, lr=1e-6), Phase("harm", FreezePlan("all"), epochs=2, lr=0.1, backbone_lr=0.01)]
    kept = {}
    for event in fit(model, FreezePlan(), wrong, val, strategy=phases, compute=Compute(tmp_path)):
        if isinstance(event, PhaseDone) and event.phase == "head":
            kept = copy.deepcopy(model.state_dict())
        if isinstance(event, PhaseDone) and event.phase == "harm":
            assert not event.kept
            assert event.audit.trainable_moved
    assert all(torch.equal(kept[n], t) for n, t in model.state_dict().items())
    assert event.guards.forgetting is None
    assert event.resolved.trainable == ("head.linear.weight", "head.linear.bias")


def test_a_later_phase_that_diverges_at_once_is_undone_to_the_last_bit(tiny, sets, tmp_path):
    model = TransferModel(tiny())
    phases = [Phase("head", FreezePlan(), epochs=2), Phase("wild", FreezePlan("all"), epochs=2, lr=1e30, backbone_lr=1e30)]
    kept, stopped = {}, []
    for event in fit(model, FreezePlan(), *sets, strategy=phases, compute=Compute(tmp_path), options=Options(wise=True)):
        if isinstance(event, PhaseDone) and event.phase == "head":
            kept = copy.deepcopy(model.state_dict())
        if isinstance(event, Stopped):
            stopped.append(event.why)
    assert any("the phase is undone" in why for why in stopped)
    assert all(torch.equal(kept[n], t) for n, t in model.state_dict().items())
    assert event.audit.frozen_unchanged
    assert event.audit.trainable_moved
    with pytest.raises(RecipeError, match="NaN or infinite"):  # a first phase has nothing to go back to
        list(fit(TransferModel(tiny()), FreezePlan(), *sets, strategy=phases[1:], compute=Compute(tmp_path)))


def test_each_phase_sees_live_views_and_mixtures_of_its_own(tiny, sets, tmp_path, monkeypatch):
    seen, drawn = [], []

    def batches(self, parts, epoch=None):
        if epoch is not None:
            seen.append(int(self._numbers(epoch)[0]))
        yield from original(self, parts, epoch)

    def noted(parameter, seed, purpose, index=0):
        drawn.append(share := beta(parameter, seed, purpose, index))
        return share

    original = ImageRows.batches
    monkeypatch.setattr(ImageRows, "batches", batches)
    monkeypatch.setattr(objective, "beta", noted)
    phases = [Phase(n, FreezePlan(u), epochs=2, lr=0.02) for n, u in (("a", "none"), ("b", "last:1"))]
    options, views = Options(mixup=0.4), Views.parse("light", "live")
    list(fit(TransferModel(tiny()), FreezePlan(), *sets, strategy=phases, options=options, views=views, compute=Compute(tmp_path)))
    assert seen == [0, 1, 2, 3]
    assert len(set(drawn)) == len(drawn) >= 8


def test_features_of_layers_that_a_phase_changed_are_never_those_of_before(tiny, sets, tmp_path):
    """Head, then the last block, then the head alone: the third prefix is the first one with other weights."""
    phases = [Phase(n, FreezePlan(u), epochs=2, lr=0.02, backbone_lr=0.02) for n, u in (("a", "none"), ("b", "last:1"), ("c", "none"))]
    model = TransferModel(tiny())
    events = list(fit(model, FreezePlan(), *sets, strategy=phases, compute=Compute(tmp_path)))
    ready = [e for e in events if isinstance(e, FeaturesReady)]
    assert [e for e in events if isinstance(e, PhaseDone)][1].kept
    assert [r.extracted.forwarded for r in ready] == [60, 60, 60]
    finished = events[-1]
    model.eval()
    pixels = torch.stack([model.opened.preprocess.pixels(_image(p)) for p in sets[1].paths])
    with torch.no_grad():
        plain = model(model.opened.preprocess.normalise(pixels))
    assert torch.allclose(plain, finished.val_logits, atol=1e-4)


def _image(path):
    from frostline.data import decode

    return decode(path.read_bytes()).image


def test_wise_mixes_with_the_weights_before_and_never_ends_above_either(tiny, sets, tmp_path):
    events = list(
        fit(
            TransferModel(tiny()),
            FreezePlan(),
            *sets,
            strategy="lp-ft",
            epochs=3,
            lr=0.05,
            options=Options(wise=True),
            compute=Compute(tmp_path),
        )
    )
    second = [e for e in events if isinstance(e, PhaseDone)][1]
    assert 0 <= second.alpha <= 1
    assert second.loss_after <= second.loss_before + 1e-6
    tuned = min(e.val_loss for e in events if isinstance(e, EpochDone) and e.phase == "fine-tune")
    assert second.loss_after <= tuned + 1e-6


SITUATIONS = {
    "head": ("plain", "none", Options()),
    "across an unfreeze": ("lp-ft", "last:1", Options(wise=True, l2_sp=0.01)),
    "three phases": ([Phase("probe", FreezePlan()), Phase("one", FreezePlan("last:1")), Phase("all", FreezePlan("all"))], "all", Options()),
    "everything on": (
        "gradual",
        "last:2",
        Options(ema=0.9, mixup=0.4, label_smoothing=0.1, clip_norm=1.0, accumulate=2, class_weights="balanced", layer_decay=0.5),
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_resumed_at_every_step_equals_uninterrupted_to_the_last_bit(tiny, sets, tmp_path, situation):
    strategy, unfreeze, options = SITUATIONS[situation]

    def started(resume=None):
        model = TransferModel(tiny(), "mlp:5", seed=3)
        return model, fit(
            model,
            FreezePlan(unfreeze),
            *sets,
            strategy=strategy,
            epochs=2,
            batch_size=16,
            lr=0.02,
            options=options,
            seed=3,
            compute=Compute(tmp_path / "cache"),
            resume=resume,
        )

    model, events = started()
    steps, others = [], []
    for event in events:
        if isinstance(event, StepDone):
            steps.append(event.snapshot())
        elif not isinstance(event, FeatureProgress):
            others.append(event)
    whole, losses = model.state_dict(), [e.val_loss for e in others if isinstance(e, EpochDone)]
    gains = [e.gain for e in others if isinstance(e, PhaseDone)]
    assert len(steps) == {"head": 6, "across an unfreeze": 12, "three phases": 18, "everything on": 12}[situation]
    for number, snapshot in enumerate(steps):
        write_checkpoint(tmp_path / "run", Checkpoint(snapshot, [], [], number))
        read, passed_over = read_checkpoint(tmp_path / "run")
        assert not passed_over
        again, rest = started(read.snapshot)
        later, tail, told = [], [], []
        for event in rest:
            if isinstance(event, StepDone):
                later.append(event.snapshot())
            elif isinstance(event, PhaseDone):
                told.append(event.gain)
            elif isinstance(event, EpochDone):
                tail.append(event.val_loss)
        assert all(torch.equal(whole[n], t) for n, t in again.state_dict().items())
        assert losses[len(losses) - len(tail) :] == tail
        assert gains[len(gains) - len(told) :] == told
        assert len(later) == len(steps) - number - 1
        for ours, theirs in zip(later, steps[number + 1 :], strict=True):
            assert ours.facts == theirs.facts
            assert ours.tensors.keys() == theirs.tensors.keys()
            assert all(torch.equal(t, theirs.tensors[n]) for n, t in ours.tensors.items())


def test_newest_checkpoint_damaged_forty_ways_is_passed_over(tiny, sets, tmp_path):
    model = TransferModel(tiny())
    snapshots = [
        e.snapshot() for e in fit(model, FreezePlan(), *sets, epochs=1, batch_size=16, compute=Compute(tmp_path)) if isinstance(e, StepDone)
    ]
    for number, snapshot in enumerate(snapshots):
        write_checkpoint(tmp_path, Checkpoint(snapshot, [], [], number))
    folder = tmp_path / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == [f"00000{n}.{s}" for n in (1, 2) for s in ("json", "safetensors")]
    for name in ("000002.json", "000002.safetensors"):
        good = (folder / name).read_bytes()
        for way in range(20):
            place = way * (len(good) - 1) // 19
            if way % 2:
                (folder / name).write_bytes(good[:place])
            else:
                (folder / name).write_bytes(good[:place] + bytes([good[place] ^ (1 << way % 8)]) + good[place + 1 :])
            found, passed_over = read_checkpoint(tmp_path)
            assert passed_over == ("000002",)
            assert found.number == 1
            assert all(torch.equal(t, snapshots[1].tensors[n]) for n, t in found.snapshot.tensors.items())
        (folder / name).write_bytes(good)
    assert read_checkpoint(tmp_path)[0].number == 2
    assert read_checkpoint(tmp_path / "none") == (None, ())


@pytest.mark.parametrize(("seconds", "begun"), [(5.0, True), (500.0, False), (None, True)])
def test_a_later_phase_whose_features_take_too_long_is_not_begun(seconds, begun):
    rates = {"images_per_second": None, "pictures_per_second": None} if seconds is None else dict.fromkeys(RATES, 20 / seconds)

    def steps():
        yield CachePlanned(10, 1, 1, Path(), rates)
        return "trained"

    ledger, budget = Ledger(phase=1), Budget(100.0, time.perf_counter())
    gave = []

    def whole():
        gave.append((yield from job._unless_late(steps(), "fine-tune", ledger, budget)))

    met = list(whole())
    assert gave == ["trained" if begun else None]
    assert ledger.over is not begun
    assert any(isinstance(e, Stopped) for e in met) is not begun


@pytest.mark.parametrize(("strategy", "head"), [("auto", "linear"), ("lp-ft", "linear@auto"), ("lp-ft", "ridge@auto")])
def test_a_chosen_head_is_gone_on_with_in_the_phases_after_its_own(tiny, sets, tmp_path, strategy, head):
    """The features that it was chosen on are those of the frozen backbone, and no later phase may be trained on them."""

    def started(resume=None):
        model, compute = TransferModel(tiny(), head, seed=3), Compute(tmp_path / "cache")
        more = {"epochs": 2} if strategy == "lp-ft" else {}
        return model, fit(model, FreezePlan("last:1"), sets[0], sets[0], strategy=strategy, seed=3, compute=compute, resume=resume, **more)

    model, events = started()
    snapshots, cuts, kept = [], [], []
    for event in events:
        if isinstance(event, Planned):
            cuts.append((event.phase, event.cut.way, event.hyper))
        elif isinstance(event, StepDone) and len(cuts) > 1:
            snapshots.append(event.snapshot())
        elif isinstance(event, PhaseDone):
            kept.append((event.phase, event.kept, event.loss_after))
            if not event.last:
                snapshots.append(event.snapshot())
    assert len(cuts) == 2
    assert cuts[1][1] != "backbone"
    assert len(snapshots) > 2
    whole = model.state_dict()
    for snapshot in (snapshots[0], snapshots[1], snapshots[-1]):
        again, rest = started(snapshot)
        told, planned = [], []
        for event in rest:
            if isinstance(event, Planned):
                planned.append((event.phase, event.cut.way, event.hyper))
            elif isinstance(event, PhaseDone):
                told.append((event.phase, event.kept, event.loss_after))
        assert planned == cuts[-len(planned) :]
        assert told == kept[-len(told) :]
        assert str(again.head_spec) == str(model.head_spec)
        assert all(torch.equal(whole[n], t) for n, t in again.state_dict().items())


@pytest.mark.parametrize(("head", "key"), [("ridge", "solved"), ("ridge@auto", "depth")])
def test_what_was_chosen_before_a_resume_is_told_after_it(tiny, images, tmp_path, head, key):
    given = {"data": str(images), "backbone": "tiny_net:build", "engine": "plain", "device": "cpu", "epochs": 2}
    recipe = make_recipe({**given, "head": head, "unfreeze": "last:1", "strategy": "lp-ft"})
    how = {"cache": tmp_path / "cache", "offline": True}
    seen = []

    def stop():  # in the second phase, where nothing is chosen any more
        return KeyboardInterrupt() if sum(isinstance(e, Planned) for e in seen) == 2 and isinstance(seen[-1], StepDone) else None

    whole = pipeline.train(recipe, tmp_path / "whole", listen=lambda _: None, **how)
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(recipe, tmp_path / "run", listen=seen.append, stop=stop, **how)
    again = pipeline.train(recipe, tmp_path / "run", listen=lambda _: None, resume=True, **how)
    kept = [{k: v for k, v in told[key].items() if k != "seconds"} for told in (whole, again)]
    assert kept[0] == kept[1]
    assert (whole["solved"] is None, whole["sweep"]) == (again["solved"] is None, again["sweep"])
