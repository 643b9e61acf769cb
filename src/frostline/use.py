"""Use a finished run: score it on labelled images, label others."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from frostline._device import resolve_device
from frostline._digest import tensors_digest
from frostline.data.manifest import Manifest
from frostline.data.read import read_labelled
from frostline.errors import DataError, DecodeError
from frostline.familiar import MOST_COMPUTED, Familiar, distinct, familiar_with, read_familiar
from frostline.features import FeatureStore, ImageSet, ensure_features
from frostline.features.extract import Prefix
from frostline.features.pixels import arriving_batches
from frostline.features.pooled import pooled, vectors_of
from frostline.fitting.events import Finished, Seen
from frostline.fitting.looked import MOST
from frostline.fitting.loop import logits_of
from frostline.fitting.metrics import Scores, score
from frostline.fitting.sources import FeatureRows
from frostline.run import Run


def evaluate(run: Run, data: str | Path, *, cache: str | Path | None, device: str = "auto") -> tuple[Scores, list[tuple[Path, str]]]:
    """Score a run on labelled images; class folders are matched by name.

    Returns:
        The scores, and the files that were left out with the reason.

    Raises:
        DataError: no labelled images, or a class that the run does not know.
    """
    images, cache = ImageSet.of(read_labelled(Path(data), run.classes)), None if cache is None else Path(cache)
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
        store = _filled(images, prefix, cache or Path(scratch))
        skipped = [(p, store.skipped[d]) for p, d in zip(images.paths, images.digests, strict=True) if d in store.skipped]
        usable = images.without(store.skipped)
        if not len(usable):
            raise DataError(f"none of the {len(images)} files is an image that can be read")
        rows = FeatureRows((store.rows_of(usable.digests),), torch.tensor(usable.labels, device=prefix.device), prefix.layout)
        return score(logits_of(run.model.head, rows), rows.labels), skipped


def features_of(images: ImageSet, prefix: Prefix, *, cache: Path | None) -> Seen:
    """The images that can be read with one vector each: features with positions are averaged over them.

    Args:
        images: files.
        prefix: the run's backbone with an engine.
        cache: folder of the feature cache; None keeps nothing.
    """
    with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
        store = _filled(images, prefix, cache or Path(scratch))
        usable = images.without(store.skipped)
        return Seen(usable, pooled(store.rows_of(usable.digests), prefix.layout) if len(usable) else torch.empty(0, 0))


def familiar_of(
    run: Run, finished: Finished, images: ImageSet, manifest: Manifest, prefix: Callable[[], Prefix], cache: Path | None
) -> Familiar | None:
    """What a run takes for familiar: by features that training leaves behind, else by those of some training images, mostly cached.

    Args:
        run: the run.
        finished: how training ended.
        images: of training.
        manifest: all images; what is familiar says by number which of them it is from.
        prefix: gives the backbone as it was trained with an engine; asked where features have to be computed.
        cache: folder of the feature cache.
    """
    seed, alone = run.recipe.seed, run.recipe.head_alone
    weights = run.model.opened.digest if alone else tensors_digest(run.model.backbone.state_dict())
    held_out = None
    if finished.looked is not None:
        train, held_out = (_distinct(seen, seed) for seen in finished.looked)
    elif finished.seen is not None and not finished.resolved.backbone_trained:
        train = _distinct(finished.seen[0], seed)
    else:
        some = images.only(distinct(images, MOST_COMPUTED, seed))
        train = features_of(some, prefix(), cache=cache if alone else None)
    place = {record.path: row for row, record in enumerate(manifest.records)}
    rows = [place[path] for path in train.images.paths]
    return familiar_with(train.features, None if held_out is None else held_out.features, backbone=weights, rows=rows)


def _distinct(seen: Seen, seed: int) -> Seen:
    rows = distinct(seen.images, MOST, seed)
    return Seen(seen.images.only(rows), seen.features[torch.tensor(rows)])


def _filled(images: ImageSet, prefix: Prefix, folder: Path) -> FeatureStore:
    key = prefix.key()
    store = FeatureStore.open(folder, key)
    for _ in ensure_features(store, key, prefix, images):
        pass
    return store


@dataclass(frozen=True)
class Prediction:
    """The answer for one file.

    Attributes:
        path: the file, or the name that it was sent under.
        label: the most probable class, or None where the file is no image.
        probabilities: of every class, by name.
        error: why there is no answer.
        unfamiliarity: distance to the nearest training images as a multiple of what is usual: see :mod:`frostline.familiar`; None where
            the run does not know what is usual.
    """

    path: Path | str
    label: str | None
    probabilities: dict[str, float]
    error: str | None = None
    unfamiliarity: float | None = None

    @property
    def unfamiliar(self) -> bool | None:
        """Whether the picture is unlike those of training; None where the run does not know."""
        return None if self.unfamiliarity is None else self.unfamiliarity > 1

    def to_json(self, path: str) -> dict[str, object]:
        """As plain JSON values, one contract for the command line and the server.

        Args:
            path: the file's name as text.
        """
        if self.label is None:
            return {"path": path, "error": self.error}
        return {
            "path": path,
            "label": self.label,
            "probability": self.probabilities[self.label],
            "probabilities": self.probabilities,
            "unfamiliar": self.unfamiliar,
            "unfamiliarity": self.unfamiliarity,
        }


class Labeller:
    """Labels pictures by a finished run, at the fixed batch shape: an answer does not depend on what is asked beside it.

    Args:
        run: the run.
        device: where it runs.

    Raises:
        RunError: the run's record of what is familiar is damaged, or belongs to another backbone.

    Attributes:
        run: the run.
        prefix: its backbone.
        familiar: what it takes for familiar, or None where that was not kept.
    """

    def __init__(self, run: Run, device: str = "auto") -> None:
        self.run = run
        self.prefix = run.prefix(resolve_device(device))
        self.familiar = read_familiar(run.folder, run.model.opened.digest)

    def answers(self, names: Sequence[Path | str], pictures: Sequence[torch.Tensor | DecodeError]) -> list[Prediction]:
        """One answer a picture, in their order.

        Args:
            names: of the files.
            pictures: ``(3, H, W)`` uint8 each, or why the file is no image.
        """
        good = [p for p in pictures if not isinstance(p, DecodeError)]
        found = iter(self._found(torch.stack(good)) if good else [])
        return [
            Prediction(name, None, {}, picture.fact) if isinstance(picture, DecodeError) else self._prediction(name, *next(found))
            for name, picture in zip(names, pictures, strict=True)
        ]

    def _found(self, pixels: torch.Tensor) -> list[tuple[list[float], float | None]]:
        rows = self.prefix(pixels)
        probabilities: list[list[float]] = self.run.probabilities_of(self.prefix, rows).tolist()
        if self.familiar is None:
            return [(row, None) for row in probabilities]
        strange: list[float] = self.familiar.unfamiliarity(vectors_of(self.prefix.layout.unpack(rows)[0])).tolist()
        return list(zip(probabilities, strange, strict=True))

    def _prediction(self, name: Path | str, row: list[float], unfamiliarity: float | None) -> Prediction:
        probabilities = dict(zip(self.run.classes, row, strict=True))
        label = max(probabilities, key=lambda c: probabilities[c])
        return Prediction(name, label, probabilities, None, unfamiliarity)


def predict(run: Run, paths: Iterable[str | Path], *, device: str = "auto") -> Iterator[Prediction]:
    """Label files one after the other, in their order; a file that is no image gives an error and the rest go on.

    Names are asked for as there is room, and answers come while later files are read: of any number of files no more than two batches are
    held.

    Raises:
        RunError: the run's record of what is familiar is damaged, or belongs to another backbone.
    """
    yield from label_files(Labeller(run, device), map(Path, paths))


def label_files(labeller: Labeller, paths: Iterable[Path]) -> Iterator[Prediction]:
    """:func:`predict` by a labeller that is there already."""
    for names, pictures in arriving_batches(paths, labeller.prefix.preprocess):
        yield from labeller.answers(names, pictures)


def list_images(paths: list[Path]) -> list[Path]:
    """Files as they are given, folders replaced by the files in them, sorted; dot names are left out.

    Raises:
        DataError: a path does not exist, or there is no file at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError("no such file or folder", where=path)
        found.extend(files_in(path))
    if not found:
        raise DataError("holds no files", where=paths[0] if paths else "PATH")
    return found


def files_in(path: Path) -> Iterator[Path]:
    """The files in a folder, sorted, without dot names; anything else is given as it is."""
    if path.is_dir():
        yield from sorted(p for p in path.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(path).parts))
    else:
        yield path


def check_named(named: Sequence[Path]) -> None:
    """Refuse a list of files, folders and patterns with one that names nothing, before any work.

    Raises:
        DataError: the first that names nothing.
    """
    for path in named:
        if not path.exists() and not _matches(path):
            raise DataError("no file matches" if _is_pattern(path) else "no such file or folder", where=path)


def files_named(named: Iterable[Path]) -> Iterator[Path]:
    """Files as they are given, folders and patterns (``*``, ``?``, ``[a-z]``, ``**``) replaced by the files that they stand for, sorted."""
    for path in named:
        if path.exists() or not _is_pattern(path):
            yield from files_in(path)
            continue
        for match in map(Path, _matches(path)):
            if "**" not in path.parts or not match.is_dir():  # ** gives what is in a folder by itself
                yield from files_in(match)


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path))


def _matches(path: Path) -> list[str]:
    """What a pattern stands for, sorted."""
    return sorted(glob.glob(str(path), recursive=True)) if _is_pattern(path) else []  # noqa: PTH207  # pathlib's refuses absolute ones
