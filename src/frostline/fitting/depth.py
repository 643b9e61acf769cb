"""Which depth of a frozen backbone a head is put on: one pass taps every block, cross-validated ridges tell the depths apart."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import torch
from torch import nn

from frostline._rng import stream
from frostline.backbone.network import Backbone
from frostline.features.depths import END, Depths, at_depths
from frostline.features.extract import FeatureProgress
from frostline.features.images import ImageSet
from frostline.fitting.events import CachePlanned, DepthChosen, FeaturesReady
from frostline.fitting.folds import stratified_folds
from frostline.fitting.held import Held, differ, fall, ridge_held
from frostline.fitting.phase import Given, Ready
from frostline.fitting.prepare import Compute, Labelled, Sources, prefix_of, prepare
from frostline.fitting.sources import FeatureRows, Source
from frostline.freeze.apply import freeze
from frostline.freeze.crossing import Layout
from frostline.freeze.cut import Cut, Split
from frostline.heads.contract import AUTO
from frostline.model import TransferModel

FOLDS = 5
MOST_JUDGED = 1000
"""Training images that depths are told apart on, at most."""
MOST_BYTES = 1 << 30
"""Features of all depths that are held in memory, at most; of more, a sample is looked at and the chosen depth computed anew."""
ERRORS = 2.0
"""Standard errors that the log loss of an earlier depth must be below that of the end."""


def tapped(opened: Backbone, suffix: nn.Module) -> tuple[Depths, Split]:
    """A backbone tapped at every block, frozen, as a prefix under ``suffix``."""
    freeze(opened.body, trainable=(), pinned=[n for n, _ in opened.body.named_modules()])
    depths = at_depths(opened)
    cut = Cut(
        "depths",
        "backbone",
        "the whole backbone is frozen: every block is tapped in one pass and what it gives cached",
        depths.layout.bytes,
    )
    return depths, Split(depths.body, suffix, cut, depths.layout, depths.code)


def choose_depth(
    model: TransferModel, images: Labelled, given: Given, compute: Compute, device: torch.device
) -> Generator[FeatureProgress | CachePlanned | FeaturesReady | DepthChosen, None, Ready | None]:
    """Put the model's head, which asks for it (``linear@auto``), on a depth; gives the features there, if they are at hand.

    The depth with the lowest log loss of a cross-validated ridge on the training images; the end, unless that depth's is lower by more than
    :data:`ERRORS` standard errors, image by image.

    Args:
        model: its backbone may be cut and its head replaced.
        images: to train on and to judge by; the latter are not looked at.
        given: seed and views.
        compute: how features are had.
        device: where the model is.
    """
    depths, parts = tapped(model.opened, model.head)
    few = Labelled(sampled(images.train, MOST_JUDGED, given.seed), None)
    large = len(images.everything) * depths.layout.bytes > MOST_BYTES or given.views.augment != "none" or compute.recompute
    asked = few if large else images
    prefix = prefix_of(parts, model.opened, images, compute, device)
    sources, usable = yield from prepare(
        parts, prefix, asked, replace(given.views, augment="none"), replace(compute, recompute=False), given.seed
    )
    assert isinstance(sources.train, FeatureRows)
    rows = {d: i for i, d in enumerate(usable.train.digests)}
    judged = torch.tensor([rows[d] for d in few.train.digests if d in rows])
    labels = sources.train.labels.cpu()[judged]
    folds = stratified_folds(labels, FOLDS, given.seed)
    features = depths.layout.unpack(_matrix(sources.train)[judged])
    held = {n: ridge_held(f, labels, model.num_classes, folds) for n, f in zip(depths.names, features, strict=True)}
    chosen = _chosen(held)
    yield DepthChosen(tuple(depths.names), tuple(h.accuracy for h in held.values()), chosen, _why(held, chosen, depths.why), len(labels))
    model.put_head(replace(model.head_spec, at=None if chosen == END else chosen), given.seed)
    if large:
        return None
    place = depths.names.index(chosen)
    cut = replace(parts.cut, name=chosen, bytes=4 * depths.layout.parts[place].size)
    at = replace(parts, suffix=model.head, cut=cut, layout=Layout((depths.layout.parts[place],)))
    own = Sources(_only(sources.train, place), None if sources.val is None else _only(sources.val, place))
    return Ready(at, replace(prefix, layout=at.layout), own, usable)


def wants_depth(model: TransferModel, *, auto: bool) -> bool:
    """Whether the head asks for a depth to be chosen; under the strategy ``auto`` a plain linear one does."""
    spec = model.head_spec
    return spec.at == AUTO or (auto and spec.kind == "linear" and spec.at is None)


def sampled(images: ImageSet, most: int, seed: int) -> ImageSet:
    """At most so many images, every class at its share and with two images at least, in their order."""
    if len(images) <= most:
        return images
    labels = torch.tensor(images.labels)
    kept: list[int] = []
    for name in labels.unique().tolist():
        own = (labels == name).nonzero()[:, 0]
        order = torch.randperm(len(own), generator=stream(seed, "sample", name))
        kept += own[order[: max(2, round(most * len(own) / len(images)))]].tolist()
    return images.only(sorted(kept))


def _chosen(held: dict[str, Held]) -> str:
    best = min(reversed(held), key=lambda name: held[name].log_loss or 0.0)
    return best if best != END and fall(held[END], held[best]) > ERRORS else END


def _why(held: dict[str, Held], chosen: str, only_end: str) -> str:
    if only_end:
        return f"only the end is known: {only_end}"
    best = min(reversed(held), key=lambda name: held[name].log_loss or 0.0)
    if best == END:
        return "no earlier block tells more"
    told = f"{held[best].accuracy:.3f} of the training images right where held out, {held[END].accuracy:.3f} at the end"
    chance = f"log loss lower by {fall(held[END], held[best]):.1f} standard errors, by chance alone {differ(held[best], held[END]):.0%}"
    return f"{best}: {told}; {chance}" + ("" if chosen == best else f"; less than {ERRORS:g} are taken for noise")


def _matrix(source: FeatureRows) -> torch.Tensor:
    rows = source.views[0]
    return rows if isinstance(rows, torch.Tensor) else rows[torch.arange(len(rows))]


def _only(source: Source, place: int) -> FeatureRows:
    assert isinstance(source, FeatureRows)
    part = source.layout.parts[place]
    return FeatureRows((source.layout.unpack(_matrix(source))[place].contiguous(),), source.labels, Layout((part,)), source.seed)
