"""Whether a picture is like those that a run was trained on: its distance to the nearest of them in feature space.

The score is that of :mod:`frostline.quality.outliers`: the mean of ``1 - cosine`` to the 10 nearest training images (Sun 2022, who take
the k-th nearest for images of another distribution; Angiulli 2002 for the mean). The threshold is the distance that one training image
in twenty exceeds when it is left out itself, with the correction for a finite sample of conformal prediction (Vovk 2005, section 2.2):
a new image of the same kind is called unfamiliar about one time in twenty. A backbone that was trained itself has drawn its training
images together, and validation images lie farther off: then those tell the threshold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from frostline._atomic import write_bytes
from frostline.errors import RunError
from frostline.features.extract import filled_up
from frostline.features.images import ImageSet
from frostline.features.key import BATCH
from frostline.fitting.looked import drawn
from frostline.quality.neighbours import nearest, unit_length
from frostline.quality.outliers import FEWEST, NEAREST
from frostline.run import layout

FALSE_ALARMS = 0.05
"""Share of images like those of training that are called unfamiliar."""

MOST_COMPUTED = 500
"""Training images to compare with where their features have to be computed for it."""

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Familiar:
    """What a run takes for familiar.

    Attributes:
        reference: features of training images, ``(M, d)`` float32 of length 1, in the precision of float16.
        threshold: the distance from which a picture is unfamiliar.
        backbone: SHA-256 of the backbone that the features are from.
        calibrated_on: how many images told the threshold, and which, in words.
        rows: where each of ``reference`` is in the run's ``split.csv``, counted from 0; empty where that is not known.
    """

    reference: torch.Tensor
    threshold: float
    backbone: str
    calibrated_on: str
    rows: tuple[int, ...] = ()

    def unfamiliarity(self, features: torch.Tensor) -> torch.Tensor:
        """Distances as multiples of the threshold, whatever the company: above 1 is unfamiliar.

        Args:
            features: ``(N, d)``.

        Returns:
            ``(N,)`` float64.
        """
        directions = unit_length(features.cpu())
        found = [_distance(nearest(filled_up(part), self.reference, NEAREST).similarity)[: len(part)] for part in directions.split(BATCH)]
        return torch.cat(found).double() / self.threshold if found else torch.empty(0, dtype=torch.float64)


def distinct(images: ImageSet, most: int, seed: int) -> list[int]:
    """Which images to compare with: each content once, all of them or so many drawn at random, in their order."""
    first = {digest: row for row, digest in reversed(list(enumerate(images.digests)))}
    return drawn(sorted(first.values()), most, seed)


def familiar_with(
    features: torch.Tensor, held_out: torch.Tensor | None = None, *, backbone: str, rows: Sequence[int] = ()
) -> Familiar | None:
    """Calibrate on training images, each left out itself, or on images that were held out.

    Args:
        features: of distinct training images, ``(M, d)``; a copy would be its twin's excuse.
        held_out: features of distinct validation images, ``(H, d)``, for a backbone that was trained on the others.
        backbone: SHA-256 of the backbone that they are from.
        rows: where each of ``features`` is in the run's ``split.csv``.

    Returns:
        None where there are too few images to say what is usual, or they all look the same.
    """
    if len(features) < FEWEST or (held_out is not None and len(held_out) < FEWEST):
        return None
    reference = unit_length(features.cpu()).half().float()
    asked = reference if held_out is None else unit_length(held_out.cpu())
    distance = _distance(nearest(asked, reference, NEAREST, same=held_out is None).similarity).double()
    rank = min(len(distance), math.ceil((1 - FALSE_ALARMS) * (len(distance) + 1)))
    threshold = float(distance.kthvalue(rank).values)
    if not threshold > 1e-6:
        return None
    words = "training images, each left out itself" if held_out is None else "validation images"
    return Familiar(reference, threshold, backbone, f"{len(distance)} {words}", tuple(rows))


def _distance(similarity: torch.Tensor) -> torch.Tensor:
    return (1 - similarity).mean(1).clamp(min=0.0)


def write_familiar(folder: Path, familiar: Familiar) -> None:
    """Write ``familiar.safetensors`` into a run directory.

    Raises:
        RunError: the folder cannot be written.
    """
    about = {
        "format": _FORMAT,
        "backbone_sha256": familiar.backbone,
        "threshold": familiar.threshold,
        "calibrated_on": familiar.calibrated_on,
        "score": f"mean of 1 - cosine to the {NEAREST} nearest",
    }
    tensors = {"reference": familiar.reference.half().contiguous(), "rows": torch.tensor(familiar.rows, dtype=torch.int32)}
    data = save(tensors, metadata={"frostline": json.dumps(about)})
    try:
        write_bytes(folder / layout.FAMILIAR, data)
    except OSError as fault:
        raise RunError(f"cannot be written ({fault.strerror or fault})", where=folder, advice="give another folder with --out") from fault


def read_familiar(folder: Path, backbone: str) -> Familiar | None:
    """What a run takes for familiar; None where it was never written.

    Args:
        folder: the run directory.
        backbone: SHA-256 of the run's backbone.

    Raises:
        RunError: the file is damaged, or belongs to another backbone.
    """
    path = folder / layout.FAMILIAR
    if not path.exists():
        return None
    advice = "remove it: predictions go on without saying what is unfamiliar"
    try:
        with safe_open(path, framework="pt") as file:
            opened = cast("Any", file)
            about = cast("dict[str, Any]", json.loads((opened.metadata() or {})["frostline"]))
            reference = cast("torch.Tensor", opened.get_tensor("reference")).float()
            rows = tuple(cast("torch.Tensor", opened.get_tensor("rows")).tolist())
        familiar = Familiar(reference, float(about["threshold"]), str(about["backbone_sha256"]), str(about["calibrated_on"]), rows)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as fault:
        raise RunError(f"is damaged ({fault})", where=path, advice=advice) from fault
    if reference.ndim != 2 or len(reference) < 1 or not bool(reference.isfinite().all()) or not 0 < familiar.threshold < math.inf:
        raise RunError("is damaged (no features, or no threshold)", where=path, advice=advice)
    if familiar.backbone != backbone:
        raise RunError("belongs to another backbone", where=path, advice=advice)
    return familiar
