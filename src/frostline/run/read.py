"""Read a run directory and build its model again, refusing one whose weights are not the run's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from frostline._digest import tensors_digest
from frostline.backbone import Preprocess, open_backbone
from frostline.backbone.sealed import Sealed
from frostline.errors import RunError
from frostline.features.choice import choose_engine
from frostline.features.engine import Engine, plain
from frostline.features.extract import Prefix, filled_up
from frostline.features.images import ImageSet
from frostline.features.key import BATCH
from frostline.features.known import backbone_subject
from frostline.freeze.apply import evaluating, freeze
from frostline.freeze.crossing import Crossing, Layout
from frostline.model import TransferModel
from frostline.recipe import Recipe, read_recipe
from frostline.run import layout

ANSWERED_AT_ONCE = 4
"""Pictures a forward pass on the CPU where they are labelled: one alone waits for four, not for sixteen, and many take no longer."""


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run, ready to be used.

    Attributes:
        folder: where it lies.
        recipe: how it was made.
        summary: its outcome.
        classes: class names, in the order of the logits.
        model: in eval mode, all of it frozen; ``model.opened`` describes the backbone as it was trained.
    """

    folder: Path
    recipe: Recipe
    summary: dict[str, Any]
    classes: tuple[str, ...]
    model: TransferModel

    def prefix(self, device: torch.device) -> Prefix:
        """The trained backbone, all of it frozen by now, run as it is."""
        made = self._prefix(device, plain(self.model.backbone, "bf16" if self.recipe.precision == "bf16" else "fp32"))
        return replace(made, at_once=ANSWERED_AT_ONCE if device.type == "cpu" else BATCH)

    def fast_prefix(self, device: torch.device, images: ImageSet, cache: Path | None) -> Prefix:
        """The same for many images: a backbone that others have too is run by the engine that is chosen on this machine."""
        return self._chosen(device, images, cache, "auto", images)

    def prefix_as_trained(self, device: torch.device, images: ImageSet, cache: Path | None) -> Prefix:
        """The same, run as it was in training on ``images``; for the process that has just trained it."""
        return self._chosen(device, images, cache, self.recipe.engine)

    def _chosen(self, device: torch.device, images: ImageSet, cache: Path | None, asked: str, wanted: ImageSet | None = None) -> Prefix:
        self.model.to(device)
        weights, precision = tensors_digest(self.model.backbone.state_dict()), self.recipe.precision
        if not self.recipe.head_alone:  # weights of its own: an engine would be made for this run alone
            asked, precision = "plain", "bf16" if precision == "bf16" else "fp32"
        subject = backbone_subject(self.model.opened, weights=weights, device=device, precision=precision, engine=asked)
        return self._prefix(device, choose_engine(subject, images, cache, wanted=wanted), subject.settings)

    def _prefix(self, device: torch.device, engine: Engine, settings: Mapping[str, object] | None = None) -> Prefix:
        self.model.to(device)
        return Prefix(engine, self.model.opened.preprocess, device, self._layout(), settings or {}, self.recipe.storage)

    def _layout(self) -> Layout:
        """As training packs them: a map is kept as it lies in memory, and its rows in the cache are shared."""
        body = self.model.opened.body
        if isinstance(body, Sealed):
            return Layout((Crossing(body.shape_of_features),))
        with evaluating(body), torch.no_grad():
            return Layout.of([body(self.model.example(2))])

    def probabilities(self, prefix: Prefix, pixels: torch.Tensor) -> torch.Tensor:
        """``(N, 3, H, W)`` uint8 to ``(N, classes)`` float64, whatever the company: the batch shape is fixed for the head too."""
        return self.probabilities_of(prefix, prefix(pixels))

    def probabilities_of(self, prefix: Prefix, rows: torch.Tensor) -> torch.Tensor:
        """The same from what ``prefix`` gave for them, packed rows ``(N, size)``."""
        rows = rows.to(prefix.device)
        with torch.no_grad():
            logits = [self.model.head(prefix.layout.unpack(filled_up(part))[0])[: len(part)] for part in rows.split(BATCH)]
        return torch.cat(logits).cpu().double().softmax(1)


def read_run(folder: str | Path, *, offline: bool = False) -> Run:
    """Open a run that ``frostline train`` or ``ImageClassifier.save`` wrote.

    Raises:
        RunError: it is incomplete, or its weights are damaged or belong to another backbone.
        WeightsError: the published backbone that it stands on is not to be had.
    """
    folder = Path(folder)
    layout.check_run(folder)
    recipe = read_recipe(folder / layout.RECIPE)
    summary = read_summary(folder)
    classes = tuple(cast("list[str]", _json(folder / layout.LABELS)))
    preprocess = Preprocess.from_settings(cast("dict[str, object]", _json(folder / layout.PREPROCESS)))
    tensors, metadata = _tensors(folder / layout.WEIGHTS)
    stored = any(n.startswith("backbone.") for n in tensors)
    structure_only = "default" if recipe.weights == "default" else "random"  # a run on other weights keeps all of them
    opened = open_backbone(recipe.backbone, structure_only, replace=recipe.replace_layer, offline=offline)
    model = TransferModel(replace(opened, preprocess=preprocess), metadata.get("head", recipe.head), len(classes))
    wanted = set(model.state_dict())
    given = set(tensors)
    if given - wanted or any(n.startswith("head.") and n not in given for n in wanted):
        raise RunError("the weights do not fit the recipe's network", where=folder / layout.WEIGHTS)
    try:
        model.load_state_dict(tensors, strict=False)
    except RuntimeError as fault:
        raise RunError("the weights do not fit the recipe's network", where=folder / layout.WEIGHTS) from fault
    digest = tensors_digest(model.backbone.state_dict())
    if digest != metadata.get("backbone_sha256"):
        raise RunError(
            "the backbone is not the one that this run was trained on",
            where=folder,
            advice="train again, or restore its weights",
        )
    if stored:
        model.opened = replace(model.opened, digest=digest)
    freeze(model, trainable=(), pinned=[n for n, _ in model.named_modules()])
    return Run(folder, recipe, summary, classes, model)


def read_summary(folder: Path) -> dict[str, Any]:
    """What ``summary.json`` of a run holds; nothing else of it is read.

    Raises:
        RunError: the run is incomplete, or the file is damaged.
    """
    layout.check_run(folder)
    return cast("dict[str, Any]", _json(folder / layout.SUMMARY))


def _tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            opened = cast("Any", file)
            about = cast("dict[str, Any]", json.loads((opened.metadata() or {})["frostline"]))
            return {n: opened.get_tensor(n) for n in opened.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as fault:
        raise RunError(f"is damaged ({fault})", where=path) from fault


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise RunError(f"is damaged ({fault})", where=path) from fault
