"""Near copies: candidates by their features, confirmed by their pixels.

Features of a network alone also put two different bees on one flower together; pixels alone would have to be compared for all pairs.
So features name the candidates, at a similarity that nearly every altered copy reaches, and a comparison of thumbnails decides.
Both thresholds were measured on altered copies of real images and on pairs of different ones: docs/data-quality.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from frostline.errors import DecodeError
from frostline.features.pixels import decode_threads, load_image
from frostline.quality.likeness import likenesses, thumbnail
from frostline.quality.neighbours import Neighbours

SIMILAR = 0.5
"""Cosine of centred features from which two images are candidates."""

ALIKE = 0.9
"""Correlation of thumbnails from which a candidate is a copy."""

MOST_CANDIDATES = 5000
"""Pairs whose pixels are compared, at most; the most similar are."""


@dataclass(frozen=True)
class NearCopy:
    """Two images that show the same picture and are not the same file.

    Attributes:
        rows: their row numbers, ascending.
        similarity: cosine of their centred features.
        likeness: correlation of their thumbnails.
        mirrored: whether one is the other turned left to right.
    """

    rows: tuple[int, int]
    similarity: float
    likeness: float
    mirrored: bool


def candidates(found: Neighbours, least: float = SIMILAR, most: int = MOST_CANDIDATES) -> list[tuple[int, int, float]]:
    """Pairs of neighbours that are similar enough to be looked at, the most similar first.

    Args:
        found: neighbours of images among themselves.
        least: cosine from which a pair counts.
        most: how many to give.

    Returns:
        Two row numbers, ascending, and their cosine; each pair once.
    """
    pairs: dict[tuple[int, int], float] = {}
    rows, places = (found.similarity >= least).nonzero(as_tuple=True)
    others, similarity = found.rows[rows, places], found.similarity[rows, places]
    for a, b, cosine in zip(rows.tolist(), others.tolist(), similarity.tolist(), strict=True):
        pairs[min(a, b), max(a, b)] = cosine
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return [(a, b, cosine) for (a, b), cosine in ranked[:most]]


def confirmed(pairs: Sequence[tuple[int, int, float]], thumbnails: Mapping[int, torch.Tensor], least: float = ALIKE) -> list[NearCopy]:
    """Those of the candidates whose pixels agree, the most alike first.

    Args:
        pairs: two row numbers and their cosine.
        thumbnails: gray levels ``(32, 32)`` of the images, by row number; a pair of which one is missing is no copy.
        least: correlation from which a pair is a copy.
    """
    pairs = [pair for pair in pairs if pair[0] in thumbnails and pair[1] in thumbnails]
    if not pairs:
        return []
    alike = likenesses(torch.stack([thumbnails[a] for a, _, _ in pairs]), torch.stack([thumbnails[b] for _, b, _ in pairs]))
    copies = [NearCopy((a, b), cosine, found.value, found.mirrored) for (a, b, cosine), found in zip(pairs, alike, strict=True)]
    copies = [copy for copy in copies if copy.likeness >= least]
    return sorted(copies, key=lambda copy: (-copy.likeness, copy.rows))


def thumbnails_of(rows: Collection[int], paths: Sequence[Path], digests: Sequence[str]) -> dict[int, torch.Tensor]:
    """The thumbnails of some images, by row number; without those that cannot be read any more.

    Args:
        rows: whose.
        paths: of all images.
        digests: SHA-256 of their content when they were listed.

    Raises:
        CacheError: a file changed since it was listed.
    """

    def one(row: int) -> torch.Tensor | None:
        try:
            return thumbnail(load_image(paths[row], digests[row]))
        except DecodeError:
            return None

    wanted = sorted(set(rows))
    with ThreadPoolExecutor(decode_threads()) as pool:
        return {row: found for row, found in zip(wanted, pool.map(one, wanted), strict=True) if found is not None}
