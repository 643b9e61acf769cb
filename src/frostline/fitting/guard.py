"""Signs that training went wrong: overfitting, and forgetting what the backbone knew. Measured after it, said in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from frostline.fitting.metrics import wilson
from frostline.freeze.layers import layers_of

MOST_GAP = 0.05
"""Overfitting is warned of when training accuracy is above validation accuracy by more than this, outside the noise."""
LEAST_AGREEMENT = 0.5
LEAST_SIMILARITY = 0.5
"""Forgetting is warned of when the original classifier's answers, or the features' similarity, fall below these."""


@dataclass(frozen=True)
class Overfitting:
    """The gap between training and validation.

    Attributes:
        gap: training accuracy minus validation accuracy.
        interval: 95 % interval of the gap (Newcombe 1998, method 10).
    """

    gap: float
    interval: tuple[float, float]

    @property
    def warned(self) -> bool:
        """Whether the gap is large, and not by chance."""
        return self.interval[0] > MOST_GAP


@dataclass(frozen=True)
class Forgetting:
    """How far the backbone is from what it was.

    Attributes:
        distance: for each block that was trained, ``|w - w0| / |w0|`` over its weights.
        similarity: linear CKA without bias (Kornblith 2019, Song 2012) between old and new features of held-out images, 0 to 1.
        agreement: share of them to which the original classifier still gives its old answer; None where there is none.
        images: how many images that was measured on.
    """

    distance: Mapping[str, float]
    similarity: float
    agreement: float | None
    images: int

    @property
    def warned(self) -> bool:
        """Whether much was lost."""
        return self.similarity < LEAST_SIMILARITY or (self.agreement is not None and self.agreement < LEAST_AGREEMENT)


@dataclass(frozen=True)
class Guards:
    """Both; None where there is nothing to measure (no validation images; a backbone that was not trained)."""

    overfitting: Overfitting | None
    forgetting: Forgetting | None

    def warnings(self) -> list[str]:
        """What is wrong and what to do, one sentence each."""
        found: list[str] = []
        if self.overfitting is not None and self.overfitting.warned:
            low, high = self.overfitting.interval
            found.append(
                f"overfitting: training accuracy is {self.overfitting.gap:.0%} above validation ({low:.0%} to {high:.0%}); "
                "unfreeze fewer layers, add --augment light, raise --weight-decay, or label more images"
            )
        if self.forgetting is not None and self.forgetting.warned:
            kept = "" if self.forgetting.agreement is None else f", {self.forgetting.agreement:.0%} of its old answers are left"
            found.append(
                f"forgetting: the features are {self.forgetting.similarity:.0%} similar to those before training{kept}; "
                "lower --backbone-lr, use --strategy lp-ft, --l2-sp or --wise, or unfreeze fewer layers"
            )
        return found


def overfitting(train_right: int, train_n: int, val_right: int, val_n: int) -> Overfitting:
    """The gap between two independent shares, with its interval.

    >>> [round(x, 4) for x in overfitting(56, 70, 48, 80).interval]  # Newcombe 1998, table II, example (a)
    [0.0524, 0.3339]
    """
    p1, p2 = train_right / train_n, val_right / val_n
    (l1, u1), (l2, u2) = wilson(train_right, train_n), wilson(val_right, val_n)
    gap = p1 - p2
    return Overfitting(gap, (gap - math.hypot(p1 - l1, u2 - p2), gap + math.hypot(u1 - p1, p2 - l2)))


def linear_cka(one: torch.Tensor, other: torch.Tensor) -> float:
    """Linear centred kernel alignment of ``(N, C)`` and ``(N, D)`` features of at least four images, 0 to 1.

    Kornblith 2019, with the estimator of HSIC that has no bias (Song 2012, eq. 5), as in Nguyen 2021: with fewer images than dimensions
    the plain one finds even noise similar. 1 for features that are a rotation and scaling of each other; about 0 for unrelated ones,
    and 0 where the estimate is below. Features that are the same for all images are like each other and unlike all else. Of
    ``(N, ...)`` all else is one dimension.
    """
    a, b = (_kernel(f.flatten(1).double()) for f in (one, other))
    own = _hsic(a, a), _hsic(b, b)
    if min(own) <= 0.0:
        return float(max(own) <= 0.0)
    return max(0.0, _hsic(a, b) / math.sqrt(own[0] * own[1]))


def _kernel(features: torch.Tensor) -> torch.Tensor:
    """Scalar products of ``(N, C)`` centred features without those with themselves: ``(N, N)``; zero where all images have the same."""
    centred = features - features.mean(0)
    same = float(centred.norm()) <= 1e-9 * float(features.norm())
    return (centred @ centred.T * (0.0 if same else 1.0)).fill_diagonal_(0.0)


def _hsic(k: torch.Tensor, m: torch.Tensor) -> float:
    """Song 2012, eq. 5, of two kernels with nothing on the diagonal; without the factor ``1 / n(n - 3)``, which cancels."""
    n = len(k)
    rows = k.sum(0), m.sum(0)
    whole = float(rows[0].sum() * rows[1].sum()) / ((n - 1) * (n - 2))
    return float((k * m).sum()) + whole - 2.0 / (n - 2) * float(rows[0] @ rows[1])


def block_distances(backbone: nn.Module, original: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """For each block with a weight in ``original``: the norm of the change by the norm of what was there, over the block.

    Args:
        backbone: as it is now.
        original: parameters as they were, by name; those that are missing did not change.
    """
    now = dict(backbone.named_parameters())
    found: dict[str, float] = {}
    for block in layers_of(backbone).blocks:
        if not any(n in original for n in block.parameters):
            continue
        before = [original.get(n, now[n]).detach().double() for n in block.parameters]
        change = sum(float((now[n].detach().double() - b).square().sum()) for n, b in zip(block.parameters, before, strict=True))
        found[block.name] = math.sqrt(change / max(sum(float(b.square().sum()) for b in before), 1e-300))
    return found
