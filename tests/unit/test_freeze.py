"""Selectors, plans, the mode that survives ``train()``, and the proof."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from frostline import FreezePlan, TransferModel
from frostline.errors import AuditError, PlanError, SelectorError
from frostline.freeze import audit, fingerprint
from frostline.freeze.layers import layers_of
from frostline.freeze.select import parse_selector


@pytest.fixture
def model(tiny):
    return TransferModel(tiny(), num_classes=3)


def modes(module):
    return {name: child.training for name, child in module.named_modules()}


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("none", []),
        ("last:1", ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"]),
        ("params:3", ["body.0.bias", "body.1.weight", "body.1.bias"]),
        ("from:body.1", ["body.1.weight", "body.1.bias"]),
        ("from:body", ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"]),
        ("stem.0", ["stem.0.weight", "stem.0.bias"]),
        ("*.1", ["stem.1.weight", "stem.1.bias", "body.1.weight", "body.1.bias"]),
        ("stem.1, body.1", ["stem.1.weight", "stem.1.bias", "body.1.weight", "body.1.bias"]),
        ("norm", ["stem.1.weight", "stem.1.bias", "body.1.weight", "body.1.bias"]),
        ("bias", ["stem.0.bias", "stem.1.bias", "body.0.bias", "body.1.bias"]),
        (
            "all",
            [
                "stem.0.weight",
                "stem.0.bias",
                "stem.1.weight",
                "stem.1.bias",
                "body.0.weight",
                "body.0.bias",
                "body.1.weight",
                "body.1.bias",
            ],
        ),
    ],
)
def test_selectors_resolve_to_exact_names(model, selector, names):
    resolved = FreezePlan(selector).apply(model)
    assert list(resolved.trainable) == [f"backbone.{n}" for n in names] + ["head.linear.weight", "head.linear.bias"]
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(resolved.trainable)
    assert set(resolved.trainable) | set(resolved.frozen) == {n for n, _ in model.named_parameters()}


@pytest.mark.parametrize("text", ["last:0", "last:-1", "last:2.5", "last:", "params:0", "from:", "", " , ", "x:y"])
def test_what_is_no_selector_is_refused(text):
    with pytest.raises(SelectorError):
        parse_selector(text)


@pytest.mark.parametrize("text", ["last:3", "params:9", "from:nowhere", "stam", "stem.0,nowhere"])
def test_selectors_that_match_nothing_are_refused(model, text):
    with pytest.raises(SelectorError, match="--unfreeze"):
        FreezePlan(text).resolve(model)


def test_norm_and_bias_on_a_network_without_any():
    bare = layers_of(nn.Sequential(nn.Linear(2, 2, bias=False)))
    for text in ("norm", "bias"):
        with pytest.raises(SelectorError, match="matches nothing"):
            parse_selector(text).select(bare)


def test_nothing_left_to_train_is_refused():
    with pytest.raises(PlanError, match="nothing would be trained"):
        FreezePlan().apply(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(PlanError, match="batch norm"):
        FreezePlan(batch_norm="thaw").resolve(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_frozen_modules_stay_in_eval_mode_whoever_calls_train(model):
    FreezePlan().apply(model)
    nn.ModuleList([model]).train()  # a parent's train() (gt-pyg#112)
    assert not any(on for name, on in modes(model.backbone).items())
    assert model.head.linear.training
    model.backbone.train()
    model.backbone.stem.train(True)
    assert not model.backbone.stem[1].training


def test_partly_frozen_dropout_before_the_cut_is_off_and_trained_batch_norm_is_on(model):
    FreezePlan("last:1").apply(model)
    model.train()
    on = modes(model.backbone)
    assert not on["stem"]
    assert not on["stem.1"]
    assert not on["drop"]
    assert on["body.1"]


def test_another_plan_releases_what_the_first_pinned(model):
    FreezePlan().apply(model)
    FreezePlan("all").apply(model)
    model.train()
    assert all(modes(model).values())
    assert all(p.requires_grad for p in model.parameters())


def test_the_frozen_mode_survives_pickle_and_deepcopy(model):
    FreezePlan().apply(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.train()
        assert not twin.backbone.stem[1].training
        assert twin.head.training


@pytest.mark.parametrize(("mode", "trained", "awake"), [("frozen", False, False), ("affine", True, False), ("train", True, True)])
def test_what_batch_norm_does_in_frozen_layers(model, mode, trained, awake):
    resolved = FreezePlan(batch_norm=mode).apply(model)
    model.train()
    assert ("backbone.stem.1.weight" in resolved.trainable) == trained
    assert model.backbone.stem[1].training == awake
    assert ("backbone.stem.1.running_mean" in resolved.frozen_buffers) == (not awake)
    assert model.backbone.drop.training == trained


def test_batch_norm_buffers_do_not_move_and_a_planted_drift_is_found(model):
    resolved = FreezePlan().apply(model)
    before = fingerprint(model, resolved)
    assert {"backbone.stem.1.running_mean", "backbone.stem.1.running_var", "backbone.stem.1.num_batches_tracked"} <= set(before.frozen)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    model.train()
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        optimizer.step()
    proof = audit(before, fingerprint(model, resolved))
    assert proof.frozen_unchanged
    assert proof.trainable_moved
    proof.check()
    vars(model.backbone.stem[1]).pop("train")  # the planted drift: batch norm left in training mode (pytorch#86590)
    model.backbone.stem[1].training = True
    model(torch.randn(4, 3, 32, 32))
    drifted = audit(before, fingerprint(model, resolved))
    assert not drifted.frozen_unchanged
    assert "backbone.stem.1.running_mean" in drifted.changed
    with pytest.raises(AuditError, match="running_mean"):
        drifted.check()


def test_one_ulp_in_a_frozen_weight_is_found(model):
    resolved = FreezePlan().apply(model)
    before = fingerprint(model, resolved)
    with torch.no_grad():
        weight = model.backbone.stem[0].weight
        weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], torch.tensor(9.0))
    assert audit(before, fingerprint(model, resolved)).changed == ("backbone.stem.0.weight",)


def test_a_head_that_did_not_move_is_found(model):
    resolved = FreezePlan().apply(model)
    before = fingerprint(model, resolved)
    assert audit(before, before).still == ("head.linear.weight", "head.linear.bias")


def test_any_module_can_be_frozen():
    network = nn.ModuleDict({"trunk": nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout()), "fc": nn.Linear(3, 2)})
    resolved = FreezePlan(head="fc").apply(network)
    assert resolved.trainable == ("fc.weight", "fc.bias")
    network.train()
    assert not network["trunk"][1].training
    assert not network["trunk"][2].training
    assert network["fc"].training


def test_a_lower_learning_rate_for_the_last_layers_of_a_real_backbone():
    model = TransferModel("tf_efficientnet_lite0")
    resolved = FreezePlan("last:2").apply(model)
    assert resolved.matched == ("blocks.6.0", "conv_head")
    assert "backbone.bn2.weight" in resolved.trainable  # the norm that follows conv_head belongs to its block
    said = FreezePlan("last:2").describe(model)
    assert "cut at blocks.5.3" in said
    assert all(p.requires_grad == (n in resolved.trainable) for n, p in model.named_parameters())


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet18", "layer4.1"),
        ("vit_tiny_patch16_224", "blocks.11"),
        ("convnext_atto", "stages.3.blocks.1"),
        ("swin_tiny_patch4_window7_224", "layers.3.blocks.1"),
        ("regnetx_002", "s4.b7"),
    ],
)
def test_blocks_of_timm_families(name, last):
    import timm

    network = timm.create_model(name, num_classes=0)
    found = [b.name for b in layers_of(network).blocks]
    assert found[-1] == last
    assert len(found) == len(set(found)) >= 9
