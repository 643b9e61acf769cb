"""Whether a job's features can be had without opening the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from frostline._digest import tensors_digest
from frostline.backbone.network import Backbone
from frostline.data.views import View
from frostline.features.choice import FEWEST, Subject, remembered_engine
from frostline.features.engine import plain
from frostline.features.key import feature_key, prefix_settings
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


def prefix_subject(parts: Split, opened: Backbone, *, device: torch.device, precision: str, engine: str) -> Subject:
    """:func:`backbone_subject` for the prefix of any split."""
    code = "" if parts.cut.way == "backbone" else parts.code
    settings = prefix_settings(opened, cut=parts.cut.name, weights=tensors_digest(parts.prefix.state_dict()), code=code)
    return Subject(parts.prefix, settings, opened.preprocess, device, precision, engine)


def is_known(subject: Subject, digests: Sequence[str], views: Sequence[View], cache: Path) -> bool:
    """Whether the features of all images are cached, or an engine is ready that needs no network.

    Args:
        subject: the prefix.
        digests: of the images.
        views: of each of them.
        cache: folder of the cache.
    """
    engine = remembered_engine(subject, cache)
    if engine is not None and engine.name == "openvino":
        return True
    if engine is None:
        if subject.asked not in ("auto", "plain") or (subject.asked == "auto" and len(digests) >= FEWEST):
            return False
        engine = plain(subject.body, "fp32" if subject.precision == "auto" else subject.precision)
    keys = (feature_key(subject.settings, engine=engine.identity, device=subject.device, view=view) for view in views)
    return all(not FeatureStore.open(cache, key).missing(digests) for key in keys)
