"""The optimizer and its parameter groups: exactly the trainable parameters, by identity, each in one group."""

from __future__ import annotations

import torch
from torch import nn

from frostline.errors import AuditError
from frostline.fitting.hyper import Hyper
from frostline.freeze.plan import ResolvedPlan


def make_optimizer(model: nn.Module, resolved: ResolvedPlan, hyper: Hyper) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, in named groups.

    The head learns at ``hyper.lr``, the backbone at ``hyper.backbone_lr``. Vectors and scalars (biases, norm layers) get no
    weight decay. Each group keeps its peak rate as ``peak`` and its parameters' names as ``names``.

    Raises:
        AuditError: the groups would not be exactly the trainable set.
    """
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    groups: list[dict[str, object]] = []
    for part, rate in (("head", hyper.lr), ("backbone", hyper.backbone_lr)):
        for decays in (True, False):
            names = [n for n, p in named.items() if _is_head(n, resolved) == (part == "head") and (p.ndim > 1) == decays]
            if names:
                groups.append(
                    {
                        "params": [named[n] for n in names],
                        "lr": rate,
                        "peak": rate,
                        "names": names,
                        "weight_decay": hyper.weight_decay if decays else 0.0,
                        "group": f"{part}{'' if decays else ', no decay'}",
                    }
                )
    check_groups(groups, named, resolved)
    return torch.optim.AdamW(groups)


def check_groups(groups: list[dict[str, object]], named: dict[str, nn.Parameter], resolved: ResolvedPlan) -> None:
    """Refuse an optimizer that does not hold exactly the trainable parameters, each once.

    Raises:
        AuditError: a parameter is missing, frozen or held twice.
    """
    held = [id(p) for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    wanted = {id(p) for p in named.values()}
    if len(held) != len(set(held)) or set(held) != wanted or set(named) != set(resolved.trainable):
        raise AuditError(f"the optimizer holds {len(held)} parameters, the plan trains {len(resolved.trainable)}")


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to ``factor`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def _is_head(name: str, resolved: ResolvedPlan) -> bool:
    return bool(resolved.head) and name.startswith(resolved.head)
