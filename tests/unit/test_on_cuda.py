"""Whole jobs on a CUDA device, a simulated one where there is none: they mix no devices, read nothing too early, and give what the CPU gives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import TensorDataset

import frostline as fl
from frostline import ImageClassifier, ImageSet, TransferModel, explaining, pipeline, read_run, use
from frostline.advise.advice import advice_json, advise
from frostline.data import read_data
from frostline.export.write import export
from frostline.extractor import FeatureExtractor
from frostline.features.pixels import load_image
from frostline.fitting import EpochDone
from frostline.quality.examination import examine
from frostline.recipe import make_recipe
from frostline.report.write import write_report
from frostline.serve.batcher import Batcher
from frostline.serve.explain import Explainer
from simulated_cuda import simulated_cuda

pytestmark = pytest.mark.gpu
REAL = torch.cuda.is_available()
ROUNDING = 100 if REAL else 1
"""What a GPU may differ by, in units of what the CPU's own arithmetic may."""

JOBS: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp": {"head": "mlp:16"},
    "conv": {"head": "conv:8"},
    "attention": {"head": "attention"},
    "ridge": {"head": "ridge", "epochs": None},
    "logistic": {"head": "logistic", "epochs": None},
    "earlier block": {"head": "linear@stem.0"},
    "all depths": {"head": "linear@all"},
    "best depth": {"head": "linear@auto"},
    "last block": {"unfreeze": "last:1"},
    "no cache": {"unfreeze": "last:1", "cache": False},
    "all layers": {"unfreeze": "all", "batch_norm": "train"},
    "affine": {"batch_norm": "affine"},
    "sweep": {"sweep": 8},
    "sweep of depths": {"sweep": 4, "head": "linear@auto"},
    "lp-ft": {"strategy": "lp-ft", "unfreeze": "last:1", "wise": True},
    "gradual": {"strategy": "gradual", "epochs": 1},
    "auto": {"strategy": "auto"},
    "views": {"augment": "light", "views": "3"},
    "live views": {"augment": "strong", "views": "live", "unfreeze": "last:1"},
    "bf16": {"precision": "bf16", "unfreeze": "last:1"},
    "fp16 in the cache": {"storage": "fp16"},
    "folded": {"engine": "eager"},
    "nested": {"nested": 2},
    "nested on an earlier block": {"nested": 2, "head": "linear@stem.0"},
    "nested on a map": {"nested": 2, "head": "conv:8"},
    "options": {
        "unfreeze": "last:1",
        "class_weights": "balanced",
        "label_smoothing": 0.1,
        "mixup": 0.2,
        "clip_norm": 1.0,
        "accumulate": 2,
        "ema": 0.9,
        "l2_sp": 0.01,
        "layer_decay": 0.7,
    },
}

SLOW = ("best depth", "sweep of depths")


def small_vit() -> TransferModel:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes)
    net.preprocess = fl.Preprocess(crop=(32, 32), resize=32)
    return TransferModel(fl.open_backbone(net), num_classes=2)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on(device: str) -> contextlib.AbstractContextManager[object]:
    return simulated_cuda() if device == "cuda" and not REAL else contextlib.nullcontext()


def trained(folder: Path, images: Path, device: str, **settings: Any) -> Path:
    """A run made on a device, with a cache beside it."""
    recipe = {"data": str(images), "backbone": "tiny_net:build", "epochs": 2, "engine": "plain", "device": device} | settings
    with on(device):
        pipeline.train(make_recipe(recipe), folder / device, cache=folder / f"{device} cache", listen=lambda _: None, offline=True)
    return folder / device


def losses(run: Path) -> list[list[float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [[row["train_loss"], row["val_loss"]] for row in rows]


def assert_same_run(one: Path, other: Path, tolerance: float = 1e-5) -> None:
    """Losses, weights and what is said of the run agree."""
    tolerance *= ROUNDING
    assert np.allclose(losses(one), losses(other), rtol=tolerance)
    weights, others = (load_file(run / "model.safetensors") for run in (one, other))
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        assert torch.allclose(tensor, others[name], rtol=10 * tolerance, atol=tolerance), name
    scores, others = (json.loads((run / "summary.json").read_text()) for run in (one, other))
    for part in ("val", "test", "calibration", "nested"):
        assert _numbers(scores.get(part)) == pytest.approx(_numbers(others.get(part)), rel=1e-3, abs=1e-5)


def _numbers(said: Any) -> dict[str, float]:
    return {k: v for k, v in (said or {}).items() if isinstance(v, int | float)}


@pytest.fixture
def on_both(tiny, images, tmp_path):
    """One run on the CPU, one on the device."""
    return {device: trained(tmp_path, images, device) for device in ("cpu", "cuda")}


@pytest.mark.parametrize("job", [pytest.param(j, marks=pytest.mark.slow) if j in SLOW else j for j in JOBS])
def test_a_job_gives_what_it_gives_on_the_cpu(job, tiny, images, tmp_path):
    assert_same_run(*(trained(tmp_path, images, device, **JOBS[job]) for device in ("cpu", "cuda")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{}, {"unfreeze": "last:1"}, {"head": "conv:16"}, {"strategy": "auto"}, {"engine": "eager"}, {"precision": "bf16"}, {"sweep": 8}],
)
def test_a_job_on_the_embedded_backbone(settings, images, tmp_path):
    both = (trained(tmp_path, images, device, backbone="tf_efficientnet_lite0", **settings) for device in ("cpu", "cuda"))
    assert_same_run(*both, tolerance=1e-4)


def test_a_prefix_that_is_run_anew_in_every_epoch_is_not_filled_up_to_a_batch_of_the_device(tiny, images):
    known = ImageSet.of(read_data(images))
    met: list[int] = []
    with on("cuda"):
        model = TransferModel(tiny())
        model.backbone.stem[0].register_forward_pre_hook(lambda layer, given: met.append(len(given[0])))
        compute = fl.Compute(None, device="cuda", recompute=True)
        list(fl.fit(model, fl.FreezePlan("last:1"), known, known, epochs=1, batch_size=8, compute=compute))
    assert max(met) <= 16


def test_a_second_run_takes_features_from_the_cache(tiny, images, tmp_path):
    first = trained(tmp_path, images, "cuda")
    moved = first.rename(tmp_path / "first")
    assert_same_run(moved, trained(tmp_path, images, "cuda"))


def test_a_resumed_run_is_the_same(tiny, images, tmp_path):
    settings = {"unfreeze": "last:1", "strategy": "lp-ft", "epochs": 3}
    whole = trained(tmp_path, images, "cuda", **settings).rename(tmp_path / "whole")
    recipe = make_recipe({"data": str(images), "backbone": "tiny_net:build", "engine": "plain", "device": "cuda"} | settings)
    seen: list[EpochDone] = []

    def listen(event: object) -> None:
        if isinstance(event, EpochDone):
            seen.append(event)

    how: dict[str, Any] = {"cache": tmp_path / "cuda cache", "offline": True}
    with on("cuda"):
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(recipe, tmp_path / "cuda", listen=listen, stop=lambda: KeyboardInterrupt() if len(seen) == 5 else None, **how)
        pipeline.train(recipe, tmp_path / "cuda", listen=listen, resume=True, **how)
    assert_same_run(whole, tmp_path / "cuda")


def test_what_a_run_is_used_for(on_both, images, tmp_path):
    files = sorted((images / "red").iterdir())[:3]
    found: dict[str, list[Any]] = {}
    for device, folder in on_both.items():
        with on(device):
            run = read_run(folder, offline=True)
            scores, _ = use.evaluate(run, images, cache=tmp_path / device / "again", device=device)
            answers = [p.probabilities for p in use.predict(run, files, device=device)]
            shown = [(e.probabilities, e.heat, e.nearest) for e in explaining.explain(run, files, device=device)]
            labeller = use.Labeller(run, device)
            served = Explainer(labeller)(run.model.opened.preprocess.pixels(load_image(files[0])), "red")
            asked = asyncio.run(_served(labeller, files))
        found[device] = [scores.log_loss, answers, asked, [s[0] for s in shown], [h.tolist() for _, h, _ in shown], served["heat"]]
        assert all(nearest for _, _, nearest in shown)
    for ours, theirs in zip(found["cpu"], found["cuda"], strict=True):
        assert _flat(ours) == pytest.approx(_flat(theirs), abs=ROUNDING * 1e-4)


async def _served(labeller: use.Labeller, files: list[Path]) -> list[Any]:
    """Answers from the server's queue, whose network runs in a thread of its own."""
    batcher = Batcher(labeller, 64)
    batcher.start()
    try:
        return [a.probabilities for a in await batcher.ask([(f.name, f.read_bytes()) for f in files])]
    finally:
        await batcher.close()


def _flat(value: Any) -> list[float]:
    if isinstance(value, dict):
        return _flat(list(value.values()))
    return [n for v in value for n in _flat(v)] if isinstance(value, list | tuple) else [float(value)]


def test_a_run_of_the_device_is_exported_and_reported(on_both, tmp_path):
    with on("cuda"):
        run = read_run(on_both["cuda"], offline=True)
        list(use.predict(run, [], device="cuda"))
        run.model.to("cuda")
        export(run, "safetensors", tmp_path / "out")
        write_report(on_both["cuda"], (), out=tmp_path / "report.html", cache=tmp_path / "cuda cache", device="cuda", offline=True)
    assert (tmp_path / "report.html").is_file()


def test_what_looks_at_images(tiny, images, tmp_path):
    found: dict[str, list[Any]] = {}
    for device in ("cpu", "cuda"):
        recipe = make_recipe({"data": str(images), "backbone": "tiny_net:build", "engine": "plain", "device": device})
        with on(device):
            advice = advise(recipe, (), cache=tmp_path / device, listen=lambda _: None, offline=True)
            quality = examine(recipe, cache=tmp_path / device, listen=lambda _: None, offline=True)
            ready = pipeline.extract(recipe, cache=tmp_path / f"{device} extracted", listen=lambda _: None, offline=True)
        evidence = advice_json(advice)
        found[device] = [[e["depths"] for e in evidence["evidence"].values()], len(quality.suspects), ready.extracted.forwarded]
    assert json.dumps(found["cpu"][0]) == json.dumps(found["cuda"][0]) or REAL
    assert found["cpu"][1:] == found["cuda"][1:]


def test_from_python(tiny, images, monkeypatch):
    files, labels = map(list, zip(*[(p, p.parent.name) for p in sorted(images.rglob("*.png"))], strict=True))
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    for device in ("cpu", "cuda"):
        with on(device):
            classifier = ImageClassifier("tiny_net:build", epochs=2, device=device).fit(files, labels)
            extractor = FeatureExtractor("tiny_net:build", device=device)
            net = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).to(device)
            nn.init.constant_(net[0].weight, 0.5), nn.init.zeros_(net[0].bias)
            cached = fl.cache_features(net, TensorDataset(torch.ones(5, 3), torch.arange(5)))
            found[device] = [classifier.predict_proba(files), extractor.fit_transform(files), cached.tensors[0].numpy()]
    for ours, theirs in zip(found["cpu"], found["cuda"], strict=True):
        assert np.allclose(ours, theirs, atol=ROUNDING * 1e-5)


def test_adapters(images):
    pytest.importorskip("peft")
    from frostline.lora import add_lora, merge_lora

    known = ImageSet.of(read_data(images))
    found: list[torch.Tensor] = []
    for device in ("cpu", "cuda"):
        with on(device):
            model: TransferModel = small_vit()
            plan = add_lora(model, rank=4)
            *_, finished = fl.fit(model, plan, known, known, epochs=1, lr=1e-2, compute=fl.Compute(None, device=device))
            assert finished.audit.frozen_unchanged
            merge_lora(model)
            found.append(torch.cat([p.detach().reshape(-1).cpu() for p in model.parameters()]))
    assert torch.allclose(*found, atol=ROUNDING * 1e-5)


def test_adapters_and_heads_go_where_the_backbone_is(tiny):
    pytest.importorskip("peft")
    from frostline.lora import add_lora

    with on("cuda"):
        model = small_vit().to("cuda")
        add_lora(model)
        model.put_head(fl.heads.HeadSpec.parse("mlp:4"))
        assert {p.device.type for p in model.parameters()} == {"cuda"}
        assert model(model.example(2)).shape == (2, 2)


def test_the_folder_of_a_run_says_where_it_was_made(on_both):
    shutil.rmtree(on_both["cpu"])
    said = json.loads((on_both["cuda"] / "environment.json").read_text())
    assert said["device"].startswith("cuda:0 ")
    assert said["device"].endswith(" simulated") != REAL
