"""What training tells its listeners: immutable events, in order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from frostline.features.extract import Extracted, FeatureProgress
from frostline.fitting.hyper import Hyper
from frostline.freeze.audit import Audit
from frostline.freeze.cut import Cut
from frostline.freeze.plan import ResolvedPlan


@dataclass(frozen=True)
class Planned:
    """The plan was applied; nothing was computed yet."""

    resolved: ResolvedPlan
    cut: Cut
    hyper: Hyper


@dataclass(frozen=True)
class FeaturesReady:
    """The frozen prefix has been run, or was found in the cache.

    Attributes:
        extracted: what was computed.
        bytes: size of these images' features on disk.
        skipped: files that are no images, and why.
    """

    extracted: Extracted
    bytes: int
    skipped: tuple[tuple[Path, str], ...]


@dataclass(frozen=True)
class EpochDone:
    """One pass over the training images.

    Attributes:
        epoch: counted from 1.
        train_loss: mean over the epoch's batches while the weights moved.
        train_accuracy: likewise.
        val_loss: log loss on the validation images after the epoch, or None without any.
        val_accuracy: likewise.
        lr: the head's learning rate in the last step.
        seconds: wall time of the epoch.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float


@dataclass(frozen=True)
class Stopped:
    """Training ended before its last epoch.

    Attributes:
        epoch: the epoch after which, or in which, it stopped.
        why: in words.
    """

    epoch: int
    why: str


@dataclass(frozen=True)
class Finished:
    """The model holds the weights of the best epoch and the frozen layers have been proved unchanged.

    Attributes:
        best_epoch: counted from 1.
        epochs: epochs that were run.
        audit: the proof.
        train_logits: ``(N, classes)`` of the training images.
        train_labels: ``(N,)``.
        val_logits: of the validation images, or None without any.
        val_labels: likewise.
        seconds: wall time of training, without the features.
    """

    best_epoch: int
    epochs: int
    audit: Audit
    train_logits: torch.Tensor
    train_labels: torch.Tensor
    val_logits: torch.Tensor | None
    val_labels: torch.Tensor | None
    seconds: float


Event = Planned | FeatureProgress | FeaturesReady | EpochDone | Stopped | Finished
