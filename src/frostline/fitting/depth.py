"""Which depth of a frozen backbone a head is put on, or all of them, and of ``auto`` which linear head: one pass, cross-validated heads."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import nn

from frostline._rng import stream
from frostline.backbone.network import Backbone
from frostline.errors import RecipeError
from frostline.features.depths import ALL, END, Depths, at_depths
from frostline.features.extract import FeatureProgress
from frostline.features.images import ImageSet
from frostline.fitting.budget import Budget
from frostline.fitting.calibrate import fit_temperature
from frostline.fitting.events import CachePlanned, DepthChosen, FeaturesReady
from frostline.fitting.folds import Fold, stratified_folds
from frostline.fitting.held import Held, best_held, fall, ridge_held, surely_lower
from frostline.fitting.hyper import Options, default_hyper
from frostline.fitting.phase import Given, Ready
from frostline.fitting.prepare import Compute, Labelled, Sources, prefix_of, prepare
from frostline.fitting.solved import held_out_answers, strengths_of, work_of
from frostline.fitting.sources import FeatureRows, Source
from frostline.fitting.stack import Scaled, Stack, held_out_logits, train_stacks
from frostline.fitting.weigh import weighed
from frostline.freeze.apply import freeze
from frostline.freeze.crossing import Layout
from frostline.freeze.cut import Cut, Split
from frostline.heads import FeatureShape, HeadSpec, build_head
from frostline.heads.contract import AUTO
from frostline.heads.linear import LinearHead
from frostline.model import TransferModel

FOLDS = 5
MOST_NUMBERS = 2**28
"""Numbers that heads of the folds may take side by side, at most."""
MOST_JUDGED = 1000
"""Training images that depths are told apart on, at most."""
MOST_BYTES = 1 << 30
"""Features of all depths that are held in memory, at most; of more, a sample is looked at and the chosen depth computed anew."""
_DEARER = 80
"""How many times the seconds of a ridge the heads themselves take, about, where they are trained in the folds."""
SURE = 2.0
"""Standard errors that the log loss of a solved head at the end must be below that of one on all depths."""
ERRORS = 1.0
"""Standard errors that the log loss of another depth must be below that of the end (docs/LOG.md, 2026-11-27)."""
MOST_WORK = 3e11
"""Multiplications, about, that the cross-validation of a solved head on all training images may take for ``auto``: some ten seconds."""


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


@dataclass(frozen=True, eq=False)
class Places:
    """Depths that a head may be put on.

    Attributes:
        ready: features of each, by the depth as a head names it; None is where the model's head sits. Empty: they are not at hand.
        told: what is to be told once a sweep has chosen one of several.
        sizes: the length of each depth's vector.
    """

    ready: Mapping[str | None, Ready] = field(default_factory=dict[str | None, Ready])
    told: DepthChosen | None = None
    sizes: tuple[int, ...] = ()


def choose_depth(
    model: TransferModel, images: Labelled, given: Given, compute: Compute, device: torch.device, *, sweep: bool, taken: str = ""
) -> Generator[FeatureProgress | CachePlanned | FeaturesReady | DepthChosen, None, Places]:
    """Put the model's head, which asks for it (``linear@auto``), on a depth; gives the features there, if they are at hand.

    By :func:`tell_apart`, on the training images: the end, unless the head does better on an earlier block or on all depths side by side,
    by more than :data:`ERRORS` standard errors of the log loss, image by image. ``auto`` has the kind of the linear head chosen as well,
    where nobody asked for settings that only a stepped one has. Where a sweep follows, it is left to choose among those that are worth a
    look.

    Args:
        model: its backbone may be cut and its head replaced.
        images: to train on and to judge by; the latter are not looked at.
        given: seed and views.
        compute: how features are had.
        device: where the model is.
        sweep: whether heads are swept afterwards.
        taken: the head that was put there before an interruption; empty where there was none.

    Raises:
        RecipeError: it was asked for, and a class has one image only, or too few groups.
    """
    depths, parts = tapped(model.opened, model.head)
    few = Labelled(sampled(images.train, MOST_JUDGED, given.seed), None)
    large = len(images.everything) * depths.layout.bytes > MOST_BYTES or given.views.augment != "none" or compute.recompute
    views, kept, wanted = replace(given.views, augment="none"), replace(compute, recompute=False), few if large else images
    prefix = prefix_of(parts, model.opened, images, kept, device, wanted)
    sources, usable = yield from prepare(parts, prefix, wanted, views, kept, given.seed)
    assert isinstance(sources.train, FeatureRows)
    rows = {d: i for i, d in enumerate(usable.train.digests)}
    judged = torch.tensor([rows[d] for d in few.train.digests if d in rows])
    labels = sources.train.labels.cpu()[judged]
    try:
        units = [sources.train.units[row] for row in judged.tolist()]
        folds = stratified_folds(labels, FOLDS, given.seed, units)
    except RecipeError:
        if model.head_spec.at == AUTO:
            raise
        return Places()  # nobody asked for it: the head stays where it is
    rows_judged = _matrix(sources.train)[judged]
    named = {n: depths.at(n, rows_judged) for n in depths.names}
    began = time.perf_counter()
    ridge = _ridges(named, labels, model.num_classes, folds, given.budget)
    late = given.budget is not None and given.budget.over(_DEARER * (time.perf_counter() - began) / len(ridge))
    if 1 < len(named) == len(ridge) and not late:
        named[ALL] = weighed(depths.at(ALL, rows_judged), depths.sizes, labels, model.num_classes, given.seed, units)
        ridge[ALL] = ridge_held(named[ALL], labels, model.num_classes, folds)
    solved = not large and _solvable(model, given, len(images.train), depths.layout.size)
    way = _way(model.head_spec, sweep=sweep, late=late, solved=solved)
    most = 0.0 if late else MOST_WORK
    told = tell_apart(named, ridge, labels, folds, model.num_classes, given.seed, way=way, images=len(images.train), most_work=most)
    if taken and not sweep:
        told = replace(told, chosen=replace(HeadSpec.parse(taken), **({} if solved else {"kind": "linear", "width": None})))
    why = _why(told, depths.why, left_out=len(depths.names) > 1 and ALL not in ridge, swept=sweep)
    event = DepthChosen(tuple(ridge), tuple(h.accuracy for h in ridge.values()), depth_of(told.chosen), why, len(labels))

    def at(depth: str) -> Ready:
        train = _at(sources.train, depths, depth)
        val = None if sources.val is None else _at(sources.val, depths, depth)
        cut = replace(parts.cut, name=END if depth == ALL else depth, bytes=train.layout.bytes)
        split = replace(parts, suffix=model.head, cut=cut, layout=train.layout)
        return Ready(split, replace(prefix, layout=train.layout), Sources(train, val), usable)

    if sweep and told.own and not large:
        return Places({None if d == END else d: at(d) for d in told.by_loss}, event, depths.sizes)
    yield event
    model.put_head(replace(told.chosen if solved else model.head_spec, at=told.chosen.at), given.seed)
    return Places() if large else Places({None: at(depth_of(told.chosen))})


def _way(head: HeadSpec, *, sweep: bool, late: bool, solved: bool) -> Way:
    if sweep:
        return "judged"
    if solved:
        return "solved"
    return "stepped" if head.kind == "linear" and not late else "judged"


def _solvable(model: TransferModel, given: Given, images: int, size: int) -> bool:
    """Whether ``auto`` may solve its linear probe: the images are few enough, and nobody asked for what only steps have."""
    if given.budget is not None and images > MOST_JUDGED:
        return False  # how long it takes would not have been seen
    asked = (given.epochs, given.batch_size, given.lr, given.weight_decay)
    plain = given.options == replace(Options(), wise=given.options.wise) and given.views.augment == "none"
    plain = plain and model.head_spec == HeadSpec("linear")
    return given.auto and plain and may_be_solved(images, size, model.num_classes) and all(value is None for value in asked)


def may_be_solved(images: int, size: int, classes: int) -> bool:
    """Whether so many training images are few enough for a ridge on so many features."""
    return work_of(HeadSpec("ridge"), images, size, classes, FOLDS) <= MOST_WORK


def depth_of(head: HeadSpec) -> str:
    """The depth that a head sits on, by its name."""
    return head.at or END


def _ridges(
    features: Mapping[str, torch.Tensor], labels: torch.Tensor, classes: int, folds: Sequence[Fold], budget: Budget | None
) -> dict[str, Held]:
    """A ridge at each depth; from the end on, and no more of them than leave as much time as they took."""
    found: dict[str, Held] = {}
    began = time.perf_counter()
    for name in (END, *(n for n in reversed(list(features)) if n != END)):
        found[name] = ridge_held(features[name], labels, classes, folds)
        if budget is not None and budget.over(time.perf_counter() - began):
            break
    return {n: found[n] for n in features if n in found}


def wants_depth(model: TransferModel, *, auto: bool) -> bool:
    """Whether the head asks for a depth to be chosen; under the strategy ``auto`` a plain linear one does."""
    spec = model.head_spec
    return spec.at == AUTO or (auto and spec.kind == "linear" and spec.at is None)


def sampled(images: ImageSet, most: int, seed: int) -> ImageSet:
    """At most so many images, every class at its share and with images of two groups at least, where it has them; in their order."""
    if len(images) <= most:
        return images
    labels, units = torch.tensor(images.labels), images.units
    kept: list[int] = []
    for name in labels.unique().tolist():
        own = (labels == name).nonzero()[:, 0]
        order = own[torch.randperm(len(own), generator=stream(seed, "sample", name))].tolist()
        count = max(2, round(most * len(own) / len(images)))
        chosen = order[:count]
        if len({units[row] for row in chosen}) == 1:
            chosen += [row for row in order[count:] if units[row] != units[chosen[0]]][:1]
        kept += chosen
    return images.only(sorted(kept))


Way = Literal["judged", "stepped", "solved"]
"""How heads are told apart: by the ridge at their depth, by a linear head that is trained step by step, or by those that are solved."""


@dataclass(frozen=True, eq=False)
class Told:
    """How the depths were told apart.

    Attributes:
        ridge: a ridge at each depth, by name, and on all of them side by side.
        own: the very heads that may be trained, calibrated, at the end and at what is worth a look; empty where nothing is.
        chosen: the head to take.
    """

    ridge: dict[str, Held]
    own: dict[HeadSpec, Held]
    chosen: HeadSpec

    @property
    def by_loss(self) -> list[str]:
        """The end, and what is worth a look beside it, by the log loss of its ridge: the best first."""
        return [END, *sorted({depth_of(h) for h in self.own} - {END}, key=lambda n: self.ridge[n].log_loss or 0.0)]

    @property
    def advised(self) -> HeadSpec:
        """The head to advise: of solved ones that at the end is the simpler, and goes first where its log loss is lower."""
        solved = [h for h in self.own if h.solved]
        return HeadSpec("linear") if solved and self.chosen.at == ALL and self.best(END, ALL).at is None else self.chosen

    def best(self, *depths: str) -> HeadSpec:
        """Of the very heads on some depths the one with the lowest log loss."""
        return min((h for h in self.own if depth_of(h) in depths), key=lambda h: self.own[h].log_loss or 0.0)


def tell_apart(
    features: Mapping[str, torch.Tensor],
    ridge: dict[str, Held],
    labels: torch.Tensor,
    folds: Sequence[Fold],
    classes: int,
    seed: int,
    *,
    way: Way,
    images: int = 0,
    most_work: float = MOST_WORK,
) -> Told:
    """Ridges say which depths are worth a look, and the head itself decides, for it may not reach what a ridge does (docs/LOG.md).

    Worth a look are the earlier block with the best ridge, and all depths side by side, where their ridge beats that of the end. They are
    compared by log loss, and the head's is that of its answers at the temperature that suits them best, which training fits as well.
    Of heads that are solved the one with the lowest log loss on all depths is taken, of which end and blocks are special cases, unless one
    at the end is surely better, by :data:`SURE` standard errors.

    Args:
        features: ``(N, d)`` of each depth, the end among them, and of all of them side by side.
        ridge: a ridge at those that are looked at, by the same folds; the end is one of them.
        labels: ``(N,)`` int64.
        folds: of cross-validation.
        classes: number of classes.
        seed: of first weights and order.
        way: how; heads of very many weights are judged by the ridge.
        images: that the head will be trained on, where they are more than these.
        most_work: multiplications that the cross-validation of a logistic head on them may take, about.
    """
    if way == "solved":
        places = [depth for depth in (END, ALL) if depth in ridge]
        count = max(images, len(labels))
        pairs = [p for depth in places for p in _solved(depth, features, ridge, labels, folds, classes, count, most_work)]
        told = Told(ridge, dict(pairs), HeadSpec("linear"))
        end, best = told.best(END), told.best(places[-1])
        return replace(told, chosen=end if surely_lower(told.own[best], told.own[end], SURE) else best)
    earlier = [n for n in ridge if n not in (END, ALL)]
    looked_at = [*([min(earlier, key=lambda n: ridge[n].log_loss or 0.0)] if earlier else []), *([ALL] if ALL in ridge else [])]
    worth = [n for n in looked_at if surely_lower(ridge[END], ridge[n], ERRORS)]
    asked = (*worth, END) if worth else ()
    numbers = 4 * len(folds) * classes * sum(features[n].shape[1] for n in asked)  # weights, gradients and two moments
    stepped = way == "stepped" and numbers <= MOST_NUMBERS
    heads = {n: HeadSpec("linear", at=None if n == END else n) for n in asked}
    own = {heads[n]: stepped_held(features[n], labels, classes, folds, seed, all_depths=n == ALL) if stepped else ridge[n] for n in asked}
    better = [heads[n] for n in worth if surely_lower(own[heads[END]], own[heads[n]], ERRORS)]
    return Told(ridge, own, min(better, key=lambda h: own[h].log_loss or 0.0) if better else HeadSpec("linear"))


def _solved(
    depth: str,
    features: Mapping[str, torch.Tensor],
    ridge: dict[str, Held],
    labels: torch.Tensor,
    folds: Sequence[Fold],
    classes: int,
    images: int,
    most_work: float,
) -> Iterator[tuple[HeadSpec, Held]]:
    """The solved heads on a depth; a logistic one only where that is no long work."""
    at = None if depth == END else depth
    yield HeadSpec("ridge", at=at), ridge[depth]
    spec, own = HeadSpec("logistic", at=at), features[depth]
    if work_of(spec, images, own.shape[1], classes, len(folds)) <= most_work:
        strengths = torch.tensor(strengths_of(spec), dtype=torch.float64)
        yield spec, best_held(held_out_answers(spec, own, labels, classes, folds, strengths), labels)


def stepped_held(
    features: torch.Tensor, labels: torch.Tensor, classes: int, folds: Sequence[Fold], seed: int, *, all_depths: bool = False
) -> Held:
    """The linear head, trained step by step by the documented rule, on images that it did not see; calibrated.

    Args:
        features: ``(N, d)`` float32, as they come from the backbone.
        labels: ``(N,)`` int64.
        classes: number of classes.
        folds: of cross-validation; all are trained at once.
        seed: of the order of images.
        all_depths: whether the features are those of all depths.
    """
    hyper = default_hyper(images=len(labels), head="linear", backbone_trained=False, all_depths=all_depths)
    head = build_head(HeadSpec("linear"), FeatureShape((features.shape[1],)), classes, seed)
    assert isinstance(head, LinearHead)
    scaled = Scaled.of(features, folds)
    stack = Stack.of(head, features.new_tensor([hyper.lr]), features.new_tensor([hyper.weight_decay]), len(folds))
    train_stacks([(stack, scaled)], labels, folds, hyper, seed)
    logits = held_out_logits(stack, scaled, folds)[0].double()
    return best_held(logits[None] / fit_temperature(logits, labels), labels)


def _why(told: Told, only_end: str, *, left_out: bool, swept: bool) -> str:
    worth = [d for d in told.by_loss if d != END]
    if only_end and not worth:
        return f"only the end is known: {only_end}"
    if not worth:
        short = f"none of the {len(told.ridge) - 1} others that there was time for (--budget) tells more"
        return short if left_out else "no earlier block tells more, nor do all depths together"
    if told.chosen not in told.own:
        return f"{told.chosen} was chosen before the interruption"
    best = told.chosen if depth_of(told.chosen) != END else told.best(*worth)
    end = told.best(END)
    own, base = told.own[best], told.own[end]
    solved = any(head.kind != "linear" for head in told.own)
    said = f"{best if solved else depth_of(best)}: {own.accuracy:.3f} of the training images right where held out, "
    said += f"{base.accuracy:.3f} {f'with {end} ' if solved else ''}at the end"
    errors = f"log loss {abs(fall(base, own)):.1f} standard errors {'lower' if fall(base, own) > 0 else 'higher'}"
    noise = ", which is inside the noise" if told.chosen == best and fall(base, own) <= 0 else ""
    return f"{said}; {errors}{noise}" + ("" if swept or told.chosen == best else ", which is not taken")


def _matrix(source: FeatureRows) -> torch.Tensor:
    rows = source.views[0]
    return rows if isinstance(rows, torch.Tensor) else rows[torch.arange(len(rows))]


def _at(source: Source, depths: Depths, depth: str) -> FeatureRows:
    assert isinstance(source, FeatureRows)
    rows = depths.at(depth, _matrix(source))
    return replace(source, views=(rows,), layout=Layout.of((rows,)))
