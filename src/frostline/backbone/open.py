"""Open a backbone by name, from whichever library it comes."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path

from torch import nn

from frostline import _collector
from frostline.backbone.network import Backbone
from frostline.backbone.spec import BackboneSpec


def open_backbone(
    source: str | nn.Module, weights: str | Path = "default", *, replace: str | None = None, offline: bool = False
) -> Backbone:
    """Open a pre-trained network without its classifier, in strict agreement with its weights.

    Args:
        source: ``tf_efficientnet_lite0`` (embedded), ``timm:NAME``, ``torchvision:NAME``, ``hf:NAME`` (a
            folder or a name on the hub), ``module:attr``, or an ``nn.Module`` of one's own.
        weights: ``default`` (the published ones), ``random``, or a safetensors or state-dict file.
        replace: name of the layer to drop from one's own network, such as ``fc``; what enters it are the features.
        offline: fetch nothing; weights that are not on disk are an error that says where to put them.

    Raises:
        BackboneError: no such backbone (with the nearest names), or one that takes no images.
        WeightsError: the weights are missing or do not fit (how many matched, which are missing).

    >>> open_backbone("tf_efficientnet_lite0").report.loaded
    296
    """
    opened = _opened(source, str(weights), replace=replace, offline=offline)
    _collector.take_up()  # everything heavy has been imported
    return opened


_LIBRARIES = {"timm": "timm", "torchvision": "torchvision.models", "hf": "transformers"}


def import_library(source: str) -> str:
    """Import the library that a backbone comes from, if it is there; gives its name, which is empty for one's own network."""
    library = _LIBRARIES.get(BackboneSpec.parse(source).family, "")
    if library:
        with contextlib.suppress(ImportError):  # who opens the backbone says so
            importlib.import_module(library)
    return library


def _opened(source: str | nn.Module, weights: str, *, replace: str | None, offline: bool) -> Backbone:
    if isinstance(source, nn.Module):
        from frostline.backbone._own import wrap_module

        return wrap_module(source, type(source).__name__, weights, replace=replace)
    spec = BackboneSpec.parse(source)
    if spec.family == "own":
        from frostline.backbone._own import open_own

        return open_own(spec.name, weights, replace=replace)
    if spec.family == "timm":
        from frostline.backbone._timm import open_timm

        return open_timm(spec.name, weights, offline=offline)
    if spec.family == "hf":
        from frostline.backbone._transformers import open_transformers

        return open_transformers(spec.name, weights, offline=offline)
    from frostline.backbone._torchvision import open_torchvision

    return open_torchvision(spec.name, weights, offline=offline)
