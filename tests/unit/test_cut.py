"""The cut: where it lies, and that both parts in a row are the network, to the last bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from frostline import FreezePlan, TransferModel, cache_features, split
from frostline.errors import DataError, PlanError, SelectorError
from frostline.freeze.crossing import Layout
from frostline.freeze.cut import agrees


class Residual(nn.Module):
    """What cutting has to cope with: in-place activations, a shared layer, a shortcut, dropout, a branch on the mode."""

    def __init__(self, width=6, drop=0.3):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.drop = drop

    def forward(self, x):
        shortcut = x
        x = self.act(self.bn1(self.conv1(x)))
        x = nn.functional.dropout(self.bn2(self.conv2(x)), self.drop, self.training)
        x += shortcut
        return self.act(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.4))
        self.blocks = nn.Sequential(Residual(), Residual(), Residual())
        self.scale = nn.Parameter(torch.ones(6, 1, 1))
        self.fc = nn.Linear(6, 4)

    def forward(self, x, flip: bool = False):
        x = self.blocks(self.stem(x)) * self.scale
        if flip:
            x = x.flip(-1)
        return self.fc(x.mean((2, 3)).view(x.size(0), -1))


class Branching(nn.Module):
    """A chain of blocks that looks at values: it cannot be read as a graph."""

    def __init__(self, odd=False):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)])
        self.norm = nn.LayerNorm(5)
        self.odd = odd

    def forward(self, x):
        if float(x.sum()) > 1e9:
            x = -x
        for number, block in enumerate(self.blocks):
            x = block(x) + (number if self.odd else 0)
        return self.norm(x)


@pytest.fixture
def net():
    torch.manual_seed(0)
    module = Net()
    with torch.no_grad():
        module(torch.randn(8, 3, 16, 16))  # batch-norm statistics that are not those of a new layer
    return module


IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
CUTS = {
    "fc": "blocks.2",
    "blocks.2,scale,fc": "blocks.1",
    "blocks.1.*,fc": "blocks.0",
    "scale,fc": "blocks.2",
    "params:3": "blocks.2",
    "blocks.2.conv2": "blocks.2",
    "last:2": "blocks.1",
}


@pytest.mark.parametrize("unfreeze", CUTS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_both_parts_in_a_row_are_the_network(net, unfreeze, channels_last):
    images = IMAGES.contiguous(memory_format=torch.channels_last) if channels_last else IMAGES
    parts = split(net, FreezePlan(unfreeze), images)
    assert (parts.cut.way, parts.cut.name) == ("graph", CUTS[unfreeze])
    net.eval()
    with torch.no_grad():
        crossing = parts.prefix(images)
        tensors = crossing if isinstance(crossing, tuple) else (crossing,)
        again = parts.layout.unpack(parts.layout.pack(tensors))
        assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(tensors, again, strict=True))
        kept = [t.clone() for t in tensors]
        parts.suffix.eval()
        assert torch.equal(parts.suffix(crossing), net(images))
        assert all(torch.equal(a, b) for a, b in zip(tensors, kept, strict=True))  # what was cached is not written to


@pytest.mark.parametrize("unfreeze", ["fc", "blocks.2,scale,fc", "last:2"])
def test_training_through_the_suffix_is_training_through_the_network(net, unfreeze):
    """Dropout in the suffix draws, batch norm in it moves; both as in the whole network, with the same draws."""
    twin = copy.deepcopy(net)
    parts = split(net, FreezePlan(unfreeze), IMAGES)
    resolved = FreezePlan(unfreeze).apply(twin)
    with torch.no_grad():
        crossing = parts.prefix(IMAGES)
    for forward, module, given in ((parts.suffix, net, crossing), (twin, twin, IMAGES)):
        module.train()
        forward.train()
        torch.manual_seed(5)
        forward(given).square().sum().backward()
    ours, theirs = dict(net.named_parameters()), dict(twin.named_parameters())
    assert {n for n, p in ours.items() if p.grad is not None} == set(resolved.trainable)
    assert all(torch.equal(ours[n].grad, theirs[n].grad) for n in resolved.trainable)
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), twin.buffers(), strict=True))


def test_dropout_and_batch_norm_of_the_prefix_are_off_whatever_the_mode(net):
    parts = split(net, FreezePlan("fc"), IMAGES)
    before = copy.deepcopy(net.state_dict())
    net.train()
    parts.prefix.train()
    torch.manual_seed(0)
    with torch.no_grad():
        one, other = parts.prefix(IMAGES), parts.prefix(IMAGES)
    assert torch.equal(one, other)
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())


def test_dropout_that_is_trained_over_ends_the_prefix():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    parts = split(module, FreezePlan("3"), torch.randn(3, 4))
    parts.suffix.train()
    crossing = parts.prefix(torch.randn(64, 4))
    assert torch.equal(parts.suffix(crossing), parts.suffix(crossing))  # a layer without parameters below the cut is frozen
    module = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2), nn.Dropout(0.5))
    parts = split(module, FreezePlan("1"), torch.randn(3, 4))
    parts.suffix.train()
    assert not torch.equal(parts.suffix(crossing := parts.prefix(torch.randn(64, 4))), parts.suffix(crossing))


def test_tied_weights_that_are_trained_anywhere_end_the_prefix_where_they_are_first_used():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    module[4].weight = module[2].weight
    parts = split(module, FreezePlan("2,5"), torch.randn(3, 4))
    assert parts.cut.name == "0"
    frozen = split(module, FreezePlan("5"), torch.randn(3, 4))
    assert frozen.cut.name == "4"


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "densenet121", "swin_tiny_patch4_window7_224", "efficientnet_b0"])
def test_stochastic_depth_attention_and_several_crossing_tensors(name):
    import timm

    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=3, **({} if name.startswith("dense") else {"drop_path_rate": 0.3}))
    images = torch.randn(2, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    parts = split(module, FreezePlan("last:2"), images)
    assert parts.cut.way == "graph"
    assert (len(parts.layout.parts) > 1) == name.startswith("dense")
    with torch.no_grad():
        crossing = parts.prefix(images)
        module.eval()
        parts.suffix.eval()
        assert torch.equal(parts.suffix(crossing), module(images))
        if name != "densenet121":
            module.train()
            parts.suffix.train()
            torch.manual_seed(1)
            ours = parts.suffix(crossing)
            torch.manual_seed(1)
            assert torch.equal(ours, module(images))


def test_a_network_that_cannot_be_read_is_cut_between_its_blocks():
    torch.manual_seed(0)
    module = Branching()
    parts = split(module, FreezePlan("blocks.2,norm"), torch.randn(3, 5))
    assert (parts.cut.way, parts.cut.name) == ("chain", "blocks.1")
    assert "cannot be read" in parts.cut.why
    x = torch.randn(7, 5)
    assert torch.equal(parts.suffix(parts.prefix(x)), module(x))


def test_a_network_that_only_looks_like_a_chain_is_run_whole():
    parts = split(Branching(odd=True), FreezePlan("blocks.2,norm"), torch.randn(3, 5))
    assert parts.cut.way == "input"
    assert "no chain of blocks" in parts.cut.why


@pytest.mark.parametrize("mix", [lambda x: x.roll(1, 0), lambda x: x.view(-1, 2, 2).transpose(0, 1).reshape(-1, 2).repeat(1, 2)])
def test_a_network_that_mixes_images_is_run_whole(mix):
    """What crosses must belong to one image; here what is in one row depends on the other images of the batch."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(self.a(mix(self.a(x)))).view(x.shape[0], -1)

    parts = split(Mixed(), FreezePlan("b"), torch.randn(3, 4))
    assert parts.cut.way == "input"


def test_a_layer_at_the_input_or_next_to_it_is_not_worth_a_cut():
    model = TransferModel("tf_efficientnet_lite0")
    assert "right at the input" in split(model, FreezePlan("all"), model.example(2)).cut.why
    cut = split(model, FreezePlan("norm"), model.example(2)).cut
    assert cut.way == "input"
    assert "3% of the work" in cut.why


def test_a_wholly_frozen_backbone_is_cut_before_the_head_without_being_read(tiny):
    model = TransferModel(tiny())
    parts = split(model, FreezePlan(), model.example(2))
    assert (parts.cut.way, parts.prefix, parts.suffix) == ("backbone", model.backbone, model.head)


def test_reading_leaves_nothing_on_the_network(net):
    before = set(vars(net)), [n for n, _ in net.named_modules()], {m: m.training for m in net.modules()}
    split(net, FreezePlan("fc"), IMAGES)
    assert (set(vars(net)), [n for n, _ in net.named_modules()]) == before[:2]


def test_two_parts_that_are_not_the_network_are_found(net):
    parts = split(net, FreezePlan("fc"), IMAGES)
    assert agrees(net, parts, IMAGES)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.fc.bias[0] = torch.nextafter(other.fc.bias[0], torch.tensor(9.0))
    assert not agrees(other, parts, IMAGES)


@pytest.mark.parametrize("text", ["last:0", "last:999", "nowhere"])
def test_what_cannot_be_resolved_is_refused(net, text):
    with pytest.raises(SelectorError):
        split(net, FreezePlan(text), IMAGES)
    with pytest.raises(PlanError, match="nothing would be trained"):
        split(net, FreezePlan("none"), IMAGES)


def test_packing_keeps_values_and_memory_layout():
    one = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    several = [one, torch.randn(4, 7), torch.randn(4, 2, 3)]
    layout = Layout.of(several)
    assert layout.bytes == 4 * (75 + 7 + 6)
    for a, b in zip(several, layout.unpack(layout.pack(several)), strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()


def test_features_for_a_loop_of_ones_own(net):
    data = torch.utils.data.TensorDataset(torch.randn(21, 3, 16, 16), torch.arange(21))
    parts = split(net, FreezePlan("fc"), IMAGES)
    cached = cache_features(parts.prefix, data)
    assert len(cached) == 21
    assert [int(y) for _, y in cached] == list(range(21))
    parts.suffix.eval()
    net.eval()
    with torch.no_grad():
        features = torch.stack([x for x, _ in cached])
        assert torch.allclose(parts.suffix(features), net(data.tensors[0]), rtol=1e-5, atol=1e-6)
        assert torch.equal(cache_features(parts.prefix, torch.utils.data.Subset(data, [20]))[0][0], cached[20][0])


@pytest.mark.parametrize(("items", "what"), [([], "empty"), ([1, 2], "no pair"), ([("a", 1)], "not a tensor")])
def test_datasets_that_cannot_be_cached(net, items, what):
    with pytest.raises(DataError, match=what):
        cache_features(net, items)
