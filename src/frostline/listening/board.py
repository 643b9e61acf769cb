"""Losses, accuracies and rates for TensorBoard."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from frostline._extras import require
from frostline.fitting import EpochDone, Event, PhaseDone, Planned, Resumed


class TensorBoard:
    """Writes what training tells into event files: ``for event in fl.fit(...): board(event)``.

    Scalars over the epochs of all phases, counted from 1: ``loss/train``, ``loss/validation``, ``accuracy/train``, ``accuracy/validation``,
    ``learning rate/head``, ``seconds``. Texts: the settings of each phase, and how it ended. Close it in the end.

    Args:
        folder: for the event files; made if it is not there.

    Raises:
        ExtraError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        require("tensorboard", where="--log", extra="tensorboard")
        self._folder = folder
        self._epochs = 0

    @cached_property
    def _writer(self) -> Any:
        """Made with the first event: a run that is refused leaves no folder behind."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder))

    def __call__(self, event: Event) -> None:
        """Write one event down; most say nothing that is drawn over time."""
        if isinstance(event, Resumed):
            self._epochs = event.epochs
        elif isinstance(event, Planned):
            facts = {"phase": event.phase, "cut": event.cut.name, "trained": len(event.resolved.trainable)} | asdict(event.hyper)
            self._writer.add_text(f"settings/{event.number} {event.phase}", f"```\n{json.dumps(facts, indent=1)}\n```", self._epochs)
        elif isinstance(event, EpochDone):
            self._epochs += 1
            for name, value in self._scalars(event).items():
                if value is not None:
                    self._writer.add_scalar(name, value, self._epochs)
        elif isinstance(event, PhaseDone):
            text = event.why or f"{event.phase}: {'kept' if event.kept else 'undone'}, best epoch {event.best_epoch} of {event.epochs}"
            self._writer.add_text("phases", text, self._epochs)

    @staticmethod
    def _scalars(event: EpochDone) -> dict[str, float | None]:
        return {
            "loss/train": event.train_loss,
            "loss/validation": event.val_loss,
            "accuracy/train": event.train_accuracy,
            "accuracy/validation": event.val_accuracy,
            "learning rate/head": event.lr,
            "seconds": event.seconds,
        }

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
