"""Measure how far a backbone has moved from what it was before training."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from frostline.features.images import ImageSet
from frostline.features.pixels import full_batches, pixel_batches
from frostline.fitting.guard import Forgetting, block_distances, linear_cka
from frostline.fitting.loop import put_back
from frostline.freeze.apply import evaluating
from frostline.freeze.plan import ResolvedPlan
from frostline.model import TransferModel

HELD_OUT = 64
"""Images that features are compared on, at most."""
FEWEST_COMPARED = 4
"""Similarity is not defined on fewer."""
FEWEST = 8
"""Fewer held-out images than these tell nothing: any two features of one image, or of two, are wholly unlike, or alike."""


def originals(model: TransferModel, plans: Sequence[ResolvedPlan]) -> dict[str, torch.Tensor]:
    """Copies of every backbone tensor that one of the plans may change, by its name in the backbone."""
    tensors = {**dict(model.backbone.named_parameters()), **dict(model.backbone.named_buffers())}
    changing = {n for plan in plans for n in changing_names(model, plan)}
    return {n: t.detach().clone() for n, t in tensors.items() if f"backbone.{n}" in changing}


def changing_names(model: nn.Module, plan: ResolvedPlan) -> list[str]:
    """Names of all tensors that training under a plan may change: trained parameters, and buffers of modules that are awake."""
    asleep = set(plan.frozen_buffers)
    return [*plan.trainable, *(n for n, _ in model.named_buffers() if n not in asleep)]


def forgetting_of(model: TransferModel, original: Mapping[str, torch.Tensor], images: ImageSet) -> Forgetting | None:
    """Compare the backbone with what it was on the first images; None where it never changed, or where there are too few images.

    Args:
        model: trained.
        original: see :func:`originals`.
        images: held-out images where there are any.
    """
    tensors = {**dict(model.backbone.named_parameters()), **dict(model.backbone.named_buffers())}
    if all(torch.equal(tensors[n], t) for n, t in original.items()):
        return None
    pixels = _pixels(model, images)
    if len(pixels) < FEWEST_COMPARED:
        return None
    new = _features(model, pixels)
    kept = {n: tensors[n].detach().clone() for n in original}
    put_back(tensors, dict(original))
    try:
        old = _features(model, pixels)
    finally:
        put_back(tensors, kept)
    return Forgetting(
        distance=block_distances(model.backbone, original),
        similarity=linear_cka(old, new),
        agreement=_agreement(model, old, new),
        images=len(pixels),
    )


def _pixels(model: TransferModel, images: ImageSet) -> torch.Tensor:
    count = min(HELD_OUT, len(images))
    paths = [images.paths[i * len(images) // count] for i in range(count)]  # spread over all, for the images lie class by class
    found = [p for batch in pixel_batches(paths, model.opened.preprocess, full_batches(len(paths))) for p in batch]
    return torch.stack([p for p in found if isinstance(p, torch.Tensor)])


def _features(model: TransferModel, pixels: torch.Tensor) -> torch.Tensor:
    device = next(model.parameters()).device
    images = (model.opened.preprocess.normalise(p.to(device)) for p in pixels.split(16))
    with evaluating(model.backbone), torch.no_grad():
        parts = [model.backbone(batch.contiguous(memory_format=torch.channels_last)) for batch in images]
    return torch.cat(parts).float()


def _agreement(model: TransferModel, old: torch.Tensor, new: torch.Tensor) -> float | None:
    """How often the classifier that the backbone was trained with gives the same answer; None where it does not fit."""
    classifier = model.opened.classifier
    if not isinstance(classifier, nn.Linear) or old.ndim != 2 or old.shape[1] != classifier.in_features:
        return None
    with torch.no_grad():
        answers = [copy.deepcopy(classifier).to(old.device)(features).argmax(1) for features in (old, new)]
    return float((answers[0] == answers[1]).double().mean())
