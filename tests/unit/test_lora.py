"""Adapters are trained, nothing else is, and merged they are the same network."""

from __future__ import annotations

import pytest
import timm
import torch

import frostline as fl
from conftest import said_without
from frostline.data import read_data
from frostline.errors import PlanError
from frostline.features import ImageSet
from frostline.lora import add_lora, merge_lora

pytest.importorskip("peft")


def small_vit():
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes)
    net.preprocess = fl.Preprocess(crop=(32, 32), resize=32)
    return fl.TransferModel(fl.open_backbone(net), num_classes=2)


def test_a_fresh_adapter_changes_nothing_and_its_update_is_that_of_the_paper():
    model = small_vit().eval()
    images = torch.randn(3, 3, 32, 32)
    before = model(images)
    add_lora(model, rank=4, alpha=8)
    assert torch.equal(model(images), before)
    layer = model.backbone.get_submodule("blocks.0.attn.qkv")
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(b)
    x = torch.randn(2, 5, 32)
    by_hand = torch.nn.functional.linear(x, layer.base_layer.weight + 8.0 / 4 * b @ a, layer.base_layer.bias)
    assert torch.allclose(layer(x), by_hand, atol=1e-5)


def test_training_moves_adapters_and_head_alone(images):
    known = ImageSet.of(read_data(images))
    model = small_vit()
    plan = add_lora(model, rank=4)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    *_, finished = fl.fit(model, plan, known, known, epochs=3, lr=1e-2)
    assert finished.audit.frozen_unchanged
    assert finished.audit.trainable_moved
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert moved
    assert all(".lora_" in n or n.startswith("head.") for n in moved)
    assert any(n.startswith("backbone.blocks.0.attn.qkv.lora_B") for n in moved)
    model.eval()
    batch = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        adapted = model(batch)
        assert merge_lora(model) == 2
        assert torch.allclose(model(batch), adapted, atol=1e-5)
    assert not [n for n in model.state_dict() if "lora" in n]
    assert set(model.state_dict()) == set(small_vit().state_dict())  # an ordinary network again
    assert merge_lora(model) == 0


def test_the_same_seed_gives_the_same_adapters():
    weights = []
    for seed in (1, 1, 2):
        model = small_vit()
        add_lora(model, seed=seed)
        weights.append(model.backbone.get_submodule("blocks.0.attn.qkv").lora_A["default"].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_names_and_ranks_that_fit_nothing_are_refused():
    with pytest.raises(PlanError, match=r"no layer is called q_lin; name some of: fc1, fc2, proj, qkv"):
        add_lora(small_vit(), ["q_lin"])
    with pytest.raises(PlanError, match="a rank of 0; give a whole number from 1"):
        add_lora(small_vit(), rank=0)


def test_without_peft_one_line_says_what_to_install(tmp_path):
    said = said_without("peft", "from frostline.lora import add_lora\nadd_lora(None)", tmp_path)
    assert said == 'ExtraError add_lora: peft is not installed; pip install "frostline[lora]"'
