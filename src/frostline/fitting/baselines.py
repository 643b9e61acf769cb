"""What any result is to be held against: the most frequent class, and the nearest training images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from frostline.fitting.events import Finished, Seen

NEIGHBOURS = 5
MOST_PRODUCTS = 2**31
"""Multiplications, at most; a tenth of a second on one core."""


@dataclass(frozen=True)
class Baselines:
    """Accuracies on the validation images.

    Attributes:
        majority: of always giving the most frequent class of the training images.
        neighbours: of the majority among the five nearest training images, by the frozen backbone's features; None where those are
            not at hand.
    """

    majority: float
    neighbours: float | None


def baselines_of(finished: Finished) -> Baselines | None:
    """The baselines of a training; None without validation images."""
    if finished.val_labels is None:
        return None
    frequent = torch.bincount(finished.train_labels).argmax()
    majority = float((finished.val_labels == frequent).double().mean())
    seen = finished.seen
    return Baselines(majority, None if seen is None else _neighbours(*seen, finished))


def _neighbours(train: Seen, val: Seen, finished: Finished) -> float | None:
    labels = finished.val_labels
    if labels is None or len(train.features) * val.features.numel() > MOST_PRODUCTS:
        return None
    classes = finished.train_logits.shape[1]
    answers = nearest_classes(train.features.cpu(), finished.train_labels, val.features.cpu(), classes)
    return float((answers == labels).double().mean())


def nearest_classes(train: torch.Tensor, labels: torch.Tensor, asked: torch.Tensor, classes: int) -> torch.Tensor:
    """The majority class of the five nearest by cosine; of equals the first (Cover 1967; as in Caron 2021, unweighted).

    Args:
        train: ``(N, d)``.
        labels: ``(N,)`` int64.
        asked: ``(M, d)``.
        classes: number of classes.

    Returns:
        ``(M,)`` int64.
    """
    unit, pointing = (_unit(x) for x in (train, asked))
    nearest = (pointing @ unit.T).topk(min(NEIGHBOURS, len(unit))).indices
    return torch.nn.functional.one_hot(labels[nearest], classes).sum(1).argmax(1)


def _unit(features: torch.Tensor) -> torch.Tensor:
    """Each row divided by its length."""
    return torch.nn.functional.normalize(features.double(), dim=1)
