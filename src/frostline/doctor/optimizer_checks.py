"""What the optimizer holds, and what it should: traps 5, 6 and 27."""

from __future__ import annotations

from collections.abc import Sequence

from frostline.doctor.examination import Examination, ParameterFacts
from frostline.doctor.findings import Finding, counted, listed


def nothing_to_train(seen: Examination) -> Finding | None:
    """Trap 27: no parameter wants a gradient."""
    if any(p.requires_grad for p in seen.parameters):
        return None
    count = len(seen.parameters)
    held = sum(p.held for p in seen.parameters)
    evidence = f"none of {counted(count, 'parameter tensor')} has requires_grad=True" if count else "the model has no parameters"
    return everything_frozen(f"{evidence}{f'; the optimizer holds {held} of them' if held else ''}")


def everything_frozen(evidence: str) -> Finding:
    """Trap 27, with evidence from elsewhere."""
    return Finding(
        27, evidence, "freeze before the new head is put on, or give its parameters requires_grad=True again, and rebuild the optimizer"
    )


def frozen_in_optimizer(seen: Examination) -> Finding | None:
    """Trap 5: the optimizer holds parameters that are frozen."""
    frozen = [p for p in seen.parameters if not p.requires_grad and p.held]
    if not frozen:
        return None
    held = sum(p.held for p in seen.parameters)
    decays = sorted({p.weight_decay for p in frozen} - {0.0})
    decay = f", with weight decay {', '.join(f'{d:g}' for d in decays)}" if decays else ""
    return Finding(
        5,
        f"{len(frozen)} of the {counted(held, 'tensor')} in the optimizer {'is' if len(frozen) == 1 else 'are'} frozen ({_size(frozen)}"
        f"{decay}): {_names(frozen)}; a gradient left from before freezing lets decay and momentum move them",
        "give the optimizer the trainable parameters only: [p for p in model.parameters() if p.requires_grad]",
    )


def not_trained(seen: Examination) -> Finding | None:
    """Trap 6: trainable parameters that the optimizer does not hold, that no gradient reaches, or that do not move."""
    missing = [p for p in seen.parameters if p.requires_grad and p.reached and not p.held]
    held = [p for p in seen.parameters if p.requires_grad and p.held]
    unreached = [p for p in held if not p.reached]
    still = [p for p in held if p.pushed and not p.moved and p.lr > 0]
    faults: list[str] = []
    cures: list[str] = []
    if missing:
        text = f"the optimizer does not hold {counted(len(missing), 'tensor')} that get a gradient ({_size(missing)}): {_names(missing)}"
        if seen.strangers:
            text += f"; it holds {counted(seen.strangers, 'tensor')} that the model no longer has"
        faults.append(text)
        cures.append(
            "build the optimizer after the last layer was replaced, unfrozen or moved (or add_param_group what came later), and give "
            "requires_grad=False to what is not to be trained"
        )
    if unreached:
        why = "" if seen.attached else "the output depends on nothing that is trained; "
        faults.append(
            f"{why}no gradient reaches {counted(len(unreached), 'tensor')} of the optimizer ({_size(unreached)}): {_names(unreached)}"
        )
        cures.append("make forward() run these layers, outside torch.no_grad() and without detach() after them")
    if still:
        faults.append(f"{counted(len(still), 'tensor')} got a gradient and did not move in {seen.steps} steps: {_names(still)}")
        cures.append("check that the optimizer steps these very tensors")
    return Finding(6, "; ".join(faults), "; ".join(cures)) if faults else None


def _names(parameters: Sequence[ParameterFacts]) -> str:
    return listed([p.name for p in parameters])


def _size(parameters: Sequence[ParameterFacts]) -> str:
    return counted(sum(p.size for p in parameters), "parameter")
