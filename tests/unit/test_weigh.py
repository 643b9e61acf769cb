"""How much each depth counts in a head on all of them, and linear probes that are solved, not trained step by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from frostline import Compute, FreezePlan, ImageSet, TransferModel, fit
from frostline.data import ensure_splits, read_data
from frostline.errors import RecipeError
from frostline.features.depths import ALL, END, at_depths, joined
from frostline.features.pixels import pixel_batches
from frostline.fitting import DepthChosen, Planned, Solved, StepDone
from frostline.fitting.depth import may_be_solved, tell_apart
from frostline.fitting.folds import stratified_folds
from frostline.fitting.held import gram_held, ridge_held, scaled
from frostline.fitting.phases import Phase
from frostline.fitting.weigh import LEAST, weigh_depths, weighed
from frostline.freeze.apply import evaluating
from frostline.heads import FeatureShape, HeadSpec, build_head
from frostline.heads.contract import InputScale, factors

SIZES = (6, 30, 10)


def depths(count=90, knows=1, strength=1.5):
    """Three depths side by side, of which one tells the classes."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    parts = [torch.randn(count, size, generator=g) for size in SIZES]
    parts[knows][:, :3] += strength * torch.nn.functional.one_hot(labels, 3)
    return joined(parts), labels


@pytest.mark.parametrize("knows", [0, 1, 2])
def test_the_depth_that_knows_counts_the_most(knows):
    features, labels = depths(knows=knows)
    weights = weigh_depths(features, SIZES, labels, 3, seed=0)
    assert weights.shape == (3,)
    assert bool((weights >= LEAST).all())
    assert int(weights.argmax()) == knows
    assert float((weights * torch.tensor(SIZES)).sum()) == pytest.approx(sum(SIZES))


def test_where_nothing_is_known_no_depth_is_left_out():
    features, labels = depths(strength=0.0)
    weights = weigh_depths(features, SIZES, labels, 3, seed=0)
    shares = weights * torch.tensor(SIZES) / sum(SIZES)
    assert float(shares.min()) > 0.05


def test_a_ridge_at_those_weights_does_better_than_at_equal_ones():
    features, labels = depths(knows=0)
    folds = stratified_folds(labels, 5, seed=0)
    own, equal = (ridge_held(x, labels, 3, folds) for x in (weighed(features, SIZES, labels, 3, 0), features))
    assert own.log_loss < 0.9 * equal.log_loss


def test_with_one_group_of_a_class_a_depth_counts_by_the_root_of_its_length():
    features, _ = depths()
    labels = (torch.arange(90) >= 80).long()
    weights = weigh_depths(features, SIZES, labels, 2, 0, torch.arange(90).clamp(max=80).tolist())
    assert torch.allclose(weights * torch.tensor(SIZES).sqrt(), weights[0] * torch.tensor(SIZES[0]).sqrt())


def test_of_many_images_no_more_than_some_are_looked_at():
    features, labels = depths(count=3000)
    asked = []

    class Table:
        def __getitem__(self, rows):
            asked.append(len(rows))
            return features[rows]

    assert int(weigh_depths(Table(), SIZES, labels, 3, seed=0).argmax()) == 1
    assert asked == [513]


def test_a_rare_class_among_many_images_has_its_part():
    """Stored last, and with fewer images than one of those that are looked at would stand for."""
    features, labels = depths(count=3000)
    labels[-4:] = 3
    weights = weigh_depths(features, SIZES, labels, 4, seed=0)
    assert int(weights.argmax()) == 1
    labels[-4:-1] = 0  # of one image nobody can be judged
    assert int(weigh_depths(features, SIZES, labels, 4, seed=0).argmax()) == 1


def test_of_very_many_classes_the_most_frequent_are_looked_at():
    features, labels = torch.randn(1200, sum(SIZES)), torch.arange(1200) % 400
    weights = weigh_depths(features, SIZES, labels, 400, seed=0)
    assert bool(weights.isfinite().all())


def test_images_of_a_group_lie_in_one_fold():
    """A depth that tells pairs of copies apart knows nothing of their labels; with a copy in another fold it seems to know all."""
    g = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 2, (60,), generator=g).repeat_interleave(2)
    tells = torch.randn(120, 10, generator=g)
    tells[:, :5] += 0.8 * (2.0 * labels[:, None] - 1)
    features = joined([torch.eye(60).repeat_interleave(2, 0), tells])
    units = torch.arange(60).repeat_interleave(2).tolist()
    fooled, right = (weigh_depths(features, (60, 10), labels, 2, 0, u) for u in ((), units))
    assert float(fooled[0]) > 3 * float(right[0])


def test_a_ridge_on_products_of_images_is_that_on_their_features():
    features, labels = depths()
    folds = stratified_folds(labels, 5, seed=0)
    x = scaled(features)
    one, other = ridge_held(features, labels, 3, folds), gram_held(7.0 * x @ x.T, features.shape[1], labels, 3, folds)
    assert torch.allclose(one.logits, other.logits, atol=1e-8)


def test_the_heads_scaling_weighs_variances():
    features, _ = depths()
    weights = torch.tensor([0.5, 2.0, 1.0])
    scale = InputScale(sum(SIZES), parts=SIZES)
    scale.measure(features, weights)
    each = factors(SIZES, weights).float()
    wanted = (features - features.mean(0)) * each
    wanted = wanted / wanted.var(0, correction=0).mean().sqrt()
    assert torch.allclose(scale(features), wanted, atol=1e-5)
    plain, whole = InputScale(sum(SIZES)), InputScale(sum(SIZES), parts=SIZES)
    plain.measure(features)
    whole.measure(features)
    assert torch.allclose(plain(features), whole(features), atol=1e-6)
    assert plain.scale.shape == ()


def test_a_head_on_all_depths_is_read_back_with_its_weights(tiny):
    features, _ = depths()
    shape = FeatureShape((sum(SIZES),), parts=SIZES)
    head, other = (build_head(HeadSpec("linear"), shape, 3) for _ in range(2))
    head.scale.measure(features, torch.tensor([0.5, 2.0, 1.0]))
    other.load_state_dict(head.state_dict())
    assert torch.equal(head.scale(features), other.scale(features))
    assert TransferModel(tiny(), "linear@all").head.scale.scale.ndim == 1
    assert TransferModel(tiny(), "linear").head.scale.scale.ndim == 0


def sets(images):
    listed = ImageSet.of(read_data(images))
    manifest = ensure_splits(read_data(images), listed.digests, 0)
    return ImageSet.of(manifest.only("train")), ImageSet.of(manifest.only("val"))


def test_a_ridge_on_all_depths_is_scikit_learns_on_weighed_features(tiny, images, tmp_path):
    train, val = sets(images)
    model = TransferModel(tiny(), "ridge@all")
    events = list(fit(model, FreezePlan(), train, val, compute=Compute(tmp_path)))
    solved = next(e for e in events if isinstance(e, Solved))
    backbone = tiny()
    tapped = at_depths(backbone)
    with torch.no_grad(), evaluating(backbone.body):
        pixels = [p for batch in pixel_batches(train.paths, backbone.preprocess, [len(train)]) for p in batch]
        given = joined(tapped.body(backbone.preprocess.normalise(torch.stack(pixels))))
    x = scaled(weighed(given, tapped.sizes, torch.tensor(train.labels), model.num_classes, 0, train.units)).numpy()
    ridge = Ridge(alpha=solved.chosen.candidate.strength).fit(x, np.eye(model.num_classes)[list(train.labels)])
    wanted = torch.from_numpy(ridge.predict(x)) * solved.chosen.factor
    found = events[-1].train_logits
    apart = (found - found.mean(1, keepdim=True)) - (wanted - wanted.mean(1, keepdim=True))
    assert float(apart.abs().max()) < 1e-3 * float(wanted.abs().max())


def test_auto_solves_its_linear_probe_and_a_rate_of_ones_own_has_it_stepped(tiny, images, tmp_path):
    train, val = sets(images)
    kinds = []
    for more in ({}, {"lr": 0.01}):
        model = TransferModel(tiny(), "linear")
        events = list(fit(model, FreezePlan(), train, val, strategy="auto", compute=Compute(tmp_path), **more))
        first = next(e for e in events if isinstance(e, Planned))
        chosen = next(e for e in events if isinstance(e, DepthChosen))
        assert (model.head_spec.at or END) == chosen.chosen
        kinds.append((model.head_spec.kind, first.hyper.lr))
        assert events[-1].audit.frozen_unchanged
    assert kinds[0][0] in ("ridge", "logistic")
    assert kinds[0][1] == 0
    assert kinds[1] == ("linear", 0.01)


def test_of_solved_heads_the_one_with_the_lowest_loss_is_taken():
    features, labels = depths(knows=0)
    folds = stratified_folds(labels, 5, seed=0)
    named = {END: features[:, -10:], ALL: weighed(features, SIZES, labels, 3, 0)}
    ridge = {n: ridge_held(f, labels, 3, folds) for n, f in named.items()}
    told = tell_apart(named, ridge, labels, folds, 3, 0, way="solved")
    assert {str(h) for h in told.own} == {"ridge", "logistic", "ridge@all", "logistic@all"}
    assert told.chosen.at == ALL
    assert told.own[told.chosen].log_loss == min(h.log_loss for h in told.own.values())
    assert told.advised == told.chosen
    cheap = tell_apart(named, ridge, labels, folds, 3, 0, way="solved", most_work=0)
    assert {h.kind for h in cheap.own} == {"ridge"}


def test_all_depths_are_left_only_for_an_end_that_is_surely_better():
    features, labels = depths(knows=2)
    folds = stratified_folds(labels, 5, seed=0)
    g = torch.Generator().manual_seed(2)
    noise = torch.randn(90, 30, generator=g)
    told = []
    for much in (0.02, 30.0):
        named = {END: features[:, -10:], ALL: torch.cat([features[:, -10:], much * noise], 1)}
        ridge = {n: ridge_held(f, labels, 3, folds) for n, f in named.items()}
        told.append(tell_apart(named, ridge, labels, folds, 3, 0, way="solved"))
    assert told[0].chosen.at == ALL
    assert told[1].chosen.at is None
    assert told[1].advised.at is None
    little = told[0]
    swapped = replace(little, own={h: little.own[replace(h, at=None if h.at else ALL)] for h in little.own})
    assert {little.advised.at, swapped.advised.at} == {None, ALL}  # of equals the end, or all depths where their loss is lower


@pytest.mark.parametrize("strategy", ["lp-ft", "gradual"])
def test_a_solved_head_is_where_unfreezing_goes_on_from(tiny, images, tmp_path, strategy):
    train, val = sets(images)
    model = TransferModel(tiny(), "ridge")
    events = list(fit(model, FreezePlan("last:1"), train, val, strategy=strategy, epochs=2, compute=Compute(tmp_path)))
    planned = [e.hyper for e in events if isinstance(e, Planned)]
    assert [h.lr for h in planned] == [0.0, 1e-3]
    assert planned[1].epochs == 2
    solved = [i for i, e in enumerate(events) if isinstance(e, Solved)]
    steps = [i for i, e in enumerate(events) if isinstance(e, StepDone)]
    assert len(solved) == 1
    assert solved[0] < steps[0]
    assert events[-1].audit.frozen_unchanged
    assert events[-1].audit.trainable_moved


def test_a_solved_head_is_no_head_to_begin_unfreezing_with(tiny, images):
    with pytest.raises(RecipeError, match="in the first phase at least"):
        next(iter(fit(TransferModel(tiny(), "ridge"), FreezePlan("last:1"), *sets(images))))


def test_settings_of_a_phase_that_is_solved_are_refused(tiny, images):
    phases = [Phase("a", FreezePlan(), epochs=3, lr=0.1), Phase("b", FreezePlan("all"))]
    with pytest.raises(RecipeError, match="is solved at once") as fault:
        next(iter(fit(TransferModel(tiny(), "ridge"), FreezePlan(), *sets(images), strategy=phases)))
    assert fault.value.where == "--epochs, --lr"


def test_many_images_are_not_solved():
    assert may_be_solved(1000, 3120, 10)
    assert not may_be_solved(20000, 3120, 10)
