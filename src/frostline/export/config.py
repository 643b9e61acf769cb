"""``config.json`` as timm writes it, so that ``timm.create_model("local-dir:...")`` builds the model with its preprocessing and labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from frostline.backbone import Preprocess
from frostline.run import Run

_OF_THE_SOURCE = ("url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict", "architecture", "tag")
_NOT_OF_THIS = ("label_offset", "label_names", "label_descriptions", "test_input_size", "test_crop_pct", "test_pool_size")


def timm_config(run: Run, network: nn.Module) -> dict[str, Any]:
    """The configuration of a run that is an ordinary model of timm's.

    Args:
        run: whose preprocessing and labels it has.
        network: timm's model with as many classes.
    """
    source = cast("Mapping[str, Any]", cast("Any", network).pretrained_cfg)
    preprocess = run.model.opened.preprocess
    known = {k: v for k, v in source.items() if v is not None and k not in (*_OF_THE_SOURCE, *_NOT_OF_THIS)}
    return {
        "architecture": source["architecture"],
        "num_classes": len(run.classes),
        "num_features": int(cast("Any", network).num_features),
        "label_names": list(run.classes),
        "pretrained_cfg": {
            **known,
            "custom_load": False,  # the file is a state dict of timm's own, whatever the published weights were
            "input_size": [3, *preprocess.crop],
            "interpolation": preprocess.interpolation,
            "crop_pct": crop_share(preprocess),
            "crop_mode": preprocess.mode,
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "num_classes": len(run.classes),
            "classifier": source.get("classifier"),
            "first_conv": source.get("first_conv"),
            "pool_size": source.get("pool_size"),
        },
    }


def crop_share(preprocess: Preprocess) -> float:
    """timm's ``crop_pct``: timm resizes to the crop divided by it, rounded down, and that must be the very size of ours.

    >>> crop_share(Preprocess(crop=(224, 224), resize=232))
    0.9655172413793104
    """
    side = min(preprocess.crop)
    share = side / preprocess.resize
    while math.floor(side / share) < preprocess.resize:
        share = math.nextafter(share, 0.0)
    return share
