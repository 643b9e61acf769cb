"""Run a prefix with OpenVINO (extra ``openvino``): converted in memory from what torch records of it, kept as OpenVINO's own files.

OpenVINO's ``convert_model`` is not used: it reports its use. What it does is done here with the parts it is made of. Importing OpenVINO
is reported as well, to an address at Google, by a fork of this process with all its threads: see :func:`_imported`.
"""

from __future__ import annotations

import functools
import importlib.metadata
import sys
import threading
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from frostline.features.engine import Crossing, Run, as_tuple
from frostline.freeze.apply import evaluating

AT_ONCE = 4
"""Images a call; what lies between layers then stays in the processor's cache: 217 images/s for lite0, 187 at 16 (docs/LOG.md)."""
_HINT = {"fp32": "f32", "bf16": "bf16"}


def is_installed() -> bool:
    """Whether OpenVINO is installed; it is not imported yet."""
    return bool(version())


def version() -> str:
    """OpenVINO's version; empty where it is not installed as a package."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return ""


def identity() -> str:
    """What the last bits of its results depend on."""
    return f"{version()} by {AT_ONCE}"


_MAKING = threading.Lock()
_REPORTER = "openvino_telemetry"


def _imported() -> Any:
    """OpenVINO, imported without what reports: it then takes the stand-in that it brings along and does nothing."""
    keep_quiet = "openvino" not in sys.modules and _REPORTER not in sys.modules
    if keep_quiet:
        cast("dict[str, Any]", sys.modules)[_REPORTER] = None  # which makes its import an ImportError
    try:
        import openvino

        return openvino
    finally:
        if keep_quiet:
            del sys.modules[_REPORTER]


def core() -> Any:
    """OpenVINO's ``Core``: one, and kept as long as the process lives.

    Its CPU plugin moves the signal stack of the thread that makes it, and in its destructor moves it back: to that of another plugin
    that may be gone, where several are not destroyed in the reverse of their order. The next signal then writes into whatever has come
    to lie there, or ends the process without a word (docs/LOG.md, 2026-11-25).
    """
    with _MAKING:
        return _core()


@functools.cache
def _core() -> Any:
    return _imported().Core()


def convert(body: nn.Module, images: torch.Tensor, *, recorded_on: int) -> Any:
    """OpenVINO's model of ``body``, for images of the shape of ``images``.

    Args:
        body: the prefix, on the CPU.
        images: a full batch ``(N, 3, H, W)``; N is a multiple of :data:`AT_ONCE`.
        recorded_on: how many of them the forward pass is recorded on: one is quick, and enough for most networks.
    """
    with _MAKING:
        _imported()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    few = images[:recorded_on].contiguous()
    with evaluating(body), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated, and the one recording that OpenVINO reads
        recorded = torch.jit.trace(_Bare(body), few, check_trace=False, strict=False)
        decoder = TorchScriptPythonDecoder(recorded, example_input=few, skip_freeze=True)
        frontend = cast("Any", FrontEndManager()).load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    model.reshape([AT_ONCE, *images.shape[1:]])
    return model


class _Bare(nn.Module):
    """Calls a network that is not registered in it: its weights are recorded as constants, which is ten times as quick."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self._body = (body,)

    def forward(self, images: torch.Tensor) -> Crossing:
        return as_tuple(self._body[0](images))


def compiled(model: Any, precision: str, threads: int) -> Run:
    """A converted model, ready to run on the CPU in so many threads."""
    settings = {
        "INFERENCE_PRECISION_HINT": _HINT[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    ready = core().compile_model(model, "CPU", settings)

    def run(images: torch.Tensor) -> Crossing:
        parts: list[list[torch.Tensor]] = []
        for few in images.contiguous().split(AT_ONCE):
            found = ready(few.numpy())
            parts.append([torch.from_numpy(found[i].copy()) for i in range(len(found))])
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    return run


def save(model: Any, path: Path) -> None:
    """Write ``path`` (XML) and the weights beside it (``.bin``)."""
    _imported().save_model(model, str(path), compress_to_fp16=False)


_begun: dict[tuple[Path, str], Future[Run]] = {}


def begin_to_load(path: Path, precision: str) -> None:
    """Begin :func:`load` in a thread of its own: it keeps one processor for half a second, while others have something else to do."""
    pool = ThreadPoolExecutor(1)
    _begun[path, precision] = pool.submit(_load, path, precision, torch.get_num_threads())  # which may be other ones by the time it looks
    pool.shutdown(wait=False)


def load(path: Path, precision: str) -> Run:
    """What :func:`save` wrote, ready to run."""
    begun = _begun.pop((path, precision), None)
    return _load(path, precision, torch.get_num_threads()) if begun is None or begun.exception() is not None else begun.result()


def _load(path: Path, precision: str, threads: int) -> Run:
    return compiled(core().read_model(str(path)), precision, threads)
