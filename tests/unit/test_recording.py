"""A recording gives what the network gives, on its tensors and without its code; what cannot be recorded is not."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from frostline import open_backbone
from frostline.backbone.sealed import Sealed
from frostline.features.engine import difference, plain
from frostline.features.recording import RECORDED_ON, record, replay

FEW = RECORDED_ON


def images_of(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).contiguous(memory_format=torch.channels_last)


def recorded(net, images):
    return record(net.eval(), images, plain(net, "fp32").run(images.clone()))


def sealed(net):
    parameters = dict(net.named_parameters())
    return Sealed((8,), {n: (t.clone(), n in parameters) for n, t in net.state_dict().items()})


class Tied(nn.Module):
    """Two layers with one weight, a buffer, work in place on the images, and two tensors that cross."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.ones(1))

    def forward(self, x):
        x = self.first(x.mul_(2).relu_())
        return self.second(x + self.shift), x.mean((2, 3), dtype=torch.float64)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(24, 2, 16, batch_first=True)

    def forward(self, x):
        return self.layer(x.flatten(2).transpose(1, 2).reshape(len(x), -1, 24))[:, 0]


class Decides(nn.Module):
    """Another function of light images."""

    def forward(self, x):
        return x.mean((2, 3)) if x.mean() < 1 else -x.mean((2, 3))


class Elsewhere(nn.Module):
    """A tensor that is neither a parameter nor a buffer."""

    def __init__(self):
        super().__init__()
        self.scale = torch.ones(3, 1, 1)

    def forward(self, x):
        return (x * self.scale).mean((2, 3))


class Chance(nn.Module):
    def forward(self, x):
        return (x + torch.rand_like(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("net", "side"),
    [
        (Tied, 8),
        (Attention, 8),
        (lambda: open_backbone("timm:resnet18", "random").body, 64),
        (lambda: open_backbone("timm:vit_tiny_patch16_224", "random").body, 224),
        (lambda: open_backbone("torchvision:mobilenet_v3_small", "random").body, 64),
    ],
)
def test_a_recording_gives_what_the_network_gives(net, side):
    net = net()
    text = recorded(net, images_of(8, 3, side, side))
    body = sealed(net)
    others = images_of(FEW, 3, side, side, seed=1).contiguous()
    before, threads = others.clone(), torch.get_num_threads()
    found = replay(text, body.state_dict(), others)
    assert torch.equal(others, before)
    assert torch.get_num_threads() == threads
    assert difference(found, plain(net, "fp32").run(others)) < 1e-6
    assert len(text) < 1e5  # it holds no weights
    tensors = {n: 1.1 * t for n, t in body.state_dict().items()}
    assert difference(replay(text, tensors, before), found) > 1e-3  # those that it is given count


@pytest.mark.parametrize("net", [Decides, Elsewhere, Chance])
def test_what_a_recording_would_not_give_is_not_recorded(net):
    assert recorded(net(), images_of(8, 3, 8, 8)) is None


@pytest.mark.parametrize(
    "calls",
    [
        [["__setattr__", "__call__", ["x", {"torch": "hub"}], {}, [1]]],
        [["add", "__class__", [{"tensor": 0}], {}, [1]]],
        [["nothing", "default", [], {}, [1]]],
        [["add", "Tensor", [{"tensor": 0}, {"torch": "hub"}], {}, [1]]],
    ],
)
def test_nothing_but_operations_on_tensors_is_replayed(calls):
    with pytest.raises((ValueError, TypeError), match="that a recording may"):
        replay(json.dumps({"tensors": [], "calls": calls, "given": [{"tensor": 0}]}), {}, images_of(FEW, 3, 8, 8))


def test_a_recording_that_knows_files_is_not_replayed(tmp_path):
    call = ["save", "default", [{"tensor": 0}, str(tmp_path / "x")], {}, []]
    with pytest.raises(ValueError, match="save"):
        replay(json.dumps({"tensors": [], "calls": [call], "given": []}), {}, images_of(FEW, 3, 8, 8))
    assert not list(tmp_path.iterdir())
