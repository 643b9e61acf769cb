"""Backbones from torchvision: any of its classification models, the last layer replaced by nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast
from urllib.error import URLError

import torch
import torchvision
from torch import nn
from torchvision import models

from frostline._rng import seeded
from frostline.backbone._checkpoint import LoadReport, load_into, read_state
from frostline.backbone.network import Backbone
from frostline.backbone.preprocess import Preprocess
from frostline.errors import BackboneError, WeightsError, near_names

_WITH_AUXILIARY = ("googlenet", "inception_v3")  # a second classifier in training mode, of no use on a frozen network


def open_torchvision(name: str, weights: str, *, offline: bool) -> Backbone:
    """Open torchvision's classification model ``name`` with ``weights`` (``default``: the weights enum's DEFAULT).

    Raises:
        BackboneError: torchvision has no such classification model.
        WeightsError: the weights are not to be had, or do not fit.
    """
    known = models.list_models(module=models)
    if name not in known:
        raise BackboneError(
            f"torchvision has no classification model {name!r}",
            where="--backbone",
            advice=near_names(name, known) or "see torchvision.models.list_models()",
        )
    enum = cast("Any", models.get_model_weights(name)).DEFAULT
    if weights == "default":
        network, report = _published(name, enum, offline=offline)
    else:
        with seeded(0, "random weights"):
            options = {"aux_logits": False, "init_weights": True} if name in _WITH_AUXILIARY else {}
            network = models.get_model(name, weights=None, **options)
        last = last_layer(network)
        spare = tuple(n for n in network.state_dict() if n.startswith(f"{last}."))
        if weights == "random":
            report = LoadReport("random initialisation", 0, len(network.state_dict()))
        else:
            report = load_into(network, read_state(Path(weights)), source=weights, classifier=spare)
    classifier = replace_layer(network, last_layer(network))
    preset = enum.transforms()
    preprocess = Preprocess(
        (preset.crop_size[0],) * 2,
        int(preset.resize_size[0]),
        "center",
        str(preset.interpolation.value),
        tuple(preset.mean),
        tuple(preset.std),
    )
    kept = weights == "default" or report.classifier_kept
    return Backbone(
        f"torchvision:{name}",
        network,
        preprocess,
        weights,
        report,
        f"torchvision {torchvision.__version__} {name}",
        classifier if kept else None,
    )


def last_layer(network: nn.Module) -> str:
    """Name of the last linear layer or, in networks that end in one, the 1x1 convolution that gives the classes.

    Raises:
        BackboneError: there is none.
    """
    found = [n for n, m in network.named_modules() if isinstance(m, nn.Linear) or (n == "classifier.1" and isinstance(m, nn.Conv2d))]
    if not found:
        raise BackboneError("has no linear layer at its end to replace", where=type(network).__name__)
    return found[-1]


def replace_layer(network: nn.Module, name: str) -> nn.Module:
    """Put nothing (``nn.Identity``) in the place of the layer ``name``; gives the layer that was there."""
    old = network.get_submodule(name)
    network.set_submodule(name, nn.Identity())
    return old


def _published(name: str, enum: Any, *, offline: bool) -> tuple[nn.Module, LoadReport]:
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(str(enum.url)).name
    advice = "put it there, or give a file with --weights FILE"
    if offline and not file.is_file():
        raise WeightsError(
            f"the weights are not on disk (looked for {file}) and nothing is fetched offline",
            where=f"torchvision:{name}",
            advice=advice,
        )
    try:
        network = models.get_model(name, weights=enum)
    except (URLError, OSError, RuntimeError) as fault:
        raise WeightsError(
            f"the weights {file.name} could not be fetched ({type(fault).__name__}); looked for {file}",
            where=f"torchvision:{name}",
            advice=advice,
        ) from fault
    total = len(network.state_dict())
    return network, LoadReport(f"torchvision {enum}", total, total, classifier_kept=True)
