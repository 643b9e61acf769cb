"""One's own network as a backbone: ``module:attr`` names an ``nn.Module`` or a function without arguments that makes one."""

from __future__ import annotations

import copy
import importlib
import inspect
from pathlib import Path
from typing import Any, cast

from torch import nn

from frostline._digest import bytes_digest
from frostline._rng import seeded
from frostline.backbone._checkpoint import LoadReport, load_into, read_state
from frostline.backbone.network import Backbone
from frostline.backbone.preprocess import Preprocess
from frostline.errors import BackboneError, near_names


def open_own(name: str, weights: str, *, replace: str | None) -> Backbone:
    """Import ``module:attr`` and open what it names.

    Raises:
        BackboneError: it cannot be imported, or is no module and makes none.
    """
    place, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(place)
    except ImportError as fault:
        raise BackboneError(
            f"the Python module {place!r} cannot be imported ({fault})",
            where="--backbone",
            advice="run in its folder or set PYTHONPATH; timm:NAME and torchvision:NAME name published ones",
        ) from fault
    if attribute not in vars(module):
        raise BackboneError(f"{place!r} has no {attribute!r}", where="--backbone", advice=near_names(attribute, vars(module)))
    made: object = copy.deepcopy(vars(module)[attribute])  # training one must not change another that names the same module
    if not isinstance(made, nn.Module) and callable(made):
        with seeded(0, "random weights"):
            made = made()
    if not isinstance(made, nn.Module):
        raise BackboneError(f"{name} is a {type(made).__name__}, not an nn.Module or a function that makes one", where="--backbone")
    return wrap_module(made, name, weights, replace=replace)


def wrap_module(network: nn.Module, name: str, weights: str = "default", *, replace: str | None = None) -> Backbone:
    """Take a network as it is; its output, or what enters the layer ``replace``, are the features.

    Preprocessing comes from timm's ``pretrained_cfg`` or an attribute ``preprocess`` of type :class:`Preprocess` where
    the network has one, and is ImageNet's otherwise (resize 256, crop 224, bilinear).
    """
    architecture = f"{name} {_source_digest(network)}"
    if weights == "random":
        report = LoadReport(f"built by {name} (random initialisation)", 0, len(network.state_dict()))
    elif weights == "default":
        total = len(network.state_dict())
        report = LoadReport(f"built by {name}", total, total)
    else:
        prefix = f"{replace}." if replace else None
        spare = tuple(n for n in network.state_dict() if prefix is not None and n.startswith(prefix))
        report = load_into(network, read_state(Path(weights)), source=weights, classifier=spare)
    classifier = _take(network, replace) if replace else None
    return Backbone(name, network, _preprocess_of(network), weights, report, architecture, classifier)


def _take(network: nn.Module, name: str) -> nn.Module:
    known = {n for n, _ in network.named_modules() if n}
    if name not in known:
        raise BackboneError(f"has no layer {name!r} to replace", where=type(network).__name__, advice=near_names(name, known))
    old = network.get_submodule(name)
    network.set_submodule(name, nn.Identity())
    return old


def _preprocess_of(network: nn.Module) -> Preprocess:
    own = vars(network).get("preprocess")
    if isinstance(own, Preprocess):
        return own
    config = vars(network).get("pretrained_cfg")
    if isinstance(config, dict) and "input_size" in config:
        return Preprocess.from_timm({"crop_mode": "center", **cast("dict[str, Any]", config)})
    return Preprocess()


def _source_digest(network: nn.Module) -> str:
    """Weights alone do not define a function: the classes' source code and the layers' settings do the rest."""
    parts = [repr(network)]
    for kind in sorted({type(m) for m in network.modules()}, key=lambda k: f"{k.__module__}.{k.__qualname__}"):
        if kind.__module__.split(".")[0] == "torch":
            continue
        try:
            parts.append(inspect.getsource(kind))
        except (OSError, TypeError):  # made in an interactive session: only its settings can be digested
            parts.append(kind.__qualname__)
    return bytes_digest("\n".join(parts).encode())[:16]
