"""The identity of cached features: everything that could change a value, as content, never as a time or a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import PIL
import torch

from frostline._digest import bytes_digest, settings_digest
from frostline.backbone.preprocess import Preprocess
from frostline.data.views import PLAIN, View

BATCH = 16
"""Images a forward pass. Fixed, and part of the key: another batch shape may round differently in the last bit."""
CUDA_BATCH = 128
"""The same on a CUDA device, which 16 images do not fill: of 224 by 224 pixels, fewer of larger ones."""

_FORMAT = 5  # of the cache before, maps may lie in either order
_DECODE_RULES = 1  # of data/decode.py: raise it whenever a verdict or a pixel changes there


@dataclass(frozen=True)
class FeatureKey:
    """What the features of an image depend on besides the image's bytes.

    Attributes:
        settings: plain JSON values; kept beside the features for people to read.
        digest: SHA-256 over them; the cache's folder name.
    """

    settings: Mapping[str, object]
    digest: str


def batch_on(device: torch.device, crop: Sequence[int]) -> int:
    """Images of ``crop`` pixels (height, width) a forward pass on a device of this kind.

    >>> [batch_on(torch.device(kind), (side, side)) for kind, side in (("cpu", 224), ("cuda", 224), ("cuda", 384), ("cuda", 1024))]
    [16, 128, 32, 16]
    """
    if device.type != "cuda":
        return BATCH
    room = CUDA_BATCH * 224 * 224 // (crop[0] * crop[1])
    return next((n for n in (CUDA_BATCH, CUDA_BATCH // 2, CUDA_BATCH // 4) if n <= room), BATCH)


class Described(Protocol):
    """What is known of a backbone, opened or not."""

    @property
    def name(self) -> str:
        """How it was asked for."""
        ...

    @property
    def architecture(self) -> str:
        """What besides the weights defines its function."""
        ...

    @property
    def preprocess(self) -> Preprocess:
        """What turns a picture into its input."""
        ...


def prefix_settings(backbone: Described, *, cut: str, weights: str, code: str = "") -> dict[str, object]:
    """What a frozen prefix computes, as plain JSON values: its function of normalised images of one size.

    Args:
        backbone: its architecture and preprocessing are taken.
        cut: name of the place in the network whose output is cached.
        weights: SHA-256 over the prefix's weights, as they are now.
        code: the prefix as text, where it is not the whole backbone.
    """
    return {
        "format": _FORMAT,
        "backbone": backbone.name,
        "architecture": backbone.architecture,
        "weights": weights,
        "cut": cut,
        "code": bytes_digest(code.encode()),
        "preprocess": backbone.preprocess.settings(),
        "torch": torch.__version__,
    }


def feature_key(
    prefix: Mapping[str, object], *, engine: str, device: torch.device, view: View = PLAIN, storage: str = "fp32"
) -> FeatureKey:
    """The key of one prefix on one kind of machine.

    Args:
        prefix: see :func:`prefix_settings`.
        engine: the identity of the engine that runs it.
        device: only its kind counts.
        view: which view of each image.
        storage: ``fp32``, ``fp16`` or ``bf16``, on disk.
    """
    crop = cast("Mapping[str, Sequence[int]]", prefix["preprocess"])["crop"]
    settings: dict[str, object] = {
        **prefix,
        "view": view.settings(),
        "storage": storage,
        "engine": f"{engine} channels-last batch {batch_on(device, crop)} {device.type}",
        "decoder": f"rules {_DECODE_RULES}, Pillow {PIL.__version__}",
    }
    return FeatureKey(settings, settings_digest(settings))
