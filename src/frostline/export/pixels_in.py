"""What an exported program takes and gives, as a module and in words that travel with it."""

from __future__ import annotations

import copy
from typing import Any, Literal, cast

import torch
from torch import nn

from frostline.backbone import Preprocess
from frostline.model import TransferModel

Inside = Literal["inside", "json"]
INPUT = {"inside": "pixels", "json": "images"}
"""Name of the one input: pictures as they are, or normalised."""
OUTPUTS = ("logits", "probabilities")


class Program(nn.Module):
    """The whole way from pixels to probabilities.

    Args:
        model: a copy of it is taken.
        preprocess: what normalises.
        inside: ``inside`` takes pixels of 0 to 255 and normalises them; ``json`` takes normalised images.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: TransferModel, preprocess: Preprocess, inside: Inside) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)  # reading a forward pass leaves things behind in some networks
        self.normalises = inside == "inside"
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1))

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(N, 3, H, W)`` uint8 pixels, or normalised float32, to logits and probabilities, ``(N, classes)`` each."""
        if self.normalises:
            pictures = (pictures.to(torch.float32) / 255.0 - self.mean) / self.std
        logits = cast("torch.Tensor", self.model(pictures))
        return logits, logits.softmax(1)


def example_for(preprocess: Preprocess, inside: Inside) -> torch.Tensor:
    """Two black pictures as the program takes them: two, for exporters take a batch of one for a constant."""
    pixels = torch.zeros(2, 3, *preprocess.crop, dtype=torch.uint8)
    return pixels if inside == "inside" else preprocess.normalise(pixels)


def stated(preprocess: Preprocess, inside: Inside) -> dict[str, Any]:
    """What has to be done to a picture before it is given to the program, and what the program does itself; plain JSON values."""
    height, width = preprocess.crop
    if preprocess.mode == "center":
        resize = f"resize the shorter side to {preprocess.resize} pixels, the longer in proportion, rounded down"
    else:
        longer = max(height, width)
        resize = f"resize to {preprocess.resize * width // longer} x {preprocess.resize * height // longer} pixels (width x height)"
    before = [
        "decode to 8-bit RGB, upright (EXIF orientation applied), transparency on white",
        f"{resize}, filter {preprocess.interpolation} with antialiasing (Pillow's resize)",
        f"crop the middle {width} x {height} pixels (width x height)",
        "order as channel, height, width",
    ]
    normalise = ["divide by 255", f"subtract {list(preprocess.mean)} and divide by {list(preprocess.std)}, channel by channel"]
    taken = inside == "inside"
    return {
        "input": {"name": INPUT[inside], "type": "uint8" if taken else "float32", "shape": ["batch", 3, height, width]},
        "outputs": list(OUTPUTS),
        "before": before if taken else [*before, *normalise],
        "inside": normalise if taken else [],
        "settings": preprocess.settings(),
    }
