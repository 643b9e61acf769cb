"""Against plain PyTorch: layers trained behind a cut in the middle are those of a plain loop over the whole network."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from conftest import make_images
from frostline import Compute, FreezePlan, ImageSet, TransferModel, fit, open_backbone
from frostline._rng import permutation, seeded
from frostline.data import decode, read_data
from frostline.fitting import FeaturesReady, PhaseDone, Planned

BATCH = 16
"""That at which frozen layers are run (features/key.py). In another shape they round differently in the last bit, and of a gradient
that is nothing but rounding (of a bias before a norm) AdamW makes a whole step: those weights then part by up to a twentieth."""
LR, BACKBONE_LR, DECAY = 0.01, 0.0005, 0.05


@dataclass(frozen=True)
class Case:
    """What is trained, and the same in the words of plain PyTorch: prefixes of names, or all norms."""

    backbone: str
    unfreeze: str
    trained: tuple[str, ...]
    cut: str
    weights: str = "default"
    epochs: int = 3

    def trains(self, name, module):
        inside = isinstance(module, nn.BatchNorm2d) if self.unfreeze == "norm" else f"{name}.".startswith(self.trained)
        return inside and any(True for _ in module.parameters(recurse=False))


CASES = {
    "tiny, last block": Case("tiny_net:build", "last:1", ("body.",), "stem.0"),
    "tiny, norms": Case("tiny_net:build", "norm", (), "stem.0"),
    "resnet10t, last blocks": Case("timm:resnet10t", "last:2", ("layer3.", "layer4."), "layer2.0", "random", 2),
    "embedded, last blocks": Case("tf_efficientnet_lite0", "last:2", ("blocks.6.0.", "conv_head.", "bn2."), "blocks.5.3", epochs=1),
    "embedded, norms": Case("tf_efficientnet_lite0", "norm", (), "input", epochs=1),
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fine")
    made = [make_images(folder / name, {"a": n, "b": n}, seed) for name, n, seed in (("train", 16, 0), ("val", 2, 1))]
    return [ImageSet.of(read_data(path)) for path in made]


@pytest.fixture
def opened(tiny, tiny_module):
    return lambda case: open_backbone(case.backbone, case.weights)


def ours(case, opened, sets, compute):
    """Trained by frostline: the model, its network as it was, the events, and how often a layer below the cut ran while it trained."""
    model = TransferModel(opened(case))
    twin = copy.deepcopy(model.backbone)
    first = next(m for m in model.backbone.modules() if isinstance(m, nn.Conv2d))
    calls = []
    first.register_forward_hook(lambda *_: calls.append(1))
    events, ready, trained = [], 0, 0
    settings = {"epochs": case.epochs, "batch_size": BATCH, "lr": LR, "backbone_lr": BACKBONE_LR, "weight_decay": DECAY}
    for event in fit(model, FreezePlan(case.unfreeze), *sets, compute=compute, **settings):
        events.append(event)
        if isinstance(event, FeaturesReady):
            ready = len(calls)
        if isinstance(event, PhaseDone):
            trained = len(calls) - ready
    return model, twin, events, trained


class Whole(nn.Module):
    """The network with a linear layer on centred features, as one would write it."""

    def __init__(self, body, scale):
        super().__init__()
        self.body = body
        self.mean, self.scale = scale.mean.clone(), scale.scale.clone()
        self.linear = nn.Linear(len(self.mean), 2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x):
        return self.linear((self.body(x) - self.mean) / self.scale)


def plain_loop(case, net, images, preprocess, epochs):
    """The tutorial's loop, done right: what is frozen is in eval mode, norms and biases have no decay, and the same batches."""
    x = preprocess.normalise(torch.stack([preprocess.pixels(decode(p.read_bytes()).image) for p in images.paths]))
    x, y = x.contiguous(memory_format=torch.channels_last), torch.tensor(images.labels)
    net.requires_grad_(False).eval()
    net.linear.requires_grad_(True)
    groups = {"head": [*net.linear.parameters()], "body": []}
    for name, module in net.body.named_modules():
        if case.trains(name, module):
            module.train()
            groups["body"] += [p.requires_grad_(True) for p in module.parameters(recurse=False)]
        elif isinstance(module, nn.Dropout) and case.unfreeze == "norm":
            module.train()  # it lies behind a layer that is trained
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in params if (p.ndim > 1) == decays], "weight_decay": DECAY if decays else 0.0, "peak": peak}
            for params, peak in ((groups["head"], LR), (groups["body"], BACKBONE_LR))
            for decays in (True, False)
        ]
    )
    steps = math.ceil(len(y) / BATCH)
    total, warm = case.epochs * steps, math.ceil(case.epochs * steps * 0.05)
    for epoch in range(epochs):
        for i, part in enumerate(permutation(len(y), 0, epoch).split(BATCH)):
            step = epoch * steps + i
            factor = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            with seeded(0, "layers 0", step):  # dropout's draws
                loss = nn.functional.cross_entropy(net(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def apart(one, other):
    return float((one.double() - other.double()).norm() / other.double().norm().clamp(min=1e-12))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if "resnet10t" in n else ()) for n in CASES])
def test_fine_tuning_behind_a_cut_equals_plain_torch(name, opened, sets, cache):
    case = CASES[name]
    model, twin, events, below = ours(case, opened, sets, Compute(cache))
    planned = next(e for e in events if isinstance(e, Planned))
    assert planned.cut.name == case.cut
    assert below == 0 or case.cut == "input"
    net = Whole(twin, model.head.scale)
    start = copy.deepcopy(twin.state_dict())
    plain_loop(case, net, sets[0], model.opened.preprocess, events[-1].best_epoch)
    for found, wanted in ((model.head.linear.weight, net.linear.weight), (model.head.linear.bias, net.linear.bias)):
        assert apart(found.detach(), wanted.detach()) < 1e-5
    moved, statistics = 0, 0
    for key, wanted in twin.state_dict().items():
        found = model.backbone.state_dict()[key]
        if torch.equal(wanted, start[key]):
            assert torch.equal(found, wanted), key
            continue
        assert apart(found, wanted) < 1e-5, key
        moved, statistics = moved + 1, statistics + ("running" in key)
    assert moved > statistics > 0
    frozen = [p for n, p in model.backbone.named_parameters() if f"backbone.{n}" in set(planned.resolved.frozen)]
    assert frozen
    assert all(p.grad is None and not p.requires_grad for p in frozen)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if "resnet10t" in n else ()) for n, c in CASES.items() if c.cut != "input"]
)
def test_computed_anew_in_every_epoch_equals_cached_to_the_last_bit(name, opened, sets, cache):
    case = CASES[name]
    cached, _, events, _ = ours(case, opened, sets, Compute(cache))
    anew, _, others, below = ours(case, opened, sets, Compute(recompute=True))
    assert all(torch.equal(t, anew.state_dict()[n]) for n, t in cached.state_dict().items())
    assert torch.equal(events[-1].val_logits, others[-1].val_logits)
    assert below > 0  # there the layers below the cut do run in every epoch
