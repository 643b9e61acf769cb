"""The whole way with scikit-learn's habits: ``fit``, ``predict``, ``predict_proba``, ``score``; ``save`` and ``load``."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from safetensors import safe_open
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from frostline._device import resolve_device
from frostline.backbone import open_backbone
from frostline.data._classes import naming
from frostline.data._names import listed
from frostline.data.manifest import ImageRecord, Manifest
from frostline.data.read import read_labelled
from frostline.data.split import duplicates_across, ensure_splits
from frostline.errors import DataError, DecodeError, RunError
from frostline.familiar import read_familiar, write_familiar
from frostline.features import ImageSet
from frostline.features.images import digest_files
from frostline.features.pixels import full_batches, pixel_batches
from frostline.fitting import Compute, EpochDone, Event, Finished, fit
from frostline.fitting.baselines import baselines_of
from frostline.fitting.calibrate import calibrated
from frostline.freeze import FreezePlan
from frostline.given import is_dataset
from frostline.labelled import Pictures, check_same_length, class_labels, labelled_manifest, picture_files, unpacked, without_folder
from frostline.listening import ProgressBar
from frostline.model import TransferModel
from frostline.recipe import Recipe, make_recipe
from frostline.run import Run, RunRecord, layout, read_run, write_run
from frostline.run.layout import claim
from frostline.run.record import tensor_digests
from frostline.run.summary import Honest, Leaks, Timing, choices_json, phases_json, summarise
from frostline.use import familiar_of

_OF_THE_RECIPE = (
    *("backbone", "weights", "replace_layer", "unfreeze", "head", "batch_norm", "epochs", "batch_size", "lr", "backbone_lr"),
    *("weight_decay", "sweep", "precision", "device"),
)
"""Arguments that a recipe has by the same names."""


class ImageClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of images on top of a pre-trained backbone.

    The constructor stores its arguments and does nothing else; what is learnt ends in an underscore.

    Args:
        backbone: what :func:`frostline.open_backbone` takes by name.
        weights: ``default``, ``random`` or a file.
        unfreeze: selector of backbone layers to train as well.
        head: ``linear``, ``ridge``, ``logistic``, ``mlp:WIDTH``, ``conv:CHANNELS`` or ``attention``.
        batch_norm: what batch norm does in frozen layers: ``frozen``, ``affine`` or ``train``.
        epochs: like the four after it, by the documented rule unless given.
        batch_size: images a step.
        lr: peak learning rate of the head.
        backbone_lr: peak learning rate of unfrozen layers.
        weight_decay: of AdamW.
        cache_dir: folder of the feature cache; None keeps features in memory only.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        random_state: seed of split, order and initial weights.
        replace_layer: layer of one's own network to drop, such as ``fc``.
        precision: of the frozen layers: ``auto``, ``fp32`` or ``bf16``.
        sweep: heads to try at once by cross-validation on the training images; 0 trains the one that was named.
        verbose: 1 shows a progress bar while it is fitted.

    Attributes:
        classes_: class labels, sorted, of the type that was given; the order of ``predict_proba``'s columns.
        model_: the trained :class:`TransferModel`.
        summary_: the outcome, as ``summary.json`` keeps it.
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        weights: str = "default",
        unfreeze: str = "none",
        head: str = "linear",
        batch_norm: str = "frozen",
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        backbone_lr: float | None = None,
        weight_decay: float | None = None,
        cache_dir: str | Path | None = None,
        device: str = "auto",
        random_state: int = 0,
        replace_layer: str | None = None,
        precision: str = "auto",
        sweep: int = 0,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.unfreeze = unfreeze
        self.head = head
        self.batch_norm = batch_norm
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.backbone_lr = backbone_lr
        self.weight_decay = weight_decay
        self.cache_dir = cache_dir
        self.device = device
        self.random_state = random_state
        self.replace_layer = replace_layer
        self.precision = precision
        self.sweep = sweep
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags: Any = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def fit(self, X: Pictures, y: Sequence[Any] | np.ndarray[Any, Any] | None = None) -> Self:  # noqa: N803
        """Train on a folder of class folders or a manifest file (``y`` is None), or on pictures with their labels.

        A file that is no image is left out and listed in ``summary_["images_skipped"]``. What was learnt before is replaced
        when everything is done, and is kept where an error comes first.

        Args:
            X: a folder, table or tar files; or ``N`` paths, PIL images or uint8 arrays ``(H, W, 3)``, ``(H, W, 4)`` or ``(H, W)``;
                or a data set of torch, torchvision or Hugging Face with items of picture and label (``y`` is None).
            y: ``N`` class labels: strings, whole numbers, booleans.

        Raises:
            DataError: no usable images, one class only, ``X`` and ``y`` of different length, or ``y`` is no class labels.
            RecipeError: a constructor argument is out of range.
        """
        began = time.perf_counter()
        recipe = self._recipe(X)
        with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
            manifest, classes = labelled_manifest(X, y, Path(scratch))
            digests = digest_files([r.path for r in manifest.records])
            manifest = ensure_splits(manifest, digests, self.random_state)
            opened = open_backbone(self.backbone, self.weights, replace=self.replace_layer)
            model = TransferModel(opened, self.head, len(classes), self.random_state)
            original = tensor_digests(model)
            parts = [
                ImageSet.of(manifest.only(s), [d for d, r in zip(digests, manifest.records, strict=True) if r.split == s])
                for s in ("train", "val")
            ]
            cache = None if self.cache_dir is None else Path(self.cache_dir)
            with naming(manifest.classes):
                events = self._fitted(model, recipe, parts, cache)
            assert isinstance(events[-1], Finished)
            finished, calibration = calibrated(model.head, events[-1], self.random_state)
            run = Run(Path(), recipe, {}, manifest.classes, model)
            device, images = resolve_device(self.device), parts[0] + parts[1]
            familiar = familiar_of(run, finished, parts[0], manifest, lambda: run.prefix_as_trained(device, images, cache), cache)
            manifest = without_folder(manifest, Path(scratch))
        timing = Timing(0.0, began, time.perf_counter())
        leaks = Leaks(duplicates_across(manifest, digests), None)
        honest = Honest(None, None, baselines_of(finished), calibration, leaks)
        summary = summarise(run, [*events[:-1], finished], honest, manifest, phases_json(events), choices_json(events), timing)
        metrics = [asdict(e) for e in events if isinstance(e, EpochDone)]
        self._record = RunRecord(recipe, summary, metrics, manifest, model, original)
        self._familiar = familiar
        self.classes_, self.model_, self.summary_ = classes, model, summary
        return self

    def _fitted(self, model: TransferModel, recipe: Recipe, parts: Sequence[ImageSet], cache: Path | None) -> list[Event]:
        shown = ProgressBar() if self.verbose else None
        events: list[Event] = []
        try:
            for event in fit(
                model,
                FreezePlan(self.unfreeze, recipe.batch_norm),
                parts[0],
                parts[1],
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                backbone_lr=self.backbone_lr,
                weight_decay=self.weight_decay,
                seed=self.random_state,
                compute=Compute(cache, device=self.device, precision=self.precision),
                sweep=self.sweep,
            ):
                events.append(event)
                if shown is not None:
                    shown(event)
        finally:
            if shown is not None:
                shown.close()
        return events

    def predict_proba(self, X: Pictures) -> np.ndarray[Any, Any]:  # noqa: N803
        """Probabilities ``(N, classes)`` float64, columns in the order of ``classes_``.

        Raises:
            NotFittedError: before ``fit``.
            DataError: no such folder, or ``X`` is no list of pictures.
            DecodeError: one of the files is no image; names it.
        """
        check_is_fitted(self, "model_")
        with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
            return self._probabilities(picture_files(X, Path(scratch)))

    def predict(self, X: Pictures) -> np.ndarray[Any, Any]:  # noqa: N803
        """The most probable label of each picture: ``(N,)``.

        Raises:
            NotFittedError: before ``fit``.
            DataError: no such folder, or ``X`` is no list of pictures.
            DecodeError: one of the files is no image; names it.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def score(self, X: Pictures, y: Sequence[Any] | np.ndarray[Any, Any] | None = None, sample_weight: Any = None) -> float:  # noqa: N803
        """Accuracy on labelled pictures; ``y`` is None for a folder of class folders or a manifest file.

        Raises:
            NotFittedError: before ``fit``.
            DataError: a label that ``fit`` did not see, no labels, or ``X`` and ``y`` of different length.
            DecodeError: one of the files is no image; names it.
        """
        check_is_fitted(self, "model_")
        if y is None and is_dataset(X):
            with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
                return self.score(*unpacked(X, Path(scratch)), sample_weight)
        if y is not None:
            labels = class_labels(y)
            known = self.classes_.tolist()
            unknown = [repr(c) for c in dict.fromkeys(labels.tolist()) if c not in known]
            if unknown:
                raise DataError(f"labels unknown to training: {listed(unknown)} (known: {listed([repr(c) for c in known])})", where="y")
            found = self.predict(X)
            check_same_length(len(found), labels)
            return float(np.average(found == labels, weights=sample_weight))
        if not isinstance(X, str | Path):
            raise DataError("no labels", where="y", advice="give one label for each picture")
        manifest = read_labelled(Path(X), self._record.manifest.classes)
        right = self.predict([r.path for r in manifest.records]) == self.classes_[manifest.labels()]
        return float(np.average(right, weights=sample_weight))

    def save(self, folder: str | Path) -> None:
        """Write a run directory that :meth:`load` and the command line read.

        Raises:
            NotFittedError: before ``fit``.
            RunError: the folder exists already or cannot be written.
        """
        check_is_fitted(self, "model_")
        claim(Path(folder))
        summary = {**self.summary_, "run": str(folder)}
        if self.classes_.dtype.kind in "biuf":  # labels.json holds text
            summary["label_dtype"] = self.classes_.dtype.name
        if self._familiar is not None:
            write_familiar(Path(folder), self._familiar)
        write_run(Path(folder), replace(self._record, summary=summary))

    @classmethod
    def load(cls, folder: str | Path, *, offline: bool = False) -> Self:
        """Read a run directory that :meth:`save` or ``frostline train`` wrote; ``device`` is ``auto``, as on the command line.

        Raises:
            RunError: it is incomplete or damaged.
        """
        run = read_run(Path(folder), offline=offline)
        r = run.recipe
        made = cls(
            backbone=r.backbone,
            weights=r.weights,
            unfreeze=r.unfreeze,
            head=r.head,
            batch_norm=r.batch_norm,
            epochs=r.epochs,
            batch_size=r.batch_size,
            lr=r.lr,
            backbone_lr=r.backbone_lr,
            weight_decay=r.weight_decay,
            random_state=r.seed,
            replace_layer=r.replace_layer,
            precision=r.precision,
            sweep=r.sweep,
        )
        made._record, made._familiar = _record_of(run), read_familiar(run.folder, run.model.opened.digest)
        made.classes_, made.model_, made.summary_ = _classes_of(run), run.model, run.summary
        return made

    def _recipe(self, data: object) -> Recipe:
        given: dict[str, object] = {name: getattr(self, name) for name in _OF_THE_RECIPE}
        where = str(data) if isinstance(data, str | Path) else "(given in Python)"
        return make_recipe(given | {"data": where, "seed": self.random_state})

    def _probabilities(self, paths: list[Path]) -> np.ndarray[Any, Any]:
        run = Run(Path(), self._record.recipe, {}, self._record.manifest.classes, self.model_)
        prefix = run.prefix(resolve_device(self.device))
        found: list[torch.Tensor] = []
        at = 0
        for batch in pixel_batches(paths, prefix.preprocess, full_batches(len(paths))):
            for path, picture in zip(paths[at:], batch, strict=False):
                if isinstance(picture, DecodeError):
                    raise picture.at(path)
            at += len(batch)
            found.append(run.probabilities(prefix, torch.stack(cast("list[torch.Tensor]", batch))))
        return torch.cat(found).numpy() if found else np.empty((0, len(self.classes_)))


def _classes_of(run: Run) -> np.ndarray[Any, Any]:
    dtype: object = run.summary.get("label_dtype")
    names = np.asarray(run.classes)
    if dtype is None:
        return names
    try:
        return names == "True" if dtype == "bool" else names.astype(str(dtype))
    except (TypeError, ValueError) as fault:
        raise RunError(f"is damaged (label_dtype {dtype!r}: {fault})", where=run.folder / layout.SUMMARY) from fault


def _record_of(run: Run) -> RunRecord:
    """What ``save`` writes again. A run works without its metrics and its split; then there are none to write."""
    index = {name: i for i, name in enumerate(run.classes)}
    try:
        metrics, split = (p.read_text("utf-8") if p.exists() else "" for p in (run.folder / layout.METRICS, run.folder / layout.SPLIT))
        rows = [cast("dict[str, object]", json.loads(line)) for line in metrics.splitlines()]
        records = tuple(
            ImageRecord(Path(r["path"]), index[r["label"]] if r["label"] else None, r["split"] or None, r["group"] or None)
            for r in csv.DictReader(io.StringIO(split, newline=""))
        )
    except (OSError, ValueError, KeyError) as fault:
        raise RunError(f"its metrics or its split is damaged ({fault})", where=run.folder) from fault
    with safe_open(run.folder / layout.WEIGHTS, framework="pt") as file:
        stored = set(cast("Any", file).keys())
    original = {n: d for n, d in tensor_digests(run.model).items() if f"backbone.{n}" not in stored}
    return RunRecord(run.recipe, run.summary, rows, Manifest(run.classes, records), run.model, original)
