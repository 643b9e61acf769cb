"""Accuracy by depth, where ``frostline advise`` has left the features of every depth in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from frostline.advise.evidence import FOLDS, SAMPLE
from frostline.errors import RecipeError
from frostline.features import FeatureStore
from frostline.features.choice import decided_engine
from frostline.features.depths import END
from frostline.features.engine import plain
from frostline.features.extract import Prefix
from frostline.features.known import prefix_subject
from frostline.fitting.depth import sampled, tapped
from frostline.fitting.folds import stratified_folds
from frostline.fitting.held import ridge_held
from frostline.report.judged import Listed
from frostline.report.svg import WIDTH, dot, drawing, line, text
from frostline.report.words import percent, whole
from frostline.run import Run


@dataclass(frozen=True)
class Depth:
    """What a simple head gets on the features of one depth.

    Attributes:
        name: of the block, or ``backbone`` for the end.
        accuracy: where held out.
        interval: of it.
    """

    name: str
    accuracy: float
    interval: tuple[float, float]


def depths_of(run: Run, listed: Listed, cache: Path | None, device: torch.device) -> tuple[Depth, ...]:
    """What ``frostline advise`` measured, from its cached features; nothing where they are not there, and nothing is run for it."""
    recipe = run.recipe
    if cache is None or not recipe.head_alone or not (cache / "features").is_dir():
        return ()
    images = sampled(listed.images["train"] + listed.images["val"], SAMPLE, recipe.seed)
    if len(set(images.labels)) < len(run.classes):
        return ()
    depths, parts = tapped(run.model.opened, torch.nn.Identity())
    subject = prefix_subject(parts, run.model.opened, device=device, precision=recipe.precision, engine=recipe.engine)
    engine = decided_engine(subject, len(images), cache)
    if engine is None:  # a network so small that no other engine was tried is run as it is, and nothing is remembered
        engine = plain(depths.body, "bf16" if recipe.precision == "bf16" else "fp32")
    if depths.why:
        return ()
    prefix = Prefix(engine, run.model.opened.preprocess, device, depths.layout, subject.settings, recipe.storage)
    store = FeatureStore.open(cache, prefix.key())
    if store.missing(images.digests):
        return ()
    images = images.without(store.skipped)
    labels = torch.tensor(images.labels)
    try:
        folds = stratified_folds(labels, FOLDS, recipe.seed, images.units)
    except RecipeError:  # then there was nothing to measure
        return ()
    found = [ridge_held(f, labels, len(run.classes), folds) for f in depths.layout.unpack(store.gather(images.digests))]
    return tuple(Depth(name, held.accuracy, held.interval) for name, held in zip(depths.names, found, strict=True))


def by_depth(found: Sequence[Depth]) -> str:
    """A dot a depth with its interval, from the first block to the end."""
    left, wide, row, top = 118.0, WIDTH - 118.0 - 52.0, 20.0, 22.0
    low = min(0.5, *(d.interval[0] for d in found))

    def at(share: float) -> float:
        return left + wide * (share - low) / (1 - low)

    height = top + row * len(found)
    parts: list[str] = []
    for share in (low, (1 + low) / 2, 1.0):
        parts += [line(at(share), top - 6, at(share), height, "grid"), text(at(share), 11, whole(share), anchor="middle", kind="soft")]
    best = max(found, key=lambda d: d.accuracy)
    for i, depth in enumerate(found):
        y = top + row * i + row / 2
        name = "the end" if depth.name == END else depth.name
        parts.append(text(0, y + 4, name if len(name) <= 17 else f"{name[:7]}…{name[-9:]}", kind="name"))
        words = f"{name}: {percent(depth.accuracy)}, between {percent(depth.interval[0])} and {percent(depth.interval[1])}"
        parts.append(line(at(depth.interval[0]), y, at(depth.interval[1]), y, "whisker"))
        parts.append(dot(at(depth.accuracy), y, 5, "kept" if depth is best else "point", words))
        parts.append(text(WIDTH, y + 4, percent(depth.accuracy), anchor="end", kind="small"))
    where = "the end" if best.name == END else best.name
    return drawing(height + 6, f"Accuracy of a simple head by depth; best at {where} with {percent(best.accuracy)}.", parts)
