"""Frozen features as a step of a scikit-learn pipeline: whatever classifies vectors can be the head."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin

from frostline._device import resolve_device
from frostline.backbone import Backbone, open_backbone
from frostline.backbone.sealed import record_backbone, recorded_backbone
from frostline.errors import DecodeError
from frostline.features import ImageSet
from frostline.features.choice import choose_engine
from frostline.features.extract import Prefix
from frostline.features.images import digest_files
from frostline.features.known import backbone_subject, is_known, recorded_subject
from frostline.features.shape import feature_shape
from frostline.freeze.apply import evaluating, freeze
from frostline.freeze.crossing import Crossing, Layout
from frostline.labelled import Pictures, picture_files
from frostline.use import features_of


class FeatureExtractor(TransformerMixin, BaseEstimator):
    """Pictures to the features of a frozen backbone: ``make_pipeline(FeatureExtractor(), StandardScaler(), SVC())``.

    It learns nothing, so that cross-validation around a pipeline is honest; with ``cache_dir`` the backbone is run once an image, however
    often a search fits the rest. A pipeline is saved with skops or joblib as any other: the extractor is its constructor's arguments.

    Args:
        backbone: what :func:`frostline.open_backbone` takes by name.
        weights: ``default``, ``random`` or a file.
        cache_dir: folder of the feature cache; None keeps nothing.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        replace_layer: layer of one's own network to drop, such as ``fc``.
        precision: ``auto``, ``fp32`` or ``bf16``.
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        weights: str | Path = "default",
        cache_dir: str | Path | None = None,
        device: str = "auto",
        replace_layer: str | None = None,
        precision: str = "auto",
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.cache_dir = cache_dir
        self.device = device
        self.replace_layer = replace_layer
        self.precision = precision

    def __sklearn_tags__(self) -> Any:
        tags: Any = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def fit(self, X: Pictures, y: object = None) -> Self:  # noqa: N803, ARG002
        """Nothing is learnt."""
        return self

    def transform(self, X: Pictures) -> np.ndarray[Any, Any]:  # noqa: N803
        """Features ``(N, d)`` float32; maps are averaged over positions.

        Args:
            X: ``N`` paths, PIL images or uint8 arrays ``(H, W, 3)``, ``(H, W, 4)`` or ``(H, W)``; a data set; or a folder.

        Raises:
            BackboneError: no such backbone.
            DataError: ``X`` is no list of pictures.
            DecodeError: one of the files is no image; names it.
        """
        cache = None if self.cache_dir is None else Path(self.cache_dir)
        with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
            paths = picture_files(X, Path(scratch))
            images = ImageSet(tuple(paths), tuple(digest_files(paths)))
            seen = features_of(images, self._prefix(images, cache), cache=cache)
        if len(seen.images) < len(images):
            readable = set(seen.images.paths)
            raise DecodeError("is no image that can be read", where=next(p for p in paths if p not in readable))
        return seen.features.numpy()

    def _prefix(self, images: ImageSet, cache: Path | None) -> Prefix:
        device = resolve_device(self.device)
        opened = None if cache is None else self._on_record(images, cache, device)
        if opened is None:
            opened = open_backbone(self.backbone, self.weights, replace=self.replace_layer)
            freeze(opened.body, trainable=(), pinned=[n for n, _ in opened.body.named_modules()])
            opened.body.to(device)
            with evaluating(opened.body):
                layout = Layout.of([opened.body(opened.example(2))])
            if cache is not None:
                record_backbone(opened, layout.parts[0].shape, cache)
        else:
            layout = Layout((Crossing(feature_shape(opened)),))
        subject = backbone_subject(opened, weights=opened.digest, device=device, precision=self.precision, engine="auto")
        return Prefix(choose_engine(subject, images, cache, wanted=images), opened.preprocess, device, layout, subject.settings)

    def _on_record(self, images: ImageSet, cache: Path, device: torch.device) -> Backbone | None:
        """The backbone as it was recorded, where that is enough: a search transforms the same pictures again and again."""
        recorded = recorded_backbone(self.backbone, str(self.weights), cache)
        if recorded is None:
            return None
        subject = recorded_subject(recorded, device=device, precision=self.precision, engine="auto")
        sealed = recorded.sealed() if is_known(subject, images, ImageSet((), ()), (), cache, "fp32") else None
        return sealed if sealed is not None and len(feature_shape(sealed)) == 1 else None
