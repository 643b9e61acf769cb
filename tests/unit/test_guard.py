"""Signs of overfitting and of forgetting: the numbers behind them against published values and definitions, and the words."""

from __future__ import annotations

import copy
import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import make_images
from frostline import Compute, Finished, FreezePlan, ImageSet, TransferModel, fit
from frostline.data import decode, read_data
from frostline.fitting import forget
from frostline.fitting.forget import changing_names, forgetting_of, originals
from frostline.fitting.guard import Forgetting, Guards, Overfitting, block_distances, linear_cka, overfitting


@pytest.mark.parametrize(
    ("right", "low", "high"),
    [
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((6, 7, 2, 7), 0.0582, 0.8062),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((0, 10, 0, 10), -0.2775, 0.2775),
        ((10, 10, 0, 20), 0.6791, 1.0),
        ((10, 10, 0, 10), 0.6075, 1.0),
    ],
)
def test_newcombes_interval_against_his_table(right, low, high):
    """Newcombe 1998, Statistics in Medicine 17:873, table II, method 10."""
    found = overfitting(*right)
    assert found.interval == pytest.approx((low, high), abs=6e-5)
    assert found.gap == pytest.approx(right[0] / right[1] - right[2] / right[3])


def test_overfitting_is_warned_of_when_it_is_large_and_not_by_chance():
    assert overfitting(990, 1000, 800, 1000).warned
    assert not overfitting(10, 10, 7, 10).warned  # 30 points, of ten images
    assert not overfitting(9900, 10_000, 9600, 10_000).warned  # beyond chance, but small
    assert not overfitting(800, 1000, 990, 1000).warned


def cka_by_hsic(x, y):
    """Kornblith 2019 with Song 2012, eq. 5, written out."""
    n = len(x)
    k, m = (f - f.mean(0) for f in (x, y))
    k, m = k @ k.T, m @ m.T
    for kernel in (k, m):
        np.fill_diagonal(kernel, 0)
    one = np.ones(n)

    def hsic(a, b):
        return np.trace(a @ b) + one @ a @ one * (one @ b @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ a @ b @ one)

    return max(0.0, hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m)))


def test_the_estimate_is_the_mean_over_quadruples_of_different_images():
    """Gretton 2005: HSIC is the expectation of k(a, b) (m(a, b) - 2 m(a, c) + m(c, d)) over independent images a, b, c and d."""
    random = np.random.default_rng(3)
    x, y = random.normal(size=(6, 2)), random.normal(size=(6, 3))
    y[:, 0] += 3 * x[:, 0]

    def hsic(first, second):
        k, m = first @ first.T, second @ second.T
        return np.mean([k[a, b] * (m[a, b] - 2 * m[a, c] + m[c, d]) for a, b, c, d in itertools.permutations(range(6), 4)])

    expected = hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y))
    assert expected > 0.1
    assert linear_cka(torch.tensor(x), torch.tensor(y)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("images", [16, 64])
def test_unrelated_features_are_not_found_similar_with_few_images_and_many_dimensions(images):
    random = np.random.default_rng(4)
    found = [linear_cka(*(torch.tensor(random.normal(size=(images, 1280))) for _ in range(2))) for _ in range(10)]
    assert max(found) < 0.2


def test_cka_is_its_definition():
    random = np.random.default_rng(0)
    x, noise = random.normal(2, 3, (40, 6)), random.normal(size=(40, 9))
    for y in (noise, noise + np.tile(x, 2)[:, :9], x**2):
        assert linear_cka(torch.tensor(x), torch.tensor(y)) == pytest.approx(cka_by_hsic(x, y), rel=1e-9)
    maps = torch.tensor(x).view(40, 3, 2, 1)  # features need not be vectors
    assert linear_cka(maps, torch.tensor(noise)) == pytest.approx(cka_by_hsic(x, noise), rel=1e-9)


def test_cka_sees_through_rotation_scaling_and_shifts_and_not_through_noise():
    random = np.random.default_rng(1)
    x = random.normal(size=(2000, 5))
    turn = np.linalg.qr(random.normal(size=(5, 5)))[0]
    assert linear_cka(torch.tensor(x), torch.tensor(x @ turn * 7 + 3)) == pytest.approx(1.0)
    assert linear_cka(torch.tensor(x), torch.tensor(random.normal(size=(2000, 4)))) < math.sqrt(5 * 4) / 2000
    stretched = x * np.array([10, 1, 1, 1, 1])
    assert linear_cka(torch.tensor(x), torch.tensor(stretched)) == pytest.approx((100 + 4) / math.sqrt(5 * (10_000 + 4)), rel=0.05)


@pytest.mark.parametrize("constant", [0.0, 0.1])
def test_features_that_are_the_same_for_all_images_are_like_each_other_and_unlike_all_else(constant):
    dead, alive = torch.full((9, 4), constant), torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    assert linear_cka(alive, dead) == linear_cka(dead, alive) == 0.0
    assert linear_cka(dead, dead + 1) == 1.0


def test_distances_of_blocks_by_hand():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1, bias=False), nn.Linear(1, 1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(2.0)
    original = {"0.weight": torch.ones(2, 2), "1.bias": torch.tensor([0.0, 2.0]), "2.weight": torch.full((1, 2), 2.0)}
    found = block_distances(net, original | {"1.running_mean": torch.ones(2)})
    before = [1] * 4 + [2] * 2 + [2] * 2 + [0, 2]  # weight, bias, and the norm that follows, counted with its layer
    assert found == {"0": pytest.approx(math.sqrt(4 * 1 + 4) / math.sqrt(sum(b * b for b in before))), "2": 0.0}


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    return ImageSet.of(read_data(make_images(tmp_path_factory.mktemp("guard") / "d", {"a": 12, "b": 12})))


@pytest.fixture
def known(tiny):
    """The tiny network with a classifier that it was 'trained' with."""
    torch.manual_seed(0)
    classifier = nn.Linear(8, 5)
    return TransferModel(replace(tiny(), classifier=classifier)), classifier


def features_of(body, preprocess, images):
    pixels = torch.stack([preprocess.pixels(decode(p.read_bytes()).image) for p in images.paths])
    with torch.no_grad():
        return copy.deepcopy(body).eval()(preprocess.normalise(pixels))


def test_nothing_is_forgotten_where_nothing_moved(known, listed):
    model, _ = known
    original = originals(model, [FreezePlan("last:1").apply(model)])
    own = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked")
    assert set(original) == {f"body.{n}" for n in own}
    assert forgetting_of(model, original, listed) is None


def test_forgetting_against_the_same_by_hand(known, listed):
    model, classifier = known
    before = copy.deepcopy(model.backbone)
    old = features_of(before, model.opened.preprocess, listed)
    with torch.no_grad():
        classifier.bias.sub_(classifier(old).mean(0))  # so that it gives different answers
    resolved = FreezePlan("last:1").apply(model)
    original = originals(model, [resolved])
    with torch.no_grad():
        model.backbone.body[0].weight += torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(2)) * 0.3
        model.backbone.body[1].running_mean += 0.2
    now = copy.deepcopy(model.state_dict())
    found = forgetting_of(model, original, listed)
    new = features_of(model.backbone, model.opened.preprocess, listed)
    answers = [classifier(f).argmax(1) for f in (old, new)]
    assert 0 < found.agreement < 1
    assert found.agreement == pytest.approx(float((answers[0] == answers[1]).double().mean()))
    assert found.similarity == pytest.approx(cka_by_hsic(old.double().numpy(), new.double().numpy()), rel=1e-4)
    assert found.images == 24
    own, was = (torch.cat([p.detach().flatten() for p in b.body.parameters()]) for b in (model.backbone, before))
    assert found.distance == {"body.0": pytest.approx(float((own - was).norm() / was.norm()), rel=1e-5)}
    assert all(torch.equal(now[n], t) for n, t in model.state_dict().items())  # it is what it was before it was measured
    assert "backbone.body.1.running_mean" in changing_names(model, resolved)


@pytest.mark.parametrize("classifier", [None, nn.Linear(9, 5), nn.Sequential(nn.Linear(8, 5))])
def test_without_a_classifier_that_fits_there_is_no_agreement(tiny, listed, classifier):
    model = TransferModel(replace(tiny(), classifier=classifier))
    original = originals(model, [FreezePlan("last:1").apply(model)])
    with torch.no_grad():
        model.backbone.body[0].bias += 1
    found = forgetting_of(model, original, listed)
    assert found.agreement is None
    assert 0 < found.similarity <= 1


def test_the_weights_are_given_back_when_the_measurement_fails(known, listed, monkeypatch):
    model, _ = known
    original = originals(model, [FreezePlan("last:1").apply(model)])
    with torch.no_grad():
        model.backbone.body[0].bias += 1
    calls = iter([forget._features])
    monkeypatch.setattr(forget, "_features", lambda *given: next(calls)(*given))  # the second call, with the old weights, fails
    now = copy.deepcopy(model.state_dict())
    with pytest.raises(StopIteration):
        forgetting_of(model, original, listed)
    assert all(torch.equal(now[n], t) for n, t in model.state_dict().items())


def test_the_images_it_is_measured_on_are_spread_over_all(known, tmp_path, monkeypatch):
    """They lie class by class: the first 64 of 127 may all be of one class."""
    model, _ = known
    images = ImageSet.of(read_data(make_images(tmp_path / "d", {"a": 100, "b": 27}, side=8)))
    met, real = [], forget.pixel_batches
    monkeypatch.setattr(forget, "pixel_batches", lambda paths, *rest: met.extend(paths) or real(paths, *rest))
    original = originals(model, [FreezePlan("last:1").apply(model)])
    with torch.no_grad():
        model.backbone.body[0].bias += 1
    assert forgetting_of(model, original, images).images == 64
    assert len(set(met)) == 64
    assert sum(p.parent.name == "b" for p in met) == pytest.approx(64 * 27 / 127, abs=1)


@pytest.mark.parametrize(("held_out", "measured"), [(1, 25), (7, 31), (8, 8)])
def test_few_validation_images_are_not_enough_to_say_what_was_forgotten(tiny, listed, tmp_path, held_out, measured):
    """The features of one image are unlike anything once they are centred: 0 %, whatever was trained."""
    other = ImageSet.of(read_data(make_images(tmp_path / "d", {"a": 4, "b": 4}, seed=5)))
    val = ImageSet(other.paths[:held_out], other.digests[:held_out], other.labels[:held_out])
    events = list(fit(TransferModel(tiny()), FreezePlan("last:1"), listed, val, epochs=1, backbone_lr=1e-6, compute=Compute(tmp_path)))
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.guards.forgetting.images == measured
    assert 0.5 < finished.guards.forgetting.similarity < 1
    assert not finished.guards.forgetting.warned


def test_what_is_warned_of_and_in_which_words():
    over = Overfitting(0.21, (0.104, 0.3))
    assert Guards(over, None).warnings() == [
        "overfitting: training accuracy is 21% above validation (10% to 30%); "
        "unfreeze fewer layers, add --augment light, raise --weight-decay, or label more images"
    ]
    lost = Forgetting({"body.0": 1.5}, 0.3, 0.25, 64)
    assert Guards(None, lost).warnings() == [
        "forgetting: the features are 30% similar to those before training, 25% of its old answers are left; "
        "lower --backbone-lr, use --strategy lp-ft, --l2-sp or --wise, or unfreeze fewer layers"
    ]
    assert "old answers" not in Guards(None, replace(lost, agreement=None)).warnings()[0]
    assert len(Guards(over, lost).warnings()) == 2
    fine = Guards(Overfitting(0.21, (0.04, 0.3)), replace(lost, similarity=0.5, agreement=0.5))
    assert fine.warnings() == Guards(None, None).warnings() == []
    assert Guards(None, replace(lost, similarity=0.9, agreement=0.4)).warnings() != []  # either of the two is enough
    assert Guards(None, replace(lost, similarity=0.4, agreement=0.9)).warnings() != []


def striped(root):
    """Pictures of any colour, of which one class has stripes: to tell them apart the colours had better be forgotten."""
    random = np.random.default_rng(0)
    for name in ("plain", "striped"):
        (root / name).mkdir(parents=True)
        for number in range(40):
            pixels = random.integers(0, 230, 3) + random.normal(0, 20, (40, 40, 3))
            pixels[::2] += 25 * (name == "striped")
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


def test_a_run_that_forgets_is_warned_of_in_its_summary(frostline, tmp_path):
    settings = ("--unfreeze", "all", "--backbone-lr", "1", "--epochs", "5")
    done = frostline("train", striped(tmp_path / "data"), "--backbone", "tiny_net:build", *settings, "--out", tmp_path / "lost")
    assert done.returncode == 0, done.stderr
    assert "warning     forgetting: the features are" in done.stdout
    found = json.loads((tmp_path / "lost" / "summary.json").read_text())["guards"]["forgetting"]
    assert found["warned"] is True
    assert found["distance"].keys() == {"stem.0", "body.0"}
