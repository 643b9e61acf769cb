"""Suspect labels among all of a run's images, where their features are cached: what ``frostline data`` finds, at no cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from frostline.data.units import exact_copies, grouped, joined
from frostline.data.views import PLAIN
from frostline.features import FeatureStore, ImageSet
from frostline.features.extract import Prefix
from frostline.quality.examination import pooled
from frostline.quality.held_out import held_out
from frostline.quality.suspects import Suspect, find_suspects
from frostline.report.judged import Listed
from frostline.run import Run

MOST_WORK = 5000
"""Images times classes beyond which ``frostline data`` is pointed to: 398 images of 2 classes take half a second, 1797 of 10 minutes."""


@dataclass(frozen=True, eq=False)
class Doubts:
    """What is doubtful about the images.

    Attributes:
        images: all that were looked at.
        splits: where each is used.
        suspects: labels that are probably wrong, the surest first; None where nobody looked.
        why: in words, why nobody looked; empty otherwise.
    """

    images: ImageSet
    splits: tuple[str, ...]
    suspects: tuple[Suspect, ...] | None
    why: str = ""


def doubts_of(run: Run, listed: Listed, prefix: Prefix, cache: Path | None, copies: Sequence[tuple[str, str]]) -> Doubts:
    """Judge labels by heads that have not seen them, as :mod:`frostline.quality` does; nothing is decoded or run for it.

    Args:
        run: the run.
        listed: its images.
        prefix: its backbone.
        cache: folder of the feature cache.
        copies: pairs of paths that are known to show one picture.
    """
    everything = listed.images["train"] + listed.images["val"] + listed.images["test"]
    splits = tuple(split for split in ("train", "val", "test") for _ in listed.images[split].paths)

    def unknown(why: str) -> Doubts:
        return Doubts(everything, splits, None, why)

    if not run.recipe.head_alone:
        return unknown("the trained layers have seen the labels, so that they cannot judge them")
    if len(everything) * len(run.classes) > MOST_WORK:
        return unknown(f"judging {len(everything):,} labels of {len(run.classes)} classes takes minutes")
    if cache is None:
        return unknown("no features are cached")
    store = FeatureStore.open(cache, prefix.key(PLAIN))
    if store.missing(everything.digests):
        return unknown("the features of the training pictures are not in the cache")
    good = [i for i, d in enumerate(everything.digests) if d not in store.skipped]
    images = everything.only(good)
    if not len(images):
        return unknown("no picture can be read any more")
    features = pooled(store.rows_of(images.digests), prefix.layout)
    units = joined(len(images), [*exact_copies(images.digests), *_linked(images, copies), *_groups(images, listed)])
    held = held_out(features, torch.tensor(images.labels), len(run.classes), units, run.recipe.seed)
    if held is None:
        return unknown("there are too few pictures")
    rows = held.rows.tolist()
    found = find_suspects(held.probabilities, held.labels)
    suspects = tuple(Suspect(rows[s.row], s.given, s.likely, s.probability_given, s.probability_likely) for s in found)
    return Doubts(images, tuple(splits[i] for i in good), suspects)


def _linked(images: ImageSet, copies: Sequence[tuple[str, str]]) -> list[tuple[int, ...]]:
    row = {str(path): i for i, path in enumerate(images.paths)}
    return [(row[a], row[b]) for a, b in copies if a in row and b in row]


def _groups(images: ImageSet, listed: Listed) -> list[tuple[int, ...]]:
    return grouped([listed.groups.get(path) for path in images.paths])
