"""Heads on feature maps and on tokens: shapes, scaling, what they do not depend on, and what they refuse."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from frostline import FreezePlan, TransferModel, open_backbone
from frostline.errors import BackboneError, HeadError
from frostline.freeze.layers import layers_of
from frostline.heads import FeatureShape, HeadSpec, InputScale, build_head

MAP, TOKENS = FeatureShape((8, 5, 6)), FeatureShape((17, 8), first=1)


@pytest.mark.parametrize("text", ["conv:12", "attention"])
@pytest.mark.parametrize("features", [MAP, TOKENS])
def test_heads_take_maps_and_tokens_and_start_at_zero(text, features):
    head = build_head(HeadSpec.parse(text), features, 3, seed=1)
    x = torch.randn(4, *features.shape)
    assert torch.equal(head(x), torch.zeros(4, 3))
    nn.init.normal_(head.linear.weight)
    head.scale.measure(x)
    assert torch.allclose(head(x)[1], head(x[1:2])[0], atol=1e-5)  # no image depends on those beside it
    if x.ndim == 4:
        assert torch.allclose(head(x), head(x.contiguous(memory_format=torch.channels_last)), atol=1e-5)


def test_a_convolution_sees_where_things_are_and_leaves_the_class_token_out():
    head = build_head(HeadSpec.parse("conv:4"), TOKENS, 2)
    nn.init.normal_(head.linear.weight)
    x = torch.randn(2, 17, 8)
    other = x.clone()
    other[:, 0] += 5.0
    assert torch.equal(head(x), head(other))
    shuffled = torch.cat([x[:, :1], x[:, 1:].flip(1)[:, torch.randperm(16)]], 1)
    assert not torch.allclose(head(x), head(shuffled), atol=1e-4)


def test_attention_begins_as_average_pooling_and_then_chooses():
    head = build_head(HeadSpec.parse("attention"), MAP, 2)
    nn.init.normal_(head.linear.weight)
    x = torch.randn(3, 8, 5, 6)
    assert torch.allclose(head(x), head.linear(x.mean((2, 3))), atol=1e-5)
    with torch.no_grad():
        head.query.normal_(std=30.0)
    weights = (x.flatten(2).transpose(1, 2) @ head.query / 8**0.5).softmax(1)  # against the definition, head by head
    pooled = torch.stack([(weights[:, :, h, None] * x.flatten(2).transpose(1, 2)[:, :, h : h + 1]).sum(1) for h in range(8)], 1)
    assert torch.allclose(head(x), head.linear(pooled.flatten(1)), atol=1e-4)


@pytest.mark.parametrize(("axis", "shape", "over"), [(-3, (9, 4, 3, 2), (0, 2, 3)), (-1, (9, 5, 4), (0, 1)), (-1, (9, 4), (0,))])
def test_scaling_is_per_channel_with_one_number_for_all(axis, shape, over):
    x = np.random.default_rng(0).normal(3.0, 2.0, shape).astype(np.float32)
    scale = InputScale(4, axis)
    scale.measure(torch.from_numpy(x))
    wanted = (x - x.mean(over, keepdims=True)) / np.sqrt(x.var(over).mean())
    assert np.allclose(scale(torch.from_numpy(x)).numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "features", "what"),
    [
        ("conv:4", FeatureShape((8,)), r"\(8,\)"),
        ("attention", FeatureShape((8,)), r"\(8,\)"),
        ("conv:4", FeatureShape((15, 8)), r"square of tokens.*\(15, 8\)"),
        ("linear", MAP, r"\(8, 5, 6\)"),
        ("mlp:4", TOKENS, r"\(17, 8\)"),
    ],
)
def test_a_head_that_cannot_fit_says_which_shape_it_met(text, features, what):
    with pytest.raises(HeadError, match=what):
        build_head(HeadSpec.parse(text), features, 3)


@pytest.mark.parametrize("text", ["conv", "conv:0", "conv:x", "attention:3"])
def test_what_is_no_head_is_refused(text):
    with pytest.raises(HeadError, match="conv:CHANNELS"):
        HeadSpec.parse(text)


FAMILIES = {
    "timm:resnet10t": (512, 6, 6),
    "timm:mobilenetv3_small_050": (288, 7, 7),
    "timm:vit_tiny_patch16_224": (197, 192),
    "timm:swin_tiny_patch4_window7_224": (768, 7, 7),
    "torchvision:resnet18": (512, 7, 7),
    "torchvision:mobilenet_v3_small": (576, 7, 7),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_map_of_a_family_under_the_networks_own_names(name):
    opened = open_backbone(name, "random")
    names, blocks = set(opened.body.state_dict()), [b.name for b in layers_of(opened.body).blocks]
    model = TransferModel(opened, "attention", 3).eval()
    assert set(model.backbone.state_dict()) <= names
    mine = [b.name for b in layers_of(model.backbone).blocks]
    assert mine == blocks[: len(mine)]
    assert FreezePlan("last:1").resolve(model).matched == (mine[-1],)
    x = model.example(2)
    with torch.no_grad():
        found = model.backbone(x)
        assert tuple(found.shape[1:]) == FAMILIES[name]
        if name == "torchvision:resnet18":
            assert torch.equal(found.mean((2, 3), keepdim=True).flatten(1), opened.body.eval()(x))
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin.eval()(x), model(x))


def test_the_tiny_network_trains_through_its_map(tiny):
    model = TransferModel(tiny(), "conv:4", 2)
    assert model.opened.architecture.endswith(" map")
    FreezePlan("last:1").apply(model)
    model.train()
    model(model.example(3)).sum().backward()
    assert model.backbone.body[0].weight.grad is not None
    assert model.backbone.stem[0].weight.grad is None


def test_a_network_without_a_map_is_refused():
    flat = nn.Sequential(nn.Flatten(), nn.LazyLinear(6), nn.ReLU())
    flat(torch.zeros(1, 3, 224, 224))
    with pytest.raises(BackboneError, match=r"gives \(6,\), not made of one feature map"):
        TransferModel(open_backbone(flat), "conv:4")
