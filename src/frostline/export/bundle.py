"""``safetensors``: the run as an ordinary model of timm, torchvision or one's own, built by that library alone.

Where a library's model ends in one linear layer on what the run's head sits on, the head goes in its place, and the result is exactly
such a model with as many classes. Otherwise the head's layers stand behind the model in an ``nn.Sequential``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision import models

from frostline._rng import seeded
from frostline.backbone import open_backbone
from frostline.backbone._torchvision import last_layer
from frostline.backbone.spec import BackboneSpec
from frostline.errors import ExportError
from frostline.export.config import timm_config
from frostline.export.lines import FOLDER
from frostline.export.parity import Answer
from frostline.export.plain_head import empty_linear, plain_layers
from frostline.features.depths import ALL
from frostline.freeze.apply import set_mode
from frostline.run import Run

FILE = "model.safetensors"
_LOAD = f'model.eval().load_state_dict(load_file("{FOLDER}/{FILE}"))'


@dataclass(frozen=True, eq=False)
class Bundle:
    """An ordinary model with the trained weights.

    Attributes:
        state: its tensors by name.
        load: what the lines do: the model built by its library, with the weights in a folder.
        lines: of Python, that load it.
        library: whose model it is: ``timm`` or ``pytorch``, in Hugging Face's words.
        config: ``config.json`` in timm's form, where timm alone can load it.
        what: in words.
    """

    state: Mapping[str, torch.Tensor]
    load: Callable[[Path], nn.Module]
    lines: tuple[str, ...]
    library: str
    config: Mapping[str, Any] | None
    what: str


def bundles(run: Run) -> Iterator[Bundle]:
    """The ways in which the run is an ordinary model, the most ordinary first; one that is another function than the run fails the gate.

    Raises:
        ExportError: the head sits on a feature map or on earlier layers, or the backbone is one of transformers.
    """
    at = run.model.head_spec.at
    if at is not None:
        where = "what all layers give" if at == ALL else f"what {at} gives"
        raise ExportError(
            f"the head sits on {where}, not on the last layer: it is no part of a model of timm or torchvision",
            where="--format safetensors",
            advice="use --format onnx or --format torch-export, which take every head",
        )
    layers = plain_layers(run.model.head)
    spec = BackboneSpec.parse(run.recipe.backbone)
    if spec.family == "hf":
        raise ExportError(
            "a backbone of transformers is not written as a plain model",
            where="--format safetensors",
            advice="use --format torch-export or onnx",
        )
    state = dict(run.model.backbone.state_dict())
    if spec.family == "timm":
        grafted = _timm_model(run, spec.name, state, layers)
        if grafted is not None:
            yield grafted
        make, expression = _of_timm(spec.name), f'timm.create_model("{spec.name}", num_classes=0)'
        yield _in_a_row(make, state, layers, ("import timm, torch",), (f"model = {expression}",))
        return
    if spec.family == "torchvision":
        make, expression = _of_torchvision(spec.name, run.model.backbone)
        first, place = "import torch, torchvision", last_layer(make())
    else:
        make, (first, expression) = _of_own(spec.name), _own_lines(spec.name)
        place = run.recipe.replace_layer
    if place is not None and len(layers) == 1:
        yield _in_place(make, place, state, layers[0], (first,), f"model = {expression}")
    build = [f"model = {expression}"] + ([f'model.set_submodule("{place}", torch.nn.Identity())'] if place else [])
    yield _in_a_row(_without(make, place), state, layers, (first,), tuple(build))


def network_answer(network: nn.Module, run: Run) -> Answer:
    """A model at work, on pictures that are normalised as the run's are."""
    set_mode(network, training=False)

    def answer(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        with torch.no_grad():
            return network(run.model.opened.preprocess.normalise(pictures)), None

    return answer


Make = Callable[[], nn.Module]


def _of_timm(name: str, classes: int = 0) -> Make:
    def make() -> nn.Module:
        with seeded(0, "replaced weights"):
            return cast("Callable[..., nn.Module]", timm.create_model)(name, num_classes=classes)

    return make


def _of_torchvision(name: str, trained: nn.Module) -> tuple[Make, str]:
    """How to make torchvision's model as it was opened, and how that is written; without a second classifier for training."""
    options: dict[str, Any] = {}
    if "transform_input" in vars(trained):
        options = {"aux_logits": False, "init_weights": False, "transform_input": bool(vars(trained)["transform_input"])}

    def make() -> nn.Module:
        with seeded(0, "replaced weights"):
            return models.get_model(name, weights=None, **options)

    given = ", ".join([json.dumps(name), *(f"{k}={v}" for k, v in options.items())])
    return make, f"torchvision.models.get_model({given})"


def _of_own(name: str) -> Make:
    def make() -> nn.Module:
        return open_backbone(name, "random").body

    return make


def _own_lines(name: str) -> tuple[str, str]:
    """Lines that import one's own network, and the expression that makes it."""
    place, _, attribute = name.partition(":")
    found: object = vars(importlib.import_module(place))[attribute]
    called = "" if isinstance(found, nn.Module) else "()"
    return f"import torch, {place}", f"{place}.{attribute}{called}"


def _without(make: Make, place: str | None) -> Make:
    def made() -> nn.Module:
        network = make()
        if place is not None:
            network.set_submodule(place, nn.Identity())
        return network

    return made


def _timm_model(run: Run, name: str, state: Mapping[str, torch.Tensor], layers: tuple[nn.Module, ...]) -> Bundle | None:
    """timm's own model with so many classes; None where its classifier is more than a linear layer, or several with the same weights."""
    fresh = _of_timm(name, len(run.classes))()
    wanted = fresh.state_dict()
    named = cast("dict[str, Any]", cast("Any", fresh).pretrained_cfg).get("classifier") or ()
    ends = (named,) if isinstance(named, str) else tuple(cast("tuple[str, ...]", named))
    new = {f"{end}.{part}": cast("nn.Linear", layers[0]).get_parameter(part) for end in ends for part in ("weight", "bias")} if ends else {}
    if len(layers) > 1 or {*state, *new} != set(wanted) or any(n in state or t.numel() != wanted[n].numel() for n, t in new.items()):
        return None
    architecture = str(cast("Any", fresh).pretrained_cfg["architecture"])

    def load(folder: Path) -> nn.Module:
        with seeded(0, "replaced weights"):
            return cast("Callable[..., nn.Module]", timm.create_model)(f"local-dir:{folder}", pretrained=True)

    lines = (
        "import timm, torch",
        "from safetensors.torch import load_file",
        f'model = timm.create_model("{architecture}", num_classes={len(run.classes)})',
        _LOAD,
        f'# or in one: model = timm.create_model("local-dir:{FOLDER}", pretrained=True).eval()',
    )
    tensors = {**state, **{n: t.detach().view(wanted[n].shape) for n, t in new.items()}}
    what = f"timm's {architecture} with {len(run.classes)} classes, head and input scaling in its own classifier ({', '.join(ends)})"
    return Bundle(tensors, load, lines, "timm", timm_config(run, fresh), what)


def _in_place(make: Make, place: str, state: Mapping[str, torch.Tensor], layer: nn.Module, first: tuple[str, ...], build: str) -> Bundle:
    """The network with the linear layer in the place of the one that was there."""

    def made() -> nn.Module:
        network = make()
        network.set_submodule(place, _like(layer))
        return network

    wanted = made().state_dict()
    every = {**state, **{f"{place}.{n}": t for n, t in layer.state_dict().items()}}
    tensors = {n: t for n, t in every.items() if n in wanted}  # torchvision's second classifiers for training are left out
    lines = (*first, "from safetensors.torch import load_file", build, f'model.set_submodule("{place}", {_written(layer)})', _LOAD)
    return Bundle(tensors, _loading(made), lines, "pytorch", None, f"the network with a linear layer as its {place}")


def _in_a_row(
    make: Make, state: Mapping[str, torch.Tensor], layers: tuple[nn.Module, ...], first: tuple[str, ...], build: tuple[str, ...]
) -> Bundle:
    """The network without its classifier, then the head's layers."""

    def made() -> nn.Module:
        return nn.Sequential(make(), *(_like(layer) for layer in layers))

    wanted = made().state_dict()
    head = {f"{i}.{n}": t for i, layer in enumerate(layers, 1) for n, t in layer.state_dict().items()}
    tensors = {n: t for n, t in {**{f"0.{n}": t for n, t in state.items()}, **head}.items() if n in wanted}
    row = f"model = torch.nn.Sequential(model, {', '.join(map(_written, layers))})"
    lines = (*first, "from safetensors.torch import load_file", *build, row, _LOAD)
    return Bundle(tensors, _loading(made), lines, "pytorch", None, "the network without its classifier, and the head's layers behind it")


def _loading(make: Make) -> Callable[[Path], nn.Module]:
    def load(folder: Path) -> nn.Module:
        network = make()
        try:
            network.load_state_dict(load_file(folder / FILE))
        except RuntimeError as fault:
            raise ExportError(f"the network built anew is another than the run's ({str(fault).splitlines()[0][:120]})") from fault
        return network

    return load


def _like(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.Linear):
        return nn.GELU()
    return empty_linear(layer.in_features, layer.out_features)


def _written(layer: nn.Module) -> str:
    return f"torch.nn.Linear({layer.in_features}, {layer.out_features})" if isinstance(layer, nn.Linear) else "torch.nn.GELU()"
