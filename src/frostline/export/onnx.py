"""``onnx``: the whole network as an ONNX file, by torch's exporter, checked with onnxruntime."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from frostline.errors import ExportError
from frostline.export.parity import Answer
from frostline.export.pixels_in import OUTPUTS
from frostline.export.torch_program import cannot_read

FILE = "model.onnx"
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def check_installed() -> None:
    """Refuse before any work is done.

    Raises:
        ExportError: a package that writes or checks ONNX files is missing.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"{', '.join(missing)} not installed", where="--format onnx", advice='pip install "frostline[onnx]"')


def write_onnx(program: nn.Module, example: torch.Tensor, path: Path, name: str, about: Mapping[str, str]) -> int:
    """Read the forward pass for any batch size and write it, with texts as metadata; gives the opset.

    Args:
        program: in eval mode.
        example: at least two pictures.
        path: the file; weights of more than 2 GB lie beside it.
        name: of the input.
        about: metadata, text by key.

    Raises:
        ExportError: the exporter cannot read the forward pass, or has no ONNX for a part of it.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            read = torch.onnx.export(
                program,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[name],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except Exception as fault:  # the exporter has its own kinds, and lets others through
        raise cannot_read("torch.onnx", fault) from fault
    made = cast("Any", read)
    made.model.metadata_props.update(about)
    made.save(path)
    return int(made.model.opset_imports[""])


def load_onnx(path: Path) -> Answer:
    """The file at work, in onnxruntime on the CPU."""
    import onnxruntime  # pyright: ignore[reportMissingTypeStubs]

    runtime = cast("Any", onnxruntime)
    runtime.disable_telemetry_events()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def answer(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits, probabilities = session.run(list(OUTPUTS), {name: pictures.contiguous().numpy()})
        return torch.from_numpy(logits), torch.from_numpy(probabilities)

    return answer
