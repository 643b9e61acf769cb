"""What a network that was trained gives for every image, and what enters its head meanwhile: its features, at no extra cost."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from frostline._rng import stream
from frostline.backbone.tap import given_to
from frostline.features.images import ImageSet
from frostline.features.pooled import vectors_of
from frostline.fitting.events import Seen
from frostline.fitting.sources import Source, in_order
from frostline.freeze.apply import evaluating

MOST = 2000
"""Images whose features are kept: 10 MB of a backbone with 1,280 features."""


def drawn(rows: Sequence[int], most: int, seed: int) -> list[int]:
    """All of ``rows``, or so many of them drawn at random, in their order."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i] for i in sorted(torch.randperm(len(rows), generator=stream(seed, "drawn"))[:most].tolist())]


def looked_at(
    module: nn.Module, head: nn.Module, source: Source, images: ImageSet, eval_batch: int, seed: int
) -> tuple[torch.Tensor, Seen]:
    """Logits of every image, in order, ``(N, classes)`` float32 on the CPU; and some images with their features.

    Args:
        module: gives logits for what the source gives; ``head`` is a part of it.
        head: what enters it are the features; those with positions are averaged over them.
        source: of the images, in the plain view or the first one.
        images: that the source gives.
        eval_batch: images at once.
        seed: of the images that are drawn where there are more than ``MOST``.
    """
    kept = drawn(range(len(images)), MOST, seed)
    wanted = torch.zeros(len(images), dtype=torch.bool)
    wanted[kept] = True
    parts = in_order(len(images), eval_batch)
    logits: list[torch.Tensor] = []
    features: list[torch.Tensor] = []
    with evaluating(module), torch.no_grad():
        for part, inputs in zip(parts, source.batches(parts), strict=True):
            gave, *met = given_to(module, head, inputs)
            logits.append(gave.to(torch.float32).cpu())
            features.append(vectors_of(met[0])[wanted[part].to(met[0].device)].to(torch.float32).cpu())
    return torch.cat(logits), Seen(images.only(kept), torch.cat(features))
