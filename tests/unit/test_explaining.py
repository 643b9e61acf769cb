"""Explanations: equal to plain PyTorch, complete, and on the pixels that decide."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import frostline as fl
from conftest import said_without
from frostline.errors import BackboneError, DecodeError, RecipeError
from frostline.explaining.cam import Heat, heat_of
from frostline.explaining.pixels import METHODS, PixelHeat
from frostline.model import TransferModel
from frostline.run import Run

pytest.importorskip("captum")
CPU = torch.device("cpu")
SIDE = 64


class Brightness(nn.Module):
    """A map of what is brighter than grey, averaged: the answer is where the light is."""

    def __init__(self, side: int = SIDE):
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.preprocess = fl.Preprocess(crop=(side, side), resize=side)
        with torch.no_grad():
            self.first.weight.abs_()
            self.second.weight.abs_()
            self.first.bias.zero_()
            self.second.bias.zero_()

    def forward(self, x):
        return self.pool(self.act(self.second(torch.relu(self.first(x))))).flatten(1)


def run_of(opened, head="linear", classes=("dark", "light", "other"), weights=None) -> Run:
    """A run that lies nowhere, its head turned towards the second class."""
    model = TransferModel(opened, head, len(classes))
    linear = next(m for m in reversed(list(model.head.modules())) if isinstance(m, nn.Linear))
    with torch.no_grad():
        row = torch.ones(linear.in_features) if weights is None else weights(linear.in_features)
        linear.weight.copy_(torch.stack([-row, row, 0 * row]))
    for p in model.parameters():
        p.requires_grad_(False)
    recipe = fl.Recipe(data="d")
    return Run(Path("nowhere"), recipe, {}, tuple(classes), model.eval())


def patch(row, column, side=SIDE, size=SIDE // 4):
    """A dark picture with one light square, normalised ``(1, 3, H, W)``."""
    image = torch.full((1, 3, side, side), -1.0)
    image[..., row : row + size, column : column + size] = 2.0
    return image


@pytest.fixture(scope="module")
def bright():
    return run_of(fl.open_backbone(Brightness()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("row", "column"), [(4, 4), (40, 8), (20, 44)])
def test_every_method_finds_what_decides(bright, method, row, column):
    heat = PixelHeat(bright, method, CPU)(patch(row, column), 1)
    whole = nn.functional.interpolate(heat[None, None], size=(SIDE, SIDE), mode="bilinear")[0, 0].clamp(min=0)
    inside = whole[row : row + SIDE // 4, column : column + SIDE // 4].sum() / whole.sum()
    assert float(inside) > 0.5  # of a sixteenth of the area
    peak = divmod(int(whole.argmax()), SIDE)
    assert row - 4 <= peak[0] < row + SIDE // 4 + 4
    assert column - 4 <= peak[1] < column + SIDE // 4 + 4


def test_gradcam_is_that_of_plain_pytorch(bright):
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    ours = PixelHeat(bright, "gradcam", CPU)(image, 1)
    net, head = bright.model.backbone, bright.model.head
    maps = net.act(net.second(torch.relu(net.first(image)))).detach().requires_grad_()
    logits = head(net.pool(maps).flatten(1))
    (gradient,) = torch.autograd.grad(logits[0, 1] - (logits[0, 0] + logits[0, 2]) / 2, maps)
    theirs = (gradient.mean((2, 3), keepdim=True) * maps).sum(1).relu()[0].detach()
    assert theirs.max() > 0
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-7)


def test_integrated_gradients_add_up_to_the_difference(bright):
    image = patch(10, 20)
    heat = PixelHeat(bright, "integrated-gradients", CPU)(image, 1)
    with torch.no_grad():
        logits = bright.model(torch.cat([image, torch.zeros_like(image)]))
    margin = logits[:, 1] - (logits[:, 0] + logits[:, 2]) / 2
    assert float(heat.sum()) == pytest.approx(float(margin[0] - margin[1]), rel=0.02)


def test_cam_adds_up_and_is_the_server_s(bright):
    image = patch(10, 20)
    exact = heat_of(bright)
    assert isinstance(exact, Heat)
    assert torch.equal(PixelHeat(bright, "cam", CPU)(image, 1), exact(image, 1))


@pytest.mark.parametrize(
    "name", ["timm:vit_tiny_patch16_224", "timm:resnet10t", pytest.param("timm:swin_tiny_patch4_window7_224", marks=pytest.mark.slow)]
)
def test_networks_of_every_kind_are_explained(name):
    run = run_of(fl.open_backbone(name, "random"), weights=lambda n: torch.arange(n).float().sin())
    crop = run.model.opened.preprocess.crop
    image = torch.randn(1, 3, *crop, generator=torch.Generator().manual_seed(1))
    found = PixelHeat(run, "gradcam", CPU)
    heat = found(image, 1)
    assert heat.ndim == 2
    assert min(heat.shape) > 1
    assert torch.isfinite(heat).all()
    assert float(heat.max()) > 0
    kinds = {"timm:vit_tiny_patch16_224": "tokens", "timm:resnet10t": "map", "timm:swin_tiny_patch4_window7_224": "turned map"}
    assert found._layer.kind == kinds[name]


def test_a_method_that_is_none_or_does_not_fit_is_refused(bright, tiny):
    with pytest.raises(RecipeError, match="no method is called 'lime'; use gradcam, cam"):
        PixelHeat(bright, "lime", CPU)
    with pytest.raises(BackboneError, match="a mlp:4 head is no sum over positions; use gradcam"):
        PixelHeat(run_of(tiny(), "mlp:4"), "cam", CPU)


@pytest.fixture(scope="module")
def trained(frostline, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained") / "run"
    done = frostline("train", images, "--backbone", "tiny_net:build", "--epochs", "3", "--out", folder, "--quiet")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_command_line_writes_pictures_and_says_so(frostline, trained, images, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no picture")
    flags = ("--out", tmp_path / "out", "--json")
    done = frostline("explain", trained, images / "red" / "000.png", images / "green" / "001.png", tmp_path / "no.png", *flags)
    assert done.returncode == 0, done.stderr
    assert "no.png" in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["class"] for row in rows] == [row["label"] for row in rows]
    for row in rows:
        with Image.open(row["picture"]) as picture:
            assert picture.size[0] > 100
        assert len(row["nearest"]) == 5
        assert row["nearest"][0]["similarity"] >= row["nearest"][-1]["similarity"]
    predicted = frostline("predict", trained, images / "red" / "000.png", "--json")
    assert json.loads(predicted.stdout)["probability"] == rows[0]["probability"]


def test_what_cannot_be_explained_is_one_line(frostline, trained, images, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no picture")
    for arguments, words in [
        ((images / "red" / "000.png", "--class", "rde"), "--class: 'rde' is no class of this run; did you mean red or green?"),
        (
            (images / "red" / "000.png", "--method", "x"),
            "--method: no method is called 'x'; use gradcam, cam, integrated-gradients, occlusion",
        ),
        ((tmp_path / "no.png",), "PATH: none of 1 files is an image that can be read"),
        ((tmp_path / "missing.png",), "no such file or folder"),
    ]:
        done = frostline("explain", trained, *arguments)
        assert done.returncode == 2
        assert words in done.stderr.splitlines()[-1]
    assert not (trained / "explained").exists()


def test_in_python_with_the_nearest_training_images(trained, images, tiny, tmp_path):
    tiny()
    (tmp_path / "no.png").write_bytes(b"no picture")
    run = fl.read_run(trained)
    first = images / "red" / "000.png"
    found, bad = fl.explain(run, [first, tmp_path / "no.png"], method="cam", label="red")
    assert isinstance(bad, DecodeError)
    assert found.heat.shape == found.seen.shape[:2] == (32, 32)
    assert found.of == "red"
    split = (trained / "split.csv").read_text()
    for similar in found.nearest:
        assert f"{similar.path}" in split
        assert similar.label in ("red", "green")
    shown = found._repr_html_()
    assert shown.startswith("<img alt=")
    light = np.asarray(found.overlay())
    assert light.shape == (32, 32, 3)


def test_without_captum_one_line_says_what_to_install(tmp_path):
    code = "from frostline.explaining.pixels import PixelHeat\nPixelHeat(None, 'occlusion', None)"
    assert (
        said_without("captum", code, tmp_path) == 'ExtraError --method occlusion: captum is not installed; pip install "frostline[explain]"'
    )
