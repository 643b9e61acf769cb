"""What every test may use: real images where they are, tiny images and networks made on the spot, a cache of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zygote import Zygote

ROOT = Path(__file__).parent.parent
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before any test imports onnxruntime

TINY_NETWORK = '''
import torch
from torch import nn


class Tiny(nn.Module):
    """A convolution with batch norm, dropout, a second convolution, pooling: 8 features."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.5)
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return self.pool(self.body(self.drop(self.stem(x)))).flatten(1)


def build():
    torch.manual_seed(7)
    net = Tiny()
    from frostline import Preprocess

    net.preprocess = Preprocess(crop=(32, 32), resize=32)
    return net
'''


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say how a worker of pytest-xdist died: by which signal, and with how much memory left; xdist says neither."""
    if error is not None:
        print(f"\n{node.gateway.id} ended with {exit_status(node.gateway)}; {memory_left()}", flush=True)


def exit_status(gateway: Any) -> str:
    """What the process of an execnet gateway ended with; -9 is SIGKILL, which is what the kernel does when memory is short."""
    with suppress(AttributeError, subprocess.TimeoutExpired):
        return f"exit status {gateway._io.popen.wait(10)}"
    return "an unknown exit status"


def memory_left() -> str:
    """MemAvailable of the machine, and what the kernel counts of processes that it killed for want of memory."""
    lines = []
    for file, names in (
        ("/proc/meminfo", ("MemTotal", "MemAvailable")),
        ("/proc/vmstat", ("oom_kill",)),
        ("/sys/fs/cgroup/memory.events", ("oom_kill",)),
    ):
        with suppress(OSError):
            lines += [line for line in Path(file).read_text().splitlines() if line.split()[0].strip(":") in names]
    return ", ".join(" ".join(line.split()) for line in lines)


@pytest.fixture(scope="session")
def hymenoptera() -> Path:
    """The real ants and bees; tests that want them are skipped where they are absent."""
    folder = Path(os.environ.get("FROSTLINE_TEST_IMAGES", ROOT.parent / "shared" / "data" / "hymenoptera"))
    if not folder.is_dir():
        pytest.skip(f"the ants/bees images are not at {folder}; name another folder in FROSTLINE_TEST_IMAGES")
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature cache that the tests of one session share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session", autouse=True)
def _offline_and_in_its_own_cache(cache: Path) -> Iterator[None]:
    """No test, and no process that a test starts, fetches anything or touches the user's own cache; each has one thread."""
    import torch

    torch.set_num_threads(1)  # pytest runs as many workers as there are cores
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("FROSTLINE_HOME", str(cache))
        patch.setenv("FROSTLINE_OFFLINE", "1")
        yield


def said_without(package: str, code: str, cwd: Path) -> str:
    """The error that ``code`` raises in a process where ``package`` cannot be found."""
    lines = [
        "import importlib.util as u",
        "find = u.find_spec",
        f"u.find_spec = lambda name, *a: None if name == {package!r} else find(name, *a)",
        "try:",
        *(f"    {line}" for line in code.splitlines()),
        "except Exception as e:",
        "    print(type(e).__name__, e)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, cwd=cwd, timeout=100)
    return done.stdout.strip()


def needs_openvino() -> None:
    """Skip where OpenVINO is not installed; importing it here would report that to its makers."""
    if not find_spec("openvino"):
        pytest.skip("openvino is not installed")


def make_images(root: Path, classes: dict[str, int], seed: int = 0, side: int = 40) -> Path:
    """Colour-coded noise: class ``i`` leans to channel ``i``; learnable, not trivial."""
    random = np.random.default_rng(seed)
    for index, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 200, (side, side, 3))
            pixels[..., index % 3] += random.integers(10, 55)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number:03}.png")
    return root


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 30 small images."""
    return make_images(tmp_path_factory.mktemp("images") / "data", {"green": 30, "red": 30})


@pytest.fixture(scope="session")
def tiny_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tiny_net.py`` in it, for ``--backbone tiny_net:build``."""
    folder = tmp_path_factory.mktemp("net")
    (folder / "tiny_net.py").write_text(TINY_NETWORK)
    return folder


@pytest.fixture
def tiny(tiny_module: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Opens the tiny network as a backbone, anew each time."""
    monkeypatch.syspath_prepend(str(tiny_module))
    from frostline import open_backbone

    return lambda: open_backbone("tiny_net:build")


@pytest.fixture(scope="session")
def anew(cache: Path, tiny_module: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the installed command as a person would, offline, in the folder ``cwd``, from its very beginning."""

    def run(*arguments: object, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "frostline", *map(str, arguments)]
        environment = {**os.environ, **shown_in(tiny_module)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd or cache, timeout=timeout)

    return run


@pytest.fixture(scope="session")
def frostline(cache: Path, tiny_module: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """The same, forked from a process that has imported torch already."""
    zygote = Zygote({**os.environ, **shown_in(tiny_module)})

    def run(*arguments: object, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return zygote.run([str(a) for a in arguments], cwd or cache, timeout)

    yield run
    zygote.close()


def shown_in(tiny_module: Path) -> dict[str, str]:
    """What a command sees: the tiny network, and a terminal that is wide enough."""
    return {"PYTHONPATH": str(tiny_module), "COLUMNS": "200"}
