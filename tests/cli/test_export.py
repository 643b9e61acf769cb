"""``frostline export``: the contract's keys, the folder it makes, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import onnxruntime
import pytest

TINY = ("--backbone", "tiny_net:build")


@pytest.fixture(scope="module")
def run(frostline, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert frostline("train", images, *TINY, "--epochs", 2, "--out", folder, "--quiet").returncode == 0
    return folder


@pytest.mark.parametrize(("format", "file"), [("safetensors", "model.safetensors"), ("torch-export", "model.pt2"), ("onnx", "model.onnx")])
def test_json_has_the_keys_of_the_contract(frostline, run, tmp_path, format, file):
    done = frostline("export", run, "--format", format, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said) >= {"format", "path", "max_abs_difference", "checked_on"}
    assert (said["format"], said["path"]) == (format, str(tmp_path / "out"))
    assert 0 <= said["max_abs_difference"] <= 1e-4 * said["largest_logit"]
    assert said["checked_on"] == {
        "images": 48,
        "batch_sizes": [1, 3, 4],
        "pictures": "12 validation and 36 training images of the run",
    }
    assert {p.name for p in (tmp_path / "out").iterdir()} == {file, "labels.json", "preprocess.json", "README.md"}


def test_words_and_the_default_place(frostline, run, tiny_module):
    done = frostline("export", run)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    words = done.stdout.splitlines()
    assert words[0].startswith(f"written     {run / 'export-safetensors'}: ")
    assert words[1].startswith("checked     logits differ by up to ")
    assert words[3] == "load it"
    lines = [line.strip() for line in words[4:]]
    code = (
        f"import sys; sys.path.insert(0, {str(tiny_module)!r})\n" + "\n".join(lines) + "\nprint(sum(p.numel() for p in model.parameters()))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert int(loaded.stdout) > 8 * 2 + 2
    again = frostline("export", run)
    assert again.returncode == 2
    assert again.stderr == f"frostline: {run / 'export-safetensors'}: exists already; give another --out, or remove it\n"


def test_only_words_of_ours_are_printed(frostline, run, tmp_path):
    for format in ("torch-export", "onnx"):
        done = frostline("export", run, "--format", format, "--out", tmp_path / format)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.splitlines()[0].startswith("written     ")


def test_normalised_images_and_other_pictures_to_check_on(frostline, run, images, tmp_path):
    done = frostline(
        "export", run, "--format", "onnx", "--preprocess", "json", "--check", images / "red", "--out", tmp_path / "o", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["checked_on"] == {"images": 30, "batch_sizes": [1, 2, 3, 4], "pictures": "the images in red"}
    given = onnxruntime.InferenceSession(tmp_path / "o" / "model.onnx").get_inputs()[0]
    assert (given.name, given.type, given.shape) == ("images", "tensor(float)", ["batch", 3, 32, 32])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--format", "tflite"), "frostline: --format: no format is called 'tflite'; use safetensors, torch-export, onnx\n"),
        (("--preprocess", "outside"), "frostline: --preprocess: no way is called 'outside'; use inside or json\n"),
        (("--preprocess", "inside"), "frostline: --preprocess: an ordinary model does not normalise pixels itself; use --format onnx"),
        (("--check", "nowhere"), "frostline: nowhere: no such file or folder\n"),
    ],
)
def test_refusals_are_one_line(frostline, run, tmp_path, flags, says):
    done = frostline("export", run, "--out", tmp_path / "out", *flags)
    assert done.returncode == 2
    assert done.stderr.startswith(says)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run(frostline, tmp_path):
    done = frostline("export", tmp_path)
    assert done.returncode == 2
    assert "is no finished run" in done.stderr


def test_onnx_without_its_packages_says_what_to_install(run, tiny_module, tmp_path):
    """In a process that does not find them."""
    hide = "import sys; sys.modules['onnxscript'] = sys.modules['onnxruntime'] = None; import frostline.cli.main as m; m.main()"
    done = subprocess.run(
        [sys.executable, "-c", hide, "export", str(run), "--format", "onnx", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tiny_module)},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == 'frostline: --format onnx: onnxscript, onnxruntime not installed; pip install "frostline[onnx]"\n'
