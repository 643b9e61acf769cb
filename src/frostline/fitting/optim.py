"""The optimizer and its parameter groups: exactly the trainable parameters, by identity, each in one group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from frostline.errors import AuditError
from frostline.fitting.adamw import AdamW
from frostline.fitting.hyper import Hyper
from frostline.freeze.layers import layers_of, norm_parameters
from frostline.freeze.plan import HasBackboneAndHead, ResolvedPlan


def make_optimizer(model: nn.Module, resolved: ResolvedPlan, hyper: Hyper, layer_decay: float = 1.0) -> AdamW:
    """AdamW over the trainable parameters, in named groups.

    The head learns at ``hyper.lr``, the last trained backbone block at ``hyper.backbone_lr``, and each block before it at
    ``layer_decay`` times the rate of the one behind it; depth is counted in blocks of the backbone, trained or not. Biases and
    what norm layers hold, and every other vector or scalar, get no weight decay. Each group keeps its peak rate as ``peak`` and
    its parameters' names as ``names``.

    Raises:
        AuditError: the groups would not be exactly the trainable set.
    """
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    depth = _depths(model, resolved)
    spared = norm_parameters(model)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in named.items():
        part, scale = ("head", 1.0) if _is_head(name, resolved) else (f"backbone {depth[name]}", layer_decay ** depth[name])
        if layer_decay == 1 and part != "head":
            part = "backbone"
        peak = hyper.lr if part == "head" else hyper.backbone_lr * scale
        decays = parameter.ndim > 1 and name not in spared
        group = groups.setdefault(
            (part, decays),
            {
                "params": [],
                "lr": peak,
                "peak": peak,
                "names": [],
                "weight_decay": hyper.weight_decay if decays else 0.0,
                "group": f"{part}{'' if decays else ', no decay'}",
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    listed = [groups[key] for key in sorted(groups, key=lambda k: (k[0] != "head", k[0], not k[1]))]
    check_groups(listed, named, resolved)
    return AdamW(listed)


def check_groups(groups: list[dict[str, Any]], named: dict[str, nn.Parameter], resolved: ResolvedPlan) -> None:
    """Refuse an optimizer that does not hold exactly the trainable parameters, each once.

    Raises:
        AuditError: a parameter is missing, frozen or held twice.
    """
    held = [id(p) for group in groups for p in group["params"]]
    wanted = {id(p) for p in named.values()}
    if len(held) != len(set(held)) or set(held) != wanted or set(named) != set(resolved.trainable):
        raise AuditError(f"the optimizer holds {len(held)} parameters, the plan trains {len(resolved.trainable)}")


def set_rates(optimizer: AdamW, factor: float) -> None:
    """Set every group's learning rate to ``factor`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def state_by_name(optimizer: AdamW) -> dict[str, torch.Tensor]:
    """The optimizer's state as tensors named ``PARAMETER/KEY``: it does not depend on groups or their order."""
    found: dict[str, torch.Tensor] = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            state = cast("Mapping[str, torch.Tensor]", optimizer.state.get(parameter, {}))
            found.update({f"{name}/{key}": value for key, value in state.items()})
    return found


def load_state_by_name(optimizer: AdamW, state: Mapping[str, torch.Tensor]) -> None:
    """The reverse of :func:`state_by_name`, for an optimizer over the same parameters."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            own = {n.rpartition("/")[2]: t for n, t in state.items() if n.rpartition("/")[0] == name}
            if own:
                optimizer.state[parameter] = {key: _placed(value, parameter, key) for key, value in own.items()}


def _placed(value: torch.Tensor, parameter: nn.Parameter, key: str) -> torch.Tensor:
    """A tensor of an optimizer's state where and as the optimizer itself keeps it."""
    return value.clone() if key == "step" else torch.empty_like(parameter, requires_grad=False).copy_(value)


def _is_head(name: str, resolved: ResolvedPlan) -> bool:
    return bool(resolved.head) and name.startswith(resolved.head)


def _depths(model: nn.Module, resolved: ResolvedPlan) -> dict[str, int]:
    """For each trainable backbone parameter, blocks between its own and the last trained one; what is in no block is the first."""
    in_two = isinstance(model, HasBackboneAndHead)
    prefix = "backbone." if in_two else ""
    blocks = layers_of(model.backbone if in_two else model).blocks
    place = {f"{prefix}{p}": i for i, block in enumerate(blocks) for p in block.parameters}
    trained = [n for n in resolved.trainable if not _is_head(n, resolved)]
    last = max((place[n] for n in trained if n in place), default=0)
    return {n: last - place.get(n, 0) for n in trained}
