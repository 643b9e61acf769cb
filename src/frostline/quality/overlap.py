"""Classes that overlap: pairs that are taken for each other more often than chance and some wrong labels explain."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import torch

from frostline.fitting.metrics import wilson

USUAL = 0.034
"""Share of two classes' images that may be confused without a word: the mean share of wrong labels in ten test sets (Northcutt 2021b)."""


@dataclass(frozen=True)
class Overlap:
    """Two classes that are taken for each other.

    Attributes:
        classes: their numbers, ascending.
        confused: images of one that were taken for the other, either way.
        images: of both.
        interval: of the share, 95 % for all pairs together.
    """

    classes: tuple[int, int]
    confused: int
    images: int
    interval: tuple[float, float]

    @property
    def share(self) -> float:
        """Of the images of both."""
        return self.confused / self.images


def confusion_of(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """``(classes, classes)`` int64 counts, ``[given][predicted]``.

    Args:
        probabilities: ``(n, classes)``, each image's from a head that has not seen it.
        labels: ``(n,)`` int64.
    """
    classes = probabilities.shape[1]
    return torch.bincount(labels * classes + probabilities.argmax(1), minlength=classes * classes).view(classes, classes)


def overlaps(confusion: torch.Tensor) -> list[Overlap]:
    """Pairs whose share of confused images is beyond noise, the largest share first.

    Beyond noise: the lower end of the share's interval (Wilson 1927) is above :data:`USUAL`, and above what the two classes would have
    in common if their mistakes fell on the other as those of all other classes do: some classes draw everybody's mistakes. The interval
    holds for all pairs at once (Bonferroni).

    Args:
        confusion: ``(classes, classes)`` counts.
    """
    counts = confusion.double()
    classes, sizes = len(counts), counts.sum(1)
    wrong, drawn = sizes - counts.diagonal(), counts.sum(0) - counts.diagonal()
    pairs = max(1, classes * (classes - 1) // 2)
    z = NormalDist().inv_cdf(1 - 0.025 / pairs)
    found: list[Overlap] = []
    for a, b in (counts + counts.T).triu(1).nonzero().tolist():
        both = int(sizes[a] + sizes[b])
        confused = int(counts[a, b] + counts[b, a])
        elsewhere = wrong.sum() - wrong[a] - wrong[b] + classes - 1  # one mistake more of each kind: a rate of few is no rate
        to_a, to_b = (drawn[a] - counts[b, a] + 1) / elsewhere, (drawn[b] - counts[a, b] + 1) / elsewhere
        usual = float(wrong[a] * to_b + wrong[b] * to_a) / both if classes > 2 else 0.0
        interval = wilson(confused, both, z)
        if interval[0] > max(USUAL, usual):
            found.append(Overlap((a, b), confused, both, interval))
    return sorted(found, key=lambda o: (-o.share, o.classes))
