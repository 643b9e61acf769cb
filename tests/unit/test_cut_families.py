"""What families of networks do that a cut has to cope with, in small; and which blocks they are made of."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from frostline import FreezePlan, split
from frostline.backbone.trace import trace
from frostline.freeze.apply import evaluating, freeze
from frostline.freeze.crossing import Layout
from frostline.freeze.cut import agrees
from frostline.freeze.layers import layers_of
from frostline.freeze.reading import read

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Biased(nn.Module):
    """LeViT's attention: what it adds is looked up, in eval mode once."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.bias = nn.Parameter(torch.ones(8))
        self.register_buffer("index", torch.arange(4))
        self.kept = {}

    def train(self, mode=True):
        super().train(mode)
        if mode:
            self.kept = {}
        return self

    def looked_up(self):
        if self.training:
            return self.bias[self.index]
        if "bias" not in self.kept:
            self.kept["bias"] = self.bias[self.index]
        return self.kept["bias"]

    def forward(self, x):
        return self.linear(x) + self.looked_up()


class Folded(nn.Module):
    """TNT: two streams, of which one has its patches folded into the batch."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)])
        self.whole = nn.Linear(4, 4)

    def forward(self, x):
        images, patches, whole = x.shape[0], x.view(-1, 2), self.whole(x)
        for block in self.blocks:
            patches = block(patches)
            whole = whole + patches.view(images, -1)
        return whole


class Sized(nn.Module):
    """MViT: sizes travel with the tokens, as a list."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x):
        size = x.view(-1, 2, 2).shape[1:]
        for block in self.blocks:
            x = block(x.view(-1, size[0], size[1]).flatten(1))
        return x.view(-1, size[0], size[1]).sum(-1)


class Wide(nn.Module):
    """A table with as many rows as the smaller of the batches that a reading is run on."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)
        self.table = nn.Parameter(torch.randn(2, 4))

    def forward(self, x):
        table = self.table * 2
        return self.b(self.a(x)) @ table


class Ghost(nn.Module):
    """GhostNet: adds in place to a slice; another name of the sum is used later."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(4, 6)])

    def forward(self, x):
        for block in self.blocks:
            shortcut = x
            x = torch.nn.functional.silu(block(x))[:, :4]
            same = x
            x += shortcut.view(-1, 2, 2).flatten(1)
            x *= 2
            x -= shortcut
            x /= 3
        return same * 2


class InView(nn.Module):
    """Writes into a view of what crosses."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.a(x)
        y = self.b(x.clone())
        x.view(-1, 2, 2).transpose(1, 2).add_(1.0)
        return x * y


@pytest.mark.parametrize(("make", "plan"), [(Ghost, "blocks.2"), (Ghost, "last:2"), (InView, "b")])
def test_what_is_written_in_place(make, plan):
    torch.manual_seed(0)
    module = make()
    parts = split(module, FreezePlan(plan), X)
    assert parts.cut.way == "graph"
    with torch.no_grad():
        crossing = parts.prefix(X)
    kept = [t.clone() for t in (crossing if isinstance(crossing, tuple) else (crossing,))]
    grads = []
    for forward, given in ((module, X), (parts.suffix, crossing)):
        module.zero_grad()
        out = forward(given)
        out.square().sum().backward()
        grads.append([out, *(p.grad for p in module.parameters() if p.requires_grad)])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(kept, crossing if isinstance(crossing, tuple) else (crossing,), strict=True))


def test_of_one_pixel_the_memory_layout_is_kept():
    """MobileNetV4 pools to a pixel before its last convolution, whose rounding depends on the strides."""
    for pixel in (
        torch.randn(3, 8, 5, 5).contiguous(memory_format=torch.channels_last).mean((2, 3), keepdim=True),
        torch.randn(3, 8, 1, 1),
    ):
        layout = Layout.of([pixel])
        (again,) = layout.unpack(layout.pack([pixel]))
        assert torch.equal(again, pixel)
        assert again.stride() == pixel.stride()


@pytest.mark.parametrize(("make", "plan", "tensors"), [(Folded, "blocks.2", 2), (Sized, "blocks.2", 1), (Wide, "b", 1)])
def test_what_else_crosses(make, plan, tensors):
    torch.manual_seed(0)
    module = make()
    parts = split(module, FreezePlan(plan), X)
    assert parts.cut.way == "graph"
    assert len(parts.layout.parts) == tensors
    for x in (torch.randn(1, 4), torch.randn(5, 4)):
        crossing = parts.prefix(x)
        packed = parts.layout.pack(crossing if isinstance(crossing, tuple) else (crossing,))
        assert packed.shape == (len(x), parts.layout.size)
        again = parts.layout.unpack(packed)
        found = parts.suffix(again if len(again) > 1 else again[0])
        assert torch.equal(found, module(x))
        found.sum().backward()  # constants of the suffix may be trained over


def test_reading_takes_its_stand_ins_away():
    module = nn.Sequential(Biased(), Biased(), nn.Linear(4, 2)).eval()
    wanted = copy.deepcopy(module)(X)
    trace(module)
    assert [layer.kept for layer in list(module)[:2]] == [{}, {}]
    assert torch.equal(module(X), wanted)


@pytest.mark.parametrize("plan", ["1.*,2", "2"])
def test_what_a_layer_keeps_for_eval_mode_is_never_old(plan):
    module = nn.Sequential(Biased(), Biased(), nn.Linear(4, 2)).eval()
    module(X)  # keeps its biases
    parts = split(module, FreezePlan(plan), X)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(1.0)
    with evaluating(module), evaluating(parts.suffix), torch.no_grad():
        assert torch.equal(parts.suffix(parts.prefix(X)), module(X))
        fresh = copy.deepcopy(module)
        for layer in fresh:
            vars(layer).pop("kept", None)
            vars(layer).update(kept={})
        assert torch.equal(module(X), fresh(X))


def test_a_frozen_layer_drops_what_it_keeps_when_training_begins():
    module = nn.Sequential(Biased(), nn.Linear(4, 2))
    FreezePlan("1").apply(module)
    with torch.inference_mode():
        module(X)
    module.train()
    assert module[0].kept == {}
    assert not module[0].training
    module(X).sum().backward()


def test_batch_norm_that_keeps_no_statistics_is_not_cached():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 4), nn.Linear(4, 2))
    parts = split(module, FreezePlan("4"), X)
    assert (parts.cut.way, parts.cut.name) == ("graph", "1")


def test_a_reading_that_does_not_run_is_said():
    class OnlyThree(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(self.a(x) + torch.ones(3, 1))

    parts = split(OnlyThree(), FreezePlan("b"), X)
    assert parts.cut.way == "input"
    assert "its graph does not run (RuntimeError: The size of tensor" in parts.cut.why


class WithNewHead(nn.Module):
    """A head that begins at zero gives zeros, whatever enters it."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(4, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(self.backbone(x))


class NoChain(nn.Module):
    """Cannot be read, and does more than its blocks."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x):
        for number, block in enumerate(self.blocks):
            x = block(x) + (number if float(x.sum()) < 1e9 else 0)
        return x


def test_a_head_that_gives_zeros_proves_nothing():
    torch.manual_seed(0)
    cut = split(WithNewHead(NoChain()), FreezePlan("last:1"), X).cut
    assert cut.way == "input"
    assert "no chain of blocks" in cut.why
    module = WithNewHead(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    parts = split(module, FreezePlan("1"), X)
    assert agrees(module, parts, X)
    mixed = replace(parts, prefix=copy.deepcopy(parts.prefix))
    nn.init.zeros_(next(p for n, p in mixed.prefix.named_parameters() if n.endswith("bias")))
    assert not agrees(module, mixed, X)


LAST_TWO = {
    "timm:hgnetv2_b0": ["stages.3.blocks.0", "head"],
    "timm:vovnet39a": ["stages.3.blocks.0", "stages.3.blocks.1"],
    "timm:xception41": ["blocks.11", "blocks.12"],
    "timm:convnext_atto": ["stages.3.blocks.0", "stages.3.blocks.1"],
    "timm:resmlp_12_224": ["blocks.10", "blocks.11"],
    "timm:convmixer_768_32": ["blocks.30", "blocks.31"],
    "timm:selecsls42": ["head.2", "head.3"],
    "timm:efficientformer_l1": ["stages.3.blocks.2", "stages.3.blocks.4"],
    "timm:efficientvit_b0": ["stages.3.blocks.2", "head"],
    "timm:mobilevit_xxs": ["stages.4.1", "final_conv"],
    "timm:twins_svt_small": ["blocks.3.2", "blocks.3.3"],
    "timm:coat_lite_tiny": ["serial_blocks4.0", "serial_blocks4.1"],
    "timm:crossvit_9_240": ["blocks.1", "blocks.2"],
    "timm:dpn48b": ["features.conv5_2", "features.conv5_3"],
    "torchvision:mobilenet_v2": ["features.17", "features.18"],
    "torchvision:maxvit_t": ["blocks.3.layers.1", "classifier.3"],
    "torchvision:vit_b_32": ["encoder.layers.encoder_layer_10", "encoder.layers.encoder_layer_11"],
}


@pytest.mark.parametrize("name", LAST_TWO)
def test_the_last_two_blocks_are_what_people_would_name(name):
    import timm
    from torchvision import models

    library, _, plain = name.partition(":")
    with torch.device("meta"):
        network = timm.create_model(plain, num_classes=0) if library == "timm" else models.get_model(plain, weights=None)
    blocks = layers_of(network).blocks
    found = [b.name for b in blocks if library == "timm" or b.name not in ("classifier.1", "classifier.5", "heads.head")]
    assert found[-2:] == LAST_TWO[name]
    named = [p for b in blocks for p in b.parameters]
    assert len(named) == len(set(named))  # no parameter is in two blocks


def test_lists_that_are_run_abreast_are_read_abreast():
    """A stage has an embedding, blocks and a position; each kind is in a list of its own."""
    module = nn.Module()
    module.embed = nn.ModuleList([nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)])
    module.drop = nn.ModuleList([nn.Dropout(), nn.Dropout()])
    module.blocks = nn.ModuleList([nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)]) for _ in range(2)])
    module.position = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    names = [b.name for b in layers_of(module).blocks]
    assert names == ["embed.0", "position.0", "blocks.0.0", "blocks.0.1", "embed.1", "position.1", "blocks.1.0", "blocks.1.1"]
    in_turn = nn.Module()
    in_turn.one, in_turn.two = (nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)]) for _ in range(2))
    assert [b.name for b in layers_of(in_turn).blocks] == ["one.0", "one.1", "two.0", "two.1"]


class Keeping(nn.Module):
    """ConViT's attention: keeps a tensor it made when it first met an input, and multiplies by it from then on."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.position = nn.Linear(4, 4)
        self.kept = torch.zeros(0)

    def forward(self, x):
        if len(self.kept) == 0:
            self.kept = torch.ones(1, 4) + 0
        return self.last(self.second(self.first(x)) * self.position(self.kept))


def test_a_tensor_that_a_network_keeps_from_an_unrecorded_pass_can_be_trained_through():
    net = Keeping()
    parts = split(net, FreezePlan("last:1"), X)
    with torch.no_grad():
        net(X)  # as features are computed, whatever the cut
    again = split(net, FreezePlan("all"), X)
    for found in (parts, again):
        found.suffix(found.prefix(X)).sum().backward()
    assert net.position.weight.grad is not None


def test_dropout_of_nothing_does_not_end_the_prefix():
    net = nn.Sequential(nn.Dropout(0.0), nn.Linear(4, 4), nn.Linear(4, 2)).train()
    freeze(net, trainable=("2.weight",), pinned=("1",))  # not pinned, and awake
    assert read(net, ()).first_trained == 3
    net[0].p = 0.5
    assert read(net, ()).first_trained == 1
