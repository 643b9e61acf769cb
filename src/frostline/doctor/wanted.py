"""What a model's weights want to see, where the model or its library says it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from frostline.backbone import Backbone, Preprocess
from frostline.backbone.tap import Call
from frostline.doctor.pixels import Wanted

_IMAGENET = Preprocess()


def wanted_of(model: nn.Module) -> tuple[tuple[str, ...], Wanted] | None:
    """Names of the modules whose input should be normalised images, the likeliest first, and what those should be like.

    timm's networks carry ``pretrained_cfg``, frostline's their :class:`Preprocess`; torchvision's classification weights are all
    normalised with ImageNet's mean and std, and are known by their classes, also where only their layers were taken over.
    """
    for name, module in model.named_modules():
        own = vars(module)
        opened, preprocess, config = own.get("opened"), own.get("preprocess"), own.get("pretrained_cfg") or own.get("default_cfg")
        if isinstance(opened, Backbone):
            return (f"{name}.backbone".lstrip("."),), _from_preprocess(opened.preprocess, opened.name)
        if isinstance(preprocess, Preprocess):
            return (name,), _from_preprocess(preprocess, type(module).__name__)
        if isinstance(config, Mapping):
            found = _from_timm(cast("Mapping[str, object]", config))
            if found is not None:
                return (name,), found
    theirs = [(n, m) for n, m in model.named_modules() if type(m).__module__.startswith("torchvision.models.")]
    if not theirs:
        return None
    name, module = theirs[0]
    first = next((n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3), None)
    source = f"torchvision's {type(module).__module__.rpartition('.')[2]} weights"
    places = (name,) if first is None else (name, first)
    return places, Wanted(_IMAGENET.mean, _IMAGENET.std, None, source)


def images_given(calls: Sequence[Call], places: Collection[str], channels: int) -> torch.Tensor | None:
    """The images that entered the first of ``places`` that was given any: ``(N, channels, H, W)``, or None."""
    for place in places:
        taken = [c.given for c in calls if c.name == place and c.given is not None]
        images = [
            t for t in taken if t.dim() == 4 and t.shape[1] == channels and t.is_floating_point() and t.shape[1:] == taken[0].shape[1:]
        ]
        if images:
            return torch.cat(images)
    return None


def _from_preprocess(preprocess: Preprocess, source: str) -> Wanted:
    return Wanted(preprocess.mean, preprocess.std, preprocess.crop, source)


def _from_timm(config: Mapping[str, object]) -> Wanted | None:
    mean, std, size = config.get("mean"), config.get("std"), config.get("input_size")
    if not isinstance(mean, list | tuple) or not isinstance(std, list | tuple):
        return None
    means = tuple(float(v) for v in cast("Sequence[Any]", mean))
    stds = tuple(float(v) for v in cast("Sequence[Any]", std))
    sides = cast("Sequence[Any]", size)[1:] if isinstance(size, list | tuple) else ()
    name = str(config.get("architecture") or "timm")
    return Wanted(means, stds, (int(sides[0]), int(sides[1])) if len(sides) == 2 else None, f"timm's configuration of {name}")
