"""The whole way with scikit-learn's habits: ``fit``, ``predict``, ``predict_proba``, ``score``; ``save`` and ``load``."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from frostline._atomic import write_bytes
from frostline.backbone import open_backbone
from frostline.data.manifest import ImageRecord, Manifest
from frostline.data.read import read_data, read_labelled
from frostline.data.split import duplicates_across, ensure_splits
from frostline.errors import DataError, DecodeError
from frostline.features import ImageSet
from frostline.features.extract import full_batches, pixel_batches
from frostline.features.images import digest_files
from frostline.fitting import Compute, EpochDone, Event, fit
from frostline.freeze import FreezePlan
from frostline.model import TransferModel
from frostline.recipe import Recipe, make_recipe
from frostline.run import Run, RunRecord, read_run, write_run
from frostline.run.layout import claim
from frostline.run.record import tensor_digests
from frostline.run.summary import Timing, summarise

Pictures = str | Path | Sequence[str | Path] | Sequence[Image.Image] | Sequence[np.ndarray[Any, Any]] | np.ndarray[Any, Any]


class ImageClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of images on top of a pre-trained backbone.

    The constructor stores its arguments and does nothing else; what is learnt ends in an underscore.

    Args:
        backbone: what :func:`frostline.open_backbone` takes by name.
        weights: ``default``, ``random`` or a file.
        unfreeze: selector of backbone layers to train as well.
        head: ``linear`` or ``mlp:WIDTH``.
        batch_norm: what batch norm does in frozen layers: ``frozen``, ``affine`` or ``train``.
        epochs: like the four after it, by the documented rule unless given.
        batch_size: images a step.
        lr: peak learning rate of the head.
        backbone_lr: peak learning rate of unfrozen layers.
        weight_decay: of AdamW.
        cache_dir: folder of the feature cache; None keeps features in memory only.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        random_state: seed of split, order and initial weights.

    Attributes:
        classes_: class labels, sorted; the order of ``predict_proba``'s columns.
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

    def fit(self, X: Pictures, y: Sequence[Any] | np.ndarray[Any, Any] | None = None) -> Self:  # noqa: N803
        """Train on a folder of class folders or a manifest file (``y`` is None), or on pictures with their labels.

        Args:
            X: a folder or manifest; or ``N`` paths, PIL images or uint8 arrays ``(H, W, 3)`` or ``(H, W)``.
            y: ``N`` labels of any kind that sorts.

        Raises:
            DataError: no usable images, one class only, or ``X`` and ``y`` of different length.
            RecipeError: a constructor argument is out of range.
        """
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
            manifest, self.classes_ = _training(X, y, Path(scratch))
            digests = digest_files([r.path for r in manifest.records])
            manifest = ensure_splits(manifest, digests, self.random_state)
            recipe = self._recipe(X)
            opened = open_backbone(self.backbone, self.weights)
            model = TransferModel(opened, self.head, len(self.classes_), self.random_state)
            original = tensor_digests(model)
            parts = [
                ImageSet.of(manifest.only(s), [d for d, r in zip(digests, manifest.records, strict=True) if r.split == s])
                for s in ("train", "val")
            ]
            cache = Path(scratch) if self.cache_dir is None else Path(self.cache_dir)
            events: list[Event] = list(
                fit(
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
                    compute=Compute(cache, self.device),
                )
            )
            run = Run(Path(), recipe, {}, manifest.classes, model)
            timing = Timing(0.0, began, time.perf_counter())
            self.summary_ = summarise(run, events, None, manifest, duplicates_across(manifest, digests), timing)
        self.model_ = model
        self._record = RunRecord(recipe, self.summary_, [asdict(e) for e in events if isinstance(e, EpochDone)], manifest, model, original)
        return self

    def predict_proba(self, X: Pictures) -> np.ndarray[Any, Any]:  # noqa: N803
        """Probabilities ``(N, classes)`` float64, columns in the order of ``classes_``.

        Raises:
            NotFittedError: before ``fit``.
            DecodeError: one of the pictures is no image; names it.
        """
        check_is_fitted(self, "model_")
        with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
            return self._probabilities(_paths(X, Path(scratch)))

    def predict(self, X: Pictures) -> np.ndarray[Any, Any]:  # noqa: N803
        """The most probable label of each picture: ``(N,)``.

        Raises:
            NotFittedError: before ``fit``.
            DecodeError: one of the pictures is no image; names it.
        """
        check_is_fitted(self, "model_")
        return self.classes_[self.predict_proba(X).argmax(1)]

    def score(self, X: Pictures, y: Sequence[Any] | np.ndarray[Any, Any] | None = None, sample_weight: Any = None) -> float:  # noqa: N803
        """Accuracy on labelled pictures; ``y`` is None for a folder of class folders or a manifest file.

        Raises:
            NotFittedError: before ``fit``.
            DataError: an unknown class, or no labels.
        """
        check_is_fitted(self, "model_")
        if y is not None:
            return float(np.average(self.predict(X) == np.asarray(y), weights=sample_weight))
        if not isinstance(X, str | Path):
            raise DataError("no labels", where="y", advice="give one label for each picture")
        manifest = read_labelled(Path(X), [str(c) for c in self.classes_])
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
        write_run(Path(folder), replace(self._record, summary={**self.summary_, "run": str(folder)}))

    @classmethod
    def load(cls, folder: str | Path, *, offline: bool = False) -> Self:
        """Read a run directory that :meth:`save` or ``frostline train`` wrote.

        Raises:
            RunError: it is incomplete or damaged.
        """
        run = read_run(Path(folder), offline=offline)
        r = run.recipe
        made = cls(
            r.backbone,
            r.weights,
            r.unfreeze,
            r.head,
            r.batch_norm,
            r.epochs,
            r.batch_size,
            r.lr,
            r.backbone_lr,
            r.weight_decay,
            None,
            r.device,
            r.seed,
        )
        made.model_, made.summary_ = run.model, run.summary
        made.classes_ = np.asarray(run.classes)
        return made

    def _recipe(self, data: object) -> Recipe:
        return make_recipe(
            {
                "data": str(data) if isinstance(data, str | Path) else "(given in Python)",
                "backbone": self.backbone,
                "weights": self.weights,
                "unfreeze": self.unfreeze,
                "head": self.head,
                "batch_norm": self.batch_norm,
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "lr": self.lr,
                "backbone_lr": self.backbone_lr,
                "weight_decay": self.weight_decay,
                "device": self.device,
                "seed": self.random_state,
            }
        )

    def _probabilities(self, paths: list[Path]) -> np.ndarray[Any, Any]:
        run = Run(Path(), self._recipe(""), {}, tuple(str(c) for c in self.classes_), self.model_)
        from frostline._device import resolve_device

        prefix = run.prefix(resolve_device(self.device))
        found: list[torch.Tensor] = []
        at = 0
        for batch in pixel_batches(paths, prefix.preprocess, full_batches(len(paths)), None):
            for path, picture in zip(paths[at:], batch, strict=False):
                if isinstance(picture, DecodeError):
                    raise picture.at(path)
            at += len(batch)
            found.append(run.probabilities(prefix, torch.stack(cast("list[torch.Tensor]", batch))))
        return torch.cat(found).numpy() if found else np.empty((0, len(self.classes_)))


def _training(X: Pictures, y: Any, scratch: Path) -> tuple[Manifest, np.ndarray[Any, Any]]:  # noqa: N803
    if y is None:
        if not isinstance(X, str | Path):
            raise DataError("no labels", where="y", advice="give one label for each picture, or a folder of class folders")
        manifest = read_data(Path(X))
        return manifest, np.asarray(manifest.classes)
    paths, labels = _paths(X, scratch), np.asarray(y)
    if len(paths) != len(labels):
        raise DataError(f"{len(paths)} pictures and {len(labels)} labels", where="X, y")
    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise DataError("one class only", where="y", advice="a classifier needs at least two classes")
    records = tuple(ImageRecord(p, int(i)) for p, i in zip(paths, index, strict=True))
    return Manifest(tuple(str(c) for c in classes), records), classes


def _paths(X: Pictures, scratch: Path) -> list[Path]:  # noqa: N803
    """Files as they are; pictures in memory are written losslessly, so that every pixel goes through the one decoder."""
    if isinstance(X, str | Path):
        return [Path(X)] if Path(X).is_file() else sorted(p for p in Path(X).rglob("*") if p.is_file() and not p.name.startswith("."))
    paths: list[Path] = []
    for number, item in enumerate(cast("Sequence[object]", X)):
        if isinstance(item, str | Path):
            paths.append(Path(item))
            continue
        picture = item if isinstance(item, Image.Image) else Image.fromarray(np.asarray(item, dtype=np.uint8))
        data = io.BytesIO()
        picture.save(data, "PNG")
        path = scratch / f"{number:07}.png"
        write_bytes(path, data.getvalue())
        paths.append(path)
    return paths
