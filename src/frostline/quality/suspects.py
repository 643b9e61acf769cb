"""Labels that are probably wrong: confident learning (Northcutt 2021, JAIR 70) on probabilities of heads that have not seen the image.

Written here, and checked against cleanlab 2.9 in the tests, not imported from it: the method is the thirty lines below, and the package
brings pandas, tqdm and termcolor along for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong.

    Attributes:
        row: its number.
        given: the class it is labelled with.
        likely: the class it probably is.
        probability_given: of the given class, where the image was held out.
        probability_likely: of the likely class.
    """

    row: int
    given: int
    likely: int
    probability_given: float
    probability_likely: float


def find_suspects(probabilities: torch.Tensor, labels: torch.Tensor) -> list[Suspect]:
    """Off-diagonal members of the confident joint, the surest first.

    A class counts for an image when its probability is at least the mean probability of that class over the images labelled so
    (section 3.1, equations 1 and 2); among several, the most probable one. An image is suspect when that class is not its label, and its
    label is not the most probable class of all (an off-diagonal member of the joint, as cleanlab's ``confident_learning``).

    Args:
        probabilities: ``(n, classes)`` float64, each image's from a head that has not seen it.
        labels: ``(n,)`` int64.

    Returns:
        Sorted by the normalised margin (section 3.3): probability of the given class minus that of the likely one.
    """
    classes = probabilities.shape[1]
    own = probabilities.gather(1, labels[:, None])[:, 0]
    sizes = torch.bincount(labels, minlength=classes)
    sums = torch.zeros(classes, dtype=probabilities.dtype).index_add_(0, labels, own)
    threshold = torch.where(sizes > 0, sums / sizes.clamp(min=1), torch.inf)
    confident = torch.where(probabilities >= threshold - 1e-6, probabilities, -1.0)  # rounding must not decide
    best, likely = confident.max(1)
    suspect = (best >= 0) & (likely != labels) & (own < probabilities.amax(1))
    margin = own - probabilities.gather(1, likely[:, None])[:, 0]
    rows = sorted(suspect.nonzero()[:, 0].tolist(), key=lambda row: (float(margin[row]), row))
    return [Suspect(r, int(labels[r]), int(likely[r]), float(own[r]), float(probabilities[r, likely[r]])) for r in rows]
