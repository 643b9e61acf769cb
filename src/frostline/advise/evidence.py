"""Gather the evidence: one pass of the tapped backbone over the images, and everything that is computed from what it gave."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from frostline.advise.probes import learning_curve, logistic_probe, neighbours_probe
from frostline.advise.transferability import logme, shrunk_h_score
from frostline.advise.unlikeness import Unlikeness, unlikeness_of
from frostline.backbone.network import Backbone
from frostline.data.views import Views
from frostline.errors import DecodeError
from frostline.features.depths import ALL, END, Depths, joined
from frostline.features.engine import Engine
from frostline.features.images import ImageSet
from frostline.features.pixels import full_batches, pixel_batches
from frostline.fitting.depth import Told, may_be_solved, sampled, tapped, tell_apart
from frostline.fitting.events import Event
from frostline.fitting.folds import Fold, stratified_folds
from frostline.fitting.held import Held, ridge_held
from frostline.fitting.prepare import Compute, Labelled, Sources, prefix_of, prepare
from frostline.fitting.solved import cross_validate_solved, work_of
from frostline.fitting.sources import FeatureRows
from frostline.fitting.weigh import weighed
from frostline.freeze.layers import layers_of
from frostline.heads import HeadSpec
from frostline.quality.suspects import find_suspects

SAMPLE = 1000
"""Images that evidence is taken from, at most: half a point is seen with that many, and no matrix grows beyond them."""
FOLDS = 5
LOOKED_AT = 64
"""Images that are compared with what the backbone was trained on, and that speeds are measured with, at most."""
REACHES = (1, 2, 4, 8)
"""Numbers of last blocks that unfreezing is predicted for, besides all of them."""


@dataclass(frozen=True, eq=False)
class AtDepth:
    """What is known of one depth.

    Attributes:
        name: of the block, or :data:`frostline.features.depths.END`.
        channels: length of its pooled features.
        ridge: a ridge on them.
        logistic: a logistic regression on them.
        neighbours: the nearest neighbours by them.
        logme: see :func:`frostline.advise.transferability.logme`.
        h_score: see :func:`frostline.advise.transferability.shrunk_h_score`.
    """

    name: str
    channels: int
    ridge: Held
    logistic: Held
    neighbours: Held
    logme: float
    h_score: float


@dataclass(frozen=True)
class Timed:
    """How long some of it took on this machine.

    Attributes:
        features: seconds of the pass.
        probes: seconds of the rest.
        choosing: seconds of choosing and making the engine, when it was chosen.
        decode: pictures a second.
        weighing: seconds of weighing the depths; 0 where there is one only.
        solving: multiplications a second, about, of a cross-validated ridge.
    """

    features: float
    probes: float
    choosing: float
    decode: float
    weighing: float
    solving: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that was measured on the images for one backbone.

    Attributes:
        backbone: its name.
        images: how many were looked at.
        of: how many there are to train on and judge by.
        classes: number of classes.
        fewest: images of the smallest class.
        majority: share of the largest class.
        folds: of cross-validation.
        depths: in forward order.
        reaches: by the selector that unfreezes from there (``last:2``, ``all``): a ridge on the features of all depths from the cut to
            the end.
        told: how the linear head does at the end and at depths that are worth a look, and which one to take.
        suspects: images whose label is doubted (Northcutt 2021) by the logistic regression at the end.
        curve: ridge at the end, by number of training images.
        unlikeness: how new the images are to the backbone.
        engine: what ran the backbone.
        why: in words, why nothing is known about depth; empty otherwise.
        timed: how long it took.
        some: some of the images, normalised ``(n, 3, H, W)``, on the device.
    """

    backbone: str
    images: int
    of: int
    classes: int
    fewest: int
    majority: float
    folds: int
    depths: tuple[AtDepth, ...]
    reaches: dict[str, Held]
    told: Told
    suspects: int
    curve: tuple[tuple[int, Held], ...]
    unlikeness: Unlikeness
    engine: Engine
    why: str
    timed: Timed
    some: torch.Tensor

    @property
    def end(self) -> AtDepth:
        """The backbone's own features."""
        return self.depths[-1]

    @property
    def best(self) -> AtDepth:
        """The depth with the most accurate ridge; of equals the later one."""
        return max(reversed(self.depths), key=lambda d: d.ridge.accuracy)


def gather_evidence(
    opened: Backbone, images: ImageSet, classes: int, compute: Compute, device: torch.device, seed: int, listen: Callable[[Event], None]
) -> Evidence:
    """Run the backbone over the images and examine what it gives at every depth.

    Args:
        opened: the backbone, on ``device``; all of it is frozen.
        images: to train on and to judge by, together; never those of a test.
        classes: number of classes.
        compute: cache, engine and precision.
        device: where to run.
        seed: of the sample and the folds.
        listen: called with the events of feature extraction.

    Raises:
        DataError: nothing that can be read is left.
        RecipeError: a class has one image only, or too few groups.
    """
    began = time.perf_counter()
    sample = sampled(images, SAMPLE, seed)
    depths, parts = tapped(opened, nn.Identity())
    labelled = Labelled(sample, None)
    choosing = time.perf_counter()
    prefix = prefix_of(parts, opened, labelled, compute, device)
    prepared, chosen = time.perf_counter() - choosing, prefix.engine.seconds_to_choose
    features, labelled = _features(prepare(parts, prefix, labelled, Views(), compute, seed), listen)
    passed = time.perf_counter()
    labels = torch.tensor(labelled.train.labels)
    folds = stratified_folds(labels, FOLDS, seed, labelled.train.units)
    counts = torch.bincount(labels, minlength=classes)
    decoding = time.perf_counter()
    some = some_images(opened, labelled.train, device)
    decode = len(some) / (time.perf_counter() - decoding)
    examined = tuple(_at(name, f, labels, classes, folds) for name, f in zip(depths.names, features, strict=True))
    units = labelled.train.units
    weighing = time.perf_counter()
    everything = weighed(joined(features), depths.sizes, labels, classes, seed, units) if len(depths.names) > 1 else None
    weighing = time.perf_counter() - weighing
    reaches = _reaches(opened, depths, features, everything, labels, units, folds, classes, seed)
    solved = may_be_solved(len(images), depths.layout.size, classes)
    solving = _solving(features[-1], labels, classes, folds)
    return Evidence(
        opened.name,
        len(labels),
        len(images),
        classes,
        int(counts.min()),
        float(counts.max() / counts.sum()),
        len(folds),
        examined,
        reaches,
        _told(depths, features, everything, examined, reaches, labels, folds, classes, seed, solved=solved),
        _suspects(examined[-1].logistic, labels),
        learning_curve(features[-1], labels, classes, folds, seed, examined[-1].ridge),
        unlikeness_of(opened, some),
        prefix.engine,
        depths.why,
        Timed(passed - began, time.perf_counter() - passed, max(prepared, chosen or 0.0), decode, weighing, solving),
        some,
    )


def _solving(features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold]) -> float:
    """Multiplications a second, about, of a ridge whose strength is cross-validated; a logistic regression has up to 40 % fewer."""
    began, spec = time.perf_counter(), HeadSpec("ridge")
    cross_validate_solved(spec, features, labels, classes, folds)
    return work_of(spec, len(labels), features.shape[1], classes, len(folds)) / (time.perf_counter() - began)


def _told(
    depths: Depths,
    features: Sequence[torch.Tensor],
    everything: torch.Tensor | None,
    examined: Sequence[AtDepth],
    reaches: Mapping[str, Held],
    labels: torch.Tensor,
    folds: Sequence[Fold],
    classes: int,
    seed: int,
    *,
    solved: bool,
) -> Told:
    """How linear heads do at the end and on all depths side by side."""
    named = dict(zip(depths.names, features, strict=True))
    ridge = {d.name: d.ridge for d in examined}
    if everything is not None:
        named[ALL], ridge[ALL] = everything, reaches["all"]  # what unfreezing everything can reach is what all depths know
    return tell_apart(named, ridge, labels, folds, classes, seed, way="solved" if solved else "stepped")


def _features(
    steps: Generator[Event, None, tuple[Sources, Labelled]], listen: Callable[[Event], None]
) -> tuple[tuple[torch.Tensor, ...], Labelled]:
    """Run the pass; gives the features of each depth, ``(N, C)``, and the images that could be read."""
    while True:
        try:
            listen(next(steps))
        except StopIteration as end:
            sources, labelled = cast("tuple[Sources, Labelled]", end.value)
            break
    assert isinstance(sources.train, FeatureRows)
    rows = sources.train.views[0]
    return sources.train.layout.unpack(rows if isinstance(rows, torch.Tensor) else rows[torch.arange(len(rows))]), labelled


def some_images(opened: Backbone, images: ImageSet, device: torch.device) -> torch.Tensor:
    """Up to :data:`LOOKED_AT` images, spread over all: normalised ``(n, 3, H, W)``, channels last."""
    count = min(LOOKED_AT, len(images))
    paths: list[Path] = [images.paths[i * len(images) // count] for i in range(count)]
    found = [p for batch in pixel_batches(paths, opened.preprocess, full_batches(count)) for p in batch if not isinstance(p, DecodeError)]
    return opened.preprocess.normalise(torch.stack(found).to(device)).contiguous(memory_format=torch.channels_last)


def _suspects(held: Held, labels: torch.Tensor) -> int:
    return 0 if held.logits is None else len(find_suspects(held.logits.softmax(1), labels))


def _at(name: str, features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold]) -> AtDepth:
    return AtDepth(
        name,
        features.shape[1],
        ridge_held(features, labels, classes, folds),
        logistic_probe(features, labels, classes, folds),
        neighbours_probe(features, labels, classes, folds),
        logme(features, labels, classes),
        shrunk_h_score(features, labels),
    )


def reach_of(opened: Backbone, depths: Depths) -> dict[str, int]:
    """For each selector that is examined, the first depth that crosses its cut: an index into ``depths.names``; nothing for those whose
    cut is not tapped."""
    blocks = [b.name for b in layers_of(opened.body).blocks]
    found: dict[str, int] = {}
    for count in REACHES:
        before = blocks[: len(blocks) - count]
        if before and before[-1] in depths.names:
            found[f"last:{count}"] = depths.names.index(before[-1])
    if len(depths.names) > 1:
        found["all"] = 0
    return found


def _reaches(
    opened: Backbone,
    depths: Depths,
    features: Sequence[torch.Tensor],
    everything: torch.Tensor | None,
    labels: torch.Tensor,
    units: Sequence[int],
    folds: Sequence[Fold],
    classes: int,
    seed: int,
) -> dict[str, Held]:
    assert depths.names[-1] == END
    found: dict[str, Held] = {}
    for selector, first in reach_of(opened, depths).items():
        rest = everything if first == 0 else weighed(joined(features[first:]), depths.sizes[first:], labels, classes, seed, units)
        assert rest is not None  # there are several depths
        found[selector] = ridge_held(rest, labels, classes, folds)
    return found
