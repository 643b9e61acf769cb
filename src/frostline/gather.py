"""What a job begins with: the images by split, the backbone (opened only where it has to be), the model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from frostline import _collector
from frostline._device import resolve_device
from frostline.backbone import Backbone, open_backbone
from frostline.backbone.sealed import Sealed, record_backbone, recorded_backbone
from frostline.data.manifest import Manifest
from frostline.data.read import read_data
from frostline.data.split import ensure_splits
from frostline.data.views import Views
from frostline.features.images import ImageSet, digest_files
from frostline.features.known import is_known, recorded_subject
from frostline.features.shape import feature_shape
from frostline.heads import HeadSpec
from frostline.model import TransferModel
from frostline.recipe import Recipe
from frostline.run.record import tensor_digests


@dataclass(frozen=True, eq=False)
class AtHand:
    """What training begins with.

    Attributes:
        manifest: every image with its class and split.
        digests: SHA-256 of each one's content.
        images: by split: ``train``, ``val`` and ``test``.
        model: with its new head.
        opened: the backbone as it was opened; the head, or training, may cut the model's own.
        original: digest of each of the backbone's tensors as it was opened, by name.
    """

    manifest: Manifest
    digests: list[str]
    images: dict[str, ImageSet]
    model: TransferModel
    opened: Backbone
    original: dict[str, str]

    def counts(self) -> dict[str, dict[str, int]]:
        """How many images there are of each class, by split."""
        found: dict[str, dict[str, int]] = {}
        for split, images in self.images.items():
            many = Counter(images.labels)
            found[split] = {name: many[label] for label, name in enumerate(self.manifest.classes)}
        return found


def gather(recipe: Recipe, cache: Path | None, *, offline: bool) -> AtHand:
    """Read and split the images, open the backbone, put the head on it.

    Args:
        recipe: what to do.
        cache: folder of the feature cache, or None.
        offline: fetch nothing.

    Raises:
        FrostlineError: images, backbone or head cannot be had.
    """
    manifest, digests = read_images(recipe)
    images = by_split(manifest, digests)
    backbone = _backbone(recipe, images, cache, offline=offline)
    _collector.take_up()  # a recorded one imports nothing more either
    model = TransferModel(backbone, recipe.head, len(manifest.classes), recipe.seed)
    if cache is not None and not isinstance(backbone.body, Sealed) and model.opened is backbone:
        record_backbone(backbone, feature_shape(backbone), cache)
    return AtHand(manifest, digests, images, model, backbone, tensor_digests(model))


def read_images(recipe: Recipe) -> tuple[Manifest, list[str]]:
    """The images, split, and the digest of each one's content."""
    manifest = read_data(Path(recipe.data), None if recipe.val is None else Path(recipe.val))
    digests = digest_files([r.path for r in manifest.records])
    return ensure_splits(manifest, digests, recipe.seed), digests


def _backbone(recipe: Recipe, images: dict[str, ImageSet], cache: Path | None, *, offline: bool) -> Backbone:
    """The backbone, opened; where nothing will be run through it, as it was recorded, for opening takes longer than all the rest.

    The folds of ``--nested`` have fewer images than the job, for which another engine may be the rule.
    """
    views = Views.parse(recipe.augment, recipe.views)
    if cache is not None and recipe.head_alone and not (views.live or recipe.nested) and _of_the_backbone(recipe.head):
        recorded = recorded_backbone(recipe.backbone, recipe.weights, cache)
        if recorded is not None:
            device = resolve_device(recipe.device)
            subject = recorded_subject(recorded, device=device, precision=recipe.precision, engine=recipe.engine)
            if is_known(subject, images["train"] + images["val"], images["test"], views.cached(recipe.seed), cache, recipe.storage):
                sealed = recorded.sealed()
                if sealed is not None:
                    return sealed
    return open_backbone(recipe.backbone, recipe.weights, replace=recipe.replace_layer, offline=offline)


def _of_the_backbone(head: str) -> bool:
    """Whether a head sits on what the backbone itself gives, which is what is recorded of it."""
    spec = HeadSpec.parse(head)
    return not spec.takes_map and spec.at is None


def by_split(manifest: Manifest, digests: list[str]) -> dict[str, ImageSet]:
    """The images of ``train``, ``val`` and ``test``; a split may be empty."""
    found: dict[str, ImageSet] = {}
    for split in ("train", "val", "test"):
        here = [i for i, r in enumerate(manifest.records) if r.split == split]
        found[split] = ImageSet.of(manifest.only(split), [digests[i] for i in here])
    return found
