"""From evidence and cost to a recommendation: pure functions of measured values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from frostline.advise.cost import Cost
from frostline.advise.evidence import Evidence
from frostline.features.depths import ALL, END
from frostline.fitting.auto import FEWEST
from frostline.fitting.held import Held, differ, fall, surely_lower

CHANCE = 0.05
"""Probability of a difference by chance alone (McNemar) above which it is called noise."""
ERRORS = 2.0
"""Standard errors that one log loss must be below another, image by image, to be no chance."""


SURE_OF_LABELS = 0.85
"""Accuracy of the logistic regression below which its doubts about labels are rather its own."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A plan with what is predicted of it.

    Attributes:
        backbone: its name.
        unfreeze: the selector.
        strategy: ``plain`` or ``lp-ft``.
        head: the head.
        held: how its stand-in labelled held-out images: of heads a ridge at their depth, of unfreezing one on all depths from the cut on.
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


def recommend(candidates: Sequence[Candidate], evidences: Sequence[Evidence], judges: int = 0) -> Recommendation:
    """Keep everything frozen unless what lies before the last layer tells more than it does, beyond chance; then unfreeze from there.

    Everything is told apart by log loss on held-out images, image by image. Of several backbones the one whose own features are best
    is taken; of equals the quickest. Of it the head alone, or the head on the depth that :func:`frostline.fitting.depth.tell_apart` takes.
    Layers are unfrozen where the features from their cut to the end are better than those that a head on one depth gets; of those plans
    the quickest that is no worse than the best of them. They start from a head on all depths where that is the head to take, and have to
    promise a lower loss than it has by itself, if not by much: what is trained starts there, and is kept only where it helps. Nothing is
    unfrozen where the validation images are too few to watch it by, as ``auto`` would not either.

    Args:
        candidates: at least one a backbone, its head alone among them; those of several backbones judged on the same images.
        evidences: one a backbone.
        judges: validation images; 0 where that is not known.
    """
    heads = sorted((c for c in candidates if (c.unfreeze, c.head) == ("none", "linear")), key=lambda c: c.cost.seconds)
    base = heads[0]
    for other in heads[1:]:
        base = other if _beats(other, base) else base
    here = [c for c in candidates if c.backbone == base.backbone]
    chosen = next(e for e in evidences if e.backbone == base.backbone).told.advised
    pick = next((c for c in here if (c.unfreeze, c.head) == ("none", str(chosen)) and chosen.at), base)
    rival = base if chosen.at == ALL else pick
    unfrozen = [c for c in here if c.unfreeze not in ("none", "norm")]  # of norms alone nothing is predicted
    better = [c for c in unfrozen if _beats(c, rival) and (pick is base or _loss(c) < _loss(pick))]
    blind = bool(better) and 0 < judges < FEWEST
    if better and not blind:
        best = min(better, key=_loss)
        pick = min((c for c in better if not _beats(best, c)), key=lambda c: c.cost.seconds)
    # of norms alone nothing is predicted: they come last, with what all would reach
    ranked = sorted((c for c in candidates if c is not pick), key=lambda c: (c.unfreeze == "norm", -c.held.accuracy, c.cost.seconds))
    evidence = next(e for e in evidences if e.backbone == pick.backbone)
    reason = _reason(pick, base, here, evidence)
    if blind:
        reason = f"Train the head alone. {_blind(judges)}" if pick is base else f"{reason} {_blind(judges)}"
    why = " ".join(filter(None, [reason, _unlike(evidence), *_labels(evidence)]))
    return Recommendation(pick, ranked[0] if ranked else None, (pick, *ranked), why)


def _loss(candidate: Candidate) -> float:
    return candidate.held.log_loss or 0.0


def _blind(judges: int) -> str:
    known = "Earlier layers know more than the last one tells"
    return f"{known}, but {judges} validation images are too few to watch them by while they are trained (fewer than {FEWEST})."


def _beats(one: Candidate, other: Candidate) -> bool:
    return surely_lower(other.held, one.held, ERRORS)


def _reason(pick: Candidate, base: Candidate, candidates: Sequence[Candidate], evidence: Evidence) -> str:
    if pick is base:
        best = max(candidates, key=lambda c: c.held.accuracy)
        gain = best.held.accuracy - base.held.accuracy
        if len(evidence.depths) == 1:
            return f"Train the head alone: nothing is known of earlier layers ({evidence.why})."
        noise = "which is inside the noise" if differ(base.held, best.held) > CHANCE else "but no surer: their log loss is no lower"
        more = "no more" if gain <= 0 else f"{gain:.1%} more, {noise}"
        return (
            f"Train the head alone: the last layer's features label {base.held.accuracy:.1%} right where held out, "
            f"and those of earlier layers {more}."
        )
    said = (
        f"{pick.held.accuracy:.1%} of the held-out images are labelled right, {base.held.accuracy:.1%} with the last layer's features alone"
    )
    sure = f"their log loss is {fall(base.held, pick.held):.1f} standard errors lower"
    if pick.unfreeze == "none":
        depth = pick.head.partition("@")[2]
        where = "what all layers give, side by side" if depth == ALL else f"{depth}, earlier in the network"
        return f"Put the head on {where}: {said}; {sure}."
    head = ", with the head on what all layers give" if pick.head.endswith(f"@{ALL}") else ""
    what = f"Unfreeze {pick.unfreeze}{head}: earlier layers know what the last one no longer tells"
    return f"{what}. With their features as well {said}; {sure}.{_frozen(pick, candidates)}"


def _frozen(pick: Candidate, candidates: Sequence[Candidate]) -> str:
    """What its head gets by itself, and in which time, where that is not the head alone on the last layer."""
    alone = next((c for c in candidates if (c.unfreeze, c.head) == ("none", pick.head) and c.head != "linear"), None)
    if alone is None:
        return ""
    times = [f"{low:.0f} to {high:.0f} s" for low, high in (alone.cost.interval, pick.cost.interval)]
    return f" With everything frozen --head {alone.head} gets {alone.held.accuracy:.1%} in {times[0]} instead of {times[1]}."


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
    """Whether more labels would help, by the last step of the learning curve, and whether those that are there look right."""
    if evidence.suspects > 0.05 * evidence.images and evidence.end.logistic.accuracy > SURE_OF_LABELS:
        return [f"{evidence.suspects} of {evidence.images} labels look wrong: frostline data DATA shows them.", *_more(evidence)]
    return _more(evidence)


def _more(evidence: Evidence) -> list[str]:
    if len(evidence.curve) < 2:
        return ["Some classes have so few images that a learning curve says nothing: more labels would help most."]
    (few, less), (all_, more) = evidence.curve[-2:]
    gain = more.accuracy - less.accuracy
    if gain > 0 and surely_lower(less, more, ERRORS):
        return [f"More labels would help: from {few} to {all_} training images accuracy rose by {gain:.1%}."]
    return []
