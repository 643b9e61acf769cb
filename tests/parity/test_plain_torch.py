"""Against plain PyTorch: a head trained from cached features equals one trained through the frozen model."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from conftest import make_images
from frostline import Compute, Finished, FreezePlan, ImageSet, TransferModel, fit, open_backbone
from frostline.data import decode, ensure_splits, read_data

EPOCHS, BATCH, LR, DECAY = 2, 8, 0.01, 0.05


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    manifest = read_data(make_images(tmp_path_factory.mktemp("parity") / "d", {"a": 15, "b": 15}))
    listed = ImageSet.of(manifest)
    manifest = ensure_splits(manifest, listed.digests, 0)
    return ImageSet.of(manifest.only("train")), ImageSet.of(manifest.only("val"))


def order(count, seed, epoch):
    from frostline._rng import permutation

    return permutation(count, seed, epoch)


def plain_loop(model, mean, scale, train, preprocess, best_epoch):
    """The tutorial's loop, done right: eval mode for what is frozen, AdamW on the head alone, the same batches."""
    x = torch.stack([preprocess.pixels(decode(p.read_bytes()).image) for p in train.paths])
    x = preprocess.normalise(x)
    y = torch.tensor(train.labels)
    linear = nn.Linear(len(mean), 2)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    model.eval()
    for p in model.parameters():
        p.requires_grad = False
    optimizer = torch.optim.AdamW(
        [{"params": [linear.weight], "weight_decay": DECAY}, {"params": [linear.bias], "weight_decay": 0.0}], lr=LR
    )
    steps = math.ceil(len(y) / BATCH)
    total, warm = EPOCHS * steps, math.ceil(EPOCHS * steps * 0.05)
    for epoch in range(best_epoch):
        for i, part in enumerate(order(len(y), 0, epoch).split(BATCH)):
            step = epoch * steps + i
            factor = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
            for group in optimizer.param_groups:
                group["lr"] = LR * factor
            loss = nn.functional.cross_entropy(linear((model(x[part]) - mean) / scale), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return linear


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "timm:resnet10t", pytest.param("timm:vit_tiny_patch16_224", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("cached", [True, False])
def test_head_equals_plain_torch(name, cached, sets, cache):
    weights = "default" if name == "tf_efficientnet_lite0" else "random"
    model = TransferModel(open_backbone(name, weights))
    twin = copy.deepcopy(model.backbone)
    train, val = sets
    events = list(
        fit(
            model,
            FreezePlan(),
            train,
            val,
            epochs=EPOCHS,
            batch_size=BATCH,
            lr=LR,
            weight_decay=DECAY,
            compute=Compute(cache, recompute=not cached, engine="plain"),
        )
    )
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.audit.frozen_unchanged
    scale = model.head.scale
    theirs = plain_loop(twin, scale.mean, scale.scale, train, model.opened.preprocess, finished.best_epoch)
    ours = model.head.linear
    for a, b in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        assert float((a - b).norm() / b.norm()) < 1e-5
    for a, b in zip(model.backbone.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b)
