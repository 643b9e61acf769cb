"""How much each depth counts, where a head sits on all of them side by side: a few weightings, averaged by how well each does.

A weighting is a bell over the depths: it counts those around its middle. A ridge on all features says, by cross-validation, how well each
does; their mean, each by the exponential of its log loss, is what is taken (exponential weights, Dalalyan 2008). None is chosen, so that
a few images cannot choose wrongly. Measured against one weight for all, and against weights by each depth's own loss: docs/LOG.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from frostline.errors import RecipeError
from frostline.fitting.folds import stratified_folds
from frostline.fitting.held import gram_held
from frostline.heads.contract import factors

FOLDS = 5
MOST_IMAGES = 512
"""Training images that the weights are found on, at most."""
MIDDLES = 9
"""Bells of one width, at most; the last one's middle is the end."""
WIDTHS = (1 / 12, 2 / 9)
"""Of the bells, in numbers of depths: one and a half and four of EfficientNet-Lite0's eighteen."""
SHARPNESS = 5.0
"""How fast a weighting loses its part: a log loss higher by one over this, over the root of the number of images, costs a factor e."""


class Table(Protocol):
    """Features of images, in memory or on disk."""

    def __getitem__(self, rows: torch.Tensor, /) -> torch.Tensor:
        """Those of some images, ``(n, C)``."""
        ...


def weighed(
    features: torch.Tensor, sizes: Sequence[int], labels: torch.Tensor, classes: int, seed: int, units: Sequence[int] = ()
) -> torch.Tensor:
    """Features of all depths side by side, ``(N, C)``, each depth counting by its weight: see :func:`weigh_depths`."""
    return features * factors(sizes, weigh_depths(features, sizes, labels, classes, seed, units)).to(features)


def weigh_depths(
    features: Table, sizes: Sequence[int], labels: torch.Tensor, classes: int, seed: int, units: Sequence[int] = ()
) -> torch.Tensor:
    """The weight of each depth, on average 1 a feature; all positive.

    Args:
        features: ``(N, sum of sizes)``, all depths side by side, each scaled alike; no more than about :data:`MOST_IMAGES` rows
            are looked at, of every class its share.
        sizes: the length of each depth's vector.
        labels: ``(N,)`` int64.
        classes: number of classes.
        seed: of the folds.
        units: for each image the number of what it belongs to; empty: each is on its own.

    Returns:
        ``(D,)`` float64. Where no two images of each class can be told apart by folds, a depth counts by the root of its length.
    """
    some = _some(labels.cpu())
    labels, own = labels.cpu()[some], features[some].cpu().double()
    lengths = torch.tensor(list(sizes), dtype=torch.float64)
    base = lengths.rsqrt()  # a depth of many channels would count for that alone
    try:
        folds = stratified_folds(labels, FOLDS, seed, [units[row] for row in some.tolist()] if units else ())
    except RecipeError:
        return base * (lengths.sum() / (base * lengths).sum())
    grams = torch.stack([part @ part.T for part in (own - own.mean(0)).split(list(sizes), 1)])
    place = torch.arange(len(sizes), dtype=torch.float64)
    middles = torch.linspace(0, len(sizes) - 1, min(MIDDLES, len(sizes)), dtype=torch.float64)
    bells = torch.stack([base * torch.exp(-0.5 * ((place - m) / (w * len(sizes))) ** 2) for m in middles for w in WIDTHS])
    bells = bells / (bells @ lengths)[:, None]
    held = [gram_held(torch.einsum("d,dij->ij", bell, grams), int(lengths.sum()), labels, classes, folds) for bell in bells]
    losses = torch.tensor([h.log_loss for h in held], dtype=torch.float64)
    found = torch.softmax(-SHARPNESS * len(labels) ** 0.5 * losses, 0) @ bells
    return (found * (lengths.sum() / (found @ lengths))).clamp(min=LEAST)


def _some(labels: torch.Tensor) -> torch.Tensor:
    """Rows of about :data:`MOST_IMAGES` images at most, ascending, of every class its share and at least two.

    Classes of one image are left out, and of very many classes the rarest.
    """
    counts = torch.bincount(labels)
    classes = counts.argsort(descending=True, stable=True)[: MOST_IMAGES // 2]
    found: list[torch.Tensor] = []
    for name in classes[counts[classes] > 1].tolist():
        rows = (labels == name).nonzero()[:, 0]
        share = min(len(rows), max(2, round(MOST_IMAGES * len(rows) / len(labels))))
        found.append(rows if len(labels) <= MOST_IMAGES else rows[torch.linspace(0, len(rows) - 1, share).round().long()])
    return torch.cat(found).sort().values if found else torch.arange(len(labels))


LEAST = 1e-6
"""Weight of a depth at the least: a channel is divided by its root."""
