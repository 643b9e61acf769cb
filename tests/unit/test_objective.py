"""The loss, its options, the averages of the weights and the optimizer's groups, each against its formula in NumPy."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from torch import nn

from frostline import FreezePlan, Options, TransferModel
from frostline._rng import beta, stream
from frostline.errors import RecipeError
from frostline.fitting.average import MovingAverage
from frostline.fitting.hyper import Hyper
from frostline.fitting.loop import Task, train
from frostline.fitting.objective import Objective, balanced_weights
from frostline.fitting.optim import make_optimizer
from frostline.fitting.snapshot import Progress, Snapshot
from frostline.fitting.sources import FeatureRows
from frostline.fitting.wise import SHARES, interpolate
from frostline.freeze.crossing import Layout

HYPER = Hyper(epochs=1, batch_size=4, lr=0.05, backbone_lr=0.01, weight_decay=0.1, warmup_fraction=0.0, patience=5)


def random_batch(n=12, features=5, classes=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, features, generator=random), torch.arange(n) * 7 % classes


def log_softmax(logits):
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def cross_entropy(logits, labels, smoothing=0.0, weights=None):
    """Sum over the images of ``-sum_c w_c q_c log p_c``, with ``q`` one-hot, a share of it spread evenly over the classes."""
    log_p, classes = log_softmax(logits), np.asarray(logits).shape[1]
    weights = np.ones(classes) if weights is None else np.asarray(weights, dtype=np.float64)
    target = (1 - smoothing) * np.eye(classes)[np.asarray(labels)] + smoothing / classes
    return float(-(target * weights * log_p).sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.25)])
def test_label_smoothing_and_class_weights_by_the_formula(smoothing, weights):
    logits, labels = random_batch(features=3)
    given = None if weights is None else torch.tensor(weights)
    objective = Objective(Options(label_smoothing=smoothing), given)
    loss, out = objective.loss(nn.Identity(), logits, labels, 0)
    assert float(loss) == pytest.approx(cross_entropy(logits, labels, smoothing, weights), rel=1e-6)
    assert torch.equal(out, logits)
    assert objective.weight_of(labels) == pytest.approx(sum((weights or (1, 1, 1))[i] for i in labels))


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.tensor([0] * 7 + [1] * 2 + [2] * 11)
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    assert balanced_weights(labels, 3).numpy() == pytest.approx(theirs, rel=1e-6)


def test_a_class_without_images_weighs_nothing_and_changes_no_other():
    labels = torch.tensor([0] * 7 + [2] * 3)
    weights = balanced_weights(labels, 4)
    assert weights.tolist() == pytest.approx([10 / (2 * 7), 0.0, 10 / (2 * 3), 0.0])
    logits = random_batch(10, 4)[0].requires_grad_()
    Objective(Options(label_smoothing=0.4), weights).loss(nn.Identity(), logits, labels, 0)[0].backward()
    assert (logits.grad[:, [1, 3]] > 0).all()  # not even smoothing pulls towards a class that no image has


@pytest.mark.parametrize("several", [False, True])
def test_mixup_mixes_inputs_and_losses_by_one_share(several):
    inputs, labels = random_batch()
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    objective = Objective(Options(mixup=0.4, label_smoothing=0.1), seed=6)

    class Linear(nn.Module):
        def forward(self, x):
            return (x[0] - x[1] if several else x) @ weight

    given = (inputs, inputs * 3) if several else inputs
    shares = []
    for step in range(20):
        loss, _ = objective.loss(Linear(), given, labels, step)
        share = beta(0.4, 6, "mixup share", step)
        partner = torch.randperm(12, generator=stream(6, "mixup partner", step))
        mixed = share * inputs.numpy() + (1 - share) * inputs.numpy()[partner]
        logits = (-2 * mixed if several else mixed) @ weight.numpy()
        by_hand = share * cross_entropy(logits, labels, 0.1) + (1 - share) * cross_entropy(logits, labels[partner], 0.1)
        assert float(loss) == pytest.approx(by_hand, rel=1e-5)
        shares.append(share)
    assert 0 <= min(shares) < 0.3 < 0.7 < max(shares) <= 1
    assert float(objective.loss(Linear(), given, labels, 3)[0]) == float(objective.loss(Linear(), given, labels, 3)[0])


def test_mixups_shares_follow_the_symmetric_beta_distribution():
    shares = np.array([beta(0.4, 0, "mixup share", step) for step in range(4000)])
    variance = 1 / (4 * (2 * 0.4 + 1))  # of Beta(a, a)
    assert shares.mean() == pytest.approx(0.5, abs=4 * math.sqrt(variance / 4000))
    assert shares.var() == pytest.approx(variance, rel=0.05)


def test_l2_sp_pulls_to_the_anchors_by_half_the_strength_times_the_squared_distance():
    named = {"a": nn.Parameter(torch.tensor([1.0, 2.0])), "b": nn.Parameter(torch.tensor([[3.0]])), "head": nn.Parameter(torch.ones(9))}
    anchors = {"a": torch.tensor([0.0, 4.0]), "b": torch.tensor([[2.5]])}
    pull = Objective(Options(l2_sp=0.3), anchors=anchors).pull(named)
    assert float(pull.detach()) == pytest.approx(0.5 * 0.3 * (1 + 4 + 0.25))
    pull.backward()
    assert named["a"].grad.tolist() == pytest.approx([0.3 * 1, 0.3 * -2])
    assert named["b"].grad.tolist() == [pytest.approx([0.3 * 0.5])]
    assert named["head"].grad is None
    assert Objective(Options(), anchors=anchors).pull(named) is None
    assert Objective(Options(l2_sp=0.3)).pull(named) is None


def steps_by(options, inputs, labels, *, batch, rate=0.1, class_weight=None, anchors=None, epochs=1, val=None, module=None):
    """Run the real loop with plain gradient descent at a constant rate; gives the module and its weights after every step."""
    module = nn.Linear(inputs.shape[1], 3) if module is None else module
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.3)
    named = dict(module.named_parameters())
    rows = FeatureRows((inputs,), labels, Layout.of([inputs]))
    hyper = Hyper(epochs, batch, rate, rate, 0.0, 0.0, 9)
    objective = Objective(options, class_weight, anchors or {})
    changing = {**named, **dict(module.named_buffers())}
    task = Task("plain", 0, module, changing, named, rows, rows if val else None, hyper, objective, 0)
    optimizer = torch.optim.SGD([{"params": list(named.values()), "lr": rate, "peak": rate}])
    seen, progress = [], Progress()
    for event in train(task, optimizer, progress, lambda p: Snapshot(p.facts(), {})):
        if type(event).__name__ == "StepDone":
            seen.append({n: t.detach().clone() for n, t in changing.items()})
    return module, seen, progress


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_group_of_batches_is_one_large_batch(smoothing, weighted):
    """Of unequal sizes too: 11 images in batches of 4 are 4, 4 and 3; with class weights each counts by its weight."""
    inputs, labels = random_batch(11)
    weights = torch.tensor([0.2, 3.0, 1.0]) if weighted else None
    small, steps, _ = steps_by(Options(accumulate=3, label_smoothing=smoothing), inputs, labels, batch=4, class_weight=weights)
    large, _, _ = steps_by(Options(label_smoothing=smoothing), inputs, labels, batch=11, class_weight=weights)
    assert len(steps) == 1
    assert torch.allclose(small.weight, large.weight, rtol=1e-6, atol=1e-7)
    assert torch.allclose(small.bias, large.bias, rtol=1e-6, atol=1e-7)


def test_the_last_group_of_batches_may_be_smaller_and_holds_the_image_left_over():
    inputs, labels = random_batch(13)
    module, steps, _ = steps_by(Options(accumulate=2), inputs, labels, batch=4)  # 4 + 4, 4 + 1: the one is put to the third batch
    assert len(steps) == 2
    weight, bias = (t.numpy().astype(np.float64) for t in (steps[0]["weight"], steps[0]["bias"]))
    from frostline._rng import permutation

    part = permutation(13, 0, 0)[8:]
    x, y = inputs[part].numpy().astype(np.float64), labels[part].numpy()
    residual = (np.exp(log_softmax(x @ weight.T + bias)) - np.eye(3)[y]) / 5
    factor = 0.1 * 0.5 * (1 + math.cos(math.pi / 2))
    assert module.weight.detach().numpy() == pytest.approx(weight - factor * residual.T @ x, rel=1e-5, abs=1e-6)
    assert module.bias.detach().numpy() == pytest.approx(bias - factor * residual.sum(0), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("clip", "clipped"), [(0.05, True), (50.0, False)])
def test_clipping_and_l2_sp_in_a_step_by_the_formula(clip, clipped):
    inputs, labels = random_batch(6)
    anchors = {"weight": torch.zeros(3, 5)}
    module, _, _ = steps_by(Options(clip_norm=clip, l2_sp=0.7), inputs, labels, batch=6, anchors=anchors)
    untouched, _, _ = steps_by(Options(), inputs, labels, batch=6, rate=1e-30)
    weight, bias = (t.detach().numpy().astype(np.float64) for t in (untouched.weight, untouched.bias))
    residual = (np.exp(log_softmax(inputs.numpy() @ weight.T + bias)) - np.eye(3)[labels.numpy()]) / 6
    gradients = residual.T @ inputs.numpy() + 0.7 * weight, residual.sum(0)
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    assert (norm > clip) == clipped
    scale = min(1.0, clip / norm)
    for after, before, gradient in zip((module.weight, module.bias), (weight, bias), gradients, strict=True):
        assert after.detach().numpy() == pytest.approx(before - 0.1 * scale * gradient, rel=1e-4, abs=1e-6)


def test_the_moving_average_warms_up_and_gives_the_weights_back():
    random = np.random.default_rng(0)
    weight = nn.Parameter(torch.zeros(4))
    state = {}
    average = MovingAverage(0.6, {"w": weight}, state)
    by_hand = np.zeros(4)
    for step in range(12):
        value = random.normal(size=4).astype(np.float32)
        weight.data.copy_(torch.from_numpy(value))
        average.update(step)
        decay = min(0.6, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * value
        assert state["w"].numpy() == pytest.approx(by_hand, rel=1e-5, abs=1e-6)
    now = weight.detach().clone()
    with contextlib.suppress(KeyError), average.in_place():
        assert torch.equal(weight.detach(), state["w"])
        raise KeyError  # given back all the same
    assert torch.equal(weight.detach(), now)
    again = MovingAverage(0.6, {"w": weight}, state)  # goes on with what there is
    again.update(12)
    decay = min(0.6, 13 / 22)
    assert state["w"].numpy() == pytest.approx(decay * by_hand + (1 - decay) * now.numpy(), rel=1e-5, abs=1e-6)


def test_no_average_does_nothing():
    weight, state = nn.Parameter(torch.ones(2)), {}
    average = MovingAverage(0.0, {"w": weight}, state)
    average.update(5)
    with average.in_place():
        assert torch.equal(weight.detach(), torch.ones(2))
    assert state == {}


def test_averages_are_kept_in_place_of_weights_and_of_the_statistics_that_go_with_them():
    """Averaged weights with the statistics of the last weights are another network than any that was trained."""
    inputs, labels = random_batch(24)
    module = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    start = {n: t.clone() for n, t in module.named_buffers()} | {
        "0.weight": torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 0.3
    }
    module, steps, progress = steps_by(Options(ema=0.9), inputs, labels, batch=4, rate=0.5, epochs=2, module=module)
    assert progress.best_epoch == 2
    for name in ("0.weight", "1.running_mean", "1.running_var"):
        by_hand = start[name].numpy().astype(np.float64)
        for number, seen in enumerate(steps):
            decay = min(0.9, (1 + number) / (10 + number))
            by_hand = decay * by_hand + (1 - decay) * seen[name].numpy()
        assert module.state_dict()[name].numpy() == pytest.approx(by_hand, rel=1e-4, abs=1e-6)
    assert not torch.equal(module[0].weight.detach(), steps[-1]["0.weight"])
    assert module[1].num_batches_tracked == 12


def test_wise_takes_the_best_of_eleven_straight_mixtures():
    random = np.random.default_rng(1)
    start = {"w": torch.from_numpy(random.normal(size=5)).float(), "n": torch.tensor(3)}
    end = {"w": torch.from_numpy(random.normal(size=5)).float(), "n": torch.tensor(9)}
    met = []

    def loss_of(mixture):
        met.append(mixture["w"].numpy())
        assert int(mixture["n"]) == 9
        return float((mixture["w"] - (0.3 * end["w"] + 0.7 * start["w"])).square().sum())

    share, loss, mixture = interpolate(start, end, loss_of)
    assert len(met) == len(SHARES) == 11
    for number, weights in enumerate(met):
        by_hand = (1 - number / 10) * start["w"].numpy().astype(np.float64) + number / 10 * end["w"].numpy().astype(np.float64)
        assert weights == pytest.approx(by_hand, rel=1e-5, abs=1e-6)
    assert (share, loss) == (0.3, pytest.approx(0.0, abs=1e-10))
    assert np.array_equal(mixture["w"].numpy(), met[3])
    assert np.array_equal(met[0], start["w"].numpy())
    assert np.array_equal(met[10], end["w"].numpy())
    assert interpolate(start, end, lambda m: 1.0)[0] == 1.0  # of equal ones, what was trained


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"layer_decay": 0.0}, "--layer-decay"),
        ({"layer_decay": 1.01}, "--layer-decay"),
        ({"layer_decay": math.nan}, "--layer-decay"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"label_smoothing": -0.1}, "--label-smoothing"),
        ({"mixup": -1.0}, "--mixup"),
        ({"mixup": math.inf}, "--mixup"),
        ({"clip_norm": math.nan}, "--clip-norm"),
        ({"clip_norm": -1.0}, "--clip-norm"),
        ({"accumulate": 0}, "--accumulate"),
        ({"class_weights": "heavy"}, "--class-weights"),
        ({"ema": 1.0}, "--ema"),
        ({"ema": math.nan}, "--ema"),
        ({"l2_sp": -0.1}, "--l2-sp"),
    ],
)
def test_options_out_of_range_are_refused(given, flag):
    with pytest.raises(RecipeError, match=flag):
        Options(**given).check()


def test_options_at_the_edge_of_their_range_are_not_refused():
    Options().check()
    Options(1e-9, 0.999, 9.0, 1e9, 1, "balanced", 0.9999, 0.0, wise=True).check()


class Five(nn.Module):
    """Five convolutions with norm in a row."""

    def __init__(self):
        super().__init__()
        rows = [nn.Sequential(nn.Conv2d(3 if i == 0 else 4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()) for i in range(5)]
        self.blocks = nn.Sequential(*rows)

    def forward(self, x):
        return self.blocks(x).mean((2, 3))


def test_layer_decay_counts_frozen_blocks_in_the_middle_and_spares_norms_and_biases():
    """Where timm's layer decay goes wrong (timm#2691): a block's rate is a matter of its place, not of how many are trained."""
    model = TransferModel(Five())
    resolved = FreezePlan("blocks.1.*,blocks.4.*").apply(model)
    groups = make_optimizer(model, resolved, HYPER, layer_decay=0.5).param_groups
    rate = {n: g["peak"] for g in groups for n in g["names"]}
    decay = {n: g["weight_decay"] for g in groups for n in g["names"]}
    assert rate.keys() == set(resolved.trainable)
    assert {n.split(".")[2] for n in rate if n.startswith("backbone")} == {"1", "4"}
    for name, found in rate.items():
        block = name.split(".")[2]
        assert found == pytest.approx({"1": 0.01 * 0.5**3, "4": 0.01}[block] if name.startswith("backbone") else 0.05)
        assert decay[name] == (0.1 if name in ("backbone.blocks.1.0.weight", "backbone.blocks.4.0.weight", "head.linear.weight") else 0.0)
    assert groups[0]["group"] == "head"
