"""Where the fully frozen part of a network ends."""

from __future__ import annotations

from dataclasses import dataclass

from frostline.freeze.plan import ResolvedPlan


@dataclass(frozen=True)
class Cut:
    """A place in the network.

    Attributes:
        name: ``backbone`` (the prefix is the whole backbone) or ``input`` (there is no prefix).
        why: the reason, in words.
    """

    name: str
    why: str

    @property
    def cached(self) -> bool:
        """Whether there is a prefix whose output can be cached."""
        return self.name != "input"


def find_cut(resolved: ResolvedPlan) -> Cut:
    """The cut of a plan on a backbone with a head: at the end of the backbone when all of it is frozen.

    A cut in the middle is not made yet: a backbone that is trained in part is run as a whole, uncached.
    """
    if "backbone" in resolved.pinned and not resolved.backbone_trained:
        return Cut("backbone", "the whole backbone is frozen: it is run once per image and its output cached")
    return Cut("input", "part of the backbone is trained: it is run on every image in every epoch")
