"""``torch-export``: the whole network as one program, which torch alone loads."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from frostline.errors import ExportError
from frostline.export.parity import Answer

FILE = "model.pt2"


def write_program(program: nn.Module, example: torch.Tensor, path: Path, about: Mapping[str, str]) -> None:
    """Read the forward pass for any batch size and write it, with texts that travel inside.

    The example is left out: it would be the one thing in the file that is pickled.

    Args:
        program: in eval mode.
        example: at least two pictures.
        path: the ``.pt2`` file.
        about: texts by file name.

    Raises:
        ExportError: torch cannot read the forward pass, or the network takes one batch size only.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            read = torch.export.export(program, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as fault:  # whatever a forward pass does with a stand-in for a tensor; all of it means the same
        raise cannot_read("torch.export", fault) from fault
    read.example_inputs = None
    torch.export.save(read, path, extra_files=dict(about))


def load_program(path: Path) -> Answer:
    """The file at work, for pictures as the program takes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # older torch warns of its own way to read the file
        program = torch.export.load(path).module()

    def answer(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        with torch.no_grad():
            logits, probabilities = program(pictures)
        return logits, probabilities

    return answer


def cannot_read(who: str, fault: Exception) -> ExportError:
    """The error where an exporter gives up on a network."""
    said = next((line.strip() for line in str(fault).splitlines() if line.strip()), "no message")[:160]
    return ExportError(f"{who} cannot read the network ({type(fault).__name__}: {said})", advice="try another --format")
