"""What training tells its listeners: immutable events, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from frostline._html import facts_table
from frostline.features.extract import Extracted, FeatureProgress
from frostline.features.images import ImageSet
from frostline.fitting.auto import Gain
from frostline.fitting.candidates import Judged
from frostline.fitting.guard import Guards
from frostline.fitting.hyper import Hyper
from frostline.fitting.metrics import wilson
from frostline.fitting.snapshot import Snapshot
from frostline.freeze.audit import Audit
from frostline.freeze.cut import Cut
from frostline.freeze.plan import ResolvedPlan


@dataclass(frozen=True)
class Resumed:
    """A run is gone on with.

    Attributes:
        phases: phases that had ended.
        epochs: epochs that had ended, in all phases.
        damaged: checkpoints that were passed over, by name.
    """

    phases: int
    epochs: int
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class Gathered:
    """The images were found and split; nothing was decoded yet.

    Attributes:
        images: how many there are of each class, by split (``train``, ``val``, ``test``); classes in the order of their labels.
    """

    images: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Planned:
    """A phase was planned; nothing was computed for it yet.

    Attributes:
        phase: its name.
        number: counted from 1.
        phases: how many there are.
        resolved: what is trained and what frozen.
        cut: where the frozen part ends.
        hyper: its settings.
    """

    phase: str
    number: int
    phases: int
    resolved: ResolvedPlan
    cut: Cut
    hyper: Hyper


@dataclass(frozen=True)
class CachePlanned:
    """What is about to be computed and cached.

    Attributes:
        images: how many have to be computed; each view of an image counts.
        bytes: that will be written.
        free: bytes that are free there.
        folder: the cache.
        engine: what will run the prefix: see :data:`frostline.features.engine.ENGINE_FACTS`; its speed and that of decoding make the
            estimate.
    """

    images: int
    bytes: int
    free: int
    folder: Path
    engine: Mapping[str, Any]

    @property
    def seconds(self) -> float | None:
        """About how long it will take: decoding and running share the processor. None where nothing was measured."""
        rates = self.engine["images_per_second"], self.engine["pictures_per_second"]
        return None if rates[0] is None or rates[1] is None else self.images * (1 / rates[0] + 1 / rates[1])


@dataclass(frozen=True)
class FeaturesReady:
    """The frozen prefix has been run, or was found in the cache.

    Attributes:
        extracted: what was computed.
        bytes: size of these images' features on disk.
        skipped: files that are no images, and why.
        engine: what runs the prefix, likewise.
    """

    extracted: Extracted
    bytes: int
    skipped: tuple[tuple[Path, str], ...]
    engine: Mapping[str, Any]


@dataclass(frozen=True)
class DepthChosen:
    """The depth that the head is put on was chosen by cross-validated ridges on training images alone.

    Attributes:
        names: of the depths, in forward order.
        accuracies: of the ridges, where images were held out.
        chosen: one of the names.
        why: in words.
        images: that they were told apart on.
    """

    names: tuple[str, ...]
    accuracies: tuple[float, ...]
    chosen: str
    why: str
    images: int


@dataclass(frozen=True)
class Swept:
    """Many heads have been tried on the training images alone, and one was chosen.

    Attributes:
        judged: every candidate with its scores on held-out images.
        chosen: the one with the lowest log loss; it is trained on all training images next.
        heads: how many were trained step by step; the others were solved.
        folds: of cross-validation.
        epochs: passes over the training part of each fold.
        seconds: wall time.
    """

    judged: tuple[Judged, ...]
    chosen: Judged
    heads: int
    folds: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Solved:
    """The strength of a solved head was chosen by cross-validation on the training images.

    Attributes:
        judged: every strength with its scores on held-out images.
        chosen: the one with the lowest log loss.
        folds: of cross-validation.
        seconds: wall time.
    """

    judged: tuple[Judged, ...]
    chosen: Judged
    folds: int
    seconds: float


@dataclass(frozen=True)
class StepDone:
    """One step of training, or one batch of validation.

    Attributes:
        step: steps done in this epoch.
        steps: steps of an epoch.
        snapshot: makes a copy of everything it takes to go on from here.
    """

    step: int
    steps: int
    snapshot: Callable[[], Snapshot]


@dataclass(frozen=True)
class EpochDone:
    """One pass over the training images.

    Attributes:
        phase: the name of the phase.
        epoch: counted from 1 in each phase.
        train_loss: mean over the epoch's batches while the weights moved.
        train_accuracy: likewise.
        val_loss: log loss on the validation images after the epoch, or None without any.
        val_accuracy: likewise.
        lr: the head's learning rate in the last step.
        seconds: wall time of the epoch.
    """

    phase: str
    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float


@dataclass(frozen=True)
class Stopped:
    """A phase ended before its last epoch.

    Attributes:
        phase: the name of the phase.
        epoch: the epoch after which, or in which, it stopped.
        why: in words.
    """

    phase: str
    epoch: int
    why: str


@dataclass(frozen=True)
class PhaseDone:
    """A phase has ended; the model holds the best weights so far and frozen layers have been proved unchanged.

    Attributes:
        phase: its name.
        kept: whether it helped; False where its weights were undone.
        best_epoch: the epoch whose weights it offered, counted from 1.
        epochs: epochs that were run.
        loss_before: validation loss it started from; None in the first phase and without validation images.
        loss_after: the lowest it reached.
        alpha: share of its own weights where they were mixed with those it started from (WiSE-FT); None where they were not.
        gain: what it gained on the validation images, where they were judged before it as well.
        audit: the proof.
        seconds: wall time of its training, without the features.
        last: whether no other phase follows.
        why: of ``auto``, why it goes on or ends; empty otherwise.
        snapshot: makes a copy of everything it takes to begin the next phase; good until that takes its first step.
    """

    phase: str
    kept: bool
    best_epoch: int
    epochs: int
    loss_before: float | None
    loss_after: float | None
    alpha: float | None
    gain: Gain | None
    audit: Audit
    seconds: float
    last: bool
    why: str
    snapshot: Callable[[], Snapshot]


@dataclass(frozen=True, eq=False)
class Seen:
    """Images as a backbone sees them.

    Attributes:
        images: those that could be read.
        features: of them, ``(N, d)`` float32, in memory.
    """

    images: ImageSet
    features: torch.Tensor


@dataclass(frozen=True)
class Finished:
    """The model holds the weights that were best; no frozen layer changed.

    Attributes:
        best_epoch: of the phase that was kept last, counted from 1.
        epochs: epochs that were run, in all phases.
        resolved: what was trained and what frozen in the phase that was kept last.
        audit: the proof, over all phases.
        guards: signs of overfitting and of forgetting.
        train_logits: ``(N, classes)`` of the training images.
        train_labels: ``(N,)``.
        val_logits: of the validation images, or None without any.
        val_labels: likewise.
        seconds: wall time of training, without the features.
        decisions: what ``auto`` decided after each phase, in words.
        seen: the training and the validation images without augmentation, as the backbone saw them before anything of it was trained,
            where their features are in memory anyway; else None.
        looked: some training and some validation images as the backbone sees them by now, where it was trained; else None.
    """

    best_epoch: int
    epochs: int
    resolved: ResolvedPlan
    audit: Audit
    guards: Guards
    train_logits: torch.Tensor
    train_labels: torch.Tensor
    val_logits: torch.Tensor | None
    val_labels: torch.Tensor | None
    seconds: float
    decisions: tuple[str, ...] = ()
    seen: tuple[Seen, Seen] | None = None
    looked: tuple[Seen, Seen] | None = None

    def _repr_html_(self) -> str:
        shown: dict[str, object] = {"best epoch": f"{self.best_epoch} of {self.epochs}", "seconds": f"{self.seconds:.1f}"}
        for name, logits, labels in (("training", self.train_logits, self.train_labels), ("validation", self.val_logits, self.val_labels)):
            if logits is not None and labels is not None:
                right = int((logits.argmax(1) == labels).sum())
                low, high = wilson(right, len(labels))
                shown[name] = f"{right / len(labels):.3f} ({low:.3f} to {high:.3f}), {len(labels)} images"
        shown["frozen layers unchanged"] = self.audit.frozen_unchanged
        return facts_table("training, finished", shown)


Event = (
    Resumed
    | Gathered
    | Planned
    | CachePlanned
    | FeatureProgress
    | FeaturesReady
    | DepthChosen
    | Swept
    | Solved
    | StepDone
    | EpochDone
    | Stopped
    | PhaseDone
    | Finished
)
