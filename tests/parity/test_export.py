"""Exports against the run they are of, each read by its own tool: timm, torchvision, torch and onnxruntime."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from torch import nn

import frostline as fl
from conftest import make_images
from frostline.errors import ExportError
from frostline.export import export
from frostline.export.bundle import FILE
from frostline.export.card import plain_text
from frostline.export.config import crop_share
from frostline.export.parity import TOLERANCE, check
from frostline.export.pictures import Pictures, pictures_of
from frostline.export.pixels_in import Program, example_for
from frostline.export.plain_head import folded
from frostline.features.pixels import load_image
from frostline.freeze.apply import freeze
from frostline.heads import InputScale

ALONE = Path(__file__).parent.parent.parent / "benchmarks" / "onnx_alone.py"


@pytest.fixture(scope="module")
def trained(images, cache, tiny_module, tmp_path_factory):
    """Trains once for each recipe and gives the run, read from disk."""
    runs = {}

    def train(**settings):
        key = json.dumps(settings)
        if key not in runs:
            out = tmp_path_factory.mktemp("runs") / "run"
            recipe = fl.Recipe(**{"data": str(images), "backbone": "tiny_net:build", "epochs": 2, **settings})
            fl.train(recipe, out, cache=cache, listen=lambda event: None, offline=True)
            runs[key] = out
        return fl.read_run(runs[key], offline=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tiny_module))
        yield train


def untrained(backbone, head="linear", classes=3):
    """A run on random weights, as alive as a trained one: nothing of it is on disk.

    Networks begin with much at zero, and with statistics that let a signal die out: googlenet gives the very same for every picture.
    """
    model = fl.TransferModel(fl.open_backbone(backbone, "random"), head, classes)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in [*model.backbone.named_parameters(), *model.head.state_dict().items()]:
            if tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                tensor.add_(torch.randn(tensor.shape, generator=generator) * (0.3 if name == "linear.weight" else 0.1))
        model.head.scale.scale.fill_(1.7)
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = 1.0
        pictures = next(iter(Pictures((), "").chunks(model.opened.preprocess)))[0]
        model.train()
        model(model.opened.preprocess.normalise(pictures))
    freeze(model, trainable=(), pinned=[n for n, _ in model.named_modules()])
    recipe = fl.Recipe(data="nowhere", backbone=backbone, weights="random", head=head)
    return fl.Run(Path("nowhere"), recipe, {}, tuple("abcdefgh"[:classes]), model)


def pixels_of(run, paths):
    return torch.stack([run.model.opened.preprocess.pixels(load_image(p)) for p in paths])


def answers_of(run, pixels):
    with torch.no_grad():
        return run.model(run.model.opened.preprocess.normalise(pixels))


def some(images):
    return sorted(images.rglob("*.png"))[::9]


def close(found, wanted):
    return float((found - wanted).abs().max()) <= TOLERANCE * float(wanted.abs().max()) and bool(
        (found.argmax(1) == wanted.argmax(1)).all()
    )


RECIPES = (
    {},
    {"head": "mlp:16"},
    {"head": "conv:8"},
    {"head": "attention"},
    {"head": "ridge", "epochs": None},
    {"unfreeze": "last:2"},
)


@pytest.mark.parametrize("settings", RECIPES, ids=lambda s: " ".join(map(str, s.values())) or "linear")
@pytest.mark.parametrize("inside", ["inside", "json"])
def test_onnxruntime_gives_what_the_run_gives(trained, images, tmp_path, settings, inside):
    run = trained(**settings)
    done = export(run, "onnx", tmp_path / "out", preprocess=inside)
    assert done.max_abs_difference <= TOLERANCE * done.largest_logit
    assert (done.checked_on.images, done.checked_on.batch_sizes) == (48, (1, 3, 4))
    assert done.checked_on.pictures == "12 validation and 36 training images of the run"
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    stated = json.loads(about["preprocess"])
    assert json.loads(about["labels"]) == ["green", "red"] == json.loads((tmp_path / "out" / "labels.json").read_text())
    assert stated == json.loads((tmp_path / "out" / "preprocess.json").read_text())
    given = session.get_inputs()[0]
    assert [given.name, given.type.removeprefix("tensor(").removesuffix(")"), given.shape] == [
        stated["input"]["name"],
        {"uint8": "uint8", "float32": "float"}[stated["input"]["type"]],
        stated["input"]["shape"],
    ]
    pixels = pixels_of(run, some(images))
    for count in (1, 2, 3, 5):
        fed = pixels[:count].numpy()
        if inside == "json":
            mean, std = (np.array(stated["settings"][k], np.float32).reshape(1, 3, 1, 1) for k in ("mean", "std"))
            fed = (fed / np.float32(255) - mean) / std
        logits, probabilities = session.run(None, {given.name: fed})
        wanted = answers_of(run, pixels[:count])
        assert close(torch.from_numpy(logits), wanted)
        assert np.allclose(probabilities, wanted.softmax(1), atol=1e-5)


@pytest.mark.parametrize("settings", RECIPES, ids=lambda s: " ".join(map(str, s.values())) or "linear")
def test_torch_alone_gives_what_the_run_gives(trained, images, tmp_path, settings):
    run = trained(**settings)
    export(run, "torch-export", tmp_path / "out")
    about = {"labels.json": "", "preprocess.json": ""}
    program = torch.export.load(tmp_path / "out" / "model.pt2", extra_files=about).module()
    assert json.loads(about["labels.json"]) == ["green", "red"]
    assert json.loads(about["preprocess.json"]) == json.loads((tmp_path / "out" / "preprocess.json").read_text())
    pixels = pixels_of(run, some(images))
    for count in (1, 2, 5):
        assert close(program(pixels[:count])[0], answers_of(run, pixels[:count]))


def test_nothing_in_a_program_is_pickled(trained, tmp_path):
    import zipfile

    export(trained(), "torch-export", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out" / "model.pt2") as archive:
        contents = {i.filename: archive.read(i) for i in archive.infolist()}
    assert any(name.endswith("model.json") for name in contents)
    assert not [name for name, data in contents.items() if data[:1] == b"\x80" or (data[:2] == b"PK" and b"data.pkl" in data)]


def test_folding_the_scaling_changes_nothing():
    scale, linear = InputScale(300), nn.Linear(300, 7)
    scale.measure(torch.randn(500, 300) * 3 + 2)
    linear = linear.double().requires_grad_(False)
    x = torch.randn(40, 300, dtype=torch.float64) * 3 + 2
    wanted = linear(scale.double()(x))
    single = folded(scale, linear)
    found = nn.functional.linear(x, single.weight.detach().double(), single.bias.detach().double())
    assert single.weight.dtype == torch.float32
    assert float((found - wanted).abs().max()) < 3e-7 * float(wanted.abs().max()) * 10  # what is left is the rounding of the weights
    exact = nn.functional.linear(x, linear.weight / scale.scale, linear.bias - linear.weight @ scale.mean / scale.scale)
    assert torch.allclose(exact, wanted, rtol=1e-12, atol=1e-12)


def test_a_bundle_of_an_own_network_is_loaded_by_its_lines(trained, images, tiny_module, tmp_path):
    for settings in ({}, {"head": "mlp:16"}, {"unfreeze": "last:2"}):
        run = trained(**settings)
        out = tmp_path / str(len(settings)) / str(run.recipe.unfreeze)
        done = export(run, "safetensors", out)
        pixels = pixels_of(run, some(images))
        fed = tmp_path / "fed.npy"
        np.save(fed, run.model.opened.preprocess.normalise(pixels).numpy())
        assert close(run_lines(done.lines, f"model(torch.from_numpy(numpy.load({str(fed)!r})))", tiny_module), answers_of(run, pixels))


def run_lines(lines, expression, *path):
    """Run lines in another process and give what an expression is there; frostline may be imported by one's own network only."""
    code = "\n".join([*lines, "import json, numpy, sys, torch", f"with torch.no_grad(): print(json.dumps({expression}.tolist()))"])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[str(p) for p in path]}\n{code}"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return torch.tensor(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def lite0(trained):
    return trained(backbone="tf_efficientnet_lite0")


def test_timm_alone_loads_the_embedded_backbone_with_its_head(lite0, images, tmp_path):
    done = export(lite0, "safetensors", tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {FILE, "config.json", "labels.json", "preprocess.json", "README.md"}
    assert done.what.startswith("timm's tf_efficientnet_lite0 with 2 classes")
    state = load_file(tmp_path / "out" / FILE)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=2)
    model.eval().load_state_dict(state, strict=True)
    pixels = pixels_of(lite0, some(images))
    normalised = lite0.model.opened.preprocess.normalise(pixels)
    with torch.no_grad():
        assert close(model(normalised), answers_of(lite0, pixels))
    np.save(tmp_path / "fed.npy", normalised.numpy())
    code = (f"import timm, sys; model = timm.create_model('local-dir:{tmp_path / 'out'}', pretrained=True).eval()",)
    found = run_lines(code, f"(model(torch.from_numpy(numpy.load({str(tmp_path / 'fed.npy')!r}))) * (1 - ('frostline' in sys.modules)))")
    assert close(found, answers_of(lite0, pixels))


def test_timm_finds_the_preprocessing_and_the_labels(lite0, hymenoptera, tmp_path):
    export(lite0, "safetensors", tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert list(model.pretrained_cfg["label_names"]) == ["green", "red"]
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    preprocess = lite0.model.opened.preprocess
    for path in sorted((hymenoptera / "val").rglob("*.jpg"))[::40]:
        image = load_image(path)
        assert torch.allclose(transform(image), preprocess.normalise(preprocess.pixels(image)[None])[0], atol=1e-6)


@pytest.mark.parametrize("resize", [224, 225, 232, 235, 246, 248, 256, 299, 342, 500])
@pytest.mark.parametrize("side", [224, 192, 199])
def test_timm_resizes_to_the_very_size(resize, side):
    share = crop_share(fl.Preprocess(crop=(side, side), resize=resize))
    assert timm.data.create_transform((3, side, side), crop_pct=share).transforms[0].size == resize


@pytest.mark.parametrize("format", ["safetensors", *(pytest.param(f, marks=pytest.mark.slow) for f in ("torch-export", "onnx"))])
def test_the_card_labels_a_picture_without_frostline(lite0, hymenoptera, tmp_path, format):
    """The code of the card is run as it stands, in the export's folder."""
    export(lite0, format, tmp_path / "out")
    picture = sorted((hymenoptera / "val").rglob("*.jpg"))[0]
    (tmp_path / "out" / "PICTURE.jpg").write_bytes(picture.read_bytes())
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", code + "\nimport sys; assert 'frostline' not in sys.modules"],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    if format == "safetensors":
        assert "json" in code
    wanted = next(iter(fl.predict(lite0, [picture], device="cpu")))
    label, probability = done.stdout.split()[-2:]
    assert label == wanted.label
    assert float(probability) == pytest.approx(wanted.probabilities[wanted.label], abs=1e-4)


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 64), (511, 77)])
def test_the_lines_for_a_picture_make_the_pixels_of_the_run(size, squash, tmp_path):
    from PIL import Image

    from frostline.export.lines import picture_lines

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / "PICTURE.jpg")
    preprocess = fl.Preprocess(crop=(48, 56), resize=60, mode="squash" if squash else "center", interpolation="bicubic")
    for normalised in (False, True):
        code = "\n".join(picture_lines(preprocess, normalised=normalised)).replace("PICTURE.jpg", str(tmp_path / "PICTURE.jpg"))
        found = {}
        exec(code, found)
        wanted = preprocess.pixels(load_image(tmp_path / "PICTURE.jpg"))[None]
        if normalised:
            assert np.allclose(found["picture"], preprocess.normalise(wanted), atol=1e-6)
        else:
            assert (torch.from_numpy(found["picture"]) == wanted).all()


BUNDLED = [
    ("timm:resnet18", "linear", "timm's resnet18"),
    pytest.param("timm:resnet18", "mlp:8", "the network without", marks=pytest.mark.slow),
    pytest.param("timm:test_vit", "linear", "timm's test_vit", marks=pytest.mark.slow),
    pytest.param("timm:deit_tiny_distilled_patch16_224", "linear", "timm's deit_tiny_distilled", marks=pytest.mark.slow),
    pytest.param("timm:resnetv2_50x1_bit", "linear", "timm's resnetv2_50x1_bit", marks=pytest.mark.slow),
    pytest.param("timm:levit_128s", "linear", "the network without", marks=pytest.mark.slow),
    pytest.param("torchvision:resnet18", "linear", "the network with a linear layer as its fc", marks=pytest.mark.slow),
    pytest.param("torchvision:mobilenet_v3_small", "mlp:8", "the network without", marks=pytest.mark.slow),
    pytest.param("torchvision:squeezenet1_1", "linear", "the network without", marks=pytest.mark.slow),
    pytest.param("torchvision:googlenet", "linear", "the network with a linear layer as its fc", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backbone", "head", "what"), BUNDLED)
def test_libraries_alone_build_the_model(backbone, head, what, tmp_path):
    """The first bundle that passes the gate; its lines are run in a process of their own and give the same logits."""
    from frostline.export.write import export as write

    run = untrained(backbone, head)
    run = dataclasses.replace(run, summary=summary_like(run))
    done = write(run, "safetensors", tmp_path / "out")
    assert done.checked_on.pictures.startswith("generated pictures")
    assert done.what.startswith(what)
    assert (tmp_path / "out" / "config.json").is_file() == done.what.startswith("timm's")
    pixels = next(iter(Pictures((), "").chunks(run.model.opened.preprocess)))[0][:3]
    np.save(tmp_path / "fed.npy", run.model.opened.preprocess.normalise(pixels).numpy())
    found = run_lines(
        done.lines, f"(model(torch.from_numpy(numpy.load({str(tmp_path / 'fed.npy')!r}))) * (1 - ('frostline' in sys.modules)))"
    )
    assert close(found, answers_of(run, pixels))


def summary_like(run):
    """What a card says of a run, for one that never was."""
    return {
        "backbone": run.recipe.backbone,
        "weights": str(run.model.opened.report),
        "head": run.recipe.head,
        "strategy": "plain",
        "unfrozen_blocks": [],
        "trainable_parameters": 1,
        "frozen_parameters": 1,
        "epochs_run": 1,
        "best_epoch": 1,
        "train": {"n": 1, "accuracy": 1.0},
        "val": None,
        "test": None,
        "audit": {"frozen_tensors": 1, "frozen_unchanged": True},
        "images_used": 1,
        "images_skipped": [],
    }


@pytest.mark.parametrize("head", ["conv:8", "attention"])
def test_a_head_that_no_library_has_is_refused_for_safetensors(trained, tmp_path, head):
    with pytest.raises(ExportError, match="--format onnx or --format torch-export"):
        export(trained(head=head), "safetensors", tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_where_there_is_no_torch_onnxruntime_labels_ants_and_bees_as_predict_does(trained, hymenoptera, tmp_path):
    """With the script that says how, ``benchmarks/onnx_alone.py``; torch and frostline cannot be imported there."""
    run = trained(data=str(hymenoptera), backbone="tf_efficientnet_lite0")
    export(run, "onnx", tmp_path / "out")
    files = sorted((hymenoptera / "val").rglob("*.jpg"))[::5]
    for file in files:
        (tmp_path / "some" / file.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "some" / file.parent.name / file.name).symlink_to(file)
    hide = f"import sys, runpy; sys.modules['torch'] = sys.modules['frostline'] = None; runpy.run_path({str(ALONE)!r}, run_name='__main__')"
    command = [sys.executable, "-c", hide, tmp_path / "out", tmp_path / "some"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = list(fl.predict(run, sorted((tmp_path / "some").rglob("*.jpg")), device="cpu"))
    assert len(rows) == len(files) == 31
    assert [(r["path"], r["label"]) for r in rows] == [(str(w.path), w.label) for w in wanted]
    assert [r["probability"] for r in rows] == pytest.approx([w.probabilities[w.label] for w in wanted], abs=1e-5)


# The gate


def perturbed(run, change):
    """The run's own answers, changed."""
    return lambda pixels: (change(answers_of(run, pixels)), None)


def test_the_gate_lets_pass_what_agrees_and_nothing_else(trained):
    run = trained()
    pictures = pictures_of(run)
    largest = check(perturbed(run, lambda z: z), run, pictures).largest_logit
    assert check(perturbed(run, lambda z: z + 0.5e-4 * largest), run, pictures).max_abs_difference == pytest.approx(
        0.5e-4 * largest, rel=0.1
    )
    for change in (
        lambda z: z + 2e-4 * largest,
        lambda z: torch.cat([z[:-1], z[-1:] * 1.01]) if len(z) == 4 else z,  # wrong in one batch size only
        lambda z: z * float("nan"),
        lambda z: torch.where(z == z.max(), float("inf"), z),
        lambda z: z.flip(1),
        lambda z: z[:1].expand(len(z), -1),  # the first picture's answer for all
    ):
        with pytest.raises(ExportError, match="disagrees with the run on 48 images in batches of 1, 3, 4"):
            check(perturbed(run, change), run, pictures)
    with pytest.raises(ExportError, match=r"it gives \(16, 1\) for 16 images, the run \(16, 2\)"):
        check(perturbed(run, lambda z: z[:, :1]), run, pictures)
    with pytest.raises(ExportError, match=r"fails on a batch of 3 \(RuntimeError: shape"):
        check(perturbed(run, lambda z: z.view(len(z) if len(z) < 3 else 7, 2)), run, pictures)
    with pytest.raises(ExportError, match="probabilities"):
        check(lambda p: (answers_of(run, p), answers_of(run, p).sigmoid()), run, pictures)


def test_labels_must_be_equal_where_logits_are_close(trained):
    """Two classes that are almost equally likely: a difference far below the tolerance turns the label."""
    run = trained()
    model = run.model
    with torch.no_grad():
        model.head.linear.weight[1] = model.head.linear.weight[0]
        model.head.linear.bias[:] = torch.tensor([1.0, 1.0 - 2e-6])
    try:
        with pytest.raises(ExportError, match="48 labels differ"):
            check(perturbed(run, lambda z: z + torch.tensor([0.0, 1e-5])), run, pictures_of(run))
    finally:
        model.load_state_dict(fl.read_run(run.folder, offline=True).model.state_dict())


SABOTEURS = """
import itertools, torch
from torch import nn
from tiny_net import Tiny, build

class Falsified(Tiny):
    def forward(self, x):
        return super().forward(x) * (1.01 if torch.compiler.is_exporting() else 1.0)

class Branching(Tiny):
    def forward(self, x):
        return super().forward(x if float(x.sum()) < 1e9 else x * 2)

def falsified():
    net = build()
    net.__class__ = Falsified
    return net

def unreadable():
    net = build()
    net.__class__ = Branching
    return net

made = itertools.count()

class Drifting(Tiny):
    def forward(self, x):
        return super().forward(x) * self.factor

def drifting():
    net = build()
    net.__class__ = Drifting
    net.factor = 1 + 0.01 * next(made)
    return net
"""


@pytest.mark.parametrize(
    ("network", "format", "says"),
    [
        ("falsified", "onnx", "disagrees with the run on 48 images"),
        ("falsified", "torch-export", "disagrees with the run on 48 images"),
        ("drifting", "safetensors", "disagrees with the run on 48 images"),
        ("unreadable", "onnx", "torch.onnx cannot read the network"),
        ("unreadable", "torch-export", "torch.export cannot read the network"),
    ],
)
def test_a_sabotaged_export_is_refused_and_leaves_nothing(trained, tmp_path, monkeypatch, network, format, says):
    """Networks that are another function when they are exported, or when they are built again."""
    (tmp_path / "saboteurs.py").write_text(SABOTEURS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "saboteurs", raising=False)
    run = trained(backbone=f"saboteurs:{network}")
    before = sorted(tmp_path.rglob("*"))
    inside_run = sorted(run.folder.rglob("*"))
    for out in (tmp_path / "some" / "where" / "out", run.folder / "export"):
        with pytest.raises(ExportError, match=says):
            export(run, format, out)
    assert [p for p in sorted(tmp_path.rglob("*")) if "__pycache__" not in p.parts] == [p for p in before if "__pycache__" not in p.parts]
    assert sorted(run.folder.rglob("*")) == inside_run


def test_a_folder_that_is_there_stays(trained, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match="exists already"):
        export(trained(), "safetensors", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_images_that_are_gone_are_replaced_by_generated_ones_and_said(trained, images, tmp_path):
    import shutil

    shutil.copytree(trained().folder, tmp_path / "run")
    (tmp_path / "run" / "split.csv").write_text("path,label,split,group\n/nowhere/1.png,red,val,\n")
    run = fl.read_run(tmp_path / "run", offline=True)
    done = export(run, "onnx", tmp_path / "out")
    assert str(done.checked_on).startswith("16 images in batches of 1, 3, 4 (generated pictures")
    assert "generated pictures" in (tmp_path / "out" / "README.md").read_text()
    few = export(run, "onnx", tmp_path / "few", check_on=images / "red" / "000.png")
    assert (few.checked_on.images, few.checked_on.batch_sizes) == (1, (1, 3, 4))
    every = export(run, "onnx", tmp_path / "every", check_on=images)
    assert every.checked_on.images == 60
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_text("no picture")
    with pytest.raises(fl.FrostlineError, match="none of 1 files is an image"):
        export(run, "onnx", tmp_path / "not", check_on=tmp_path / "bad")
    assert not (tmp_path / "not").exists()


# The card


def test_the_card_is_read_by_the_hub_and_true(lite0, tmp_path):
    export(lite0, "safetensors", tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.library_name == "timm"
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "image-classification"
    assert "frostline" in card.data.tags
    (result,) = card.data.eval_results
    assert result.metric_value == round(lite0.summary["val"]["accuracy"], 4)
    low, high = lite0.summary["val"]["interval"]
    assert f"| validation | 12 | {lite0.summary['val']['accuracy']:.3f} | {low:.3f} to {high:.3f} |" in card.text
    for said in ("The validation images also chose which epoch was kept", "No test images were given", "2,562 parameters", "bit-identical"):
        assert said in card.text
    assert str(Path(lite0.recipe.data).parent) not in card.content, "the card tells where images lay"


def test_names_do_no_harm_in_a_card(trained, tmp_path):
    names = {"<script>alert(1)<": 10, "a|b`c*_": 10, "---": 10, "x: [y": 10}
    run = trained(data=str(make_images(tmp_path / "data", names)))
    export(run, "onnx", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.library_name == "onnx"
    assert card.data.license is None
    assert "<script>" not in text
    assert all(plain_text(name) in card.text for name in names)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert set(json.loads(session.get_modelmeta().custom_metadata_map["labels"])) == set(names)


# Many architectures

ARCHITECTURES = (
    "timm:resnet18",
    "timm:efficientnet_b0",
    "timm:mobilenetv3_small_100",
    "timm:regnetx_002",
    "timm:densenet121",
    "timm:convnext_atto",
    "timm:ghostnet_100",
    "timm:repvgg_a0",
    "timm:vit_tiny_patch16_224",
    "timm:deit_tiny_distilled_patch16_224",
    "timm:swin_tiny_patch4_window7_224",
    "timm:mixer_s32_224",
    "timm:poolformer_s12",
    "timm:levit_128s",
    "timm:edgenext_xx_small",
    "timm:mobilevit_xxs",
    "timm:tf_efficientnetv2_s",
    "timm:maxvit_rmlp_pico_rw_256",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:squeezenet1_1",
    "torchvision:mnasnet0_5",
    "torchvision:googlenet",
    "torchvision:vit_b_32",
    "torchvision:convnext_tiny",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_onnx_of_many_architectures_is_within_the_gate(name, tmp_path):
    from frostline.export.onnx import load_onnx, write_onnx

    run = untrained(name)
    preprocess = run.model.opened.preprocess
    program = Program(run.model, preprocess, "inside")
    write_onnx(program, example_for(preprocess, "inside"), tmp_path / "model.onnx", "pixels", {"labels": "[]"})
    pictures = Pictures((), "generated")
    parity = check(load_onnx(tmp_path / "model.onnx"), run, pictures)
    logits = answers_of(run, next(iter(pictures.chunks(preprocess)))[0])
    assert float(logits.std(0).max()) > 10 * TOLERANCE * parity.largest_logit, "all pictures look the same: nothing was compared"
    print(f"{name}: {parity.max_abs_difference:.1e} of {parity.largest_logit:.3g}, over pictures {float(logits.std(0).max()):.1e}")
