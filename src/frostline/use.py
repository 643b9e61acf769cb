"""Use a finished run: score it on labelled images, label others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from frostline._device import resolve_device
from frostline.data.read import read_labelled
from frostline.errors import DataError, DecodeError
from frostline.features import FeatureStore, ImageSet, ensure_features
from frostline.features.extract import Prefix
from frostline.features.pixels import full_batches, pixel_batches
from frostline.fitting.loop import logits_of
from frostline.fitting.metrics import Scores, score
from frostline.fitting.sources import FeatureRows
from frostline.run import Run


def evaluate(run: Run, data: Path, *, cache: Path | None, device: str = "auto") -> tuple[Scores, list[tuple[Path, str]]]:
    """Score a run on labelled images; class folders are matched by name.

    Returns:
        The scores, and the files that were left out with the reason.

    Raises:
        DataError: no labelled images, or a class that the run does not know.
    """
    images = ImageSet.of(read_labelled(data, run.classes))
    return evaluate_images(run, images, run.fast_prefix(resolve_device(device), images, cache), cache=cache)


def evaluate_images(run: Run, images: ImageSet, prefix: Prefix, *, cache: Path | None) -> tuple[Scores, list[tuple[Path, str]]]:
    """:func:`evaluate` for images that are listed already.

    Args:
        run: the run.
        images: labelled.
        prefix: the run's backbone with an engine.
        cache: folder of the feature cache; None keeps nothing.
    """
    with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
        key = prefix.key()
        store = FeatureStore.open(cache or Path(scratch), key)
        for _ in ensure_features(store, key, prefix, images):
            pass
        skipped = [(p, store.skipped[d]) for p, d in zip(images.paths, images.digests, strict=True) if d in store.skipped]
        usable = images.without(store.skipped)
        if not len(usable):
            raise DataError(f"none of the {len(images)} files is an image that can be read")
        rows = FeatureRows((store.rows_of(usable.digests),), torch.tensor(usable.labels, device=prefix.device), prefix.layout)
        return score(logits_of(run.model.head, rows), rows.labels), skipped


@dataclass(frozen=True)
class Prediction:
    """The answer for one file.

    Attributes:
        path: the file.
        label: the most probable class, or None where the file is no image.
        probabilities: of every class, by name.
        error: why there is no answer.
    """

    path: Path
    label: str | None
    probabilities: dict[str, float]
    error: str | None = None


def predict(run: Run, paths: list[Path], *, device: str = "auto") -> Iterator[Prediction]:
    """Label files one after the other, in their order; a file that is no image gives an error and the rest go on."""
    prefix = run.prefix(resolve_device(device))
    at = 0
    for batch in pixel_batches(paths, prefix.preprocess, full_batches(len(paths))):
        pixels = [p for p in batch if not isinstance(p, DecodeError)]
        answers: list[list[float]] = []
        if pixels:
            answers = run.probabilities(prefix, torch.stack(pixels)).tolist()
        found = iter(answers)
        for path, picture in zip(paths[at : at + len(batch)], batch, strict=True):
            if isinstance(picture, DecodeError):
                yield Prediction(path, None, {}, picture.fact)
                continue
            probabilities = dict(zip(run.classes, next(found), strict=True))
            yield Prediction(path, max(probabilities, key=lambda c: probabilities[c]), probabilities)
        at += len(batch)


def list_images(paths: list[Path]) -> list[Path]:
    """Files as they are given, folders replaced by the files in them, sorted; dot names are left out.

    Raises:
        DataError: a path does not exist, or there is no file at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found.extend(
                sorted(p for p in path.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(path).parts))
            )
        elif path.exists():
            found.append(path)
        else:
            raise DataError("no such file or folder", where=path)
    if not found:
        raise DataError("holds no files", where=paths[0] if paths else "PATH")
    return found
