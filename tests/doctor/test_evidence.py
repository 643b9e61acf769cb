"""The measurements, one by one: pixels, random weights, loaders, calls."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, TensorDataset

from frostline.backbone.tap import recording
from frostline.doctor.anatomy import drop_rate, freshness, frozen_modules
from frostline.doctor.loader import loader_facts
from frostline.doctor.pixels import Wanted, fault, measure

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5,) * 3, (0.5,) * 3)
RAW = ((0.0,) * 3, (1.0,) * 3)
BYTES = ((0.0,) * 3, (1 / 255,) * 3)


def pictures(low: int = 0, high: int = 256, *, smooth: bool = False) -> torch.Tensor:
    """Eight pictures on the 0..1 scale: 8-bit levels, or resized as floats, which leaves none."""
    random = np.random.default_rng(3)
    small = [Image.fromarray(random.integers(low, high, (6, 6, 3)).astype(np.uint8)).resize((48, 48)) for _ in range(8)]
    images = torch.stack([torch.from_numpy(np.array(p)) for p in small]).permute(0, 3, 1, 2) / 255
    return nn.functional.interpolate(images, 40, mode="bilinear") if smooth else images


def normal(images: torch.Tensor, statistics) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in statistics)
    return (images - mean) / std


def look(images: torch.Tensor, wanted) -> str | None:
    want = Wanted(*wanted, None, "test")
    return fault(measure(images, want), want)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("statistics", [IMAGENET, CLIP, HALF, RAW])
def test_right_normalisation_is_no_fault(statistics, smooth):
    assert look(normal(pictures(smooth=smooth), statistics), statistics) is None


@pytest.mark.parametrize("statistics", [IMAGENET, HALF])
@pytest.mark.parametrize(("low", "high"), [(0, 90), (180, 256), (100, 190)])
def test_dark_bright_and_flat_pictures_are_no_fault(statistics, low, high):
    assert look(normal(pictures(low, high), statistics), statistics) is None


@pytest.mark.parametrize(
    ("given", "wanted", "words", "smooth"),
    [
        (HALF, IMAGENET, "mean and std 0.5", (False, True)),
        (IMAGENET, HALF, "ImageNet's mean and std", (False, True)),
        (CLIP, IMAGENET, "CLIP's", (False,)),
        (IMAGENET, CLIP, "ImageNet's", (False,)),
        (RAW, IMAGENET, "0 to 1, not normalised", (False, True)),
        (RAW, HALF, "0 to 1, not normalised", (False, True)),
        (BYTES, IMAGENET, "0 to 255", (False, True)),
        (BYTES, RAW, "0 to 255", (False, True)),
    ],
)
def test_wrong_normalisation_is_named(given, wanted, words, smooth):
    for blurred in smooth:
        found = look(normal(pictures(smooth=blurred), given), wanted)
        assert found is not None
        assert words in found


@pytest.mark.parametrize("statistics", [IMAGENET, HALF])
def test_normalised_twice_is_named(statistics):
    assert "twice" in (look(normal(normal(pictures(), statistics), statistics), statistics) or "")


def test_statistics_of_ones_own_are_measured_from_the_grey_levels():
    found = look(normal(pictures(), ((0.3,) * 3, (0.125,) * 3)), IMAGENET)
    assert found == "normalised with std 0.125, 0.125, 0.125 (from the step between grey levels)"


def test_rounded_constants_are_no_fault():
    assert look(normal(pictures(), ((0.48, 0.46, 0.4), (0.23, 0.22, 0.22))), IMAGENET) is None


def test_erased_patches_and_padding_are_no_fault():
    images = normal(pictures(), IMAGENET)
    images[:, :, :10, :10] = 0
    assert look(images, IMAGENET) is None


def test_noise_is_not_judged():
    want = Wanted(*HALF, None, "test")
    seen = measure(torch.randn(8, 3, 32, 32), want)
    assert seen.noise
    assert fault(seen, want) is None


NETWORKS = {
    "batch norm": lambda: timm.create_model("resnet10t"),
    "batch norm, residuals started at zero": lambda: timm.create_model("resnet18", zero_init_last=True),
    "layer norm": lambda: timm.create_model("vit_tiny_patch16_224", depth=2),
    "no norm, uniform": lambda: nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Flatten(), nn.Linear(512, 16)),
    "no norm, uniform, no bias": lambda: nn.Sequential(nn.Conv2d(3, 32, 3, bias=False), nn.ReLU(), nn.Conv2d(32, 32, 3, bias=False)),
    "no norm, Kaiming": lambda: nn.Sequential(*(kaiming(nn.Conv2d(c, 32, 3)) for c in (3, 32, 32))),
}


def kaiming(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    nn.init.zeros_(layer.bias)
    return layer


@pytest.mark.parametrize("name", NETWORKS)
def test_random_weights_are_known_and_a_trained_step_is_too(name):
    torch.manual_seed(0)
    network = NETWORKS[name]().train()
    names = [n for n, _ in network.named_modules()]
    assert freshness(network, names).random
    images = (
        torch.randn(4, 3, 224, 224) if "layer norm" in name else torch.randn(4, 3, 8, 8) if "no norm" in name else torch.randn(4, 3, 64, 64)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    network(images).square().mean().backward()
    optimizer.step()
    assert not freshness(network, names).random


def test_only_the_layers_asked_for_are_looked_at():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    nn.init.uniform_(network[0].running_mean)
    assert not freshness(network, ["0"]).random
    assert freshness(network, ["1"]).untouched == ("1",)
    assert not freshness(network, []).random


def test_a_module_without_parameters_is_as_its_parent_is():
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)), nn.Dropout(0.1), nn.Linear(2, 2))
    frozen = {id(p) for p in network[0].parameters()}
    assert frozen_modules(network, frozen) == {"0", "0.0", "0.1"}


@pytest.mark.parametrize(
    ("module", "rate"),
    [
        (nn.Dropout2d(0.25), 0.25),
        (nn.MultiheadAttention(4, 2, dropout=0.1), 0.1),
        (nn.LSTM(4, 4, 2, dropout=0.3), 0.3),
        (timm.layers.DropPath(0.2), 0.2),
        (nn.Linear(2, 2), 0.0),
    ],
)
def test_drop_rates(module, rate):
    assert drop_rate(module) == pytest.approx(rate)


def rows(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(float(count)).view(-1, 1))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.arange(5.0))


@pytest.mark.parametrize(
    ("loader", "expected"),
    [
        (DataLoader(rows(17), batch_size=8, shuffle=True), (True, 17, 8, 1)),
        (DataLoader(rows(17), batch_size=8, drop_last=True), (True, 17, 8, 8)),
        (DataLoader(rows(16), batch_size=8), (True, 16, 8, 8)),
        (DataLoader(rows(9), batch_sampler=BatchSampler(SequentialSampler(range(9)), 4, drop_last=False)), (True, 9, 4, 1)),
        (DataLoader(rows(9), batch_size=None), (True, None, None, None)),
        (DataLoader(Stream(), batch_size=2), (True, None, None, None)),
        (DataLoader(rows(3), batch_size=2, collate_fn=lambda b: torch.rand(2)), (False, 3, 2, 1)),
        ([torch.zeros(4, 2), torch.ones(3, 2)], (True, 7, 4, 3)),
        ((torch.zeros(4, 2) for _ in range(2)), (None, None, None, None)),
    ],
)
def test_what_a_loader_tells(loader, expected):
    facts = loader_facts(loader)
    assert (facts.repeats, facts.count, facts.batch_size, facts.last) == expected


def test_calls_are_recorded_in_order_and_the_hooks_are_gone():
    network = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)))
    network[1].eval()
    x = torch.randn(5, 4)
    with recording(network, keep=("1",), sums=("1", "1.1")) as calls:
        y = network(x)
    assert [(c.name, c.within, c.training, c.shape) for c in calls] == [
        ("", (), True, (5, 4)),
        ("0", ("",), True, (5, 4)),
        ("1", ("",), False, (5, 3)),
        ("1.0", ("", "1"), False, (5, 3)),
        ("1.1", ("", "1"), False, (5, 3)),
    ]
    kept = calls[2]
    assert torch.equal(kept.given, network[0](x)), "copied before the in-place ReLU"
    assert torch.equal(kept.gave, y)
    assert kept.sums is not None
    assert kept.sums[1][0] == pytest.approx(float(y.detach().sum()), rel=1e-5)
    assert calls[4].sums is None, "inside a module that is summed"
    assert all(c.seconds >= 0 for c in calls)
    with pytest.raises(RuntimeError), recording(network):
        network(torch.randn(5, 7))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
