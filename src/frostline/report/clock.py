"""Where the time of a run went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frostline.report.svg import WIDTH, box, drawing


@dataclass(frozen=True)
class Share:
    """A part of the time.

    Attributes:
        what: it was spent on, in words.
        seconds: wall time.
        kind: the colour it is drawn in.
    """

    what: str
    seconds: float
    kind: str


def shares_of(summary: Mapping[str, Any]) -> list[Share]:
    """The time of a run, split; what cannot be told apart is one share.

    Decoding and running overlap, and are told apart by the speeds of both that were measured when the engine was chosen.

    Args:
        summary: as in ``summary.json``.
    """
    seconds = summary["seconds"]
    engine = summary.get("engine") or {}
    features = float(seconds["features"])
    pictures, images = engine.get("pictures_per_second"), engine.get("images_per_second")
    found = [Share("starting", float(seconds["startup"]), "t0")]
    if pictures and images and not summary["cache"]["hit"]:
        decode = (1 / pictures) / (1 / pictures + 1 / images)
        found += [Share("decoding pictures, about", features * decode, "t1"), Share("frozen layers, about", features * (1 - decode), "t2")]
    else:
        found.append(
            Share("features, from the cache" if summary["cache"]["hit"] else "decoding pictures and frozen layers", features, "t2")
        )
    found += [Share("training", float(seconds["train"]), "t3"), Share("writing", float(seconds["write"]), "t4")]
    rest = float(seconds["total"]) - sum(s.seconds for s in found)
    return [*found, Share("everything else: reading the data, opening the network, testing", max(0.0, rest), "t5")]


def clock(shares: Sequence[Share]) -> str:
    """One bar, as long as all of the time."""
    total = sum(s.seconds for s in shares) or 1.0
    parts: list[str] = []
    x = 0.0
    for share in shares:
        wide = WIDTH * share.seconds / total
        parts.append(box(x, 0, wide, 30, share.kind, f"{share.what}: {share.seconds:.1f} s"))
        x += wide
    said = ", ".join(f"{s.what} {s.seconds:.1f} s" for s in shares)
    return drawing(30, f"Time of the run: {said}.", parts, stretched=True)
