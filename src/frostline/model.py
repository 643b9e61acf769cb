"""The network that is trained: a backbone and a head, an ordinary ``nn.Module``."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from frostline.backbone.maps import as_feature_map
from frostline.backbone.network import Backbone
from frostline.backbone.open import open_backbone
from frostline.features.depths import up_to
from frostline.features.shape import feature_shape
from frostline.freeze.apply import evaluating
from frostline.heads import FeatureShape, HeadSpec, build_head
from frostline.heads.contract import AUTO


class TransferModel(nn.Module):
    """A pre-trained backbone with a new head on top.

    It pickles, copies, compiles, exports and moves like any other module. ``model.backbone`` and ``model.head`` are
    the two parts; ``model.opened`` keeps where the backbone came from and its preprocessing, ``model.head_spec`` which
    head it is.

    Args:
        backbone: an opened backbone, or what :func:`frostline.open_backbone` takes.
        head: ``linear``, ``ridge``, ``logistic``, ``mlp:WIDTH``, ``conv:CHANNELS`` or ``attention``, the first four also
            ``...@BLOCK`` or ``...@all``; its input shape is found by running one image.
        num_classes: number of classes, at least 2.
        seed: of the head's initial weights.

    Raises:
        BackboneError: no such backbone.
        HeadError: no such head, or one that cannot sit on the backbone's features.

    >>> model = TransferModel("tf_efficientnet_lite0", num_classes=2)
    >>> sum(p.numel() for p in model.head.parameters())
    2562
    """

    def __init__(self, backbone: Backbone | nn.Module | str, head: str = "linear", num_classes: int = 2, seed: int = 0) -> None:
        super().__init__()
        opened = backbone if isinstance(backbone, Backbone) else open_backbone(backbone)
        spec = HeadSpec.parse(head)
        if spec.takes_map:
            with evaluating(opened.body):
                opened = as_feature_map(opened)
        self.opened = opened
        self.num_classes = num_classes
        self.backbone: nn.Module = opened.body
        self._features = FeatureShape(feature_shape(opened), opened.first_tokens, opened.parts)
        self.head_spec = replace(spec, at=None)
        self.put_head(spec, seed)

    def put_head(self, spec: HeadSpec, seed: int = 0) -> None:
        """Put a new head in place of the one there is, on the device of the backbone.

        A head on an earlier block cuts the backbone there, for good, one on all depths taps every block; ``@auto`` sits on the end
        until a depth is chosen.

        Raises:
            HeadError: it cannot sit on the features of the backbone, which gives a vector or a map by what the first head took.
        """
        if spec.at not in (None, AUTO, self.head_spec.at):
            self.opened = up_to(self.opened, spec.at)
            self.backbone = self.opened.body
            self._features = FeatureShape(feature_shape(self.opened), parts=self.opened.parts)
        self.head_spec = replace(spec, at=self.head_spec.at) if spec.at is None and self.head_spec.at != AUTO else spec
        self.head: nn.Module = build_head(spec, self._features, self.num_classes, seed)
        weight = next(self.backbone.parameters(), None)
        if weight is not None:
            self.head.to(weight.device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images ``(N, 3, H, W)`` to logits ``(N, num_classes)``."""
        return self.head(self.backbone(images))

    def example(self, batch: int = 1) -> torch.Tensor:
        """A batch of pictures as the model takes them, ``(batch, 3, H, W)`` float32 on its device, all values different."""
        device = next(self.parameters()).device
        images = self.opened.example(batch).to(device)
        noise = torch.linspace(-1, 1, images.numel(), device=device).view_as(images)
        return (images + noise).contiguous(memory_format=torch.channels_last)
