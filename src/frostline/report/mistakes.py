"""Images worth looking at: those that the run is most wrong about, and those it is least sure of."""

from __future__ import annotations

from dataclasses import dataclass

import torch

MOST = 12


@dataclass(frozen=True)
class Answer:
    """The answer for one image.

    Attributes:
        row: number of the image among those judged.
        label: the class it is labelled with.
        predicted: the most probable class.
        probability: of that.
        runner_up: the second most probable class.
        second: its probability.
        own: probability of the class it is labelled with.
    """

    row: int
    label: int
    predicted: int
    probability: float
    runner_up: int
    second: float
    own: float

    @property
    def right(self) -> bool:
        """Whether the answer is the label."""
        return self.predicted == self.label


def answers(probabilities: torch.Tensor, labels: torch.Tensor) -> list[Answer]:
    """One answer an image, of ``(N, classes)`` probabilities with at least two classes and ``(N,)`` labels."""
    top, which = probabilities.topk(2, dim=1)
    own = probabilities.gather(1, labels[:, None])[:, 0]
    rows = zip(labels.tolist(), which.tolist(), top.tolist(), own.tolist(), strict=True)
    return [Answer(i, y, w[0], p[0], w[1], p[1], o) for i, (y, w, p, o) in enumerate(rows)]


def surest_mistakes(found: list[Answer], most: int = MOST) -> list[Answer]:
    """Wrong answers, the most confident first."""
    return sorted((a for a in found if not a.right), key=lambda a: (-a.probability, a.row))[:most]


def least_sure(found: list[Answer], most: int = MOST) -> list[Answer]:
    """Answers whose two most probable classes are closest, right or wrong."""
    return sorted(found, key=lambda a: (a.probability - a.second, a.row))[:most]
