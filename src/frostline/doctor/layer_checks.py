"""Frozen layers that are not as frozen, or not as trained, as they are thought to be: traps 1, 2, 4 and 15."""

from __future__ import annotations

from frostline.doctor.examination import DropFacts, Examination, NormFacts
from frostline.doctor.findings import Finding, counted, listed

_KEEP = (
    "keep frozen layers in eval mode by overriding train(): def train(self, mode=True): super().train(mode); self.backbone.eval(); "
    "return self; or let frostline.FreezePlan(...).apply(model) pin them"
)


def moving_statistics(seen: Examination) -> Finding | None:
    """Trap 1: batch norm in frozen layers was never put in eval mode, and its running statistics follow the new data."""
    moved = [n for n in seen.norms if n.frozen and n.moved and not n.left_in_eval]
    if not moved:
        return None
    return Finding(1, f"{_moves(seen, moved)}; their parameters are frozen, but running_mean and running_var are buffers", _KEEP)


def woken_by_train(seen: Examination) -> Finding | None:
    """Trap 2: the script put frozen batch norm in eval mode, and the loop's ``model.train()`` wakes it."""
    moved = [n for n in seen.norms if n.frozen and n.moved and n.left_in_eval]
    if not moved:
        return None
    dropping = [d for d in seen.drops if d.left_in_eval]
    more = f"; {counted(len(dropping), 'dropout layer')} woke up as well ({listed([d.name for d in dropping])})" if dropping else ""
    return Finding(
        2, f"the script left them in eval mode, model.train() put them back in training mode: {_moves(seen, moved)}{more}", _KEEP
    )


def active_dropout(seen: Examination) -> Finding | None:
    """Trap 4: dropout, stochastic depth or something else random runs inside frozen layers.

    What woke up together with batch norm is part of trap 2.
    """
    told_already = woken_by_train(seen) is not None
    drops = [d for d in seen.drops if not (told_already and d.left_in_eval)]
    if not drops:
        return None
    differ = f"; the same batch twice through the frozen layers differs by {seen.jitter:.1%}" if seen.jitter else ""
    woken = "; the script left them in eval mode, model.train() woke them" if all(d.left_in_eval for d in drops) else ""
    return Finding(4, f"in training mode inside frozen layers: {listed([_drop(d) for d in drops])}{differ}{woken}", _KEEP)


def random_weights(seen: Examination) -> Finding | None:
    """Trap 15: the frozen layers are as their constructors left them."""
    fresh = seen.fresh
    if not fresh.random:
        return None
    if fresh.norms:
        evidence = (
            f"{len(fresh.untouched)} of {counted(fresh.norms, 'frozen norm layer')} {'is' if len(fresh.untouched) == 1 else 'are'} as "
            f"initialised (running mean 0 and variance 1, or scale 1 and shift 0, exactly): {listed(fresh.untouched)}"
        )
    else:
        evidence = (
            f"the weights of {len(fresh.initial)} of {counted(fresh.weights, 'frozen layer')} follow a random initialisation exactly, "
            f"bounds and biases included: {listed(fresh.initial)}"
        )
    return Finding(
        15,
        evidence,
        "load pre-trained weights before freezing, with load_state_dict(..., strict=True), and check that every tensor was loaded; "
        "frostline.open_backbone does",
    )


def _moves(seen: Examination, moved: list[NormFacts]) -> str:
    frozen = sum(n.frozen for n in seen.norms)
    most = max(moved, key=lambda n: n.shift)
    return (
        f"{counted(seen.steps, 'training step')} on {seen.data} moved the statistics of {len(moved)} of "
        f"{counted(frozen, 'frozen batch-norm layer')}, most {most.name}: running_mean by up to {most.shift:.2g} standard deviations, "
        f"running_var by up to a factor of {max(n.ratio for n in moved):.3g}"
    )


def _drop(drop: DropFacts) -> str:
    return f"{drop.name} ({drop.kind}, p={drop.rate:g})" if drop.rate else f"a {drop.kind} in or after {drop.name}"
