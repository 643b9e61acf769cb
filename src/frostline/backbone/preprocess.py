"""From a decoded picture to the tensor that a backbone was trained to see. It comes with the weights, never apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, cast

import numpy as np
import torch
from PIL import Image

from frostline._device import sent
from frostline.data.crop import RESAMPLING, Crop
from frostline.errors import BackboneError


@dataclass(frozen=True)
class Preprocess:
    """Resize, centre crop, scale to 0..1, normalise.

    Attributes:
        crop: height and width of the crop in pixels.
        resize: length of the shorter side before cropping (``center``), or of both sides (``squash``), in pixels.
        mode: ``center`` keeps the aspect ratio and crops the middle; ``squash`` stretches.
        interpolation: Pillow filter, by torchvision's name.
        mean: per channel, on the 0..1 scale.
        std: per channel, on the 0..1 scale.
    """

    crop: tuple[int, int] = (224, 224)
    resize: int = 256
    mode: Literal["center", "squash"] = "center"
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """Resized and cropped: ``(3, H, W)`` uint8. Equal to torchvision's ``Resize`` and ``CenterCrop`` on Pillow."""
        return torch.from_numpy(self.shown.of(image)).permute(2, 0, 1)

    @property
    def shown(self) -> Crop:
        """What is done to a picture before it becomes a tensor."""
        return Crop(self.crop, self.resize, self.mode, self.interpolation)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(N, 3, H, W)`` uint8 to float32, normalised."""
        mean, std = (sent(torch.tensor(values).view(1, 3, 1, 1), pixels.device) for values in (self.mean, self.std))
        return pixels.to(torch.float32, copy=True).div_(255.0).sub_(mean).div_(std)

    def normalise_alone(self, pixels: torch.Tensor) -> torch.Tensor:
        """:meth:`normalise` of pixels on the CPU, to the bit, without torch's threads.

        Those stay awake for some milliseconds after an operation, in case there is another, and keep an engine with threads of its own
        waiting for a processor.
        """
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        images = np.empty(pixels.shape, np.float32)
        for picture, image in zip(pixels.numpy(), images, strict=True):  # one by one they stay in the processor's cache
            np.divide(picture, np.float32(255.0), out=image, dtype=np.float32)
            image -= mean
            image /= std
        return torch.from_numpy(images)

    def settings(self) -> dict[str, object]:
        """As plain JSON values; :meth:`from_settings` reads them back."""
        return cast("dict[str, object]", {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()})

    @staticmethod
    def from_settings(settings: Mapping[str, object]) -> Preprocess:
        """The reverse of :meth:`settings`.

        Raises:
            BackboneError: a field is missing, unknown or of another form.
        """
        try:
            plain = {k: tuple(cast("list[float]", v)) if isinstance(v, list) else v for k, v in settings.items()}
            made = Preprocess(**plain)  # type: ignore[arg-type]
        except TypeError as fault:
            raise BackboneError(f"not a preprocessing record ({fault})") from fault
        if made.interpolation not in RESAMPLING or made.mode not in {"center", "squash"} or len(made.mean) != 3:
            raise BackboneError("not a preprocessing record (unknown interpolation or mode)")
        return made

    @staticmethod
    def from_timm(config: Mapping[str, object]) -> Preprocess:
        """From timm's ``resolve_model_data_config``.

        Raises:
            BackboneError: the network does not take three-channel images, or its crop mode is one we do not know, which the middle of
                another shape than a square is.
        """
        channels, height, width = cast("tuple[int, int, int]", config["input_size"])
        mode, interpolation = str(config["crop_mode"]), str(config["interpolation"])
        if channels != 3:
            raise BackboneError(f"takes images of {channels} channels, frostline gives 3")
        if mode not in {"center", "squash"} or interpolation not in RESAMPLING:
            raise BackboneError(f"crop mode {mode!r} with interpolation {interpolation!r} is not known here")
        if mode == "center" and height != width:
            raise BackboneError(
                f"timm crops {height} by {width} pixels from the middle in a way that is not known here",
                advice="give the network an attribute 'preprocess', a frostline.Preprocess",
            )
        resize = math.floor(max(height, width) / cast("float", config["crop_pct"]))
        return Preprocess(
            (height, width),
            resize,
            cast("Literal['center', 'squash']", mode),
            interpolation,
            cast("tuple[float, float, float]", tuple(cast("list[float]", config["mean"]))),
            cast("tuple[float, float, float]", tuple(cast("list[float]", config["std"]))),
        )
