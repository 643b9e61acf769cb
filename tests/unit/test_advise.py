"""What should be frozen: every piece of evidence against a reference or a known value, and the recommendation on made cases."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from conftest import make_images
from frostline import FreezePlan, ImageSet, Recipe, TransferModel
from frostline._rng import stream
from frostline.advise import advice, advise
from frostline.advise.advice import advice_json
from frostline.advise.cost import AROUND, Cost, Images, cost_of, head_seconds
from frostline.advise.evidence import AtDepth, Evidence, Timed, reach_of
from frostline.advise.probes import LOGISTIC_STRENGTHS, learning_curve, logistic_probe
from frostline.advise.recommend import Candidate, recommend
from frostline.advise.speeds import Speeds, Step, head_speed, measured_step, module_speed
from frostline.advise.transferability import logme, shrunk_h_score
from frostline.advise.unlikeness import Unlikeness, unlikeness_of
from frostline.backbone import open_backbone
from frostline.backbone.tap import channel_statistics
from frostline.errors import RecipeError
from frostline.features.depths import ALL, END, at_depths, joined
from frostline.fitting import depth
from frostline.fitting.budget import Budget
from frostline.fitting.depth import Told, sampled, stepped_held, tell_apart
from frostline.fitting.folds import scale_of, stratified_folds
from frostline.fitting.held import Held, differ, fall, ridge_answers, ridge_held, scaled, surely_lower
from frostline.fitting.solved import work_of
from frostline.heads import HeadSpec


def task(count=120, size=30, classes=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    features = torch.randn(count, size, generator=g)
    features[:, :classes] += 1.5 * nn.functional.one_hot(labels, classes)
    return features, labels


@pytest.mark.parametrize("size", [8, 200])
def test_held_out_ridges_are_scikit_learns_on_the_same_folds(size):
    features, labels = task(size=size)
    folds = stratified_folds(labels, 5, seed=1)
    strengths = torch.tensor([0.1, 10.0, 1000.0], dtype=torch.float64)
    found = ridge_answers(features, labels, 3, folds, strengths)
    x, y = scaled(features).double().numpy(), nn.functional.one_hot(labels, 3).double().numpy()
    for number, alpha in enumerate(strengths.tolist()):
        for fold in folds:
            theirs = Ridge(alpha=alpha).fit(x[fold.train], y[fold.train]).predict(x[fold.held])
            assert np.allclose(found[number, fold.held].numpy(), theirs, atol=1e-8)


def test_held_out_logistic_regressions_are_as_right_as_scikit_learns():
    features, labels = task(count=90, size=12)
    folds = stratified_folds(labels, 3, seed=0)
    found = logistic_probe(features, labels, 3, folds)
    best = None
    for c in LOGISTIC_STRENGTHS:
        sure = np.zeros((90, 3))
        for fold in folds:
            scale = scale_of(features, fold.train)
            x = ((features.double() - scale.mean) / scale.scale).numpy()
            model = LogisticRegression(C=c, tol=1e-10, max_iter=10000).fit(x[fold.train], labels[fold.train])
            sure[fold.held] = model.predict_proba(x[fold.held])
        losses = -np.log(sure[np.arange(90), labels])
        if best is None or losses.mean() < best[0]:
            best = losses.mean(), (sure.argmax(1) == labels.numpy()).mean()
    assert found.log_loss == pytest.approx(best[0], abs=1e-4)
    assert found.accuracy == pytest.approx(best[1])


@pytest.mark.parametrize(
    ("load", "published"),
    [(load_digits, 0.270277455465355), (load_iris, -0.1600602436621256), (load_wine, -0.004461018100426715)],
)
def test_logme_is_the_published_implementations_value(load, published):
    """``LogME().fit(features, labels)`` of the authors' repository at commit 3a08950, run on these sets."""
    data = load()
    assert logme(torch.tensor(data.data), torch.tensor(data.target), int(data.target.max()) + 1) == pytest.approx(published, abs=1e-6)


def test_logme_with_fewer_images_than_features_counts_no_empty_direction():
    features, labels = task(count=20, size=50)
    wide = torch.cat([features, torch.zeros(20, 400)], 1)
    assert logme(features, labels, 3) == pytest.approx(logme(wide, labels, 3), abs=1e-9)


def test_the_shrunk_h_score_is_its_formula():
    features, labels = task(count=60, size=10)
    x = features.double().numpy() - features.double().numpy().mean(0)
    shrunk = LedoitWolf(assume_centered=True).fit(x)
    g = np.stack([x[labels.numpy() == k].mean(0) for k in labels.tolist()])
    wanted = np.trace(np.linalg.pinv(shrunk.covariance_) @ ((1 - shrunk.shrinkage_) * np.cov(g, rowvar=False)))
    assert shrunk_h_score(features, labels) == pytest.approx(wanted, rel=1e-9)


def test_several_depths_side_by_side_weigh_the_same_whatever_their_scale():
    features, _ = task()
    a, b = joined([features, 100 * features + 7]).split(30, 1)
    assert torch.allclose(a, b, atol=1e-4)


def test_a_learning_curve_is_nested_and_ends_with_all_images():
    features, labels = task(count=300)
    folds = stratified_folds(labels, 5, seed=0)
    whole = ridge_held(features, labels, 3, folds)
    curve = learning_curve(features, labels, 3, folds, 0, whole)
    assert [n for n, _ in curve] == [24, 60, 120, 240]
    assert curve[-1][1] is whole
    assert curve[-1][1].log_loss < curve[0][1].log_loss


def test_a_learning_curve_leaves_out_parts_that_lose_a_class():
    features, labels = task(count=15)
    folds = stratified_folds(labels, 5, 0)
    curve = learning_curve(features, labels, 3, folds, 0, ridge_held(features, labels, 3, folds))
    assert [n for n, _ in curve] == [3, 6, 12]


def test_differences_are_told_image_by_image():
    right = torch.tensor([True] * 10 + [False] * 10)
    losses = torch.linspace(0.1, 2, 20)
    one, other = Held(right, losses), Held(~right, losses - 0.5)
    assert differ(one, one) == 1.0
    assert differ(one, other) == 1.0
    assert differ(Held(torch.ones(20, dtype=torch.bool)), one) == pytest.approx(2 * 0.5**10)
    assert fall(one, one) == 0.0
    noisy = Held(right, losses - 0.5 + 0.1 * torch.sin(torch.arange(20.0)))
    assert fall(one, noisy) > 10
    assert fall(noisy, one) < -10


def test_channel_statistics_are_those_of_all_that_entered():
    norm = nn.BatchNorm2d(3)
    net = nn.Sequential(norm)
    batches = torch.randn(2, 4, 3, 5, 5)
    with channel_statistics(net, ["0"]) as met, torch.no_grad():
        for batch in batches:
            net.eval()(batch)
    mean, variance = met["0"].moments()
    values = batches.flatten(0, 1).transpose(0, 1).flatten(1).double()
    assert torch.allclose(mean, values.mean(1), atol=1e-6)
    assert torch.allclose(variance, values.var(1, unbiased=False), atol=1e-6)


def test_images_like_those_a_norm_has_seen_are_near_and_others_far():
    opened = open_backbone("tf_efficientnet_lite0")
    g = torch.Generator().manual_seed(0)
    norms = [m for m in opened.body.modules() if isinstance(m, nn.BatchNorm2d)]
    images = torch.randn(8, 3, 224, 224, generator=g)
    with torch.no_grad():
        for m in norms:
            m.momentum = None
            m.reset_running_stats()
        opened.body.train()(images)
        opened.body.eval()
    near, far = unlikeness_of(opened, images), unlikeness_of(opened, 5 + images)
    assert near.images == 8
    assert near.shift < 0.5 < far.shift
    assert 0 < near.confidence <= 1
    assert near.classifier == 1000
    assert unlikeness_of(open_backbone(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())), images).shift is None


def test_a_sample_keeps_every_class_at_its_share():
    labels = tuple([0] * 900 + [1] * 100)
    images = ImageSet(tuple(f"{i}" for i in range(1000)), tuple(f"{i}" for i in range(1000)), labels)
    few = sampled(images, 100, seed=0)
    assert (few.labels.count(0), few.labels.count(1)) == (90, 10)
    assert list(few.paths) == sorted(few.paths, key=int)
    assert sampled(images, 1000, 0) is images


def test_a_sample_has_two_groups_of_every_class_that_has_them():
    labels, groups = (0,) * 294 + (1,) * 6, (None,) * 294 + ("a",) * 3 + ("b",) * 3
    images = ImageSet(tuple(Path(f"{i}") for i in range(300)), tuple(f"{i:064}" for i in range(300)), labels, groups)
    for seed in range(20):
        few = sampled(images, 100, seed)
        assert {g for g in few.groups if g} == {"a", "b"}
        stratified_folds(torch.tensor(few.labels), 5, seed, few.units)


def test_reaches_begin_at_the_depth_before_what_is_unfrozen():
    opened = open_backbone("tf_efficientnet_lite0")
    depths = at_depths(opened)
    reach = {selector: depths.names[first] for selector, first in reach_of(opened, depths).items()}
    assert reach == {"last:1": "blocks.6.0", "last:2": "blocks.5.3", "last:4": "blocks.5.1", "last:8": "blocks.4.0", "all": "conv_stem"}


def test_what_is_unfrozen_costs_more_the_more_it_is():
    opened = open_backbone("tf_efficientnet_lite0")
    model = TransferModel(opened)
    images = torch.randn(8, 3, 96, 96)
    module, shares = module_speed(opened.body, images)
    assert list(shares.values()) == sorted(shares.values())
    assert list(shares.values())[-1] == pytest.approx(1.0)
    speeds = Speeds(1.0, 500.0, 200.0, module, shares, 1.0, 0.1, 1e10)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    steps = {u: measured_step(model, u, images, speeds) for u in ("none", "last:1", "last:4", "all")}
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())  # statistics of batch norm, too
    assert all(p.grad is None for p in model.parameters())
    assert not model.training
    assert [s.frozen for s in steps.values()] == [True, False, False, False]
    assert steps["none"].before == 1.0 > steps["last:1"].before > steps["last:4"].before > steps["all"].before == 0.0
    assert steps["last:1"].crossing > steps["all"].crossing == 0
    assert all(s.seconds > 0 and s.forward > 0 and s.update > 0 for s in steps.values())
    everywhere = TransferModel(opened, "ridge@all")
    assert measured_step(everywhere, "last:1", images, speeds).crossing > steps["last:1"].crossing  # what all depths give crosses as well
    assert steps["last:1"].saved < steps["last:4"].saved < steps["all"].saved
    assert steps["last:1"].trained < steps["last:4"].trained < steps["all"].trained
    costs = [cost_of(s, speeds, Images(100, 25), 1280, 10**9, (0.1, 0.4), probe=u != "none") for u, s in steps.items()]
    assert costs[0].seconds < costs[2].seconds < costs[3].seconds
    assert all(c.interval[0] <= c.seconds <= c.interval[1] for c in costs)
    assert costs[3].peak_memory > costs[1].peak_memory > 10**9
    FreezePlan("none").apply(model)


def test_the_head_itself_decides_among_depths_that_a_ridge_points_to():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    sign = 2.0 * labels[:, None] - 1

    def seen(strength, scale=1.0):
        return torch.cat([scale * (strength * sign + torch.randn(200, 1, generator=g)), torch.randn(200, 40, generator=g)], 1)

    good, hidden, end = seen(2.0), seen(2.0, 0.1), seen(0.8)  # what is small beside the rest a ridge finds, and steps of AdamW do not
    folds = stratified_folds(labels, 5, seed=0)

    def told(features, way="stepped"):
        ridge = {n: ridge_held(f, labels, 2, folds) for n, f in features.items()}
        return tell_apart(features, ridge, labels, folds, 2, 0, way=way)

    found = told({"good": good, END: end})
    assert (str(found.chosen), {str(h) for h in found.own}) == ("linear@good", {"linear@good", "linear"})
    found = told({"hidden": hidden, END: end})
    assert str(found.chosen) == "linear"
    assert found.ridge["hidden"].accuracy > found.ridge[END].accuracy
    assert found.own[HeadSpec("linear", at="hidden")].accuracy < found.own[HeadSpec("linear")].accuracy
    assert told({"hidden": hidden, END: end}, "judged").chosen.at == "hidden"
    assert stepped_held(good, labels, 2, folds, seed=0).accuracy > 0.85


def test_a_wider_head_takes_longer():
    cpu = torch.device("cpu")
    assert 0 < head_speed(16, 2, cpu, 32) < head_speed(20000, 50, cpu, 32)


CPU = torch.device("cpu")
SPEEDS = Speeds(2.0, 100.0, 50.0, 0.1, {"a": 0.5, "b": 1.0}, 3.0, 0.5, 1e9)


def test_a_solved_head_costs_what_its_multiplications_do():
    few, many = Images(100, 20), Images(1000, 20)
    ridge, everywhere = HeadSpec("ridge"), HeadSpec("ridge", at=ALL)
    assert head_seconds(ridge, 64, 2, few, SPEEDS, CPU) == (pytest.approx(work_of(ridge, 100, 64, 2, 5) / 1e9),) * 2
    assert head_seconds(ridge, 64, 2, few, SPEEDS, CPU) < head_seconds(ridge, 64, 2, many, SPEEDS, CPU)
    alone, with_weights = (head_seconds(h, 64, 2, few, SPEEDS, CPU)[0] for h in (ridge, everywhere))
    assert with_weights == pytest.approx(alone + SPEEDS.weighing)
    least, most = head_seconds(HeadSpec("linear"), 64, 2, few, SPEEDS, CPU)
    assert 0 < least < most  # training may stop early


def test_everything_around_training_is_counted():
    frozen = Step(0.0, 0.0, 0.0, 0.0, 0, 10, True, 1.0, 8)
    tuned = Step(0.02, 0.01, 0.004, 0.7, 0, 10, False, 0.5, 8)
    whole = replace(tuned, before=0.0, crossing=0)
    around, passes = SPEEDS.opening + AROUND, 120 / 100 + 120 / 50
    alone = cost_of(frozen, SPEEDS, Images(100, 20), 8, 0, (1.0, 4.0), probe=False)
    assert alone.seconds == pytest.approx(around + 3 + passes + 4)
    assert alone.interval == (pytest.approx(0.75 * (around + 3 + passes + 1)), pytest.approx(1.25 * alone.seconds))
    epoch = 100 * 0.02 + 20 * 0.01 + 4 * 0.004
    after = 120 * 0.01 + 20 * (1 / 100 + 2 * 0.1)
    probed = cost_of(tuned, SPEEDS, Images(100, 20), 8, 0, (1.0, 4.0), probe=True)
    second = 3 + 120 / 100 + 0.5 * 120 / 50
    assert probed.seconds == pytest.approx(around + 0.7 + 3 + passes + 4 + second + 20 * epoch + after)
    assert probed.interval[0] == pytest.approx(0.75 * (around + 0.7 + 3 + passes + 1 + second + 6 * epoch + after))
    recomputed = cost_of(whole, SPEEDS, Images(100, 20), 8, 0, (1.0, 4.0), probe=False)
    assert recomputed.seconds == pytest.approx(around + 0.7 + 20 * (epoch + 120 / 100) + after + 120 / 100)
    tested = [cost_of(s, SPEEDS, Images(100, 20, 50), 8, 0, (1.0, 4.0), probe=s is tuned).seconds for s in (frozen, tuned)]
    assert tested[0] == pytest.approx(alone.seconds + 50 / 100 + 50 / 50)
    assert tested[1] == pytest.approx(probed.seconds + 50 / 100 + 50 * 0.1)  # of one run alone, no engine would pay
    few = cost_of(
        tuned, SPEEDS, Images(113, 7), 8, 0, (1.0, 4.0), probe=True
    )  # too few to measure forgetting on: all images are drawn from
    enough = cost_of(tuned, SPEEDS, Images(112, 8), 8, 0, (1.0, 4.0), probe=True)
    assert few.seconds - enough.seconds == pytest.approx((64 - 8) * (1 / 100 + 2 * 0.1) + 20 * (0.02 - 0.01))


class Listed(nn.Module):
    """Its only block is a list of parameters, which is never run."""

    def __init__(self):
        super().__init__()
        self.kernels = nn.ParameterList([nn.Parameter(torch.randn(4, 3, 3, 3))])

    def forward(self, x):
        return nn.functional.conv2d(x, self.kernels[0]).mean((2, 3))


def test_blocks_that_are_never_run_take_no_time_and_divide_by_none():
    seconds, shares = module_speed(Listed(), torch.randn(4, 3, 16, 16))
    assert seconds > 0
    assert list(shares.values()) == [1.0]


def test_every_backbone_pays_for_its_library(tmp_path, monkeypatch):
    data = make_images(tmp_path / "images", {"a": 6, "b": 6})
    seen, counted = [], advice.candidates_of

    def library(name):
        time.sleep(0.0 if seen else 1.0)  # the second time it is there
        return name

    def candidates(opened, evidence, images, opening):
        seen.append(opening)
        return counted(opened, evidence, images, opening)

    monkeypatch.setattr(advice, "import_library", library)
    monkeypatch.setattr(advice, "candidates_of", candidates)
    advise(Recipe(data=str(data)), ["tf_efficientnet_lite0", "tf_efficientnet_lite0"], cache=None)
    assert len(seen) == 2
    assert min(seen) > 1.0


def held(accuracy, loss, count=200, seed=0):
    noise = 0.3 * torch.randn(count, generator=stream(seed, "made"))
    return Held(torch.arange(count) < round(accuracy * count), loss + noise)


TOLD = Told({}, {}, HeadSpec("linear"))
NOTHING = Unlikeness(10, 0.2, 0.1, 0.7, 1000)


def evidence(curve=(), best="b.5", why="", suspects=0):
    depths = tuple(AtDepth(n, 8, held(0.9, 0.3), held(0.9, 0.3), held(0.8, 0.5), 0.1, 1.0) for n in (best, END))
    return Evidence(
        "net",
        200,
        200,
        2,
        100,
        0.5,
        5,
        depths if not why else depths[1:],
        {},
        TOLD,
        suspects,
        curve,
        NOTHING,
        None,
        why,
        Timed(1.0, 1.0, 0.0, 100.0, 0.1, 1e10),
        None,
    )


def candidate(unfreeze, loss, accuracy=0.9, seconds=10.0, head="linear", backbone="net", seed=0):
    cost = Cost(seconds, (seconds / 2, seconds), 10**9, 10**6)
    return Candidate(backbone, unfreeze, "plain" if unfreeze == "none" else "lp-ft", head, held(accuracy, loss, seed=seed), cost)


def test_nothing_is_unfrozen_where_nothing_is_gained_beyond_noise():
    plans = [candidate("none", 0.30, seconds=5), candidate("last:2", 0.299, 0.905, seed=1), candidate("all", 0.31, seconds=100, seed=2)]
    found = recommend(plans, [evidence()])
    assert found.pick is plans[0]
    assert "Train the head alone" in found.why
    assert "inside the noise" in found.why
    assert found.ranked[0] is plans[0]


def test_of_norms_alone_nothing_is_predicted_and_so_they_are_nobodys_second_choice():
    plans = [candidate("none", 0.5), candidate("all", 0.5, 0.95, 90, seed=1), candidate("norm", 0.5, 0.95, 50, seed=1)]
    found = recommend(plans, [evidence()])
    assert found.runner_up.unfreeze == "all"
    assert found.ranked[-1].unfreeze == "norm"


def test_a_handful_of_images_has_to_be_surer():
    few, many = ([Held(torch.ones(n, dtype=torch.bool), 1 + torch.linspace(-1, 1, n).double() - d) for d in (0.0, 0.5)] for n in (4, 400))
    shaken = [
        replace(pair[1], losses=pair[1].losses + 0.4 * torch.cos(3.0 * torch.arange(len(pair[1].losses))).double()) for pair in (few, many)
    ]
    assert fall(few[0], shaken[0]) > 2.0
    assert not surely_lower(few[0], shaken[0], 2.0)
    assert surely_lower(many[0], shaken[1], 2.0)
    assert not surely_lower(Held(few[0].right[:1], few[0].losses[:1]), Held(few[0].right[:1], few[0].losses[:1] - 9), 2.0)


def test_of_plans_that_are_as_good_as_the_best_the_quickest_is_taken():
    plans = [
        candidate("none", 0.6, 0.8, seconds=5),
        candidate("last:2", 0.301, 0.92, seconds=20, seed=1),
        candidate("last:4", 0.300, 0.93, seconds=50, seed=2),
        candidate("all", 0.300, 0.93, seconds=300, seed=3),
    ]
    found = recommend(plans, [evidence()])
    assert found.pick is plans[1]
    assert "Unfreeze last:2" in found.why
    assert found.runner_up is plans[2]


def test_a_head_on_an_earlier_block_is_taken_where_it_is_better_and_no_unfreezing_is():
    plans = [
        candidate("none", 0.6, 0.8, seconds=5),
        candidate("none", 0.3, 0.9, 5, "linear@b.5"),
        candidate("last:2", 0.31, 0.9, 20, seed=1),
    ]
    assert recommend(plans, [evidence()]).pick is not plans[1]  # the head itself has not said so
    found = recommend(plans, [replace(evidence(), told=Told({}, {}, HeadSpec("linear", at="b.5")))])
    assert found.pick is plans[1]
    assert "Put the head on b.5, earlier" in found.why
    told = [replace(evidence(), told=Told({}, {}, HeadSpec("ridge", at=ALL)))]
    plans[1] = candidate("none", 0.3, 0.9, 5, "ridge@all")
    assert recommend(plans, told).pick is plans[1]  # from which unfreezing would start, and which promises more
    plans[2] = candidate("last:2", 0.25, 0.9, 20, seed=1)
    assert recommend(plans, told).pick is plans[2]
    plans[2] = replace(plans[2], head="ridge@all")
    assert "With everything frozen --head ridge@all gets 90.0% in" in recommend(plans, told).why
    plans[2] = candidate("last:2", 0.59, 0.9, 20, seed=1)
    found = recommend(plans, told)
    assert found.pick is plans[1]
    assert "Put the head on what all layers give" in found.why


def test_nothing_is_unfrozen_that_too_few_images_would_watch():
    plans = [candidate("none", 0.6, 0.8, seconds=5), candidate("last:2", 0.3, 0.9, 20, seed=1)]
    assert recommend(plans, [evidence()], 20).pick is plans[1]
    assert recommend(plans, [evidence()]).pick is plans[1]
    found = recommend(plans, [evidence()], 19)
    assert found.pick is plans[0]
    assert "19 validation images are too few" in found.why
    assert "noise" not in found.why
    told = [replace(evidence(), told=Told({}, {}, HeadSpec("ridge", at=ALL)))]
    plans.append(candidate("none", 0.35, 0.9, 5, "ridge@all"))
    found = recommend(plans, told, 19)
    assert found.pick is plans[2]
    assert "Put the head on what all layers give" in found.why
    assert "19 validation images are too few" in found.why


def test_more_labels_are_advised_where_the_curve_still_falls():
    rising = ((50, held(0.8, 0.6)), (100, held(0.9, 0.3)))
    assert "More labels would help: from 50 to 100" in recommend([candidate("none", 0.3)], [evidence(rising)]).why
    flat = ((50, held(0.9, 0.3, seed=1)), (100, held(0.9, 0.3)))
    assert "More labels" not in recommend([candidate("none", 0.3)], [evidence(flat)]).why
    assert "would help most" in recommend([candidate("none", 0.3)], [evidence()]).why


def test_labels_that_look_wrong_are_told_where_they_are_many():
    assert "40 of 200 labels look wrong" in recommend([candidate("none", 0.3)], [evidence(suspects=40)]).why
    assert "look wrong" not in recommend([candidate("none", 0.3)], [evidence(suspects=4)]).why


def test_of_two_backbones_the_better_is_taken_and_of_equals_the_quicker():
    other = replace(evidence(), backbone="other")
    better = candidate("none", 0.2, 0.95, 20, backbone="other")
    assert recommend([candidate("none", 0.6, 0.8, 5), better], [evidence(), other]).pick is better
    equal = candidate("none", 0.6, 0.8, 20, backbone="other", seed=1)
    assert recommend([candidate("none", 0.6, 0.8, 5), equal], [evidence(), other]).pick.backbone == "net"


def test_nothing_is_said_of_depth_where_nothing_is_known():
    assert "cannot be read" in recommend([candidate("none", 0.3)], [evidence(why="its forward pass cannot be read")]).why


def test_an_advice_is_complete_and_no_test_image_is_looked_at(tiny_module, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(tiny_module))
    for split, seed in (("train", 0), ("val", 1)):
        make_images(tmp_path / "data" / split, {"green": 20, "red": 20}, seed)
    (tmp_path / "data" / "test" / "green").mkdir(parents=True)
    (tmp_path / "data" / "test" / "green" / "broken.png").write_bytes(b"no image")
    recipe = Recipe(data=str(tmp_path / "data"), backbone="tiny_net:build")
    met = []
    told = advice_json(advise(recipe, cache=tmp_path / "cache", listen=met.append))
    own = told["evidence"]["tiny_net:build"]
    assert own["images"] == own["of"] == 80
    assert [d["name"] for d in own["depths"]] == ["stem.0", "body.0", END]
    assert {c["unfreeze"] for c in told["candidates"]} == {"none", "last:1", "all", "norm"}
    for c in told["candidates"]:
        assert c["interval"][0] <= c["val_accuracy"] <= c["interval"][1]
        assert c["seconds_interval"][0] <= c["seconds"]
        assert c["peak_memory_bytes"] > 10**7
    assert told["recommended"]["unfreeze"] in {c["unfreeze"] for c in told["candidates"]}
    again = []
    same = advice_json(advise(recipe, cache=tmp_path / "cache", listen=again.append))
    assert next(e for e in again if type(e).__name__ == "FeaturesReady").extracted.hit
    assert same["evidence"]["tiny_net:build"]["depths"] == own["depths"]


def test_a_class_of_one_image_is_refused(tiny_module, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(tiny_module))
    make_images(tmp_path / "train", {"green": 8, "red": 1})
    make_images(tmp_path / "val", {"green": 4, "red": 0}, 1)
    with pytest.raises(RecipeError, match="one training image"):
        advise(Recipe(data=str(tmp_path / "train"), val=str(tmp_path / "val"), backbone="tiny_net:build"), cache=None)


@pytest.mark.parametrize("seconds", [1e9, 1e-9])
def test_no_more_depths_are_looked_at_than_there_is_time_for(seconds):
    torch.manual_seed(0)
    labels = torch.arange(40) % 2
    features = {n: torch.randn(40, 6) for n in ("a", "b", END)}
    found = depth._ridges(features, labels, 2, stratified_folds(labels, 5, 0), Budget(seconds, time.perf_counter()))
    assert list(found) == (["a", "b", END] if seconds > 1 else [END])
