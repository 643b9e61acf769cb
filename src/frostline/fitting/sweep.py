"""Many heads at once on the same features, and the choice among them by cross-validation on the training images alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from frostline.features.depths import ALL
from frostline.fitting.candidates import Judged, SteppedHead, best_of, judge
from frostline.fitting.events import Swept
from frostline.fitting.folds import Fold, stratified_folds
from frostline.fitting.hyper import Hyper, default_hyper
from frostline.fitting.solved import cross_validate_solved, work_of
from frostline.fitting.stack import Scaled, Stack, held_out_logits, train_stacks
from frostline.heads import FeatureShape, HeadSpec, build_head
from frostline.heads.linear import LinearHead
from frostline.heads.mlp import MLPHead

FOLDS = 3
MOST_EPOCHS = 20
"""Passes over the training part of a fold, at most: enough to tell rates apart."""

MLP_WIDTHS = (16, 32)
FEWEST_FOR_MLP = 16
"""Sweeps of fewer heads are all linear; of more, one head in 16 has a hidden layer."""

Features = Mapping[str | None, torch.Tensor]
"""Features of the training images, ``(N, d)`` float32, by the depth of the network that they are of, as a head names it."""

MOST_NUMBERS = 2**27
"""Numbers that heads trained side by side may take, at most: weights, gradients, two moments, and logits of all images."""

MOST_WORK = 1e10
"""Solved heads are swept too where their cross-validation takes fewer multiplications than this, about."""


def grid(count: int, images: int, at: str | None = None) -> tuple[SteppedHead, ...]:
    """``count`` candidates around the documented rule, which is one of them.

    Linear heads over learning rate (half a decade apart, or less where there are many, three decades at most) and weight decay (one decade
    apart); from 16 on also hidden layers of two widths over learning rate.

    Args:
        count: at least 1.
        images: training images.
        at: the depth that all of them sit on.
    """
    hidden = count // FEWEST_FOR_MLP
    linear, decays = count - hidden, max(1, round(((count - hidden) / 2.5) ** 0.5))
    rule = default_hyper(images=images, head="linear", backbone_trained=False, all_depths=at == ALL)
    found: list[SteppedHead] = []
    for number, decay in enumerate(_around(rule.weight_decay, decays, 1.0)):
        rates = _around(rule.lr, linear // decays + (number < linear % decays), 0.5)
        found += [SteppedHead(HeadSpec("linear", at=at), rate, decay) for rate in rates]
    rule = default_hyper(images=images, head="mlp", backbone_trained=False)
    for number, width in enumerate(MLP_WIDTHS):
        share = hidden // len(MLP_WIDTHS) + (number < hidden % len(MLP_WIDTHS))
        found += [SteppedHead(HeadSpec("mlp", width, at), rate, rule.weight_decay) for rate in _around(rule.lr, share, 0.5)]
    return tuple(found)


def _around(centre: float, count: int, step: float) -> list[float]:
    """``count`` values, ``centre`` among them, ``step`` decades apart, over three decades at most."""
    step = min(step, 3 / max(1, count - 1))
    return [centre * 10 ** ((number - count // 2) * step) for number in range(count)]


def sweep(
    features: Features,
    labels: torch.Tensor,
    classes: int,
    count: int,
    hyper: Hyper,
    seed: int,
    units: Sequence[int] = (),
    images: int | None = None,
) -> Swept:
    """Cross-validate ``count`` heads, and solved ones where that is cheap, on training images.

    Args:
        features: as they come from the backbone; of several depths each has its share of the heads.
        labels: ``(N,)`` int64, on the same device.
        classes: number of classes.
        count: heads that are trained step by step.
        hyper: epochs (at most 20 are run), batch size and warm-up.
        seed: of folds, first weights and order.
        units: for each image the number of what it belongs to (its copies, its group); empty: each is on its own.
        images: what the rule that the grid is made around is asked for; ``N`` unless given.

    Raises:
        RecipeError: a class has one image only, or too few groups.
    """
    began = time.perf_counter()
    folds = stratified_folds(labels, FOLDS, seed, units)
    hyper = replace(hyper, epochs=min(hyper.epochs, MOST_EPOCHS))
    images, depths = len(labels) if images is None else images, list(features)[:count]
    shares = [count // len(depths) + (number < count % len(depths)) for number in range(len(depths))]
    candidates = [c for at, share in zip(depths, shares, strict=True) for c in grid(share, images, at)]
    judged = list(cross_validate(candidates, features, labels, classes, folds, hyper, seed))
    for spec in (HeadSpec(kind, at=at) for at in depths for kind in ("ridge", "logistic")):
        if len(depths) * work_of(spec, len(labels), features[spec.at].shape[1], classes, len(folds)) <= MOST_WORK:
            judged += cross_validate_solved(spec, features[spec.at], labels, classes, folds)
    return Swept(tuple(judged), best_of(judged), count, len(folds), hyper.epochs, time.perf_counter() - began)


def cross_validate(
    candidates: Sequence[SteppedHead],
    features: Features,
    labels: torch.Tensor,
    classes: int,
    folds: Sequence[Fold],
    hyper: Hyper,
    seed: int,
) -> tuple[Judged, ...]:
    """Judge heads that are trained step by step; the answer has the order of ``candidates``.

    Args:
        candidates: the heads.
        features: of every depth that they sit on.
        labels: ``(N,)`` int64, on the same device.
        classes: number of classes.
        folds: which images judge which head.
        hyper: epochs, batch size and warm-up.
        seed: of first weights and order.
    """
    scaled = {at: Scaled.of(own, folds) for at, own in features.items()}
    found: dict[int, Judged] = {}
    waiting = list(enumerate(candidates))
    while waiting:
        stacks: list[tuple[Stack, list[tuple[int, SteppedHead]]]] = []
        room = MOST_NUMBERS
        for spec in dict.fromkeys(c.head for _, c in waiting):
            own = features[spec.at]
            head = build_head(spec, FeatureShape((own.shape[1],)), classes, seed)
            assert isinstance(head, LinearHead | MLPHead)
            each = 4 * len(folds) * sum(p.numel() for p in head.parameters()) + len(own) * classes
            here = [(i, c) for i, c in waiting if c.head == spec][: max(0 if stacks else 1, room // each)]
            if here:
                rates, decays = own.new_tensor([c.lr for _, c in here]), own.new_tensor([c.weight_decay for _, c in here])
                stacks.append((Stack.of(head, rates, decays, len(folds)), here))
                room -= each * len(here)
        train_stacks([(stack, scaled[here[0][1].head.at]) for stack, here in stacks], labels, folds, hyper, seed)
        for stack, here in stacks:
            judged = judge([c for _, c in here], held_out_logits(stack, scaled[here[0][1].head.at], folds), labels)
            found.update(zip([i for i, _ in here], judged, strict=True))
        waiting = [(i, c) for i, c in waiting if i not in found]
    return tuple(found[i] for i in range(len(candidates)))
