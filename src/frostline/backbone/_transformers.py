"""Backbones from transformers: any of its image classification models, without the classifier; safetensors only.

A name is a folder with ``config.json`` and ``model.safetensors``, or one on the hub. The library's own code alone is run, never
code that comes with the weights.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from frostline._digest import settings_digest
from frostline._rng import seeded, stream
from frostline.backbone._checkpoint import LoadReport, read_state
from frostline.backbone._transformers_chain import chained
from frostline.backbone.network import Backbone
from frostline.backbone.preprocess import Preprocess
from frostline.errors import BackboneError, WeightsError

_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_CLASSIFIER = "classifier"


def open_transformers(name: str, weights: str, *, offline: bool) -> Backbone:
    """Open the model ``name`` with ``weights`` (``default``, ``random`` or a file).

    Raises:
        BackboneError: transformers is not installed, or ``name`` is no image classification model.
        WeightsError: the weights are not to be had, or do not fit.
    """
    try:
        import transformers
    except ImportError as fault:
        raise BackboneError("transformers is not installed", where=f"hf:{name}", advice='pip install "frostline[hf]"') from fault
    _check_folder(name)
    config = _config(name, offline=offline)
    with _quiet(), seeded(0, "random weights"):
        network, report = _network(name, weights, config, offline=offline)
    preprocess = _preprocess(name, config, offline=offline)
    classifier = _take_classifier(network, f"hf:{name}")
    example = torch.rand(2, 3, *preprocess.crop, generator=stream(0, "pictures for the chain"))
    settings = cast("dict[str, Any]", json.loads(config.to_json_string(use_diff=False)))
    described = settings_digest({k: v for k, v in settings.items() if not k.startswith("_")})[:16]
    return Backbone(
        f"hf:{name}",
        chained(network, example),
        preprocess,
        weights,
        report,
        f"transformers {transformers.__version__} {type(network).__name__} {described}",
        classifier if report.classifier_kept else None,
    )


def _check_folder(name: str) -> None:
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise BackboneError("no config.json in this folder", where=f"hf:{name}", advice="give a folder written by save_pretrained")
    elif name.startswith((".", "~", os.sep)) or name.count("/") > 1:
        raise BackboneError("no such folder", where=f"hf:{name}", advice="give a folder written by save_pretrained, or a name on the hub")


def _config(name: str, *, offline: bool) -> Any:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    try:
        config = AutoConfig.from_pretrained(name, local_files_only=offline, trust_remote_code=False)
    except Exception as fault:  # the hub's clients raise many kinds; whichever it is, the user needs the same line
        raise BackboneError(
            f"its config.json cannot be had ({_said(fault)})",
            where=f"hf:{name}",
            advice="give a folder written by save_pretrained, or put the model into Hugging Face's cache",
        ) from fault
    kind = str(config.model_type)
    if kind not in KNOWN:
        raise BackboneError(
            f"a model of type {kind!r} is no image classification model of transformers",
            where=f"hf:{name}",
            advice="for text and others see docs/ecosystem.md",
        )
    return config


def _network(name: str, weights: str, config: Any, *, offline: bool) -> tuple[nn.Module, LoadReport]:
    from transformers import AutoModelForImageClassification as Auto

    if weights == "random":
        with seeded(0, "random weights"):
            made = cast("Any", Auto).from_config(config)
        network, _ = _loaded(type(made), None, config, state_dict=made.state_dict())
        return network, LoadReport("random initialisation", 0, len(network.state_dict()))
    if weights != "default":
        kind = type(cast("Any", Auto).from_config(config))
        network, info = _loaded(kind, None, config, state_dict=read_state(Path(weights)))
        return network, _report(network, info, weights)
    try:
        network, info = _loaded(Auto, name, config, local_files_only=offline)
    except Exception as fault:  # as for the configuration
        raise WeightsError(
            f"its safetensors file cannot be had ({_said(fault)})",
            where=f"hf:{name}",
            advice="nothing is loaded by pickle: save it with save_pretrained, or give a file with --weights FILE",
        ) from fault
    return network, _report(network, info, name)


def _loaded(kind: Any, name: str | None, config: Any, **more: Any) -> tuple[nn.Module, Mapping[str, Any]]:
    """In eval mode, as ``from_pretrained`` leaves it, and what the library says about names."""
    return kind.from_pretrained(
        name,
        config=config,
        output_loading_info=True,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # they are counted below; the classifier alone may differ
        trust_remote_code=False,
        dtype=torch.float32,
        **more,
    )


def _report(network: nn.Module, info: Mapping[str, Any], source: str) -> LoadReport:
    """What was loaded.

    Raises:
        WeightsError: which tensors are missing or of another shape, the classifier's apart, or hold no numbers.
    """
    wrong = sorted({str(n) for n in info["missing_keys"]} | {str(m[0]) for m in info["mismatched_keys"]})
    total = network.state_dict()
    unfit = [n for n in wrong if n.startswith(f"{_CLASSIFIER}.")]
    missing = [n for n in wrong if n not in unfit]
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise WeightsError(
            f"{len(total) - len(wrong)} of {len(total)} tensors match; missing or of another shape: {', '.join(missing[:4])}{more}",
            where=source,
            advice="give the weights of this very architecture",
        )
    bad = next((n for n, t in total.items() if n not in unfit and t.is_floating_point() and not bool(torch.isfinite(t).all())), None)
    if bad is not None:
        raise WeightsError(f"tensor {bad} holds NaN or infinite values", where=source)
    count = len(total) - len(unfit)
    return LoadReport(source, count, count, left_over=tuple(sorted(info["unexpected_keys"])), classifier_kept=not unfit)


def _take_classifier(network: nn.Module, where: str) -> nn.Module:
    """Take the last linear layer out; what comes before it in the classifier (a flattening) stays."""
    found = dict(network.named_children()).get(_CLASSIFIER)
    place = _CLASSIFIER
    if isinstance(found, nn.Sequential) and len(found):
        place, found = f"{_CLASSIFIER}.{len(found) - 1}", found[-1]
    if not isinstance(found, nn.Linear):
        raise BackboneError(
            f"{type(network).__name__} has no linear classifier at its end to replace", where=where, advice="use the same model of timm"
        )
    network.set_submodule(place, nn.Identity())
    return found


def _preprocess(name: str, config: Any, *, offline: bool) -> Preprocess:
    """From ``preprocessor_config.json``; where there is none the middle of the picture, of the size that the model takes."""
    from transformers import ImageProcessingMixin

    try:
        said = cast("dict[str, Any]", cast("Any", ImageProcessingMixin).get_image_processor_dict(name, local_files_only=offline)[0])
    except (OSError, ValueError):
        size = getattr(config, "image_size", None) or 224
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        return Preprocess((height, width), round(min(height, width) / 0.875), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    try:
        return preprocess_of(said)
    except (KeyError, TypeError, ValueError) as fault:
        raise BackboneError(f"its preprocessor_config.json is not understood ({_said(fault)})", where=f"hf:{name}") from fault


def preprocess_of(said: Mapping[str, Any]) -> Preprocess:
    """The preprocessing that transformers' settings describe.

    Args:
        said: the content of ``preprocessor_config.json``.

    Raises:
        ValueError: it asks for something that :class:`Preprocess` does not do.
    """
    if not said.get("do_resize", True) or abs(float(said.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-6:
        raise ValueError("do_resize and a rescale_factor of 1/255 are expected")
    filter_name = _FILTERS[int(said.get("resample") or 2)]
    size, mean, std = said["size"], (0.0,) * 3, (1.0,) * 3
    if said.get("do_normalize", True):
        mean, std = tuple(map(float, said["image_mean"])), tuple(map(float, said["image_std"]))
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"{len(mean)} channels, frostline gives 3")
    size = {"height": size, "width": size} if isinstance(size, int) else size
    colours = (mean, std)
    if "shortest_edge" not in size:
        crop = (int(size["height"]), int(size["width"]))
        if said.get("do_center_crop") and said.get("crop_size", size) != size:
            raise ValueError("a crop of a stretched picture")
        return Preprocess(crop, max(crop), "squash", filter_name, *colours)
    edge = int(size["shortest_edge"])
    if "crop_pct" in said and not said.get("do_center_crop"):  # ConvNeXt: a crop below 384 pixels, the whole picture from there
        if edge >= 384:
            return Preprocess((edge, edge), edge, "squash", filter_name, *colours)
        return Preprocess((edge, edge), int(edge / float(said["crop_pct"])), "center", filter_name, *colours)
    cut = said.get("crop_size", edge) if said.get("do_center_crop") else edge
    crop = (int(cut), int(cut)) if isinstance(cut, int) else (int(cut["height"]), int(cut["width"]))
    return Preprocess(crop, edge, "center", filter_name, *colours)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no warnings of the library for a moment: what is missing or left over is in the report."""
    from transformers.utils import logging

    said, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(said)
        if bars:
            logging.enable_progress_bar()


def _said(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    return f"{type(fault).__name__}: {lines[0][:120]}" if lines else type(fault).__name__
