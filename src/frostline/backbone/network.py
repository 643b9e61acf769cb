"""A backbone: a network without its classifier, with everything that belongs to its weights."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from torch import nn

from frostline._digest import tensors_digest
from frostline.backbone._checkpoint import LoadReport
from frostline.backbone.preprocess import Preprocess


@dataclass(frozen=True, eq=False)
class Backbone:
    """A pre-trained network whose forward pass gives features.

    Attributes:
        name: how :func:`open_backbone` was asked for it.
        body: the network; images ``(N, 3, H, W)`` in, features ``(N, C)`` or ``(N, ...)`` out.
        preprocess: what turns a picture into its input; it comes with the weights.
        weights: ``default``, ``random`` or the file that was given.
        report: what was loaded, and from where.
        architecture: what besides the weights defines the function (library and version, or a digest of source code).
        classifier: the classifier it was trained with, where the weights have one; kept for comparison, never trained.
        first_tokens: where the features are tokens, how many at the beginning are no part of the picture (a class token).
        parts: where they are vectors of several depths side by side, the length of each.
        digest: SHA-256 over the names and values of the body's state, taken when it was opened.
    """

    name: str
    body: nn.Module
    preprocess: Preprocess
    weights: str
    report: LoadReport
    architecture: str
    classifier: nn.Module | None = None
    first_tokens: int = 0
    parts: tuple[int, ...] = ()
    digest: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", tensors_digest(self.body.state_dict()))

    @property
    def published(self) -> bool:
        """Whether anybody can get the very same weights again by name, so that a run need not store them."""
        return self.weights == "default" and not self.report.source.startswith("built by")

    @property
    def device(self) -> torch.device:
        """Where the body is."""
        return next((t.device for t in itertools.chain(self.body.parameters(), self.body.buffers())), torch.device("cpu"))

    def example(self, batch: int = 1) -> torch.Tensor:
        """A batch of black pictures, as the body takes them: ``(batch, 3, H, W)`` float32 on its device."""
        height, width = self.preprocess.crop
        return self.preprocess.normalise(torch.zeros(batch, 3, height, width, dtype=torch.uint8, device=self.device))
