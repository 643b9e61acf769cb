"""The examination of labelled images, in order: features, copies, labels, outliers, overlap. The page to read first in this room."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from frostline._device import resolve_device
from frostline.data.units import exact_copies, grouped, joined
from frostline.errors import DataError
from frostline.features import Extracted, FeatureStore, ImageSet, ensure_features
from frostline.features.extract import Prefix
from frostline.features.pooled import pooled
from frostline.fitting import Event
from frostline.fitting.events import FeaturesReady
from frostline.fitting.prepare import Compute, Labelled, prefix_of
from frostline.freeze import FreezePlan
from frostline.freeze.cut import split_resolved
from frostline.gather import AtHand, gather
from frostline.quality.files import converted, read_headers, tiny
from frostline.quality.findings import RANKED, DataQuality, Judged, Outlier, Picture
from frostline.quality.held_out import HeldOut, held_out
from frostline.quality.near import NearCopy, candidates, confirmed, thumbnails_of
from frostline.quality.neighbours import Neighbours, directions, nearest, unit_length
from frostline.quality.outliers import NEAREST, Outlyingness, outlyingness
from frostline.quality.overlap import Overlap, confusion_of, overlaps
from frostline.quality.suspects import Suspect, find_suspects
from frostline.recipe import Recipe


def examine(recipe: Recipe, *, cache: Path | None, listen: Callable[[Event], None], offline: bool = False) -> DataQuality:
    """Look for what is wrong with labelled images, by the features that a training with this recipe uses.

    Args:
        recipe: images, backbone, seed and device are looked at; nothing is unfrozen, and the head is the default one.
        cache: folder of the feature cache; None keeps nothing.
        listen: called with every event, for progress.
        offline: fetch nothing.

    Raises:
        FrostlineError: images or backbone cannot be had.
        DataError: none of the files is an image that can be read.
    """
    began = time.perf_counter()
    at_hand = gather(recipe, cache, offline=offline)
    pictures, features, ready = looked_at(recipe, at_hand, cache, listen)
    labels = torch.tensor([p.label for p in pictures])
    digests = [p.digest for p in pictures]

    exact = exact_copies(digests)
    distinct = sorted({d: row for row, d in reversed(list(enumerate(digests)))}.values())
    near = near_copies(pictures, distinct, _among(directions(features[distinct])))
    far = outlyingness(_among(unit_length(features[distinct])))

    classes = at_hand.manifest.classes
    group_of = {record.path: record.group for record in at_hand.manifest.records}
    units = joined(len(pictures), [*exact, *(copy.rows for copy in near), *grouped([group_of[p.path] for p in pictures])])
    held = held_out(features, labels, len(classes), units, recipe.seed)
    headers = read_headers([p.path for p in pictures])
    side = min(at_hand.model.opened.preprocess.crop) // 2
    return DataQuality(
        data=recipe.data,
        backbone=at_hand.model.opened.name,
        classes=classes,
        pictures=pictures,
        skipped=ready.skipped,
        notes=at_hand.manifest.notes,
        converted=converted(headers),
        tiny=tuple(tiny(headers, side)),
        tiny_side=side,
        exact=tuple(exact),
        near=tuple(near),
        suspects=() if held is None else tuple(_suspects(held)),
        outliers=_farthest(far, distinct),
        outlier_threshold=far.threshold,
        judged=None if held is None else _judged(held),
        overlaps=() if held is None else tuple(_overlaps(held)),
        extracted=ready.extracted,
        seconds=time.perf_counter() - began,
    )


def looked_at(
    recipe: Recipe, at_hand: AtHand, cache: Path | None, listen: Callable[[Event], None]
) -> tuple[tuple[Picture, ...], torch.Tensor, FeaturesReady]:
    """The images that can be read, and their features ``(N, d)``: those of training, or computed as training would."""
    images, device = at_hand.images, resolve_device(recipe.device)
    model = at_hand.model.to(device)
    parts = split_resolved(model, FreezePlan().apply(model), model.example(2))
    labelled = Labelled(images["train"], images["val"] if len(images["val"]) else None)
    prefix = prefix_of(parts, model.opened, labelled, Compute(cache, device=recipe.device), device)
    everything = images["train"] + images["val"] + images["test"]
    splits = [split for split in ("train", "val", "test") for _ in images[split].paths]
    with tempfile.TemporaryDirectory(prefix="frostline-") as scratch:
        store = FeatureStore.open(cache or Path(scratch), prefix.key())
        extracted = _extract(store, prefix, everything, listen)
        good = everything.without(store.skipped)
        skipped = tuple((p, store.skipped[d]) for p, d in zip(everything.paths, everything.digests, strict=True) if d in store.skipped)
        ready = FeaturesReady(extracted, store.bytes_of(good.digests), skipped, prefix.engine.facts())
        listen(ready)
        if not len(good):
            raise DataError(f"none of the {len(everything)} files is an image that can be read", where=recipe.data)
        features = pooled(store.rows_of(good.digests), prefix.layout)
    kept = [s for s, d in zip(splits, everything.digests, strict=True) if d not in store.skipped]
    pictures = [Picture(p, d, y, s) for p, d, y, s in zip(good.paths, good.digests, good.labels, kept, strict=True)]
    return tuple(pictures), features, ready


def _extract(store: FeatureStore, prefix: Prefix, images: ImageSet, listen: Callable[[Event], None]) -> Extracted:
    steps = ensure_features(store, prefix.key(), prefix, images)
    while True:
        try:
            listen(next(steps))
        except StopIteration as end:
            return end.value


def _among(rows: torch.Tensor) -> Neighbours:
    return nearest(rows, rows, NEAREST, same=True)


def near_copies(pictures: Sequence[Picture], distinct: Sequence[int], found: Neighbours) -> list[NearCopy]:
    """Near copies among pictures.

    Args:
        pictures: all of them.
        distinct: rows of those that are compared.
        found: their neighbours among themselves, by centred features.
    """
    pairs = [(distinct[a], distinct[b], cosine) for a, b, cosine in candidates(found)]
    looked_at = {row for a, b, _ in pairs for row in (a, b)}
    return confirmed(pairs, thumbnails_of(looked_at, [p.path for p in pictures], [p.digest for p in pictures]))


def _suspects(held: HeldOut) -> list[Suspect]:
    rows = held.rows.tolist()
    found = find_suspects(held.probabilities, held.labels)
    return [Suspect(rows[s.row], s.given, s.likely, s.probability_given, s.probability_likely) for s in found]


def _farthest(far: Outlyingness, distinct: Sequence[int]) -> tuple[Outlier, ...]:
    called = set(far.called)
    listed = far.order[: max(RANKED, len(called))]
    return tuple(Outlier(distinct[row], float(far.score[row]), row in called) for row in listed)


def _judged(held: HeldOut) -> Judged:
    confusion = confusion_of(held.probabilities, held.labels)
    right = int(confusion.diagonal().sum())
    return Judged(len(held.rows), right, held.strength, held.left_out, tuple(tuple(row) for row in confusion.tolist()))


def _overlaps(held: HeldOut) -> list[Overlap]:
    return overlaps(confusion_of(held.probabilities, held.labels))
