"""Every training setting that a person did not give, from the size of the task: pure functions (after BiT's hyper-rule).

The rule, in words:

- *Head on features.* AdamW with peak rate 0.003 (0.0005 for other heads than ``linear``, 0.0003 for ``linear`` on all depths) and
  weight decay 0.01 on centred features of unit mean variance, batch 32 (more than 4,500 images: a power of two near a hundredth of
  them, at most 512), and as many epochs as make about 600 steps, between 20 and 100 (``conv``, which costs the most and learns the
  fastest: 200 steps, 10 to 30).
  Measured against scikit-learn's cross-validated logistic regression on eight tasks:
  ``benchmarks/head_defaults.py``, docs/LOG.md.
- *Backbone trained too.* Batch 32, about 600 steps, between 5 and 20 epochs, the head at 0.001 and the backbone at a tenth of
  that: what was learnt before should move little (Howard 2018, Kumar 2022).
- Cosine decay to zero after a linear warm-up over a twentieth of the steps (Loshchilov 2017); training stops after a quarter of
  the epochs, at least five, in which neither validation loss nor validation accuracy got better.
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
        batch_size: images a batch.
        lr: peak learning rate of the head.
        backbone_lr: peak learning rate of the last unfrozen backbone block.
        weight_decay: decoupled, on matrices and kernels only.
        warmup_fraction: share of all steps in which the rate rises.
        patience: epochs without a better validation loss or accuracy after which training stops.
    """

    epochs: int
    batch_size: int
    lr: float
    backbone_lr: float
    weight_decay: float
    warmup_fraction: float
    patience: int


@dataclass(frozen=True)
class Options:
    """What may be added to plain training; the defaults add nothing.

    Attributes:
        layer_decay: factor on the learning rate from each backbone block to the one before it (Howard 2018), above 0, at most 1.
        label_smoothing: share of the target spread evenly over the classes (Szegedy 2016), 0 to below 1.
        mixup: parameter of the Beta distribution that mixes pairs of inputs of the suffix (Zhang 2018; on features:
            Verma 2019); 0 does not mix.
        clip_norm: the most the norm of all gradients together may be; 0 does not clip.
        accumulate: batches whose gradients make one step.
        class_weights: ``balanced`` weighs every class by the inverse of its share (as in scikit-learn); ``none``.
        ema: decay of a moving average of the trained weights (and of their batch-norm statistics) that is judged and kept
            instead of them, below 1; 0 keeps none.
        l2_sp: strength of the pull of backbone weights towards their pre-trained values (Li 2018); 0 does not pull.
        wise: mix the weights of a later phase with those it started from, by the validation loss (WiSE-FT, Wortsman 2022).
    """

    layer_decay: float = 1.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    clip_norm: float = 0.0
    accumulate: int = 1
    class_weights: str = "none"
    ema: float = 0.0
    l2_sp: float = 0.0
    wise: bool = False

    def check(self) -> None:
        """Refuse values that are out of range.

        Raises:
            RecipeError: names the flag.
        """
        below_one = (("--label-smoothing", self.label_smoothing), ("--ema", self.ema))
        for flag, value in below_one:
            if not 0 <= value < 1:
                raise RecipeError(f"{value} is out of range", where=flag, advice="give a number from 0 to below 1")
        for flag, value in (("--mixup", self.mixup), ("--clip-norm", self.clip_norm), ("--l2-sp", self.l2_sp)):
            if not (math.isfinite(value) and value >= 0):
                raise RecipeError(f"{value} is out of range", where=flag, advice="give a finite number of at least 0")
        if not 0 < self.layer_decay <= 1:
            raise RecipeError(f"{self.layer_decay} is out of range", where="--layer-decay", advice="give a number above 0, at most 1")
        if self.accumulate < 1:
            raise RecipeError(f"{self.accumulate} is out of range", where="--accumulate", advice="give a whole number of at least 1")
        if self.class_weights not in ("none", "balanced"):
            raise RecipeError(f"{self.class_weights!r} is no weighting", where="--class-weights", advice="use none or balanced")


def default_hyper(*, images: int, head: str, backbone_trained: bool, all_depths: bool = False) -> Hyper:
    """The documented rule.

    Args:
        images: training images.
        head: ``linear``, ``mlp``, ``conv`` or ``attention``.
        backbone_trained: whether any backbone layer is trained as well.
        all_depths: whether a linear head sits on what all depths give, so many features that it fits a few images within an epoch.
    """
    if backbone_trained:
        epochs = min(20, max(5, math.ceil(600 / math.ceil(images / 32))))
        return Hyper(epochs, 32, 1e-3, 1e-4, 0.01, 0.05, max(5, epochs // 4))
    batch = min(512, max(32, 2 ** round(math.log2(max(1, images) / 100))))
    steps, least, most = (200, 10, 30) if head == "conv" else (600, 20, 100)
    epochs = min(most, max(least, math.ceil(steps / math.ceil(images / batch))))
    lr = (3e-4 if all_depths else 3e-3) if head == "linear" else 5e-4
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
