"""How far images are from what a backbone was trained on."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from frostline.backbone.network import Backbone
from frostline.backbone.tap import channel_statistics
from frostline.freeze.apply import evaluating
from frostline.freeze.layers import layers_of


@dataclass(frozen=True)
class Unlikeness:
    """Signs that the images are new to the backbone.

    Attributes:
        images: how many were looked at.
        shift: distance of the mean of each channel that enters a batch norm from the stored one, in stored standard deviations: root
            mean square over the channels of a layer, mean over the layers. None without batch norm.
        spread: likewise, the absolute natural logarithm of the ratio of standard deviations.
        confidence: mean probability that the backbone's own classifier gives its answer; None where it is not known. Photographs of
            the kind it knows get more.
        classifier: number of its classes.
    """

    images: int
    shift: float | None
    spread: float | None
    confidence: float | None
    classifier: int | None


def unlikeness_of(opened: Backbone, images: torch.Tensor) -> Unlikeness:
    """Look at some images, ``(N, 3, H, W)`` normalised, on the backbone's device."""
    norms = {n: opened.body.get_submodule(n) for n in layers_of(opened.body).batch_norms}
    stored = {n: m for n, m in norms.items() if isinstance(getattr(m, "running_mean", None), torch.Tensor)}
    with evaluating(opened.body), torch.no_grad(), channel_statistics(opened.body, list(stored)) as met:
        features = torch.cat([opened.body(part) for part in images.split(16)])
    shifts: list[float] = []
    spreads: list[float] = []
    for name, statistics in met.items():
        mean, variance = statistics.moments()
        known, wide = (stored[name].get_buffer(n).double().cpu() for n in ("running_mean", "running_var"))
        deviation = wide.clamp(min=1e-12).sqrt()
        shifts.append(float(((mean - known) / deviation).square().mean().sqrt()))
        spreads.append(float((variance.clamp(min=1e-12).sqrt() / deviation).log().abs().mean()))
    confidence = _confidence(opened, features)
    return Unlikeness(
        len(images),
        sum(shifts) / len(shifts) if shifts else None,
        sum(spreads) / len(spreads) if spreads else None,
        None if confidence is None else confidence[0],
        None if confidence is None else confidence[1],
    )


def _confidence(opened: Backbone, features: torch.Tensor) -> tuple[float, int] | None:
    head = opened.classifier
    if not isinstance(head, torch.nn.Linear) or features.ndim != 2 or features.shape[1] != head.in_features:
        return None
    with torch.no_grad():
        sure = copy.deepcopy(head).to(features.device)(features).softmax(1).amax(1)
    return float(sure.mean()), head.out_features
