"""Where training takes its batches from: cached features in memory, or images decoded anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from frostline.backbone.preprocess import Preprocess
from frostline.errors import DecodeError
from frostline.features.extract import pixel_batches
from frostline.features.images import ImageSet


class Source(Protocol):
    """Inputs and labels of a set of images."""

    @property
    def labels(self) -> torch.Tensor:
        """Class indices: ``(N,)`` int64."""
        ...

    def batches(self, parts: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The inputs of each part (a vector of indices) in turn, on the device of training."""
        ...


@dataclass(frozen=True)
class FeatureRows:
    """Features ``(N, ...)`` of a frozen prefix, in memory."""

    features: torch.Tensor
    labels: torch.Tensor

    def batches(self, parts: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Rows, by index."""
        for part in parts:
            yield self.features[part]


@dataclass(frozen=True)
class ImageRows:
    """Images, decoded each time they are asked for, one batch ahead of the network."""

    images: ImageSet
    preprocess: Preprocess
    device: torch.device

    @property
    def labels(self) -> torch.Tensor:
        """Class indices: ``(N,)`` int64."""
        return torch.tensor(self.images.labels, device=self.device)

    def batches(self, parts: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Normalised images ``(n, 3, H, W)``."""
        order = torch.cat(list(parts)).tolist()
        decoded = pixel_batches(
            [self.images.paths[i] for i in order],
            self.preprocess,
            [len(p) for p in parts],
            [self.images.digests[i] for i in order],
        )
        for batch in decoded:
            pictures = [_must(picture) for picture in batch]
            yield self.preprocess.normalise(torch.stack(pictures).to(self.device)).contiguous(memory_format=torch.channels_last)


def in_order(count: int, size: int) -> list[torch.Tensor]:
    """``count`` indices in order, ``size`` at a time."""
    return list(torch.arange(count).split(size)) if count else []


def merge_last(parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Put a last batch of one image to the batch before it: batch norm in training mode cannot take one image."""
    if len(parts) > 1 and len(parts[-1]) == 1:
        return [*parts[:-2], torch.cat(parts[-2:])]
    return parts


def _must(picture: torch.Tensor | DecodeError) -> torch.Tensor:
    if isinstance(picture, DecodeError):
        raise picture
    return picture
