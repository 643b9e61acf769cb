"""From evidence and cost to a recommendation: pure functions of measured values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from frostline.advise.cost import Cost
from frostline.advise.evidence import Evidence
from frostline.advise.probes import Held, differ
from frostline.features.depths import END

SURE = 0.05
"""A difference that chance alone makes more often than this is inside the noise (two-sided)."""
WORTH = 0.005
"""A smaller gain in accuracy is not worth another plan."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A plan with what is predicted of it.

    Attributes:
        backbone: its name.
        unfreeze: the selector.
        strategy: ``plain`` or ``lp-ft``.
        head: the head.
        held: how its stand-in labelled held-out images: of heads the very thing, of unfreezing a ridge on all depths from the cut on.
        cost: what it costs.
    """

    backbone: str
    unfreeze: str
    strategy: str
    head: str
    held: Held
    cost: Cost

    def __str__(self) -> str:
        flags = [f"--unfreeze {self.unfreeze}"] if self.unfreeze != "none" else []
        flags += [f"--head {self.head}"] if self.head != "linear" else []
        flags += [f"--strategy {self.strategy}"] if self.strategy != "plain" else []
        return " ".join(flags) or "the head alone"


@dataclass(frozen=True, eq=False)
class Recommendation:
    """What to do, and why.

    Attributes:
        pick: the plan.
        runner_up: the next best, or None where there is no other.
        ranked: all, the best first.
        why: two or three sentences.
    """

    pick: Candidate
    runner_up: Candidate | None
    ranked: tuple[Candidate, ...]
    why: str


def recommend(candidates: Sequence[Candidate], evidences: Sequence[Evidence]) -> Recommendation:
    """Keep everything frozen unless what lies before the last layer tells more than it does, beyond chance; then unfreeze from there.

    Of several backbones the one whose own features are best is taken, where that is no chance; of equals the quickest. Of it, the
    head alone, unless the features from some cut to the end beat the last ones beyond chance and by more than half a point; then the
    last N blocks for the smallest N whose features do no worse, beyond chance, than those of any other. A head on an earlier depth
    is offered, not picked: where it is better than the end, fine-tuning from there is better still (docs/LOG.md has the study).

    Args:
        candidates: at least one a backbone, its head alone among them; those of several backbones judged on the same images.
        evidences: one a backbone.
    """
    heads = sorted((c for c in candidates if _alone(c)), key=lambda c: c.cost.seconds)
    base = heads[0]
    for other in heads[1:]:
        base = other if _beats(other, base) else base
    own = [c for c in candidates if c.backbone == base.backbone and c.unfreeze != "none"]
    better = [c for c in own if _beats(c, base)]
    pick = base
    if better:
        best = max(better, key=lambda c: c.held.accuracy)
        pick = min((c for c in better if not _beats(best, c)), key=lambda c: c.cost.seconds)
    ranked = sorted((c for c in candidates if c is not pick), key=lambda c: (-c.held.accuracy, c.cost.seconds))
    evidence = next(e for e in evidences if e.backbone == pick.backbone)
    here = [c for c in candidates if c.backbone == base.backbone]
    why = " ".join(filter(None, [_reason(pick, base, here, evidence), _unlike(evidence), *_labels(evidence)]))
    return Recommendation(pick, ranked[0] if ranked else None, (pick, *ranked), why)


def _alone(candidate: Candidate) -> bool:
    return (candidate.unfreeze, candidate.head) == ("none", "linear")


def _beats(one: Candidate, other: Candidate) -> bool:
    gain = one.held.accuracy - other.held.accuracy
    return gain > WORTH and differ(one.held, other.held) < SURE


def _reason(pick: Candidate, base: Candidate, candidates: Sequence[Candidate], evidence: Evidence) -> str:
    if pick is base:
        best = max(candidates, key=lambda c: c.held.accuracy)
        gain = best.held.accuracy - base.held.accuracy
        if len(evidence.depths) == 1:
            return f"Train the head alone: nothing is known of earlier layers ({evidence.why})."
        more = "no more" if gain <= 0 else f"{gain:.1%} more, which is inside the noise" if gain > WORTH else f"only {gain:.1%} more"
        return (
            f"Train the head alone: the last layer's features label {base.held.accuracy:.1%} right where held out, "
            f"and those of earlier layers {more}."
        )
    gain, chance = pick.held.accuracy - base.held.accuracy, differ(pick.held, base.held)
    said = "less than 0.1 %" if chance < 0.001 else f"{chance:.1%}"
    return (
        f"Unfreeze {pick.unfreeze}: earlier layers know what the last one no longer tells; with their features as well "
        f"{gain:.1%} more of the held-out images are labelled right (chance of that by luck: {said})."
    )


def _unlike(evidence: Evidence) -> str:
    best, end = evidence.best, evidence.end
    where = (
        ""
        if best.name == END
        else f", and the best single depth is {best.name} ({best.ridge.accuracy:.1%} against {end.ridge.accuracy:.1%})"
    )
    shift, sure = evidence.unlikeness.shift, evidence.unlikeness.confidence
    signs = [] if shift is None else [f"what enters its batch norms is {shift:.2f} standard deviations from what it was trained on"]
    signs += [] if sure is None else [f"its own classifier is {sure:.0%} sure of them on average"]
    if not signs:
        return ""
    return f"How near the images are to the backbone's own: {', '.join(signs)}{where}."


def _labels(evidence: Evidence) -> list[str]:
    """Whether more labels would help, by the last step of the learning curve."""
    if len(evidence.curve) < 2:
        return ["Some classes have so few images that a learning curve says nothing: more labels would help most."]
    (few, less), (all_, more) = evidence.curve[-2:]
    gain = more.accuracy - less.accuracy
    if gain > WORTH and differ(more, less) < SURE:
        return [f"More labels would help: from {few} to {all_} training images accuracy rose by {gain:.1%}."]
    return []
