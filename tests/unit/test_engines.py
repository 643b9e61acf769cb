"""Engines give what the module gives, are refused where they do not, and are remembered; a recorded backbone is the backbone."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import make_images, needs_openvino
from frostline import Compute, Finished, FreezePlan, ImageSet, TransferModel, fit, open_backbone
from frostline._digest import file_digest, settings_digest
from frostline.backbone.sealed import Sealed, record_backbone, recorded_backbone
from frostline.data import read_data
from frostline.data.views import PLAIN
from frostline.errors import BackboneError, CacheError, EngineError, RunError
from frostline.features import _openvino, choice, ensure_features, ready, store
from frostline.features.choice import FEWEST, choose_engine
from frostline.features.engine import difference, plain
from frostline.features.extract import Prefix
from frostline.features.fold import folded
from frostline.features.known import backbone_subject, is_known
from frostline.features.pixels import pixels_of
from frostline.features.store import FeatureStore
from frostline.fitting import FeaturesReady, StepDone
from frostline.fitting.adamw import AdamW
from frostline.freeze.apply import freeze
from frostline.freeze.crossing import Crossing, Layout

CPU = torch.device("cpu")


def sealed_backbone(source, weights, cache):
    recorded = recorded_backbone(source, weights, cache)
    return None if recorded is None else recorded.sealed()


def sealed_body(body):
    """Its tensors without its code."""
    parameters = dict(body.named_parameters())
    return Sealed((8,), {n: (t, n in parameters) for n, t in body.state_dict().items()})


def images_of(shape, seed=0):
    batch = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return batch.contiguous(memory_format=torch.channels_last)


def roused(net, seed=0):
    """A network in eval mode whose batch norms do something."""
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2.0)):
                tensor.uniform_(low, high)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return net.eval()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Enough images that another engine pays."""
    return ImageSet.of(read_data(make_images(tmp_path_factory.mktemp("many") / "d", {"a": FEWEST // 2, "b": FEWEST // 2})))


@pytest.fixture
def subject(tiny, monkeypatch):
    monkeypatch.setattr(choice, "LEAST_WORK", 0.0)
    monkeypatch.setattr(choice, "LEAST_SPEED", 0.0)  # of so small a network nothing is as fast as the module itself
    opened = tiny()
    freeze(opened.body, trainable=(), pinned=())
    return backbone_subject(opened, weights=opened.digest, device=CPU, precision="auto", engine="auto")


class Twice(nn.Module):
    """A convolution that is run twice, one whose output is used twice, and one that may be folded."""

    def __init__(self):
        super().__init__()
        self.again, self.norm_1 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.shared, self.norm_2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.alone, self.norm_3 = nn.Conv2d(3, 4, 3, padding=1, groups=1, bias=False), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.norm_1(self.again(self.again(x)))
        y = self.shared(x)
        return self.norm_3(self.alone(self.norm_2(y) + y))


def test_only_what_alone_uses_a_convolution_is_folded_into_it():
    net = roused(Twice())
    before = {n: t.clone() for n, t in net.state_dict().items()}
    fast = folded(net)
    x = images_of((4, 3, 9, 9))
    with torch.no_grad():
        assert difference((fast(x),), (net(x),)) < 1e-6
    assert isinstance(fast.norm_3, nn.Identity)
    assert isinstance(fast.norm_1, nn.BatchNorm2d)
    assert isinstance(fast.norm_2, nn.BatchNorm2d)
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:efficientnet_b0", "torchvision:mobilenet_v3_small", "timm:densenet121"])
def test_folded_networks_give_the_same(name):
    body = roused(open_backbone(name, "random").body)
    fast = folded(body)
    x = images_of((2, 3, 96, 96))
    left = [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(left) < len([m for m in body.modules() if isinstance(m, nn.BatchNorm2d)])
    with torch.no_grad():
        assert difference((fast(x),), (body(x),)) < 1e-4  # rounding grows over the layers of a network with made-up statistics


def test_nothing_to_fold():
    assert folded(nn.Sequential(nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3))) is None
    assert folded(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))) is None


def test_the_difference_is_relative_l2_over_all_tensors():
    a, b = (torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0]])), (torch.tensor([[3.0, 4.5]]), torch.tensor([[0.0]]))
    assert difference(a, b) == pytest.approx(0.5 / (9 + 4.5**2) ** 0.5)
    assert difference(b, b) == 0.0
    assert difference(a, (b[0],)) == difference(a, (b[0], torch.zeros(2))) == float("inf")
    assert difference((torch.tensor([float("nan")]),), (torch.ones(1),)) == float("inf")
    assert difference((torch.ones(1),), (torch.zeros(1),)) == 1.0


@pytest.mark.parametrize("asked", ["plain", "eager", "openvino"])
def test_every_engine_gives_the_features_of_the_module_and_keeps_its_own(subject, many, tmp_path, asked):
    if asked == "openvino":
        needs_openvino()
    subject = replace(subject, asked=asked)
    engine = choose_engine(subject, many, tmp_path)
    assert (engine.name, engine.precision) == (asked, "fp32")
    assert engine.error <= 1e-5
    x = images_of((16, 3, 32, 32))
    assert difference(engine.run(x), plain(subject.body, "fp32").run(x)) <= 1e-5
    prefix = Prefix(engine, subject.preprocess, CPU, Layout((Crossing((8,)),)), subject.settings)
    other = Prefix(plain(subject.body, "bf16"), subject.preprocess, CPU, Layout((Crossing((8,)),)), subject.settings)
    assert prefix.key().digest != other.key().digest
    assert asked in str(prefix.key().settings["engine"])


def test_few_images_are_run_by_the_module_itself(subject, many, monkeypatch):
    few = ImageSet(many.paths[: FEWEST - 1], many.digests[: FEWEST - 1])
    assert choose_engine(subject, few, None).name == "plain"
    assert choose_engine(subject, many, None).name != "plain"
    monkeypatch.setattr(choice, "LEAST_WORK", 3e10)
    assert "so small" in choose_engine(subject, many, None).why
    monkeypatch.setattr(choice, "LEAST_WORK", 0.0)
    monkeypatch.setattr(choice, "LEAST_SPEED", 1e9)
    found = choose_engine(subject, many, None)
    assert (found.name, "is slower than the module itself" in found.why) == ("plain", True)


def test_a_choice_is_remembered_and_nothing_is_decoded_or_verified_again(subject, many, tmp_path, monkeypatch):
    chosen = choose_engine(subject, many, tmp_path)
    monkeypatch.setattr(choice, "_pictures", lambda *_: pytest.fail("decoded again"))
    again = choose_engine(subject, many, tmp_path)
    assert (again.identity, again.error) == (chosen.identity, chosen.error)
    assert again.seconds_to_choose == chosen.seconds_to_choose > 0
    few = ImageSet(many.paths[:3], many.digests[:3])
    assert choose_engine(subject, few, tmp_path).name == "plain"  # whatever was chosen for another job
    x = images_of((16, 3, 32, 32))
    assert all(torch.equal(a, b) for a, b in zip(again.run(x), chosen.run(x), strict=True))
    with torch.no_grad():
        subject.body.stem[0].weight += 1
    moved = replace(subject, settings={**subject.settings, "weights": "others"})
    with pytest.raises(pytest.fail.Exception, match="decoded again"):  # other weights, another choice
        choose_engine(moved, many, tmp_path)


def test_a_remembered_openvino_model_needs_no_network(subject, many, tmp_path):
    needs_openvino()
    chosen = choose_engine(replace(subject, asked="openvino"), many, tmp_path)
    blind = replace(subject, asked="openvino", body=sealed_body(subject.body))
    x = images_of((16, 3, 32, 32))
    assert torch.equal(choose_engine(blind, many, tmp_path).run(x)[0], chosen.run(x)[0])


class ByLight(nn.Module):
    """Does something else with light images, which no recording can tell."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3).requires_grad_(False)

    def forward(self, x):
        y = self.layer(x).mean((2, 3))
        return y if x.mean() < 1 else y.square()


def features_of(subject, images, cache):
    """Of all images, by the engine that is chosen for them or was before."""
    prefix = Prefix(choose_engine(subject, images, cache), subject.preprocess, CPU, Layout((Crossing((8,)),)), subject.settings)
    pixels = torch.stack([pixels_of(p.read_bytes(), subject.preprocess) for p in images.paths])
    return prefix(pixels), plain(subject.body, "fp32").run(subject.normalised(pixels))[0]


def test_an_engine_that_is_wrong_on_images_of_a_later_job_is_refused_there(subject, many, tmp_path):
    needs_openvino()
    for number in range(16):
        folder = tmp_path / "light" / f"{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(200, 256, (40, 40, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    later = ImageSet.of(read_data(tmp_path / "light"))
    of_light = replace(subject, asked="openvino", body=ByLight())
    for images, others in ((many, later), (later, many)):
        assert torch.allclose(*features_of(of_light, images, tmp_path), atol=1e-5)  # made for these
        assert torch.allclose(*features_of(of_light, images, tmp_path), atol=1e-5)
        with pytest.raises(CacheError, match=r"does not give what the module gives on images of this job .* run the same command again"):
            features_of(of_light, others, tmp_path)


def test_a_network_that_cannot_be_recorded_is_opened_for_new_images(subject, many, tmp_path):
    needs_openvino()
    of_light = replace(subject, asked="openvino", body=ByLight())
    assert choose_engine(of_light, many, tmp_path).name == "openvino"
    assert not list(tmp_path.rglob("module.json"))
    assert not is_known(of_light, many, ImageSet((), ()), [], tmp_path, "fp32")
    assert not choice._openvino._begun
    blind = replace(of_light, body=sealed_body(of_light.body))
    with pytest.raises(CacheError, match="cannot be used any more"):
        choose_engine(blind, many, tmp_path).run(images_of((16, 3, 32, 32)))


def changed_engine(cache, change):
    """An engine's folder, changed so that it looks whole."""
    (path,) = (cache / "engines").rglob("engine.json")
    known = json.loads(path.read_text())
    known.pop("self")
    change(path.parent, known)
    known["files"] = {n: file_digest(path.parent / n) for n in known["files"]}
    path.write_text(json.dumps({**known, "self": settings_digest(known)}))
    return path.parent


def test_a_changed_model_that_looks_whole_is_refused_without_the_network(subject, many, tmp_path):
    needs_openvino()
    blind = replace(subject, asked="openvino", body=sealed_body(subject.body))
    choose_engine(replace(blind, body=subject.body), many, tmp_path)

    def other_weights(folder, _):
        weights = np.fromfile(folder / "model.bin", dtype=np.float32)
        (weights * 1.01).astype(np.float32).tofile(folder / "model.bin")

    folder = changed_engine(tmp_path, other_weights)
    assert ready.is_whole(folder)
    with pytest.raises(CacheError, match="does not give what the module gives on images of this job"):
        choose_engine(blind, many, tmp_path).run(images_of((16, 3, 32, 32)))
    assert not folder.exists()


def test_an_engine_of_another_format_is_made_anew(subject, many, tmp_path):
    choose_engine(subject, many, tmp_path)
    folder = changed_engine(tmp_path, lambda _, known: known.pop("format"))
    assert not ready.is_whole(folder)
    choose_engine(subject, many, tmp_path)
    assert ready.is_whole(folder)


SIGNALLED = """
import ctypes, signal
from pathlib import Path
import torch
from torch import nn
from frostline.features import _openvino

class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

x = torch.zeros(4, 3, 8, 8)
first, second = (_openvino.compiled(_openvino.convert(nn.ReLU(), x, recorded_on=1), "fp32", 1) for _ in range(2))
first(x), second(x)
del first
del second
stack = Stack()
ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
start = stack.start or 0
ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in Path("/proc/self/maps").read_text().splitlines()]
assert any(low <= start and start + stack.size <= high for low, high in ranges) or stack.flags == 2, hex(start)
came = []
signal.signal(signal.SIGUSR1, lambda *_: came.append(1))
signal.raise_signal(signal.SIGUSR1)
assert came
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks are moved on Linux only")
def test_signals_have_a_stack_after_engines_came_and_went():
    needs_openvino()
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stderr)


@pytest.mark.parametrize("name", ["model.bin", "model.xml", "module.json", "engine.json"])
def test_a_damaged_engine_is_made_anew(subject, many, tmp_path, name):
    needs_openvino()
    asked = replace(subject, asked="openvino")
    choose_engine(asked, many, tmp_path)
    (victim,) = (tmp_path / "engines").rglob(name)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    again = choose_engine(asked, many, tmp_path)
    assert again.error <= 1e-5
    assert difference(again.run(x := images_of((16, 3, 32, 32))), plain(subject.body, "fp32").run(x)) <= 1e-5


@pytest.mark.parametrize("asked", ["openvino", "eager"])
def test_an_engine_that_does_not_give_what_the_module_gives_is_removed_and_said(subject, many, tmp_path, asked, monkeypatch):
    if asked == "openvino":
        needs_openvino()
    subject = replace(subject, asked=asked)
    choose_engine(subject, many, tmp_path)
    wrong = plain(nn.Sequential(nn.Flatten(), nn.LazyLinear(8)), "fp32").run
    monkeypatch.setattr(ready._openvino, "load", lambda *_: wrong)
    monkeypatch.setattr(ready, "folded", lambda _: nn.Sequential(nn.Flatten(), nn.LazyLinear(8)))
    with pytest.raises(CacheError, match="does not give what the module gives"):
        choose_engine(subject, many, tmp_path).run(images_of((16, 3, 32, 32)))
    monkeypatch.undo()
    assert choose_engine(subject, many, tmp_path).name == asked


def test_an_engine_with_other_numbers_is_refused(subject, many, monkeypatch):
    monkeypatch.setattr(choice._openvino, "version", lambda: "")
    off = nn.Sequential(subject.body, nn.Softplus())
    monkeypatch.setattr(choice, "folded", lambda _: off)
    found = choose_engine(subject, many, None)
    assert found.name == "plain"
    assert "eager in fp32 differs by" in found.why
    with pytest.raises(EngineError, match="differs by"):
        choose_engine(replace(subject, asked="eager"), many, None)


def test_an_engine_that_fails_on_a_network_is_passed_over(subject, many, monkeypatch):
    needs_openvino()

    def fails(*_, **__):
        raise RuntimeError("no conversion rule for aten::strange\nand more")

    monkeypatch.setattr(choice._openvino, "convert", fails)
    found = choose_engine(subject, many, None)
    assert found.name == "eager"
    assert "openvino fails (RuntimeError: no conversion rule for aten::strange)" in found.why
    with pytest.raises(EngineError, match="no conversion rule"):
        choose_engine(replace(subject, asked="openvino"), many, None)


def test_engines_that_cannot_be_had_are_refused_in_one_line(subject, many, monkeypatch):
    with pytest.raises(EngineError, match="no engine is called 'warp'; use auto, plain"):
        choose_engine(replace(subject, asked="warp"), many, None)
    monkeypatch.setattr(choice._openvino, "version", lambda: "")
    with pytest.raises(EngineError, match="is not installed; pip install"):
        choose_engine(replace(subject, asked="openvino"), many, None)


def test_bf16_is_taken_only_when_asked_for_or_when_it_changes_little(subject, many, monkeypatch):
    needs_openvino()
    asked = choose_engine(replace(subject, precision="bf16"), many, None)
    assert asked.precision == "bf16"
    assert asked.error <= 5e-2
    assert choose_engine(subject, many, None).precision == "fp32"
    monkeypatch.setattr(choice, "LARGE", 1)
    monkeypatch.setattr(choice, "AUTO_BF16", 0.0)
    assert choose_engine(subject, many, None).precision == "fp32"


def test_training_through_an_engine_is_training_through_the_module(tiny, many, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "LEAST_WORK", 0.0)
    monkeypatch.setattr(choice, "LEAST_SPEED", 0.0)
    logits, engines = {}, {}
    for asked in ("plain", "auto"):
        model = TransferModel(tiny())
        for event in fit(model, FreezePlan(), many, many, epochs=3, compute=Compute(tmp_path, engine=asked)):
            if isinstance(event, FeaturesReady):
                engines[asked] = event.engine["name"]
            if isinstance(event, Finished):
                logits[asked] = event.val_logits
    assert engines["plain"] == "plain" != engines["auto"]
    assert torch.allclose(logits["plain"], logits["auto"], rtol=1e-4, atol=1e-5)


# --- a backbone that is known and not opened


@pytest.fixture(scope="module")
def opened():
    return open_backbone("tf_efficientnet_lite0")


def test_a_recorded_backbone_has_the_same_tensors_names_and_identity(opened, tmp_path):
    assert sealed_backbone("tf_efficientnet_lite0", "default", tmp_path) is None
    record_backbone(opened, (1280,), tmp_path)
    sealed = sealed_backbone("timm:tf_efficientnet_lite0", "default", tmp_path)
    assert isinstance(sealed.body, Sealed)
    for kind in ("named_parameters", "named_buffers"):
        ours, theirs = dict(getattr(sealed.body, kind)()), dict(getattr(opened.body, kind)())
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[n], t) for n, t in theirs.items())
    for field in ("name", "preprocess", "weights", "report", "architecture", "first_tokens", "digest", "published"):
        assert getattr(sealed, field) == getattr(opened, field), field
    one, other = TransferModel(sealed), TransferModel(opened)
    assert FreezePlan().resolve(one) == replace(FreezePlan().resolve(other), pinned=FreezePlan().resolve(one).pinned)
    with pytest.raises(BackboneError, match="run the same command again"):
        sealed.body(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("damage", [lambda r: r.update(digest="0" * 64), lambda r: r["tensors"].popitem(), lambda r: r.pop("features")])
def test_a_record_that_does_not_give_the_recorded_tensors_is_not_used(opened, tmp_path, damage):
    record_backbone(opened, (1280,), tmp_path)
    (path,) = (tmp_path / "backbones").iterdir()
    record = json.loads(path.read_text())
    damage(record)
    record.pop("self")
    for signed in (record | {"self": settings_digest(record)}, record | {"self": "0"}, record):
        path.write_text(json.dumps(signed))
        assert sealed_backbone("tf_efficientnet_lite0", "default", tmp_path) is None
    path.write_text("{")
    assert sealed_backbone("tf_efficientnet_lite0", "default", tmp_path) is None


def test_a_backbone_without_one_weights_file_is_not_recorded(tiny, tmp_path):
    record_backbone(tiny(), (8,), tmp_path)
    record_backbone(open_backbone("timm:resnet18", "random"), (512,), tmp_path)
    assert not (tmp_path / "backbones").exists()


def test_another_weights_file_is_another_record(tmp_path):
    from safetensors.torch import save_file

    network = open_backbone("timm:resnet18", "random").body
    file = tmp_path / "w.safetensors"
    save_file(network.state_dict(), file)
    record_backbone(open_backbone("timm:resnet18", str(file)), (512,), tmp_path)
    assert sealed_backbone("timm:resnet18", str(file), tmp_path) is not None
    save_file({n: t + 1 if t.is_floating_point() else t for n, t in network.state_dict().items()}, file)
    assert sealed_backbone("timm:resnet18", str(file), tmp_path) is None


def test_what_is_known_needs_no_network(subject, many, tmp_path):
    few, none = ImageSet(many.paths[:9], many.digests[:9], many.labels[:9]), ImageSet((), ())
    more = ImageSet(many.paths[9:12], many.digests[9:12], many.labels[9:12])

    def known(images, test=none, storage="fp32"):
        return is_known(subject, images, test, [PLAIN], tmp_path, storage)

    assert not known(few)
    prefix = Prefix(plain(subject.body, "fp32"), subject.preprocess, CPU, Layout((Crossing((8,)),)), subject.settings)
    store = FeatureStore.open(tmp_path, prefix.key())
    for _ in ensure_features(store, prefix.key(), prefix, few):
        pass
    assert known(few)
    assert not known(few, more)  # a test is run through the backbone too
    assert not known(few, storage="fp16")
    assert not known(many)  # so many that an engine would be chosen
    assert not choice._openvino._begun
    if choice._openvino.is_installed():
        choose_engine(subject, many, tmp_path)
        assert known(many)
        assert len(choice._openvino._begun) == 1  # it is being made while the rest of the job is prepared
        choose_engine(subject, many, tmp_path).run(images_of((16, 3, 32, 32)))
        assert not choice._openvino._begun  # and was taken


def test_what_cannot_be_loaded_ahead_is_said_where_it_is_wanted(subject, many, tmp_path):
    needs_openvino()
    choose_engine(subject, many, tmp_path)
    engine = choose_engine(subject, many, tmp_path)
    for model in tmp_path.rglob("model.xml"):
        model.write_text("<none>")
    ready.begin_to_make(engine)
    assert choice._openvino._begun
    with pytest.raises(CacheError, match="cannot be used any more"):
        engine.run(images_of((16, 3, 32, 32)))
    assert choose_engine(subject, many, tmp_path).name == "openvino"


@pytest.mark.parametrize("storage", ["fp16", pytest.param("fp32", marks=pytest.mark.slow)])
def test_another_storage_of_a_known_job_is_computed_and_not_refused(frostline, images, tmp_path, storage):
    flags = ("--cache-dir", tmp_path / "c", "--json")
    first = frostline("train", images, *flags, "--out", tmp_path / "a", "--storage", "fp32" if storage == "fp16" else "fp16")
    second = frostline("train", images, *flags, "--out", tmp_path / "b", "--storage", storage)
    again = frostline("train", images, *flags, "--out", tmp_path / "c2", "--storage", storage)
    assert [r.returncode for r in (first, second, again)] == [0, 0, 0], second.stderr
    assert [json.loads(r.stdout)["cache"]["hit"] for r in (second, again)] == [False, True]
    error = json.loads(again.stdout)["cache"]["storage_error"]
    assert (error > 0) == (storage == "fp16")


def test_a_run_is_not_gone_on_with_by_another_engine(tiny, many, tmp_path):
    def work(asked, resume=None):
        return fit(TransferModel(tiny()), FreezePlan(), many, many, epochs=3, compute=Compute(tmp_path, engine=asked), resume=resume)

    snapshot = next(e for e in work("plain") if isinstance(e, StepDone)).snapshot()
    for event in work("plain", snapshot):
        last = event
    assert isinstance(last, Finished)
    with pytest.raises(RunError, match="were run by plain fp32 when the run was begun"):
        list(work("eager", snapshot))


def test_a_warm_run_loads_neither_timm_nor_torchvision_nor_the_compiler(frostline, images, cache, tmp_path):
    first = frostline("train", images, "--out", tmp_path / "one", "--json")
    assert first.returncode == 0, first.stderr
    code = (
        "import sys\nfrom frostline.cli.main import run\n"
        f"code = run(['train', {str(images)!r}, '--out', {str(tmp_path / 'two')!r}, '--json'])\n"
        "print(sorted(m for m in ('timm', 'torchvision', 'sklearn', 'openvino', 'torch._dynamo') if m in sys.modules), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cache, timeout=300)
    assert second.returncode == 0, second.stderr
    assert second.stderr.splitlines()[-1] == "[]"
    one, two = json.loads(first.stdout), json.loads(second.stdout)
    assert two["cache"]["hit"]
    for key in ("val", "train", "audit", "frozen_parameters", "trainable_parameters", "weights"):
        assert one[key] == two[key], key
    same = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("one", "two")]
    assert same[0] == same[1]


# --- the optimizer without the compiler


def test_adamw_is_torchs_to_the_last_bit():
    nets = [nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())

    def groups(net):
        return [
            {"params": [net[0].weight], "lr": 0.1, "weight_decay": 0.3, "names": ["a"]},
            {"params": [net[0].bias, net[1].weight], "lr": 0.02, "weight_decay": 0.0, "names": ["b", "c"]},
        ]

    ours, theirs = AdamW(groups(nets[0])), torch.optim.AdamW(groups(nets[1]))
    for step in range(30):
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        for net, optimizer in zip(nets, (ours, theirs), strict=True):
            optimizer.zero_grad()
            (net[1](net[0](x)) if step % 3 else net[0](x)).square().sum().backward()  # every third time one has no gradient
            for group in optimizer.param_groups:
                group["lr"] *= 0.97
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert ours.state.get(a, {}).keys() == theirs.state.get(b, {}).keys()
        assert all(torch.equal(t, theirs.state[b][k]) for k, t in ours.state.get(a, {}).items())


def test_an_engine_that_is_loaded_aside_has_the_threads_of_who_began_it(tmp_path, monkeypatch):
    asked, go = [], threading.Event()

    def load(path, precision, threads):
        go.wait(10)
        asked.append((threads, torch.get_num_threads()))
        return lambda images: (images,)

    monkeypatch.setattr(_openvino, "_load", load)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _openvino.begin_to_load(tmp_path / "model.xml", "fp32")
        torch.set_num_threads(1)  # as replaying a recording does
        go.set()
        _openvino.load(tmp_path / "model.xml", "fp32")
    finally:
        torch.set_num_threads(threads)
    assert [first for first, _ in asked] == [2]


def test_openvino_reports_nothing_of_its_use():
    """Importing it starts a thread that forks the process and sends word to its makers, whoever is asked for nothing."""
    needs_openvino()
    code = (
        "import os, sys, threading, time\n"
        "os.register_at_fork(before=lambda: print('forked', flush=True))\n"
        "from frostline.features import _openvino\n"
        "_openvino.core()\n"
        "time.sleep(0.5)\n"
        "print(sorted(m for m in sys.modules if m.startswith('openvino_telemetry')), threading.active_count())\n"
        "import openvino; openvino.convert_model\n"
        "import openvino_telemetry"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] 1\n"


def test_a_cache_that_cannot_be_written_is_told_before_an_engine_is_chosen(subject, many, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(choice, "_pictures", None)  # nothing is decoded
    with pytest.raises(CacheError, match=r"file.c: the feature cache cannot be written \(Not a directory\); .*--cache-dir"):
        choose_engine(subject, many, tmp_path / "file" / "c", wanted=many)


def test_where_a_read_only_cache_holds_all_that_is_wanted_nothing_is_refused(subject, many, tmp_path, monkeypatch):
    some = many.only(range(0, len(many), 2))
    prefix = Prefix(plain(subject.body, "fp32"), subject.preprocess, CPU, Layout((Crossing((8,)),)), subject.settings)
    list(ensure_features(FeatureStore.open(tmp_path, prefix.key()), prefix.key(), prefix, some))

    def refuses(folder):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(store, "check_writable", refuses)
    monkeypatch.setattr(choice, "remember", lambda *_: None)
    asked = replace(subject, asked="eager")
    assert choose_engine(asked, many, tmp_path, wanted=some).name == "eager"
    assert choose_engine(asked, many, tmp_path).name == "eager"  # and its features are not kept
    for wanted, settings in ((many, asked.settings), (some, {**asked.settings, "weights": "other"})):
        with pytest.raises(CacheError, match="Read-only file system"):
            choose_engine(replace(asked, settings=settings), many, tmp_path, wanted=wanted)
