"""The feature cache: identity, hits, repair, refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import make_images
from frostline import Compute, FreezePlan, ImageSet, Preprocess, TransferModel, fit
from frostline._device import fetched, sent
from frostline.data import read_data
from frostline.data.views import Views
from frostline.errors import CacheError
from frostline.features import FeatureStore, Prefix, ensure_features, feature_key, prefix_settings
from frostline.features import extract as extract_module
from frostline.features import key as key_module
from frostline.features import pixels as pixels_module
from frostline.features import store as store_module
from frostline.features.engine import plain
from frostline.features.inventory import entries, remove
from frostline.features.key import BATCH
from frostline.features.pixels import load_image, pixel_batches
from frostline.features.store import decode as decode_rows
from frostline.features.store import encode
from frostline.fitting import CachePlanned, Planned, prepare
from frostline.freeze.crossing import Crossing, Layout
from frostline.freeze.cut import split_resolved
from frostline.heads import contract
from frostline.heads.contract import InputScale

CPU = torch.device("cpu")


def key_of(opened, **other):
    given = {"cut": "backbone", "weights": opened.digest} | {n: v for n, v in other.items() if n in ("cut", "weights")}
    settings = prefix_settings(opened, **given)
    return feature_key(settings, engine=other.get("engine", "plain fp32"), device=other.get("device", CPU))


def prefix_of(opened):
    return Prefix(plain(opened.body, "fp32"), opened.preprocess, CPU, Layout((Crossing((8,)),)))


def compute(root, opened, images, **other):
    key = key_of(opened, **other)
    store = FeatureStore.open(root, key)
    return store, finished(ensure_features(store, key, prefix_of(opened), images))


def finished(work):
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@pytest.fixture
def opened(tiny):
    return tiny()


@pytest.fixture
def listed(images):
    return ImageSet.of(read_data(images))


def test_the_second_time_nothing_is_decoded_or_run(opened, listed, tmp_path):
    first, did = compute(tmp_path, opened, listed)
    assert (did.decoded, did.forwarded, did.hit) == (60, 60, False)
    opened.body.forward = None  # would fail if it were called
    second, did = compute(tmp_path, opened, listed)
    assert (did.decoded, did.forwarded, did.hit) == (0, 0, True)
    assert torch.equal(first.gather(listed.digests), second.gather(listed.digests))


def test_features_equal_the_plain_module(opened, listed, tmp_path):
    store, _ = compute(tmp_path, opened, listed)
    from frostline.data import decode
    from frostline.freeze.apply import evaluating

    pixels = torch.stack([opened.preprocess.pixels(decode(p.read_bytes()).image) for p in listed.paths])
    with evaluating(opened.body), torch.inference_mode():
        plain = opened.body(opened.preprocess.normalise(pixels))
    assert torch.allclose(store.gather(listed.digests), plain, rtol=1e-5, atol=1e-6)


def test_renamed_moved_and_touched_files_are_not_computed_again(opened, images, tmp_path):
    compute(tmp_path / "cache", opened, ImageSet.of(read_data(images)))
    shutil.copytree(images, tmp_path / "moved")
    for number, path in enumerate(sorted((tmp_path / "moved").rglob("*.png"))):
        os.utime(path, (1, 1))
        path.rename(path.with_name(f"other{number}.jpeg"))
    _, did = compute(tmp_path / "cache", opened, ImageSet.of(read_data(tmp_path / "moved")))
    assert did.hit


def test_one_changed_image_is_computed_alone_and_equals_a_cache_from_scratch(opened, images, tmp_path):
    shutil.copytree(images, tmp_path / "data")
    compute(tmp_path / "cache", opened, ImageSet.of(read_data(tmp_path / "data")))
    path = tmp_path / "data" / "red" / "004.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    changed = ImageSet.of(read_data(tmp_path / "data"))
    store, did = compute(tmp_path / "cache", opened, changed)
    assert did.decoded == 1
    scratch, _ = compute(tmp_path / "scratch", opened, changed)
    assert torch.equal(store.gather(changed.digests), scratch.gather(changed.digests))


def test_every_input_is_in_the_key(opened):
    base = key_of(opened).digest
    with torch.no_grad():
        weight = opened.body.stem[0].weight
        weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], torch.tensor(9.0))
    others = [
        key_of(replace(opened, digest="")),  # one ulp of one weight
        key_of(replace(opened, preprocess=replace(opened.preprocess, resize=33))),
        key_of(replace(opened, preprocess=replace(opened.preprocess, std=(0.5, 0.5, 0.5)))),
        key_of(replace(opened, architecture="another network")),
        key_of(opened, cut="body.0"),
        key_of(opened, engine="plain bf16"),
        key_of(opened, engine="openvino fp32 1.0"),
        key_of(opened, device=torch.device("cuda")),
    ]
    digests = [base, *(k.digest for k in others)]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", [lambda d, r: d[: r.integers(0, len(d))], lambda d, r: _flip(d, r)])
@pytest.mark.parametrize("seed", range(12))
def test_damage_is_found_and_repaired(opened, listed, tmp_path, suffix, damage, seed):
    store, _ = compute(tmp_path, opened, listed)
    good = store.gather(listed.digests).clone()
    random = np.random.default_rng(seed)
    victim = next(p for p in store.folder.glob(f"*{suffix}") if p.stem != "key")
    data = damage(victim.read_bytes(), random)
    victim.unlink()
    victim.write_bytes(data)
    repaired, did = compute(tmp_path, opened, listed)
    assert did.decoded == 60
    assert torch.equal(repaired.gather(listed.digests), good)


def _flip(data: bytes, random: np.random.Generator) -> bytes:
    damaged = bytearray(data)
    damaged[random.integers(0, len(data))] ^= 1 << int(random.integers(0, 8))
    return bytes(damaged)


def test_a_pickle_in_the_cache_never_runs(opened, listed, tmp_path):
    store, _ = compute(tmp_path, opened, listed)
    victim = next(store.folder.glob("*.npy"))
    victim.unlink()
    np.save(victim, np.array([{"a": 1}] * 60, dtype=object), allow_pickle=True)
    record = next(p for p in store.folder.glob("*.json") if p.stem != "key")
    from frostline._digest import file_digest, settings_digest

    written = json.loads(record.read_text())
    written.pop("self")
    written["sha256"] = file_digest(victim)
    record.write_text(json.dumps(written | {"self": settings_digest(written)}))
    _, did = compute(tmp_path, opened, listed)
    assert did.decoded == 60


def test_what_is_no_image_is_remembered_with_its_reason(opened, tmp_path):
    data = make_images(tmp_path / "data", {"a": 3, "b": 3})
    (data / "a" / "notes.txt").write_text("not a picture")
    (data / "b" / "empty.jpg").write_bytes(b"")
    listed = ImageSet.of(read_data(data))
    store, did = compute(tmp_path / "cache", opened, listed)
    assert (did.decoded, did.forwarded) == (8, 6)
    assert sorted(store.skipped.values())[0].startswith("empty")
    assert len(listed.without(store.skipped)) == 6
    assert compute(tmp_path / "cache", opened, listed)[1].hit


def test_what_could_be_read_a_moment_ago_is_no_fault_of_the_content(opened, tmp_path):
    listed = ImageSet.of(read_data(make_images(tmp_path / "data", {"a": 3, "b": 3})))
    listed.paths[0].rename(tmp_path / "away.png")
    with pytest.raises(CacheError, match=r"cannot be read.*could be when the run began"):
        compute(tmp_path / "cache", opened, listed)
    (tmp_path / "away.png").rename(listed.paths[0])
    store, did = compute(tmp_path / "cache", opened, listed)
    assert (did.forwarded, store.skipped) == (6, {})


def test_what_cannot_be_read_from_the_start_is_skipped(opened, tmp_path):
    data = make_images(tmp_path / "data", {"a": 3, "b": 3})
    listed = read_data(data)
    listed.records[0].path.unlink()
    images = ImageSet.of(listed)
    store, did = compute(tmp_path / "cache", opened, images)
    assert did.forwarded == 5
    assert list(store.skipped) == [images.digests[0]]


def test_a_shard_that_is_not_ours_to_read_is_left_alone(opened, listed, tmp_path, monkeypatch):
    store, _ = compute(tmp_path, opened, listed)
    before = sorted(store.folder.iterdir())

    def refuse(path: Path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store_module, "file_digest", refuse)
    again = FeatureStore.open(tmp_path, key_of(opened))
    with again.locked(key_of(opened)):
        assert again.missing(listed.digests)
    assert sorted(store.folder.iterdir()) == before


def test_what_is_damaged_is_removed_by_who_holds_the_lock_alone(opened, listed, tmp_path):
    store, _ = compute(tmp_path, opened, listed)
    victim = next(store.folder.glob("*.npy"))
    victim.write_bytes(victim.read_bytes()[:-1])
    again = FeatureStore.open(tmp_path, key_of(opened))
    assert again.missing(listed.digests)
    assert victim.exists()
    with again.locked(key_of(opened)) as ours:
        assert ours
    assert not victim.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of open files there")
@pytest.mark.parametrize("may", [True, False])
def test_more_shards_than_open_files(opened, tmp_path, may):
    data = make_images(tmp_path / "data", {"a": 60, "b": 60})
    listed, key = ImageSet.of(read_data(data)), key_of(opened)
    store = FeatureStore.open(tmp_path / "cache", key)
    with store.locked(key):
        for number, digest in enumerate(listed.digests):
            store.add([digest], torch.full((1, 8), float(number)), {})
    code = f"""
import resource, torch
from pathlib import Path
from frostline.errors import CacheError
from frostline.features import FeatureStore
import json
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard if {may} else 64))
store = FeatureStore(Path({str(store.folder)!r}))
try:
    store.refresh(locked=True)
    print(len(store.rows))
except CacheError as fault:
    print(fault)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert (said.strip() == "120") if may else ("ulimit -n" in said)
    assert len(list(store.folder.glob("*.npy"))) == 120


def test_another_that_holds_the_lock_is_waited_for_and_said(opened, listed, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "A_MOMENT", 0.05)
    key = key_of(opened)
    store, other = FeatureStore.open(tmp_path, key), FeatureStore.open(tmp_path, key)
    work = ensure_features(store, key, prefix_of(opened), listed)
    with other.locked(key):
        assert [next(work).waiting for _ in range(2)] == [True, True]
    assert not next(work).waiting
    assert finished(work).forwarded == 60


def test_features_do_not_depend_on_company(opened, listed, tmp_path):
    store, _ = compute(tmp_path, opened, listed)
    prefix = prefix_of(opened)

    for i in (0, 17, 59):
        alone = prefix(opened.preprocess.pixels(load_image(listed.paths[i]))[None])
        assert torch.equal(alone[0], store.gather([listed.digests[i]])[0])
    assert BATCH > 1


def test_gathering_what_is_not_there_is_an_error(opened, tmp_path):
    store = FeatureStore.open(tmp_path, key_of(opened))
    with pytest.raises(CacheError, match="not in the feature cache"):
        store.gather(["f" * 64])


def test_a_file_that_changes_meanwhile_is_an_error(opened, images, tmp_path):
    shutil.copytree(images, tmp_path / "data")
    listed = ImageSet.of(read_data(tmp_path / "data"))
    shutil.copy(listed.paths[1], listed.paths[0])
    with pytest.raises(CacheError, match="changed while"):
        compute(tmp_path / "cache", opened, listed)


def test_a_cache_that_cannot_be_written_says_so_before_any_work(opened, listed, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    opened.body.forward = None
    with pytest.raises(CacheError, match="--cache-dir"):
        compute(tmp_path / "cache", opened, listed)


def test_two_processes_on_one_cold_cache(frostline, images, cache, tmp_path):
    """Both end well and leave one set of bytes."""
    import subprocess
    import sys

    environment = {**os.environ, "FROSTLINE_HOME": str(tmp_path / "cache"), "FROSTLINE_OFFLINE": "1"}
    command = [
        sys.executable,
        "-m",
        "frostline",
        "train",
        str(images),
        "--backbone",
        "timm:resnet10t",
        "--weights",
        "random",
        "--epochs",
        "1",
        "--quiet",
    ]
    both = [subprocess.Popen([*command, "--out", str(tmp_path / f"r{i}")], env=environment) for i in range(2)]
    assert [p.wait(120) for p in both] == [0, 0]
    assert (tmp_path / "r0" / "model.safetensors").read_bytes() == (tmp_path / "r1" / "model.safetensors").read_bytes()
    assert len(list((tmp_path / "cache" / "features").glob("*/*.npy"))) == 1


def test_a_preprocess_is_a_value():
    assert Preprocess() == Preprocess()


@pytest.mark.parametrize("storage", ["fp32", "fp16", "bf16"])
def test_rows_left_on_disk_are_those_in_memory(opened, listed, tmp_path, storage):
    prefix = replace(prefix_of(opened), storage=storage, settings=prefix_settings(opened, cut="backbone", weights=opened.digest))
    store = FeatureStore.open(tmp_path, prefix.key())
    did = finished(ensure_features(store, prefix.key(), prefix, listed))
    gathered, rows = store.gather(listed.digests), store.rows_of(listed.digests)
    assert len(rows) == 60
    assert torch.equal(rows[10:20], gathered[10:20])
    order = torch.tensor([3, 3, 59, 0, 17])
    assert torch.equal(rows[order], gathered[order])
    exact = prefix_of(opened)(torch.stack([opened.preprocess.pixels(load_image(p)) for p in listed.paths]))
    error = float((gathered - exact).norm() / exact.norm())
    bound = {"fp32": 0.0, "fp16": 2**-11, "bf16": 2**-8}[storage]
    assert error <= bound
    assert did.storage_error == pytest.approx(error, rel=1e-3, abs=1e-12)
    assert store.bytes_of(listed.digests) == 60 * 8 * (4 if storage == "fp32" else 2)
    assert len({replace(prefix, storage=s).key().digest for s in ("fp32", "fp16", "bf16")}) == 3


def test_values_too_large_for_fp16_are_refused():
    with pytest.raises(CacheError, match=r"too large for fp16.*use bf16"):
        encode(torch.tensor([[1e5]]), "fp16")
    assert decode_rows(encode(torch.tensor([[1e5]]), "bf16"), "bf16")[0, 0] == pytest.approx(1e5, rel=2**-8)


def test_a_cache_may_be_named_by_a_string():
    assert Compute("here") == Compute(Path("here"))  # pyright: ignore[reportArgumentType]


def test_what_is_pruned_meanwhile_is_still_there_for_who_reads_it(opened, listed, tmp_path):
    store, _ = compute(tmp_path, opened, listed)
    rows = store.rows_of(listed.digests)
    before = rows[0:60]
    assert remove(entries(tmp_path))
    assert not store.folder.exists()
    assert torch.equal(rows[0:60], before)


def test_a_shard_that_is_gone_or_shorter_is_an_error(opened, listed, tmp_path):
    store, _ = compute(tmp_path, opened, listed)
    rows = store.rows_of(listed.digests)
    path = next(store.folder.glob("*.npy"))
    os.truncate(path, 200)
    with pytest.raises(CacheError, match="run the same command again"):
        rows[0:60]
    path.unlink()
    with pytest.raises(CacheError, match="cannot be read any more"):
        rows[0:1]


@pytest.mark.parametrize("views", [Views(), Views("light", 3)])
def test_training_from_disk_is_training_from_memory_to_the_last_bit(tiny, listed, tmp_path, monkeypatch, views):
    weights = []
    for most in (32 << 20, 0):
        monkeypatch.setattr(prepare, "IN_MEMORY", most)
        model = TransferModel(tiny())
        for _ in fit(model, FreezePlan(), listed, listed, epochs=3, batch_size=7, views=views, compute=Compute(tmp_path)):
            pass
        weights.append(model.head.state_dict())
    assert all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])


def test_a_scale_measured_in_blocks_is_the_scale(monkeypatch):
    rows = torch.randn(100, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    whole, blocks = InputScale(5), InputScale(5)
    whole.measure(rows)
    monkeypatch.setattr(contract, "_BLOCK", 7)
    blocks.measure(rows)
    assert torch.allclose(whole.mean, blocks.mean, rtol=1e-6)
    assert torch.allclose(whole.scale, blocks.scale, rtol=1e-6)


def test_a_shard_holds_as_many_images_as_fit(opened, listed, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "SHARD_BYTES", 16 * 8 * 4)
    compute(tmp_path, opened, listed)
    assert sorted(len(np.load(p)) for p in tmp_path.rglob("*.npy")) == [12, 16, 16, 16]
    assert store_module.shard_images(10**9) == 16


def test_the_next_batch_is_begun_before_the_last_one_is_waited_for_across_shards_too(opened, listed, tmp_path, monkeypatch):
    """A GPU that is waited for first has nothing to do while its answer is stored and the next pictures are decoded."""
    told: list[str] = []

    def slow(values):
        number = sum(t.startswith("begun") for t in told)
        told.append(f"begun {number}")

        def arrived():
            told.append(f"taken {number}")
            return values

        return arrived

    alone, _ = compute(tmp_path / "alone", opened, listed)
    monkeypatch.setattr(extract_module, "fetched", slow)
    monkeypatch.setattr(store_module, "SHARD_BYTES", 32 * 8 * 4)
    store, _ = compute(tmp_path / "behind", opened, listed)
    assert told == ["begun 0", "begun 1", "taken 0", "begun 2", "taken 1", "begun 3", "taken 2", "taken 3"]
    assert torch.equal(store.gather(listed.digests), alone.gather(listed.digests))


def test_a_shard_that_is_whole_is_kept_where_the_batch_after_it_fails(opened, listed, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "SHARD_BYTES", 32 * 8 * 4)
    changed = sorted(listed.digests)[40]  # since it was listed; it is in the batch behind the first shard
    digests = [d[:-1] + ("0" if d[-1] == "1" else "1") if d == changed else d for d in listed.digests]
    with pytest.raises(CacheError, match="changed"):
        compute(tmp_path, opened, replace(listed, digests=tuple(digests)))
    assert sorted(len(np.load(p)) for p in tmp_path.rglob("*.npy")) == [32]


def test_who_stops_half_way_does_not_wait_for_what_was_to_be_decoded(listed, monkeypatch):
    begun: list[object] = []

    def slow(path, digest):
        begun.append(path)
        time.sleep(0.05)
        return Image.new("RGB", (32, 32))

    monkeypatch.setattr(pixels_module, "load_image", slow)
    batches = pixel_batches(listed.paths, Preprocess((32, 32), 32), [1, 59], listed.digests)
    next(batches)
    batches.close()
    assert len(begun) < 60


def test_a_batch_of_a_gpu_is_another_key_and_its_shards_are_whole_batches(opened, listed, tmp_path, monkeypatch):
    cuda = torch.device("cuda")
    said = str(key_of(opened, device=cuda).settings["engine"])
    assert said.endswith("batch 128 cuda"), said
    assert replace(prefix_of(opened), device=cuda).batch == 128
    assert store_module.shard_images(5120, 128) == 256
    assert store_module.shard_images(10**9, 128) == 128
    monkeypatch.setattr(key_module, "BATCH", 24)  # what a device's batch is counts, wherever it is used
    monkeypatch.setattr(store_module, "SHARD_BYTES", 24 * 8 * 4)
    store, did = compute(tmp_path, opened, listed)
    assert (did.decoded, did.forwarded) == (60, 60)
    assert sorted(len(np.load(p)) for p in tmp_path.rglob("*.npy")) == [12, 24, 24]
    assert not store.missing(listed.digests)


@pytest.mark.gpu
def test_what_is_fetched_is_what_was_there_when_it_was_begun():
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    values = torch.arange(1 << 20, device=device, dtype=torch.float32)
    wait = fetched(values)
    if device.type == "cuda":
        values.zero_()  # in its turn: behind the copy
    found = wait()
    assert found.device == CPU
    assert torch.equal(found, torch.arange(1 << 20, dtype=torch.float32))


def test_what_will_be_cached_is_said_before_work_starts(tiny, listed, tmp_path):
    events = list(fit(TransferModel(tiny()), FreezePlan(), listed, listed, epochs=1, compute=Compute(tmp_path, storage="fp16")))
    kinds = [type(e).__name__ for e in events]
    assert kinds.index("CachePlanned") < kinds.index("FeatureProgress")
    said = next(e for e in events if isinstance(e, CachePlanned))
    assert (said.images, said.bytes, said.folder) == (60, 60 * 8 * 2, tmp_path)
    assert said.free > 0
    assert said.seconds is None  # nothing was measured for so few
    again = list(fit(TransferModel(tiny()), FreezePlan(), listed, listed, epochs=1, compute=Compute(tmp_path, storage="fp16")))
    assert not any(isinstance(e, CachePlanned) for e in again)
    quick = {**said.engine, "images_per_second": 100.0, "pictures_per_second": 50.0}
    assert replace(said, engine=quick).seconds == pytest.approx(60 / 100 + 60 / 50)


def test_a_cut_that_does_not_fit_on_the_disk_moves_and_then_is_dropped_and_says_so(tiny, listed, tmp_path, monkeypatch):
    def planned(free):
        monkeypatch.setattr(prepare, "free_bytes", lambda _: free)
        events = fit(TransferModel(tiny()), FreezePlan("last:1"), listed, listed, epochs=1, compute=Compute(tmp_path))
        return next(e for e in events if isinstance(e, Planned)).cut

    wide = planned(10**12)
    assert (wide.way, wide.cached) == ("graph", True)
    narrow = planned(60 * wide.bytes)  # nine tenths of what is free may be taken
    assert not narrow.cached
    assert "do not fit" in narrow.why
    assert "0.0 MB that are free" in planned(100).why
    list(fit(TransferModel(tiny()), FreezePlan("last:1"), listed, listed, epochs=1, compute=Compute(tmp_path, engine="plain")))
    monkeypatch.setattr(prepare, "free_bytes", lambda _: 0)
    with pytest.raises(CacheError, match="do not fit into"):
        list(fit(TransferModel(tiny()), FreezePlan(), listed, sweep=2, compute=Compute(tmp_path)))


def test_a_cut_moves_to_the_nearest_place_where_less_crosses():
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.Linear(3, 2), torch.nn.Linear(2, 9), torch.nn.Linear(9, 9), torch.nn.Linear(9, 2)
    )
    resolved = FreezePlan("4").apply(net)
    x = torch.randn(3, 4)
    cuts = [split_resolved(net, resolved, x, most) for most in (36, 35, 8, 7)]
    assert [c.cut.name for c in cuts] == ["3", "1", "1", "input"]
    assert all(torch.equal(c.suffix(c.prefix(x)), net(x)) for c in cuts)


@pytest.mark.gpu
def test_pictures_that_are_there_are_not_copied_and_a_gpu_gets_the_same():
    pictures = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    assert sent(pictures, torch.device("cpu")) is pictures
    if torch.cuda.is_available():
        assert torch.equal(sent(pictures, torch.device("cuda")).cpu(), pictures)


@pytest.mark.parametrize(
    "mean_std",
    [
        (0.485, 0.456, 0.406, 0.229, 0.224, 0.225),
        (0.5,) * 6,
        (0.48145466, 0.4578275, 0.40821073, 0.26862954, 0.26130258, 0.27577711),
        (0.0,) * 3 + (1.0,) * 3,
    ],
)
def test_pixels_normalised_without_torchs_threads_are_the_same_to_the_bit(mean_std):
    preprocess = replace(Preprocess((16, 16), 16), mean=mean_std[:3], std=mean_std[3:])
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)  # there are no other pixels
    for pixels in (every.contiguous(), every.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(preprocess.normalise_alone(pixels), preprocess.normalise(pixels))
