"""Whether a job's features can be had without opening the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from frostline._digest import tensors_digest
from frostline.backbone.network import Backbone
from frostline.backbone.sealed import Recorded
from frostline.data.views import PLAIN, View
from frostline.features.choice import decided_engine
from frostline.features.images import ImageSet
from frostline.features.key import feature_key, prefix_settings
from frostline.features.ready import Subject, begin_to_make
from frostline.features.store import FeatureStore
from frostline.freeze.cut import Split


def backbone_subject(opened: Backbone, *, weights: str, device: torch.device, precision: str, engine: str) -> Subject:
    """What an engine is chosen for where the whole backbone is the prefix.

    Args:
        opened: the backbone.
        weights: SHA-256 over its weights, as they are now.
        device: where it runs.
        precision: as asked for.
        engine: as asked for.
    """
    settings = prefix_settings(opened, cut="backbone", weights=weights)
    return Subject(opened.body, settings, opened.preprocess, device, precision, engine)


def recorded_subject(recorded: Recorded, *, device: torch.device, precision: str, engine: str) -> Subject:
    """:func:`backbone_subject` for a backbone that is not opened: enough to say what is there, nothing that can be run."""
    settings = prefix_settings(recorded, cut="backbone", weights=recorded.digest)
    return Subject(nn.Module(), settings, recorded.preprocess, device, precision, engine)


def prefix_subject(parts: Split, opened: Backbone, *, device: torch.device, precision: str, engine: str) -> Subject:
    """:func:`backbone_subject` for the prefix of any split."""
    code = "" if parts.cut.name == "backbone" else parts.code
    settings = prefix_settings(opened, cut=parts.cut.name, weights=tensors_digest(parts.prefix.state_dict()), code=code)
    return Subject(parts.prefix, settings, opened.preprocess, device, precision, engine)


def is_known(subject: Subject, images: ImageSet, test: ImageSet, views: Sequence[View], cache: Path, storage: str) -> bool:
    """Whether the features of all images are cached, or an engine is there that can be run and verified without it; it begins to be made.

    Args:
        subject: the prefix.
        images: of training and validation; by their number the engine was chosen.
        test: seen in the plain view only, like those of validation.
        views: of the training images; asked for all images.
        cache: folder of the cache.
        storage: of the features.
    """
    engine = decided_engine(subject, len(images), cache)
    if engine is None:
        return False
    everything = (images + test).digests
    keys = [feature_key(subject.settings, engine=engine.identity, device=subject.device, view=v, storage=storage) for v in (PLAIN, *views)]
    if engine.name != "openvino":
        return all(not FeatureStore.open(cache, key).missing(everything) for key in keys)
    if any(not FeatureStore.claimed(cache, key).issuperset(everything) for key in keys):
        return begin_to_make(engine)
    return True
