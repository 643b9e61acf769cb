"""Ridge and logistic heads against scikit-learn; a sweep's heads against the same heads trained alone; folds, keys and refusals."""

from __future__ import annotations

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from torch import nn

from frostline import Compute, EpochDone, Finished, FreezePlan, ImageClassifier, Options, Phase, TransferModel, fit, pipeline, read_run, use
from frostline.cli.output import print_summary
from frostline.data._classes import naming
from frostline.data.views import Views
from frostline.errors import HeadError, RecipeError
from frostline.features import FeatureProgress
from frostline.features.choice import choose_engine
from frostline.features.depths import ALL
from frostline.fitting import CachePlanned, FeaturesReady, PhaseDone, Planned, Solved, StepDone, Swept
from frostline.fitting.candidates import Judged, SolvedHead, SteppedHead, best_of, judge
from frostline.fitting.folds import scale_of, stratified_folds
from frostline.fitting.hyper import Hyper
from frostline.fitting.logistic import logistic_path
from frostline.fitting.loop import Task, steps_of, train
from frostline.fitting.objective import Objective
from frostline.fitting.optim import make_optimizer
from frostline.fitting.ridge import SCALES, logit_scales, ridge_path
from frostline.fitting.snapshot import Progress, Snapshot
from frostline.fitting.solved import cross_validate_solved, solve
from frostline.fitting.sources import FeatureRows
from frostline.fitting.stack import Scaled, Stack, held_out_logits, train_stacks
from frostline.fitting.sweep import FOLDS, cross_validate, grid, sweep
from frostline.freeze.crossing import Layout
from frostline.freeze.plan import FreezePlan as Plan
from frostline.heads import FeatureShape, HeadSpec, build_head
from frostline.recipe import make_recipe

LINEAR, RIDGE, LOGISTIC = HeadSpec("linear"), HeadSpec("ridge"), HeadSpec("logistic")
HYPER = Hyper(epochs=5, batch_size=16, lr=3e-3, backbone_lr=3e-4, weight_decay=0.01, warmup_fraction=0.05, patience=5)


def rows(count, size, classes, seed=0):
    """Overlapping classes with a mean far from zero, float32, and each class at least a few times."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = random.normal(size=(classes, size))
    features = random.normal(size=(count, size)) * np.geomspace(3, 0.05, size) + 0.4 * centres[labels] + 2
    return torch.tensor(features, dtype=torch.float32), torch.tensor(labels)


def one_hot(labels, classes):
    return nn.functional.one_hot(labels, classes).double().numpy()


# --- ridge -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size", "classes"), [(40, 90, 2), (40, 90, 3), (90, 12, 2), (90, 12, 4)])
def test_ridge_is_scikit_learns(count, size, classes):
    x, y = rows(count, size, classes)
    strengths = torch.tensor([1e-2, 1.0, 30.0, 1e4], dtype=torch.float64)
    weights, intercepts = ridge_path(x.double(), y, classes, strengths)
    for number, strength in enumerate(strengths.tolist()):
        theirs = Ridge(alpha=strength).fit(x.double().numpy(), one_hot(y, classes))
        np.testing.assert_allclose(weights[number], theirs.coef_, rtol=1e-6, atol=1e-6 * abs(theirs.coef_).max())
        np.testing.assert_allclose(intercepts[number], theirs.intercept_, rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_ridge_answers_are_those_of_ridge_classifier(classes):
    x, y = rows(50, 70, classes)
    weights, intercepts = (t[0] for t in ridge_path(x.double(), y, classes, torch.tensor([5.0], dtype=torch.float64)))
    theirs = RidgeClassifier(alpha=5.0).fit(x.double().numpy(), y.numpy())  # targets -1 and 1 instead of 0 and 1: twice the answers
    own = 2 * (x.double() @ weights.T + intercepts) - 1
    decision = theirs.decision_function(x.double().numpy())
    np.testing.assert_allclose(own[:, 1] if classes == 2 else own, decision, rtol=1e-6, atol=1e-8)


def test_logit_scale_has_the_lowest_log_loss():
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    answers = torch.stack(
        [nn.functional.one_hot(labels, 3).double() * 0.5 + torch.rand(60, 3, generator=random).double() for _ in range(2)]
    )
    for own, factor in zip(answers, logit_scales(answers, labels).tolist(), strict=True):
        loss = {f: float(nn.functional.cross_entropy(own * factor * f, labels)) for f in (0.99, 1.0, 1.01)}
        assert loss[1.0] < min(loss[0.99], loss[1.01])


def test_logit_scale_stays_in_bounds_where_every_answer_is_right_or_wrong():
    right = one_hot(torch.arange(4) % 2, 2)
    factors = logit_scales(torch.tensor(np.stack([right, 1 - right])), torch.arange(4) % 2)
    torch.testing.assert_close(factors, torch.tensor([SCALES[1], SCALES[0]], dtype=torch.float64))


# --- logistic --------------------------------------------------------------------------------------------------------------------


def objective(weights, intercepts, x, y, strength):
    """scikit-learn's; with two classes it has one vector, as long as the difference of our two."""
    loss = nn.functional.cross_entropy(x @ weights.T + intercepts, y, reduction="sum")
    squares = (weights[1] - weights[0]).square().sum() if len(weights) == 2 else weights.square().sum()
    return float(strength * loss + 0.5 * squares)


@pytest.mark.parametrize(("count", "size", "classes"), [(60, 90, 2), (60, 90, 3), (120, 8, 2), (120, 8, 4)])
def test_logistic_reaches_scikit_learns_objective(count, size, classes):
    x, y = (t.double() if t.is_floating_point() else t for t in rows(count, size, classes))
    x = x - x.mean(0)
    strengths = torch.tensor([1e-4, 1e-2, 1.0, 10.0], dtype=torch.float64)
    shorter = count - 7
    weights, intercepts = logistic_path([x, x[:shorter]], [y, y[:shorter]], classes, strengths)
    for fold, length in enumerate((count, shorter)):
        a, b = x[:length], y[:length]
        for number, strength in enumerate(strengths.tolist()):
            theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=20000).fit(a.numpy(), b.numpy())
            w, i = torch.tensor(theirs.coef_), torch.tensor(theirs.intercept_)
            if classes == 2:
                w, i = torch.cat([-w, w]) / 2, torch.cat([-i, i]) / 2
            own = objective(weights[fold, number], intercepts[fold, number], a, b, strength)
            assert own <= objective(w, i, a, b, strength) * (1 + 1e-6)
            np.testing.assert_allclose(
                (a @ weights[fold, number].T + intercepts[fold, number]).softmax(1), theirs.predict_proba(a), atol=1e-3
            )


def test_logistic_takes_constant_features():
    x, y = rows(20, 5, 2)
    x[:, 2] = 7
    weights, intercepts = logistic_path([x.double()], [y], 2, torch.tensor([1.0], dtype=torch.float64))
    assert torch.isfinite(weights).all()
    assert torch.isfinite(intercepts).all()
    assert weights[0, 0, :, 2].abs().max() < 1e-9


# --- folds -----------------------------------------------------------------------------------------------------------------------


def test_folds_are_stratified_and_cover_every_row_once():
    labels = torch.tensor([0] * 31 + [1] * 17 + [2] * 5)
    folds = stratified_folds(labels, 5, seed=0)
    assert len(folds) == 5
    assert torch.cat([f.held for f in folds]).sort().values.equal(torch.arange(53))
    for fold in folds:
        assert torch.cat([fold.train, fold.held]).sort().values.equal(torch.arange(53))
        counts = torch.bincount(labels[fold.held], minlength=3).tolist()
        assert counts[0] in (6, 7)
        assert counts[1] in (3, 4)
        assert counts[2] == 1
        assert len(fold.held) in (10, 11)


def test_folds_depend_on_the_seed_alone_and_are_fewer_where_a_class_is_small():
    labels = torch.tensor([0] * 9 + [1] * 3)
    first, again, other = (stratified_folds(labels, 5, seed) for seed in (0, 0, 1))
    assert len(first) == 3
    assert all(a.held.equal(b.held) for a, b in zip(first, again, strict=True))
    assert not all(a.held.equal(b.held) for a, b in zip(first, other, strict=True))


def test_a_class_of_one_image_cannot_be_held_out():
    with pytest.raises(RecipeError, match="class number 1 has one training image"):
        stratified_folds(torch.tensor([0, 0, 0, 1, 2, 2]), 5, 0)


def test_whoever_knows_the_classes_has_an_error_name_them():
    with pytest.raises(RecipeError, match=r"class b\\x1b has one training image") as told, naming(("a", "b\x1b", "c")):
        stratified_folds(torch.tensor([0, 0, 0, 1, 2, 2]), 5, 0)
    assert "number" not in str(told.value)


def test_what_belongs_together_lies_in_one_fold():
    random = torch.Generator().manual_seed(0)
    unit = torch.randint(0, 30, (120,), generator=random)
    labels = torch.randint(0, 3, (120,), generator=random)  # a unit has images of several classes, as one patient has
    folds = stratified_folds(labels, 5, 0, unit.tolist())
    assert len(folds) == 5
    assert torch.cat([f.held for f in folds]).sort().values.equal(torch.arange(120))
    for fold in folds:
        assert not set(unit[fold.train].tolist()) & set(unit[fold.held].tolist())
        assert set(labels[fold.train].tolist()) == {0, 1, 2}
        assert 12 <= len(fold.held) <= 36


def test_units_of_one_image_change_nothing():
    labels = torch.tensor([0] * 31 + [1] * 17 + [2] * 5)
    without, own = stratified_folds(labels, 5, 3), stratified_folds(labels, 5, 3, list(range(7, 60)))
    assert all(a.held.equal(b.held) and a.train.equal(b.train) for a, b in zip(without, own, strict=True))


def test_fewer_folds_where_a_class_lies_in_few_groups():
    labels, units = torch.tensor([0] * 9 + [1] * 6), [*range(9), 20, 20, 20, 21, 21, 22]
    assert len(stratified_folds(labels, 5, 0, units)) == 3


@pytest.mark.parametrize("units", [[*range(9), 20, 20, 20], [0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0]], ids=["alone", "among others"])
def test_a_class_in_one_group_cannot_be_held_out(units):
    labels = torch.tensor([0] * 9 + [1] * 3)
    with pytest.raises(RecipeError, match="class number 1 has too few groups"):
        stratified_folds(labels, 5, 0, units)


def test_no_head_is_judged_on_a_class_that_it_never_saw():
    """Groups are dealt out by their rarest class; those of another class may then all come to lie in one fold, and are dealt out anew."""
    labels, units = torch.tensor([0, 0, 1, 1, 2, 2, 0, 2]), [0, 1, 0, 2, 1, 2, 3, 4]
    for seed in range(20):
        for fold in stratified_folds(labels, 2, seed, units):
            assert set(labels[fold.train].tolist()) == {0, 1, 2}
    with pytest.raises(RecipeError, match="too few groups"):  # three classes, each in two of three groups: one fold lacks one
        stratified_folds(torch.tensor([0, 1, 1, 2, 2, 0]), 2, 0, [0, 0, 1, 1, 2, 2])


def test_copies_do_not_tell_the_answer():
    """Labels without meaning: a head that has seen a picture's copy knows it by heart, one that has not guesses."""
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 80, generator=random), torch.randint(0, 2, (60,), generator=random)
    copies, labels, units = x.repeat(3, 1), y.repeat(3), list(range(60)) * 3
    hyper = dataclasses.replace(HYPER, epochs=10)
    assert sweep({None: copies}, labels, 2, 4, hyper, 0).chosen.accuracy > 0.9
    assert sweep({None: copies}, labels, 2, 4, hyper, 0, units).chosen.accuracy < 0.7


def test_cross_validation_never_sees_the_held_out_fold():
    x, y = rows(60, 10, 2)
    folds = stratified_folds(y, 3, 0)
    changed = x.clone()
    changed[folds[0].held] += 100 * torch.randn(len(folds[0].held), 10)

    def of_first_fold(features):
        stack = Stack.of(build_head(HeadSpec("mlp", 4), FeatureShape((10,)), 2), torch.tensor([1e-3, 1e-2]), torch.tensor([0.0, 0.1]), 3)
        scaled = Scaled.of(features, folds)
        train_stacks([(stack, scaled)], y, folds, HYPER, 0)
        return [t[0] for t in (*stack.parameters, scaled.means, scaled.scales)]

    for before, after in zip(of_first_fold(x), of_first_fold(changed), strict=True):
        assert before.equal(after)


def test_the_labels_of_a_held_out_fold_do_not_change_its_answers(monkeypatch):
    x, y = rows(60, 10, 2)
    folds = stratified_folds(y, 3, 0)
    poisoned = y.clone()
    poisoned[folds[0].held] = 1 - poisoned[folds[0].held]
    seen = []
    monkeypatch.setattr(
        "frostline.fitting.solved.judge", lambda keys, logits, labels, factors: seen.append(logits / factors[:, None, None])
    )
    for spec in (RIDGE, LOGISTIC):
        seen.clear()
        cross_validate_solved(spec, x, y, 2, folds)
        cross_validate_solved(spec, x, poisoned, 2, folds)
        torch.testing.assert_close(seen[0][:, folds[0].held], seen[1][:, folds[0].held], rtol=0, atol=1e-12)
        assert not seen[0][:, folds[1].held].equal(seen[1][:, folds[1].held])


# --- many heads at once ----------------------------------------------------------------------------------------------------------


class HeadOnly(nn.Module):
    """The head's part of a model, by the names that the ordinary optimizer takes."""

    def __init__(self, head):
        super().__init__()
        self.head = head


def trained_alone(candidate, x, y, fold, hyper, classes):
    """The ordinary loop on a fold's training part."""
    model = HeadOnly(build_head(candidate.head, FeatureShape((x.shape[1],)), classes, 0))
    model.head.scale.measure(x[fold.train])
    resolved = Plan("none").apply(model)
    hyper = dataclasses.replace(hyper, lr=candidate.lr, weight_decay=candidate.weight_decay)
    source = FeatureRows((x[fold.train],), y[fold.train], Layout.of([x]))
    named = dict(model.named_parameters())
    task = Task("alone", 0, model.head, named, named, source, None, hyper, Objective(Options()), 0)
    for _ in train(task, make_optimizer(model, resolved, hyper), Progress(), partial(lambda progress: Snapshot({}, {}))):
        pass
    return model.head


@pytest.mark.parametrize("spec", [LINEAR, HeadSpec("mlp", 6)])
@pytest.mark.parametrize(("count", "classes"), [(50, 2), (75, 3)])  # of 50: parts of 33 and 34, which takes a step more
def test_a_head_of_a_sweep_is_the_head_trained_alone(spec, count, classes):
    x, y = rows(count, 20, classes)
    folds = stratified_folds(y, 3, 0)
    candidates = [SteppedHead(spec, lr, decay) for lr, decay in ((1e-3, 0.0), (3e-3, 0.01), (2e-2, 1.0))]
    rates, decays = torch.tensor([c.lr for c in candidates]), torch.tensor([c.weight_decay for c in candidates])
    stack = Stack.of(build_head(spec, FeatureShape((20,)), classes, 0), rates, decays, len(folds))
    scaled = Scaled.of(x, folds)
    train_stacks([(stack, scaled)], y, folds, HYPER, 0)
    logits = held_out_logits(stack, scaled, folds)
    for f, fold in enumerate(folds):
        for c, candidate in enumerate(candidates):
            alone = trained_alone(candidate, x, y, fold, HYPER, classes)
            torch.testing.assert_close(stack.weights[f, c], alone.linear.weight, rtol=0, atol=1e-5)
            torch.testing.assert_close(stack.biases[f, c], alone.linear.bias, rtol=0, atol=1e-5)
            if stack.hidden_weights is not None:
                torch.testing.assert_close(stack.hidden_weights[f, c], alone.hidden.weight, rtol=0, atol=1e-5)
            torch.testing.assert_close(logits[c, fold.held], alone(x[fold.held]), rtol=1e-4, atol=1e-4)


def test_the_test_above_has_folds_of_different_steps():
    folds = stratified_folds(rows(50, 1, 2)[1], 3, 0)
    assert {len(steps_of(len(f.train), HYPER.batch_size, 1, 0, 0, 0)) for f in folds} == {2, 3}


def test_candidates_do_not_touch_each_other():
    x, y = rows(40, 8, 2)
    folds = stratified_folds(y, 2, 0)
    calm, wild = SteppedHead(LINEAR, 1e-3, 0.01), SteppedHead(LINEAR, 1e30, 0.01)
    together = cross_validate([calm, wild], {None: x}, y, 2, folds, HYPER, 0)
    assert together[0].log_loss == pytest.approx(cross_validate([calm], {None: x}, y, 2, folds, HYPER, 0)[0].log_loss, rel=1e-5)
    assert together[1].log_loss > together[0].log_loss
    assert best_of(together).candidate == calm


def test_a_stack_that_would_be_too_large_is_cut(monkeypatch):
    x, y = rows(40, 8, 2)
    folds = stratified_folds(y, 2, 0)
    candidates = [SteppedHead(LINEAR, lr, 0.01) for lr in (1e-3, 1e-2, 1e-1)]
    whole = cross_validate(candidates, {None: x}, y, 2, folds, HYPER, 0)
    monkeypatch.setattr("frostline.fitting.sweep.MOST_NUMBERS", 1)
    parts = cross_validate(candidates, {None: x}, y, 2, folds, HYPER, 0)
    assert [p.candidate for p in parts] == candidates
    assert [p.log_loss for p in parts] == pytest.approx([w.log_loss for w in whole], rel=1e-4)


def test_of_several_specifications_no_more_are_trained_at_once_than_fit(monkeypatch):
    x, y = rows(40, 8, 2)
    met = []
    monkeypatch.setattr(
        "frostline.fitting.sweep.train_stacks", lambda stacks, *rest: met.append(len(stacks)) or train_stacks(stacks, *rest)
    )
    monkeypatch.setattr("frostline.fitting.sweep.MOST_NUMBERS", 1)
    candidates = [SteppedHead(spec, lr, 0.01) for spec in (LINEAR, HeadSpec("mlp", 4)) for lr in (1e-3, 1e-2, 1e-1)]
    cross_validate(candidates, {None: x}, y, 2, stratified_folds(y, 2, 0), HYPER, 0)
    assert met == [1] * 6


# --- keys, grid, choice ----------------------------------------------------------------------------------------------------------


def test_keys_are_values():
    near, far = SteppedHead(LINEAR, 0.001, 0.01), SteppedHead(LINEAR, 0.001 * (1 + 1e-12), 0.01)
    assert str(near) == str(far)
    assert near != far
    assert len({near, far, SteppedHead(LINEAR, 0.001, 0.01)}) == 2
    assert len({SolvedHead(RIDGE, 1.0), SolvedHead(LOGISTIC, 1.0), SolvedHead(RIDGE, 1.0 + 1e-15)}) == 3
    x, y = rows(30, 6, 2)
    judged = cross_validate([near, far], {None: x}, y, 2, stratified_folds(y, 2, 0), HYPER, 0)
    assert [j.candidate for j in judged] == [near, far]
    with pytest.raises(dataclasses.FrozenInstanceError):
        near.lr = 1.0


@pytest.mark.parametrize("count", [2, 3, 7, 15, 16, 17, 40, 64, 200])
def test_a_grid_has_n_different_heads_and_the_rule_among_them(count):
    found = grid(count, 244)
    assert len(found) == len(set(found)) == count
    assert SteppedHead(LINEAR, 3e-3, 0.01) in found
    assert sum(c.head.kind == "mlp" for c in found) == (count // 16 if count >= 16 else 0)
    assert len({c.lr for c in found}) >= 2
    assert all(c.lr > 0 and c.weight_decay > 0 for c in found)


def test_judge_is_log_loss_and_accuracy():
    logits, labels = (
        torch.tensor([[[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [[float("nan"), 0.0], [0.0, 1.0], [0.0, 1.0]]]),
        torch.tensor([0, 1, 1]),
    )
    good, bad = judge([SolvedHead(RIDGE, 1.0), SolvedHead(RIDGE, 2.0)], logits, labels)
    assert good.accuracy == pytest.approx(2 / 3)
    assert good.log_loss == pytest.approx(float(nn.functional.cross_entropy(logits[0], labels)))
    assert bad.log_loss == float("inf")
    assert best_of([bad, good]) is good


def test_sweep_trains_n_heads_and_solves_where_that_is_cheap(monkeypatch):
    x, y = rows(60, 10, 2)
    swept = sweep({None: x}, y, 2, 16, HYPER, 0)
    assert swept.heads == 16
    assert sum(isinstance(j.candidate, SteppedHead) for j in swept.judged) == 16
    assert {j.candidate.head for j in swept.judged} >= {LINEAR, RIDGE, LOGISTIC, HeadSpec("mlp", 16)}
    assert swept.chosen.log_loss == min(j.log_loss for j in swept.judged)
    monkeypatch.setattr("frostline.fitting.sweep.MOST_WORK", 0)
    assert len(sweep({None: x}, y, 2, 4, HYPER, 0).judged) == 4


def test_heads_of_several_depths_are_swept_at_once():
    """Each as if its depth were the only one, and each depth with its share of the heads."""
    x, y = rows(60, 10, 2)
    deep = {None: 0.1 * torch.randn(60, 7, generator=torch.Generator().manual_seed(1)), "b.1": x, ALL: torch.cat([x, x.square()], 1)}
    swept = sweep(deep, y, 2, 8, HYPER, 0)
    stepped = [j.candidate for j in swept.judged if isinstance(j.candidate, SteppedHead)]
    assert [sum(c.head.at == at for c in stepped) for at in deep] == [3, 3, 2]
    assert {j.candidate.head.at for j in swept.judged if isinstance(j.candidate, SolvedHead)} == set(deep)
    assert len({j.candidate for j in swept.judged}) == len(swept.judged)  # keys are values, and no two are alike
    assert swept.chosen.candidate.head.at is not None  # at the end there is noise only
    for at, share in zip(deep, (3, 3, 2), strict=True):
        alone = cross_validate(grid(share, 60, at), deep, y, 2, stratified_folds(y, FOLDS, 0), HYPER, 0)
        assert [j.log_loss for j in alone] == pytest.approx([j.log_loss for j in swept.judged if j.candidate in set(grid(share, 60, at))])
    assert {c.head.at for c in (j.candidate for j in sweep(deep, y, 2, 2, HYPER, 0).judged)} == {None, "b.1"}  # no more depths than heads


@pytest.mark.parametrize("spec", [RIDGE, LOGISTIC])
def test_folds_one_after_the_other_give_the_same(spec, monkeypatch):
    x, y = rows(60, 10, 2)
    folds = stratified_folds(y, 3, 0)
    together = cross_validate_solved(spec, x, y, 2, folds)
    monkeypatch.setattr("frostline.fitting.solved.MOST_NUMBERS", 0)
    apart = cross_validate_solved(spec, x, y, 2, folds)
    assert [a.candidate for a in apart] == [t.candidate for t in together]
    assert [a.log_loss for a in apart] == pytest.approx([t.log_loss for t in together], rel=1e-3)


def test_solve_puts_scikit_learns_answer_into_a_linear_head():
    x, y = rows(50, 70, 3)
    head = build_head(LOGISTIC, FeatureShape((70,)), 3)
    head.scale.measure(x)
    solve(head, Judged(SolvedHead(LOGISTIC, 0.1), 1.0, 0.0), x, y)
    theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=20000).fit(head.scale(x).double().numpy(), y.numpy())
    np.testing.assert_allclose(head(x).softmax(1).detach(), theirs.predict_proba(head.scale(x).double().numpy()), atol=1e-4)
    head = build_head(RIDGE, FeatureShape((70,)), 3)
    head.scale.measure(x)
    solve(head, Judged(SolvedHead(RIDGE, 30.0), 1.0, 0.0, factor=4.0), x, y)
    theirs = Ridge(alpha=30.0).fit(head.scale(x).double().numpy(), one_hot(y, 3))
    np.testing.assert_allclose(head.linear.weight.detach(), 4 * theirs.coef_, atol=1e-5)
    assert scale_of(x, torch.arange(50)).mean.equal(head.scale.mean)


# --- through fit, the pipeline and the classifier --------------------------------------------------------------------------------


def run_fit(tiny, images, *, head="linear", **settings):
    model = TransferModel(tiny(), head)
    plan = settings.pop("plan", FreezePlan())
    return model, list(fit(model, plan, images, images, **settings))


def of_kind(events, kind):
    return [e for e in events if isinstance(e, kind)]


@pytest.mark.parametrize("head", ["ridge", "logistic"])
def test_a_solved_head_goes_through_fit(tiny, images, head):
    model, events = run_fit(tiny, images, head=head)
    assert [type(e) for e in events if not isinstance(e, FeatureProgress)] == [
        Planned,
        CachePlanned,
        FeaturesReady,
        Solved,
        EpochDone,
        PhaseDone,
        Finished,
    ]
    solved, finished = of_kind(events, Solved)[0], events[-1]
    assert solved.folds == 5
    assert solved.chosen.candidate.head == HeadSpec(head)
    assert finished.best_epoch == finished.epochs == 1
    assert finished.audit.frozen_unchanged
    assert finished.audit.trainable_moved
    assert type(model.head).__name__ == "LinearHead"
    assert of_kind(events, EpochDone)[0].train_accuracy > 0.7


def test_a_sweep_chooses_the_engine_once_and_the_cut_is_its_own(tiny, images, monkeypatch):
    chosen = []

    def noted(*given, **named):
        chosen.append(given)
        return choose_engine(*given, **named)

    monkeypatch.setattr("frostline.fitting.prepare.choose_engine", noted)
    _, events = run_fit(tiny, images, sweep=4)
    assert len(chosen) == 1
    assert of_kind(events, Planned)[0].cut.way == "backbone"


def test_a_sweep_trains_what_it_chose_as_if_it_had_been_named(tiny, images, monkeypatch):
    monkeypatch.setattr("frostline.fitting.sweep.MOST_WORK", 0)
    swept_model, events = run_fit(tiny, images, sweep=4)
    key = of_kind(events, Swept)[0].chosen.candidate
    assert isinstance(events[0], CachePlanned)
    assert [type(e) for e in events if isinstance(e, FeaturesReady | Swept | Planned)] == [FeaturesReady, Swept, Planned]
    model, _ = run_fit(tiny, images, head=str(key.head), lr=key.lr, weight_decay=key.weight_decay)
    for name, tensor in swept_model.state_dict().items():
        assert tensor.equal(model.state_dict()[name]), name


def test_a_sweep_that_chooses_a_hidden_layer_puts_it_on(tiny, images, monkeypatch):
    hidden = SteppedHead(HeadSpec("mlp", 32), 1e-3, 0.02)
    monkeypatch.setattr("frostline.fitting.sweep.best_of", lambda judged: Judged(hidden, 1.0, 0.0))
    swept_model, events = run_fit(tiny, images, sweep=16)
    assert of_kind(events, Planned)[0].hyper.lr == 1e-3
    assert set(of_kind(events, Planned)[0].resolved.trainable) == {
        f"head.{n}.{k}" for n in ("hidden", "linear") for k in ("weight", "bias")
    }
    model, _ = run_fit(tiny, images, head="mlp:32", lr=1e-3, weight_decay=0.02)
    assert all(t.equal(model.state_dict()[n]) for n, t in swept_model.state_dict().items())


def test_the_choice_does_not_look_at_validation_images(tiny, images, tmp_path_factory):
    from conftest import make_images

    others = make_images(tmp_path_factory.mktemp("val") / "v", {"green": 3, "red": 3}, seed=5)
    found = []
    for val in (images, others, None):
        events = list(fit(TransferModel(tiny()), FreezePlan(), images, val, sweep=5, epochs=2))
        found.append(dataclasses.replace(of_kind(events, Swept)[0], seconds=0.0))
    assert found[0] == found[1] == found[2]


def test_a_sweep_goes_on_from_a_snapshot(tiny, images):
    def bytes_of(model):
        return {n: t.clone() for n, t in model.state_dict().items()}

    snapshot = None
    model = TransferModel(tiny())
    for number, event in enumerate(e for e in fit(model, FreezePlan(), images, images, sweep=4, epochs=4) if isinstance(e, StepDone)):
        if number == 5:
            snapshot = event.snapshot()
    whole = bytes_of(model)
    again = TransferModel(tiny())
    for _ in fit(again, FreezePlan(), images, images, sweep=4, epochs=4, resume=snapshot):
        pass
    assert all(t.equal(whole[n]) for n, t in bytes_of(again).items())


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({"sweep": 1}, "--sweep"),
        ({"sweep": -3}, "--sweep"),
        ({"sweep": 4, "head": "mlp:8"}, "--head mlp:8"),
        ({"sweep": 4, "head": "ridge"}, "--head ridge"),
        ({"sweep": 4, "plan": FreezePlan("last:1")}, "--unfreeze"),
        ({"sweep": 4, "plan": FreezePlan(batch_norm="affine")}, "--batch-norm"),
        ({"sweep": 4, "strategy": "lp-ft"}, "--strategy"),
        ({"sweep": 4, "lr": 0.1, "weight_decay": 0.0}, "--lr, --weight-decay"),
        ({"sweep": 4, "backbone_lr": 0.1}, "--backbone-lr"),
        ({"sweep": 4, "options": Options(mixup=0.2, label_smoothing=0.1)}, "--label-smoothing, --mixup"),
        ({"sweep": 4, "views": Views("light")}, "--augment"),
        ({"sweep": 4, "compute": Compute(recompute=True)}, "--no-cache"),
        ({"head": "ridge", "epochs": 3}, "--epochs"),
        ({"head": "ridge", "batch_size": 3}, "--batch-size"),
        ({"head": "logistic", "lr": 0.1}, "--lr"),
        ({"head": "logistic", "weight_decay": 0.1}, "--weight-decay"),
        ({"head": "logistic", "options": Options(class_weights="balanced")}, "--class-weights"),
        ({"head": "ridge", "views": Views("strong", live=True)}, "--augment"),
        ({"head": "ridge", "compute": Compute(recompute=True)}, "--no-cache"),
        ({"head": "ridge", "plan": FreezePlan("all")}, "--unfreeze"),
        ({"head": "ridge", "strategy": [Phase("a", FreezePlan("all")), Phase("b", FreezePlan())]}, "--unfreeze"),
        ({"head": "ridge", "strategy": [Phase("a", FreezePlan(), epochs=2)]}, "--epochs"),
    ],
)
def test_what_has_no_meaning_is_refused(tiny, images, settings, flags):
    with pytest.raises(RecipeError) as fault:
        run_fit(tiny, images, **settings)
    assert fault.value.where.startswith(flags)
    assert fault.value.advice


@pytest.mark.parametrize("text", ["ridge:3", "logistic:0.1"])
def test_solved_heads_take_no_width(text):
    with pytest.raises(HeadError, match="no head is called"):
        HeadSpec.parse(text)


@pytest.mark.parametrize("settings", [{"sweep": 16}, {"head": "ridge"}, {"head": "logistic"}])
def test_a_run_of_them_reads_and_predicts(tiny, images, tmp_path, settings, capsys):
    recipe = make_recipe({"data": str(images), "backbone": "tiny_net:build", **settings})
    summary = pipeline.train(recipe, tmp_path / "run", cache=None, listen=lambda e: None)
    chosen = (summary["sweep"] or summary["solved"])["chosen"]
    assert summary["head"] == chosen["head"]
    assert chosen in (summary["sweep"] or summary["solved"])["candidates"]
    assert (summary["sweep"] is None) == ("head" in settings)
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    print_summary(summary)
    assert f"folds of the training images: {summary['head']}" in capsys.readouterr().out
    run = read_run(tmp_path / "run")
    assert run.model.head_spec == HeadSpec.parse(chosen["head"])
    scores, _ = use.evaluate(run, images, cache=None)
    assert scores.accuracy > 0.7


def test_a_signal_behind_the_last_phase_lets_the_run_be_written(tiny, images, tmp_path):
    recipe = make_recipe({"data": str(images), "backbone": "tiny_net:build", "head": "ridge"})
    met = []

    def stop():
        return KeyboardInterrupt() if any(isinstance(e, PhaseDone) for e in met) else None

    pipeline.train(recipe, tmp_path / "run", cache=None, listen=met.append, stop=stop)
    assert (tmp_path / "run" / "summary.json").is_file()


def test_classifier_sweeps_saves_and_loads(tiny, images, tmp_path):
    classifier = ImageClassifier("tiny_net:build", sweep=16).fit(images)
    assert classifier.summary_["sweep"]["folds"] == 3
    assert len(classifier.summary_["sweep"]["candidates"]) > 16
    classifier.save(tmp_path / "run")
    loaded = ImageClassifier.load(tmp_path / "run")
    assert loaded.sweep == 16
    paths = sorted(images.rglob("*.png"))[:4]
    np.testing.assert_array_equal(loaded.predict_proba(paths), classifier.predict_proba(paths))
    assert ImageClassifier("tiny_net:build", head="ridge").fit(images).summary_["solved"]["folds"] == 5


def test_a_ridge_of_many_classes_takes_no_more_than_its_answers(monkeypatch):
    """The factors are found for one strength after the other: side by side they took five times what the answers take."""
    answers = torch.randn(6, 40, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(40) % 30
    largest: list[int] = []
    softmax = torch.Tensor.softmax

    def noted(values, dim):
        largest.append(values.numel())
        return softmax(values, dim)

    monkeypatch.setattr(torch.Tensor, "softmax", noted)
    found = logit_scales(answers, labels)
    assert max(largest) == answers[0].numel()
    alone = torch.cat([logit_scales(own[None], labels) for own in answers])
    assert torch.equal(found, alone)
