"""Every training setting that a person did not give, from the size of the task: pure functions (after BiT's hyper-rule).

The rule, in words:

- *Head on features.* AdamW at 1e-3 with weight decay 0.01 on standardised features, batch 32 (larger sets: up to 512, so that an
  epoch has about 100 steps or more), at least 20 epochs and about 600 steps: a small set gets more epochs.
- *Backbone trained too.* Batch 32, 10 epochs or about 600 steps, the backbone at a tenth of the head's rate: what was learnt
  before should move little (Howard 2018, Kumar 2022).
- Cosine decay to zero after a linear warm-up over a twentieth of the steps (Loshchilov 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from frostline.errors import RecipeError


@dataclass(frozen=True)
class Hyper:
    """The settings of one training phase.

    Attributes:
        epochs: passes over the training images, at most.
        batch_size: images a step.
        lr: peak learning rate of the head.
        backbone_lr: peak learning rate of unfrozen backbone layers.
        weight_decay: decoupled, on matrices and kernels only.
        warmup_fraction: share of all steps in which the rate rises.
        patience: epochs without a lower validation loss after which training stops.
    """

    epochs: int
    batch_size: int
    lr: float
    backbone_lr: float
    weight_decay: float
    warmup_fraction: float
    patience: int


def default_hyper(*, images: int, features: int, classes: int, head: str, backbone_trained: bool) -> Hyper:
    """The documented rule.

    Args:
        images: training images.
        features: length of the feature vector.
        classes: number of classes.
        head: ``linear`` or ``mlp``.
        backbone_trained: whether any backbone layer is trained as well.
    """
    del features, classes
    batch = 32 if backbone_trained else min(512, max(32, 2 ** round(math.log2(max(1, images) / 100))))
    steps = math.ceil(images / batch)
    least = 10 if backbone_trained else 20
    epochs = max(least, min(100, math.ceil(600 / steps))) if not backbone_trained else max(5, min(20, math.ceil(600 / steps)))
    lr = 1e-3 if head == "linear" else 5e-4
    return Hyper(epochs, batch, lr, lr * 0.1, 0.01, 0.05, max(5, epochs // 4))


def override(
    hyper: Hyper,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    backbone_lr: float | None = None,
    weight_decay: float | None = None,
) -> Hyper:
    """Replace what a person gave.

    Raises:
        RecipeError: a value is out of range; names the flag.
    """
    for flag, value, zero in (
        ("--epochs", epochs, False),
        ("--batch-size", batch_size, False),
        ("--lr", lr, False),
        ("--backbone-lr", backbone_lr, False),
        ("--weight-decay", weight_decay, True),
    ):
        if value is not None and (not math.isfinite(value) or value < 0 or (value == 0 and not zero)):
            raise RecipeError(
                f"{value} is out of range",
                where=flag,
                advice="give a finite number above 0" + (" or 0" if zero else ""),
            )
    return replace(
        hyper,
        epochs=hyper.epochs if epochs is None else epochs,
        batch_size=hyper.batch_size if batch_size is None else batch_size,
        lr=hyper.lr if lr is None else lr,
        backbone_lr=(hyper.backbone_lr if lr is None else lr * 0.1) if backbone_lr is None else backbone_lr,
        weight_decay=hyper.weight_decay if weight_decay is None else weight_decay,
    )
