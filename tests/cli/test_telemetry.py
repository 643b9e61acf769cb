"""Nothing that frostline loads reports to its maker."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def reported(command, home) -> bool:
    """Whether onnxruntime made itself a place to report from, where nothing in the environment forbids it."""
    environment = {n: v for n, v in os.environ.items() if n not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "HOME": str(home)}, timeout=300)
    assert done.returncode == 0, done.stderr
    return (home / ".cache" / "Microsoft").exists()


def test_onnxruntime_is_told_before_it_is_imported(tmp_path):
    pytest.importorskip("onnxruntime")
    code = "from frostline.cli.settings import silence_telemetry\nsilence_telemetry()\nimport onnxruntime"
    assert not reported([sys.executable, "-c", code], tmp_path)
    if not reported([sys.executable, "-c", "import onnxruntime"], tmp_path):
        pytest.skip("here onnxruntime reports nothing in any case, so that nothing is shown")


@pytest.mark.slow
def test_an_export_to_onnx_reports_nothing(anew, images, tmp_path, tiny_module, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("PYTHONPATH", str(tiny_module))
    run = tmp_path / "run"
    assert anew("train", images, "--backbone", "tiny_net:build", "--epochs", "1", "--out", run).returncode == 0
    (tmp_path / "home").mkdir()
    assert not reported([sys.executable, "-m", "frostline", "export", str(run), "--format", "onnx"], tmp_path / "home")
    assert (run / "export-onnx" / "model.onnx").is_file()
