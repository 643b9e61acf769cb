"""Backbones from transformers: the library's own numbers, strictly loaded, cut between blocks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import frostline as fl
from frostline.backbone._transformers import preprocess_of
from frostline.backbone._transformers_chain import Chain
from frostline.backbone.spec import BackboneSpec
from frostline.errors import BackboneError, WeightsError
from frostline.export.bundle import bundles
from frostline.freeze.apply import evaluating
from frostline.freeze.layers import layers_of

transformers = pytest.importorskip("transformers")


def configs():
    return {
        "vit": transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
        ),
        "resnet": transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic"),
        "convnext": transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[2, 2], num_stages=2, image_size=32),
        "dinov2": transformers.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder for each architecture, as ``save_pretrained`` writes it."""
    root = tmp_path_factory.mktemp("hf")
    for name, config in configs().items():
        torch.manual_seed(1)
        network = transformers.AutoModelForImageClassification.from_config(config)
        for parameter in network.parameters():  # not the ones and zeros of new norm layers
            torch.nn.init.normal_(parameter, std=0.2)
        network.save_pretrained(root / name)
        settings = {"do_resize": True, "size": {"height": 32, "width": 32}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
        (root / name / "preprocessor_config.json").write_text(json.dumps({**settings, "resample": 3}))
    return root


@pytest.mark.parametrize(("name", "blocks"), [("vit", 4), ("resnet", 5), ("convnext", 6), ("dinov2", 3)])
def test_features_are_what_enters_the_classifier(saved, name, blocks):
    opened = fl.open_backbone(f"hf:{saved / name}")
    network = transformers.AutoModelForImageClassification.from_pretrained(saved / name)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad(), evaluating(opened.body):
        assert torch.allclose(opened.classifier(opened.body(images)), network(images).logits, atol=1e-5)
    assert isinstance(opened.body, Chain)
    assert len(layers_of(opened.body).blocks) == blocks
    assert opened.report.loaded == opened.report.total == len(network.state_dict())
    assert opened.preprocess == fl.Preprocess((32, 32), 32, "squash", "bicubic", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


@pytest.mark.parametrize(("name", "where"), [("vit", "layers.1"), ("resnet", "layers.0"), ("dinov2", "layers.0")])
def test_what_is_frozen_is_cut_off(saved, name, where):
    model = fl.TransferModel(f"hf:{saved / name}")
    parts = fl.split(model, fl.FreezePlan("last:1"), model.example(2))
    assert (parts.cut.cached, parts.cut.name) == (True, where)


def test_training_leaves_what_is_frozen_as_it_was(saved, images):
    model = fl.TransferModel(f"hf:{saved / 'vit'}")
    done = list(fl.fit(model, fl.FreezePlan("last:1"), images, images, epochs=1))[-1]
    assert done.audit.frozen_unchanged
    assert done.audit.trainable_moved


@pytest.mark.parametrize("head", ["conv:8", "attention"])
@pytest.mark.parametrize("name", ["vit", "resnet", "convnext", "dinov2"])
def test_heads_on_maps_and_tokens(saved, images, name, head):
    model = fl.TransferModel(f"hf:{saved / name}", head)
    *_, done = fl.fit(model, fl.FreezePlan(), images, images, epochs=1)
    assert done.audit.frozen_unchanged
    assert done.audit.trainable_moved
    assert done.val_logits.shape == (60, 2)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "torch-export"])
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_run_is_exported(frostline, saved, images, tmp_path, name, form):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    ran = frostline("train", images, "--backbone", f"hf:{saved / name}", "--epochs", "1", "--quiet", "--out", tmp_path / "run")
    assert ran.returncode == 0, ran.stderr
    ran = frostline("export", tmp_path / "run", "--format", form, "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["max_abs_difference"] <= 1e-3 * told["largest_logit"]
    ran = frostline("predict", tmp_path / "run", images / "red", "--format", "csv")
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 31


def test_a_run_is_read_again(saved, images, tmp_path):
    fitted = fl.ImageClassifier(f"hf:{saved / 'resnet'}", epochs=1).fit(images)
    fitted.save(tmp_path / "run")
    pictures = sorted(images.rglob("*.png"))[:4]
    again = fl.ImageClassifier.load(tmp_path / "run")
    assert np.array_equal(again.predict_proba(pictures), fitted.predict_proba(pictures))
    run = fl.read_run(tmp_path / "run")
    with pytest.raises(fl.FrostlineError, match="torch-export or onnx"):
        next(bundles(run))


def test_random_weights_are_the_same_every_time_and_need_no_weights_file(saved, tmp_path):
    (tmp_path / "config.json").write_text((saved / "vit" / "config.json").read_text())
    first, second = (fl.open_backbone(f"hf:{tmp_path}", "random") for _ in range(2))
    assert first.digest == second.digest != fl.open_backbone(f"hf:{saved / 'vit'}").digest
    assert first.preprocess.crop == (32, 32)


def test_a_file_of_weights(saved, tmp_path):
    file = saved / "vit" / "model.safetensors"
    assert fl.open_backbone(f"hf:{saved / 'vit'}", str(file)).digest == fl.open_backbone(f"hf:{saved / 'vit'}").digest
    state = load_file(file)
    gone = next(n for n in state if "layernorm_before" in n)
    save_file({n: t for n, t in state.items() if n != gone}, tmp_path / "less.safetensors")
    with pytest.raises(WeightsError, match=r"of 56 tensors match; missing.*layernorm_before"):
        fl.open_backbone(f"hf:{saved / 'vit'}", str(tmp_path / "less.safetensors"))
    save_file({n: t * float("nan") for n, t in state.items()}, tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match="NaN"):
        fl.open_backbone(f"hf:{saved / 'vit'}", str(tmp_path / "nan.safetensors"))


def test_nothing_is_loaded_by_pickle(saved, tmp_path):
    (tmp_path / "config.json").write_text((saved / "vit" / "config.json").read_text())
    torch.save(load_file(saved / "vit" / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="nothing is loaded by pickle"):
        fl.open_backbone(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "said"),
    [("/nowhere/at/all", "no such folder"), ("nobody/nothing", "config.json cannot be had")],
)
def test_what_is_not_there(name, said):
    with pytest.raises(BackboneError, match=said):
        fl.open_backbone(f"hf:{name}", offline=True)


def test_what_is_no_image_model(tmp_path):
    with pytest.raises(BackboneError, match=r"no config\.json"):
        fl.open_backbone(f"hf:{tmp_path}")
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="'bert' is no image classification model"):
        fl.open_backbone(f"hf:{tmp_path}")


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(BackboneError, match=r'pip install "frostline\[hf\]"'):
        fl.open_backbone("hf:anything")
    assert str(BackboneSpec.parse("hf:a/b")) == "hf:a/b"


COLOURS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViTImageProcessor", {"size": {"height": 24, "width": 20}, "resample": 2}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 28}, "crop_pct": 0.875, "resample": 3}),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 30}, "crop_size": {"height": 24, "width": 24}, "resample": 3}),
    ],
)
def test_preprocessing_is_that_of_the_library(kind, settings):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 45, 3)).astype(np.uint8)).resize((90, 120))
    processor = getattr(transformers, kind)(**settings, **COLOURS)
    wanted = processor(picture, return_tensors="pt")["pixel_values"]
    ours = preprocess_of(processor.to_dict())
    found = ours.normalise(ours.pixels(picture)[None])
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= 3 * 2 / 255  # rounding to bytes differs by a step or two


@pytest.mark.parametrize(
    "settings",
    [
        {"do_resize": False, "size": 8, **COLOURS},
        {"rescale_factor": 1.0, "size": 8, **COLOURS},
        {"size": 8, "image_mean": [0], "image_std": [1]},
    ],
)
def test_preprocessing_that_is_not_known(settings):
    with pytest.raises(ValueError, match=r"expected|channels"):
        preprocess_of(settings)
