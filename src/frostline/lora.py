"""Low-rank adapters (LoRA, Hu 2022) through peft, as one more freeze plan: the network's own weights stay frozen, provably."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from frostline._extras import require
from frostline._rng import seeded
from frostline.errors import PlanError
from frostline.freeze import FreezePlan
from frostline.model import TransferModel

ATTENTION = ("qkv", "query", "value", "q_proj", "v_proj")
"""Linear layers of attention by the names that timm, transformers and others give them."""


def add_lora(model: TransferModel, targets: Sequence[str] | None = None, *, rank: int = 8, alpha: int = 16, seed: int = 0) -> FreezePlan:
    """Put an adapter beside linear layers or convolutions of the backbone; gives the plan that trains the adapters and the head.

    The network computes what it did before until the adapters are trained, for one of the two matrices of each is zero.

    Args:
        model: changed in place.
        targets: last parts of layer names; those of attention where None.
        rank: of the update of each layer.
        alpha: the update is multiplied by ``alpha / rank``.
        seed: of the adapters' initial weights.

    Raises:
        ExtraError: peft is not installed.
        PlanError: no layer has such a name, or the rank is below 1.
    """
    require("peft", where="add_lora", extra="lora")
    if rank < 1:
        raise PlanError(f"a rank of {rank}", where="add_lora", advice="give a whole number from 1")
    wanted = tuple(ATTENTION if targets is None else targets)
    found = [n for n, m in model.backbone.named_modules() if n.rpartition(".")[2] in wanted and isinstance(m, nn.Linear | nn.Conv2d)]
    if not found:
        kinds = sorted({n.rpartition(".")[2] for n, m in model.backbone.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)})
        raise PlanError(
            f"no layer is called {', '.join(wanted)}", where="add_lora", advice=f"name some of: {', '.join(kinds[:20]) or 'none is there'}"
        )
    from peft import LoraConfig, inject_adapter_in_model

    with seeded(seed, "adapters"):
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=found), model.backbone)
    return FreezePlan("*.lora_*")


def merge_lora(model: TransferModel) -> int:
    """Add each adapter's update to its layer's weights and take it off: an ordinary network again, to save and export; gives their number.

    Outputs are the same but for rounding.

    Raises:
        ExtraError: peft is not installed.
    """
    require("peft", where="merge_lora", extra="lora")
    from peft.tuners.lora import LoraLayer

    layers = [(n, m) for n, m in model.backbone.named_modules() if isinstance(m, LoraLayer)]
    for name, layer in layers:
        merged = cast("Any", layer)
        merged.merge()
        model.backbone.set_submodule(name, merged.get_base_layer())
    return len(layers)
