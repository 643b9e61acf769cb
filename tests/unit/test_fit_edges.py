"""Training at the edges: numbers that are none at the end of an epoch, very few images, files that are no images, a resume at any place."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from torch import nn

from conftest import make_images
from frostline import Compute, EpochDone, Finished, FreezePlan, ImageSet, Options, Phase, TransferModel, fit
from frostline.data import read_data
from frostline.errors import RecipeError
from frostline.fitting import FeaturesReady, Planned, StepDone, Stopped
from frostline.fitting.hyper import Hyper
from frostline.fitting.loop import Task, steps_of, train
from frostline.fitting.objective import Objective
from frostline.fitting.snapshot import Progress, Snapshot
from frostline.fitting.sources import FeatureRows
from frostline.freeze.crossing import Layout


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edges")
    made = [make_images(folder / name, {"a": n, "b": n}, seed) for name, n, seed in (("train", 17, 0), ("val", 5, 1))]
    return [ImageSet.of(read_data(path)) for path in made]


def first(images, count):
    """Some of each class."""
    chosen = sorted(range(len(images)), key=lambda i: (i % (len(images) // 2), i))[:count]
    return ImageSet(*(tuple(part[i] for i in sorted(chosen)) for part in (images.paths, images.digests, images.labels)))


class Broken(nn.Module):
    """Breaks at the end of an epoch: its output in eval mode, or its weights by a gradient that is none."""

    def __init__(self, epoch, what):
        super().__init__()
        self.linear, self.epoch, self.what, self.steps = nn.Linear(4, 2), epoch, what, 0

    def forward(self, x):
        self.steps += self.training
        out = self.linear(x)
        if self.what == "output":
            return out * math.nan if not self.training and self.steps >= 3 * self.epoch else out
        if self.training and self.steps == 3 * self.epoch:
            out.register_hook(lambda gradient: gradient * math.nan)
        return out


def looped(module, *, val, ema=0.0):
    random = torch.Generator().manual_seed(0)
    rows = FeatureRows((torch.randn(12, 4, generator=random),), torch.arange(12) % 2, Layout.of([torch.zeros(1, 4)]))
    named = dict(module.named_parameters())
    task = Task(
        "plain",
        0,
        module,
        dict(named),
        named,
        rows,
        rows if val else None,
        Hyper(4, 4, 0.1, 0.1, 0.0, 0.0, 9),
        Objective(Options(ema=ema)),
        0,
    )
    optimizer, progress = torch.optim.SGD([{"params": list(named.values()), "lr": 0.1, "peak": 0.1}]), Progress()
    return [e for e in train(task, optimizer, progress, lambda p: Snapshot(p.facts(), {})) if not isinstance(e, StepDone)], progress


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize(("what", "val"), [("output", True), ("weights", True), ("weights", False)])
def test_an_epoch_that_ends_in_nan_is_never_the_best(what, val, ema):
    """The loss of its last step was still a number, and no later loss is less than NaN."""
    module = Broken(3, what)
    events, progress = looped(module, val=val, ema=ema)
    assert [type(e) for e in events] == [EpochDone, EpochDone, Stopped]
    assert "NaN or infinite in epoch 3, step 3; epoch " in events[-1].why
    assert 1 <= progress.best_epoch <= 2
    assert progress.best_loss is None or math.isfinite(progress.best_loss)
    assert all(torch.isfinite(p).all() for p in module.parameters())
    with pytest.raises(RecipeError, match="epoch 1, step 3"):
        looped(Broken(1, what), val=val, ema=ema)


def test_the_epochs_own_rate_is_told_after_a_resume_behind_its_last_step(tiny, sets, tmp_path):
    def run(resume=None):
        settings = {"epochs": 3, "batch_size": 16, "lr": 0.01, "compute": Compute(tmp_path)}
        return list(fit(TransferModel(tiny()), FreezePlan(), *sets, resume=resume, **settings))

    snapshots, rates = [], []
    for event in fit(TransferModel(tiny()), FreezePlan(), *sets, epochs=3, batch_size=16, lr=0.01, compute=Compute(tmp_path)):
        if isinstance(event, StepDone):
            snapshots.append(event.snapshot())
        if isinstance(event, EpochDone):
            rates.append((event.epoch, event.lr, event.train_loss, event.train_accuracy))
    assert len(set(rates)) == 3
    for snapshot in snapshots:
        rest = [(e.epoch, e.lr, e.train_loss, e.train_accuracy) for e in run(snapshot) if isinstance(e, EpochDone)]
        assert rest == rates[3 - len(rest) :]


@pytest.fixture
def with_a_bad_one(tmp_path):
    """193 training images, of which one is none: by the rule 192 images are shown 100 times and 193 images 86 times."""
    root = make_images(tmp_path / "d", {"a": 96, "b": 96}, side=8)
    (root / "a" / "zz.png").write_bytes(b"no image")
    return ImageSet.of(read_data(root))


def test_settings_by_the_rule_are_the_same_in_a_later_phase_whatever_could_not_be_read(tiny, with_a_bad_one, sets, tmp_path):
    """Otherwise a resume into the second phase, which has not read the files yet, goes on with other settings."""
    phases = [Phase("one", FreezePlan(), epochs=1), Phase("two", FreezePlan())]

    def run(resume=None):
        model = TransferModel(tiny())
        return model, fit(model, FreezePlan(), with_a_bad_one, sets[1], strategy=phases, resume=resume, compute=Compute(tmp_path / "cache"))

    model, events = run()
    planned, ready, inside = [], [], []
    for event in events:
        planned += [event] * isinstance(event, Planned)
        ready += [event] * isinstance(event, FeaturesReady)
        if isinstance(event, StepDone) and len(planned) == 2 and not inside:
            inside.append(event.snapshot())
    again, rest = run(inside[0])
    rest = list(rest)
    assert [e.hyper for e in rest if isinstance(e, Planned)] == [planned[1].hyper]
    assert [len(e.skipped) for e in (*ready, *rest) if isinstance(e, FeaturesReady)] == [1, 0, 1]
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in model.state_dict().items())


def test_wise_with_one_phase_of_ones_own_is_refused(tiny, sets):
    with pytest.raises(RecipeError, match="--wise"):
        list(fit(TransferModel(tiny()), FreezePlan(), *sets, strategy=[Phase("only", FreezePlan("last:1"))], options=Options(wise=True)))


@pytest.mark.parametrize("unfreeze", ["none", "last:1", "all"])
@pytest.mark.parametrize(("images", "held_out"), [(2, 1), (3, 0), (17, 1), (33, 2)])
def test_very_few_images_and_a_batch_larger_than_all_of_them(tiny, sets, tmp_path, unfreeze, images, held_out):
    val = first(sets[1], held_out) if held_out else None
    batch = 64 if images < 10 else 16  # 17 = 16 + 1 and 33 = 16 + 16 + 1: batch norm could not take the last one alone
    settings = {"epochs": 2, "batch_size": batch, "options": Options(accumulate=2, class_weights="balanced")}
    finished = list(fit(TransferModel(tiny()), FreezePlan(unfreeze), first(sets[0], images), val, compute=Compute(tmp_path), **settings))[
        -1
    ]
    assert isinstance(finished, Finished)
    assert finished.audit.frozen_unchanged
    assert torch.isfinite(finished.train_logits).all()
    assert finished.train_logits.shape == (images, 2)
    assert (finished.val_logits is None) == (held_out == 0)
    assert (finished.guards.overfitting is None) == (held_out == 0)


@pytest.mark.parametrize(
    ("count", "batch", "accumulate"), [(1, 4, 1), (5, 4, 2), (9, 4, 2), (13, 4, 2), (8, 100, 3), (7, 1, 2), (12, 4, 5)]
)
def test_every_image_is_in_one_step_of_an_epoch(count, batch, accumulate):
    groups = steps_of(count, batch, accumulate, 0, 1, 0)
    assert sorted(torch.cat([part for group in groups for part in group]).tolist()) == list(range(count))
    assert all(1 <= len(group) <= accumulate for group in groups)
    assert batch == 1 or count == 1 or all(len(part) > 1 for group in groups for part in group)


def test_a_class_without_training_images_is_trained_and_judged_all_the_same(tiny, sets, tmp_path):
    model = TransferModel(tiny(), num_classes=3)
    options = Options(class_weights="balanced", label_smoothing=0.3)
    finished = list(fit(model, FreezePlan(), *sets, epochs=20, lr=0.05, options=options, compute=Compute(tmp_path)))[-1]
    assert (finished.val_logits.argmax(1) != 2).all()
    assert float(finished.val_logits.softmax(1)[:, 2].mean()) < 0.15  # less than the tenth that smoothing alone would give it, and some


def test_files_that_vanish_between_two_trainings_are_not_needed_where_features_are_cached(tiny, sets, tmp_path):
    copied = make_images(tmp_path / "d", {"a": 6, "b": 6})
    listed = ImageSet.of(read_data(copied))
    settings = {"epochs": 1, "compute": Compute(tmp_path / "cache")}
    first_run = list(fit(TransferModel(tiny()), FreezePlan(), listed, sets[1], **settings))[-1]
    shutil.rmtree(copied)
    again = list(fit(TransferModel(tiny()), FreezePlan(), listed, sets[1], **settings))[-1]
    assert torch.equal(first_run.train_logits, again.train_logits)
