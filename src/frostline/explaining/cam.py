"""Which parts of a picture speak for a class: exact where the network ends in a mean over positions and a linear layer.

Class activation maps (Zhou 2016): the logit of such a network is a sum over positions, so that each position's share of it is known
without any approximation. Of a class the mean of all others is taken off, for a softmax does not see what all logits have in common. The
shares of all positions, and a constant, add up to the difference of the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from frostline.backbone.maps import as_feature_map, noise_pictures
from frostline.errors import BackboneError
from frostline.freeze.apply import evaluating
from frostline.heads.conv import ConvHead
from frostline.heads.linear import LinearHead
from frostline.run import Run

_SAME = 1e-4


@dataclass(frozen=True, eq=False)
class Heat:
    """How to find the shares.

    Attributes:
        maps: a normalised picture ``(1, 3, H, W)`` to ``(1, C, h, w)``, the map whose mean the linear layer is given.
        weight: of the linear layer, ``(classes, C)``.
    """

    maps: Callable[[torch.Tensor], torch.Tensor]
    weight: torch.Tensor

    def __call__(self, images: torch.Tensor, label: int) -> torch.Tensor:
        """Shares of a class's logit, less the mean of the others', of each position of one picture: ``(h, w)`` float32.

        Args:
            images: the picture, normalised ``(1, 3, H, W)``.
            label: the class.
        """
        with torch.no_grad():
            found = self.maps(images)[0].float()
        others = (self.weight.sum(0) - self.weight[label]) / (len(self.weight) - 1)
        return torch.einsum("c,chw->hw", self.weight[label] - others, found).cpu() / found[0].numel()


def heat_of(run: Run) -> Heat | str:
    """How to find the shares in a run's network, or in words why they cannot be found exactly."""
    head, body = run.model.head, run.model.backbone
    if isinstance(head, ConvHead) and not head.side:

        def before_mean(images: torch.Tensor) -> torch.Tensor:
            with evaluating(body), evaluating(head):
                return nn.functional.gelu(head.norm(head.conv(head.scale(body(images)))))

        return Heat(before_mean, head.linear.weight.detach())
    if not isinstance(head, LinearHead):
        return f"a {run.model.head_spec} head is no sum over positions"
    if run.model.head_spec.at is not None:
        return "the head does not sit on the network's last layer alone"
    try:
        with evaluating(body):
            mapped = as_feature_map(run.model.opened).body
    except BackboneError as fault:
        return f"the network's last feature map cannot be found: {fault.fact}"

    def last_map(images: torch.Tensor) -> torch.Tensor:
        with evaluating(mapped):
            return cast("torch.Tensor", mapped(images.contiguous(memory_format=torch.channels_last)))

    images = noise_pictures(run.model.opened)
    with evaluating(body), torch.no_grad():
        found, wanted = last_map(images), cast("torch.Tensor", body(images))
    if found.ndim != 4 or found.shape[1] != wanted.shape[1]:
        return "the network's features are not made of one feature map"
    apart = float((found.mean((2, 3)) - wanted).norm() / wanted.norm().clamp(min=1e-12))
    if not apart < _SAME:
        return "the network does more than average between its last feature map and the head"
    return Heat(last_map, (head.linear.weight / head.scale.scale).detach())
