"""Pictures decoded by another process before torch is there are those that would be decoded here."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frostline import ahead, open_backbone
from frostline.ahead import decoding_ahead, pixels_ahead
from frostline.backbone.preprocess import Preprocess
from frostline.data.crop import Crop
from frostline.features.images import digest_files
from frostline.features.pixels import load_image, pixel_batches

CROP = Crop((224, 224), 256, "center", "bicubic")

if len(os.sched_getaffinity(0)) < 2:
    pytest.skip("one processor: nothing is decoded ahead", allow_module_level=True)


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    """Two classes: noise of several sizes, one picture that lies on its side, one twice, one file that is no picture."""
    random = np.random.default_rng(0)
    for number in range(6):
        for name in ("left", "right"):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            size = (150 + 40 * number, 260, 3)
            Image.fromarray(random.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / "data" / name / f"{number}.jpg", quality=90)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(tmp_path / "data" / "left" / "0.jpg").save(tmp_path / "data" / "left" / "turned.jpg", exif=turned)
    (tmp_path / "data" / "right" / "twice.jpg").write_bytes((tmp_path / "data" / "right" / "1.jpg").read_bytes())
    (tmp_path / "data" / "right" / "none.jpg").write_bytes(b"no picture")
    return sorted((tmp_path / "data").rglob("*.jpg"))


def finished() -> ahead.Ahead:
    """The one that is at work, when it has nothing left to do."""
    assert ahead._ahead is not None
    ahead._ahead.process.wait(60)
    return ahead._ahead


def test_pixels_are_those_of_decoding_here(pictures):
    preprocess = Preprocess((224, 224), 256, "center", "bicubic")
    with decoding_ahead(pictures[0].parent.parent, None, None, None, None):
        assert len(finished().settled()) == 13  # of 15 files one is a copy and one no picture
        for path, digest in zip(pictures, digest_files(pictures), strict=True):
            found = pixels_ahead(digest, CROP)
            if path.name == "none.jpg":
                assert found is None
            else:
                assert np.array_equal(found, preprocess.pixels(load_image(path)).permute(1, 2, 0).numpy())
                assert pixels_ahead(digest, Crop((224, 224), 255, "center", "bicubic")) is None
    assert pixels_ahead(digest_files(pictures)[0], CROP) is None


def test_batches_take_them_and_decode_the_rest(pictures, monkeypatch):
    preprocess, digests = Preprocess((224, 224), 256, "center", "bicubic"), digest_files(pictures)
    plain = next(pixel_batches(pictures, preprocess, [len(pictures)], digests))
    opened: list[Path] = []
    import frostline.features.pixels as pixels

    monkeypatch.setattr(pixels, "load_image", lambda path, digest=None: opened.append(path) or load_image(path, digest))
    with decoding_ahead(pictures[0].parent.parent, None, None, None, None):
        places = finished().settled()
        del places[digests[3]]
        batch = next(pixel_batches(pictures, preprocess, [len(pictures)], digests))
    assert sorted(opened) == sorted({pictures[3], *(p for p in pictures if p.name == "none.jpg")})
    for a, b in zip(plain, batch, strict=True):
        assert str(a) == str(b) if isinstance(a, Exception) else (a == b).all()


def test_what_changed_meanwhile_is_not_taken(pictures):
    with decoding_ahead(pictures[0].parent.parent, None, None, None, None):
        finished()
        buffer = io.BytesIO()
        Image.new("RGB", (300, 300), "red").save(buffer, "PNG")
        pictures[0].write_bytes(buffer.getvalue())
        assert pixels_ahead(digest_files(pictures[:1])[0], CROP) is None


def test_no_more_memory_than_there_may_be(pictures, tmp_path):
    job = {"data": str(tmp_path / "data"), "val": None, "backbone": "b", "cache": None}
    job["crop"] = {"size": [4000, 4000], "resize": 4000, "mode": "squash", "interpolation": "nearest"}
    with (tmp_path / "memory").open("wb") as memory, (tmp_path / "index").open("wb") as index:
        ahead.decode_ahead({**job, "memory": memory.fileno(), "index": index.fileno()})
    assert len((tmp_path / "index").read_bytes().split()) == ahead.MOST_BYTES // (3 * 4000 * 4000) == 2
    assert (tmp_path / "memory").stat().st_size <= ahead.MOST_BYTES


def test_what_is_there_is_taken_while_the_process_goes_on_and_what_is_not_ends_it(tmp_path):
    for number in range(60):
        picture = Image.fromarray(np.random.default_rng(number).integers(0, 255, (700, 900, 3), dtype=np.uint8))
        (tmp_path / "data" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "data" / "ab"[number % 2] / f"{number:02}.jpg")
    paths = sorted((tmp_path / "data").rglob("*.jpg"))
    digests = digest_files(paths)
    with decoding_ahead(tmp_path / "data", None, None, None, None):
        at_work = ahead._ahead
        assert at_work is not None
        select.select([at_work.index], [], [], 30)  # the first one is there
        assert np.array_equal(pixels_ahead(digests[0], CROP), CROP.of(load_image(paths[0])))
        assert not at_work.ended
        assert at_work.process.poll() is None
        taken = pixels_ahead(digests[-1], CROP)
        assert at_work.ended
        assert taken is None or np.array_equal(taken, CROP.of(load_image(paths[-1])))
        there = [d for d in digests if d in at_work.places]
        assert there == digests[: len(there)]
        assert all(pixels_ahead(d, CROP) is not None for d in there)


def test_a_process_that_died_leaves_all_to_be_decoded_here(pictures):
    with decoding_ahead(pictures[0].parent.parent, None, None, None, None):
        assert ahead._ahead is not None
        ahead._ahead.process.kill()
        for digest, path in zip(digest_files(pictures), pictures, strict=True):
            found = pixels_ahead(digest, CROP)
            assert found is None or np.array_equal(found, CROP.of(load_image(path)))


def test_it_takes_only_what_others_leave_and_no_interrupt(pictures):
    """A lower priority counts within a session only: the kernel shares processors between sessions first."""
    with decoding_ahead(pictures[0].parent.parent, None, None, None, None):
        assert ahead._ahead is not None
        child = ahead._ahead.process.pid
        until = time.monotonic() + 20
        while os.getpriority(os.PRIO_PROCESS, child) != 19 and time.monotonic() < until:
            time.sleep(0.005)
        assert os.getpriority(os.PRIO_PROCESS, child) == 19
        assert os.getsid(child) == os.getsid(0)
        assert os.getpgid(child) == child


def test_it_ends_with_the_process_that_wanted_it(pictures):
    """Its pipe is full sooner or later, or broken: nothing goes on decoding for nobody."""
    code = (
        "import sys, time; from pathlib import Path; from frostline import ahead\n"
        "with ahead.decoding_ahead(Path(sys.argv[1]), None, None, None, None):\n"
        "    print(ahead._ahead.process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(pictures[0].parent.parent)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        owner.kill()
    until = time.monotonic() + 20
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_crop_of_the_embedded_backbone_and_of_those_on_record(tmp_path):
    assert open_backbone("tf_efficientnet_lite0").preprocess.shown == ahead._EMBEDDED_CROP
    assert ahead._crop_of({"name": "mine:net", "weights": "default"}, tmp_path) is None
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / "a.json").write_text("{")
    settings = Preprocess((96, 96), 100, "squash", "nearest").settings()
    (tmp_path / "backbones" / "b.json").write_text(json.dumps({"name": "mine:net", "weights": "w.pth", "preprocess": settings}))
    assert ahead._crop_of({"name": "mine:net", "weights": "w.pth"}, tmp_path) == Crop((96, 96), 100, "squash", "nearest")
    assert ahead._crop_of({"name": "mine:net", "weights": "default"}, tmp_path) is None


def test_the_command_line_gives_the_same_bytes_and_decodes_nothing_that_is_cached(frostline, images, tmp_path):
    alone = [
        sys.executable,
        "-c",
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from frostline.cli.main import main; main()",
    ]
    flags = ["extract", str(images), "--engine", "plain", "--json"]
    done = subprocess.run([*alone, *flags, "--cache-dir", str(tmp_path / "alone")], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert frostline(*flags, "--cache-dir", tmp_path / "ahead").returncode == 0
    a, b = (sorted((tmp_path / n / "features").glob("*/*.npy")) for n in ("alone", "ahead"))
    assert [p.name for p in a] == [p.name for p in b] != []
    assert all(x.read_bytes() == y.read_bytes() for x, y in zip(a, b, strict=True))
    with decoding_ahead(images, None, None, None, tmp_path / "ahead"):
        assert finished().settled() == {}
