"""frostline: train a PyTorch model on top of pre-trained layers that stay frozen, provably, and are computed once.

The names below are the whole public surface. They are imported when they are first used: ``import frostline`` alone does
not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frostline.backbone import Backbone, Preprocess, open_backbone
    from frostline.classifier import ImageClassifier
    from frostline.data.views import Views
    from frostline.errors import FrostlineError
    from frostline.explaining import explain
    from frostline.features import ImageSet, cache_features
    from frostline.fitting import Compute, EpochDone, Finished, Options, Phase, fit
    from frostline.freeze import FreezePlan, split
    from frostline.model import TransferModel
    from frostline.opened import open_run
    from frostline.pipeline import train
    from frostline.recipe import Recipe
    from frostline.run import Run, read_run
    from frostline.use import evaluate, predict

__version__ = "0.1.0"

_HOMES = {
    "Backbone": "backbone",
    "Compute": "fitting",
    "EpochDone": "fitting",
    "Finished": "fitting",
    "FreezePlan": "freeze",
    "FrostlineError": "errors",
    "ImageClassifier": "classifier",
    "ImageSet": "features",
    "Options": "fitting",
    "Phase": "fitting",
    "Preprocess": "backbone",
    "Recipe": "recipe",
    "Run": "run",
    "TransferModel": "model",
    "Views": "data.views",
    "cache_features": "features",
    "evaluate": "use",
    "explain": "explaining",
    "fit": "fitting",
    "open_backbone": "backbone",
    "open_run": "opened",
    "predict": "use",
    "read_run": "run",
    "split": "freeze",
    "train": "pipeline",
}

__all__ = [
    "Backbone",
    "Compute",
    "EpochDone",
    "Finished",
    "FreezePlan",
    "FrostlineError",
    "ImageClassifier",
    "ImageSet",
    "Options",
    "Phase",
    "Preprocess",
    "Recipe",
    "Run",
    "TransferModel",
    "Views",
    "cache_features",
    "evaluate",
    "explain",
    "fit",
    "open_backbone",
    "open_run",
    "predict",
    "read_run",
    "split",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        found: object = getattr(importlib.import_module(f"frostline.{_HOMES[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'frostline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
