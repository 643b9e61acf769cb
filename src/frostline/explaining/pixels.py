"""Which pixels mattered, by Captum: Grad-CAM, integrated gradients, occlusion; and exactly, where the network is a sum over positions.

What is explained is the logit of a class less the mean of the others': a softmax does not see what all logits have in common.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from frostline._extras import require
from frostline.backbone.maps import noise_pictures
from frostline.errors import BackboneError, RecipeError
from frostline.explaining.cam import heat_of
from frostline.explaining.layer import PositionLayer, last_position_layer
from frostline.freeze.apply import differentiable, evaluating
from frostline.run import Run

METHODS = ("gradcam", "cam", "integrated-gradients", "occlusion")

_STEPS, _AT_ONCE = 64, 8
_PARTS = 7


class PixelHeat:
    """How much each pixel spoke for a class.

    ``gradcam`` (Selvaraju 2017) weighs the channels of the last map by their mean gradient; of tokens, and of maps that lie the other way
    round, gradient times activation is summed over channels (HiResCAM, Draelos 2020). ``cam`` (Zhou 2016) is exact, for networks that
    end in a mean over positions and a linear layer, or in a ``conv`` head. ``integrated-gradients`` (Sundararajan 2017) goes from the mean
    colour to the picture in 64 steps. ``occlusion`` (Zeiler 2014) covers squares of a seventh of the side with the mean colour.

    Args:
        run: its model is in eval mode and frozen.
        method: one of :data:`METHODS`.
        device: where the model is.

    Raises:
        RecipeError: no such method.
        ExtraError: captum is not installed; ``cam`` does not need it.
        BackboneError: the method does not fit the network.
    """

    def __init__(self, run: Run, method: str, device: torch.device) -> None:
        if method not in METHODS:
            raise RecipeError(f"no method is called {method!r}", where="--method", advice=f"use {', '.join(METHODS)}")
        if method != "cam":
            require("captum", where=f"--method {method}", extra="explain")
        self._model, self._method, self._device = run.model, method, device
        self._cam = heat_of(run) if method == "cam" else None
        if isinstance(self._cam, str):
            raise BackboneError(self._cam, where="--method cam", advice="use gradcam")
        self._layer = self._last_layer() if method == "gradcam" else None

    def __call__(self, images: torch.Tensor, label: int) -> torch.Tensor:
        """Signed shares of one picture's pixels, or of the positions of the map: ``(h, w)`` float32.

        Args:
            images: the picture, normalised ``(1, 3, H, W)``.
            label: the class.
        """
        if self._cam is not None and not isinstance(self._cam, str):
            return self._cam(images, label)
        from captum.attr import IntegratedGradients, Occlusion

        images = images.to(self._device).contiguous(memory_format=torch.channels_last)
        answer = partial(self._margin, label=label)
        with evaluating(self._model):
            if self._method == "integrated-gradients":
                found: torch.Tensor = IntegratedGradients(answer).attribute(images, n_steps=_STEPS, internal_batch_size=_AT_ONCE)
            elif self._method == "occlusion":
                side = max(1, min(images.shape[2:]) // _PARTS)
                step = max(1, side // 2)
                with torch.no_grad():
                    found = Occlusion(answer).attribute(
                        images, sliding_window_shapes=(3, side, side), strides=(3, step, step), perturbations_per_eval=_AT_ONCE
                    )
            else:
                assert self._layer is not None
                return self._by_layer(self._layer, images, label)
        return found.detach().sum(1)[0].float().cpu()

    def _margin(self, images: torch.Tensor, label: int) -> torch.Tensor:
        """``(N,)``: the logit of a class less the mean of the others'."""
        logits: torch.Tensor = self._model(images)
        return logits[:, label] - (logits.sum(1) - logits[:, label]) / (logits.shape[1] - 1)

    def _by_layer(self, layer: PositionLayer, images: torch.Tensor, label: int) -> torch.Tensor:
        from captum.attr import LayerGradCam

        if layer.kind != "map":
            return layer.over_positions(self._gradient_times(layer.name, images, label)).relu()[0].float().cpu()
        shown: Any = LayerGradCam(partial(self._margin, label=label), self._model.get_submodule(layer.name))
        found: torch.Tensor = shown.attribute(differentiable(images), relu_attributions=True)
        return found.detach()[0, 0].float().cpu()

    def _gradient_times(self, name: str, images: torch.Tensor, label: int) -> torch.Tensor:
        from captum.attr import LayerGradientXActivation

        layer: nn.Module = self._model.get_submodule(name)
        shown: Any = LayerGradientXActivation(partial(self._margin, label=label), layer)
        found: torch.Tensor = shown.attribute(differentiable(images))
        return found.detach()

    def _last_layer(self) -> PositionLayer:
        example = noise_pictures(self._model.opened)[:1].to(self._device)

        def depends(name: str) -> torch.Tensor | None:
            try:
                return self._gradient_times(name, example, 0)
            except (RuntimeError, AssertionError):  # changed in place behind it, or no part of the answer
                return None

        with evaluating(self._model):
            return last_position_layer(self._model, depends)
