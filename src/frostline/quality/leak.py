"""Near copies across splits, as training warns of them: only the plain ones, and only where it costs next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from frostline.data.manifest import Manifest
from frostline.data.split import duplicates_across
from frostline.errors import FrostlineError
from frostline.fitting.events import Finished, Seen
from frostline.quality.near import confirmed, thumbnails_of
from frostline.quality.neighbours import directions, nearest
from frostline.run.summary import Leaks

SIMILAR = 0.7
"""Cosine from which pixels are compared: above every pair of different ants or bees, so that a warm run decodes nothing for them."""

MOST_PRODUCTS = 2**31
"""Multiplications, at most; a tenth of a second on one core."""

_MOST_PAIRS = 50
_NEAREST = 3


def leaks_of(manifest: Manifest, digests: Sequence[str], finished: Finished) -> Leaks:
    """Copies in two splits.

    Args:
        manifest: all images.
        digests: SHA-256 of each one's content.
        finished: has the features, if they are at hand.
    """
    near = None if finished.seen is None else near_copies_across(*finished.seen)
    return Leaks(duplicates_across(manifest, digests), near)


def near_copies_across(train: Seen, val: Seen) -> list[tuple[Path, Path]] | None:
    """Validation images that show nearly the same picture as a training image; exact copies are not among them.

    Args:
        train: images that are trained on.
        val: images that are judged by.

    Returns:
        Pairs of a training and a validation image, the most alike first; None where looking would take long, or cannot be done.
    """
    count = len(train.images)
    if not count or not len(val.images) or count * val.features.numel() > MOST_PRODUCTS:
        return None
    pointing = directions(torch.cat([train.features, val.features]).cpu())
    found = nearest(pointing[count:], pointing[:count], _NEAREST)
    images = train.images + val.images
    pairs: list[tuple[int, int, float]] = []
    for row, place in (found.similarity >= SIMILAR).nonzero().tolist():
        first, second = int(found.rows[row, place]), count + row
        if images.digests[first] != images.digests[second]:
            pairs.append((first, second, float(found.similarity[row, place])))
    pairs = sorted(pairs, key=lambda pair: -pair[2])[:_MOST_PAIRS]
    try:
        thumbnails = thumbnails_of({row for pair in pairs for row in pair[:2]}, images.paths, images.digests)
    except FrostlineError:  # a file changed meanwhile: no reason to lose the run that has just ended
        return None
    return [(images.paths[a], images.paths[b]) for a, b in (copy.rows for copy in confirmed(pairs, thumbnails))]
