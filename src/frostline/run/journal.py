"""The diary of a run that is under way: its epochs and phases so far, and a checkpoint every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from frostline.fitting.events import EpochDone, Event, PhaseDone, Planned, StepDone
from frostline.fitting.snapshot import Snapshot
from frostline.run import layout
from frostline.run.checkpoint import Checkpoint, read_checkpoint, remove_checkpoints, write_checkpoint
from frostline.run.identity import check_identity
from frostline.run.summary import choice_json, phase_json

SECONDS = 5.0
"""Checkpoints are written at least this long after one another, and whenever training is stopped."""


class Journal:
    """Listens to the events of a fit.

    Args:
        run: the run directory.
        checkpoint: what the run goes on from, or None.
        passed_over: later checkpoints that were damaged.

    Attributes:
        epochs: one mapping an epoch, those before a resume included.
        phases: one mapping for each phase that has ended, likewise.
        choices: what was chosen among heads and depths, the first of each kind, likewise.
        snapshot: what training goes on from, or None.
        passed_over: later checkpoints that were damaged, by name.
    """

    def __init__(self, run: Path, checkpoint: Checkpoint | None = None, passed_over: tuple[str, ...] = ()) -> None:
        self._run = run
        self._number = max([0 if checkpoint is None else checkpoint.number, *map(int, passed_over)])
        self._written = time.monotonic()
        self._planned: Planned | None = None
        self._latest: Callable[[], Snapshot] | None = None
        self.epochs: list[dict[str, Any]] = [] if checkpoint is None else [dict(row) for row in checkpoint.epochs]
        self.phases: list[dict[str, Any]] = [] if checkpoint is None else [dict(row) for row in checkpoint.phases]
        self.choices: dict[str, Any] = {} if checkpoint is None else dict(checkpoint.choices)
        self.snapshot: Snapshot | None = None if checkpoint is None else checkpoint.snapshot
        self.passed_over = passed_over

    @staticmethod
    def resume(run: Path, identity: Mapping[str, Any]) -> Journal:
        """Open the journal of a run that was interrupted, at its newest whole checkpoint.

        Raises:
            RunError: data, weights or machine are not those that the run was begun with.
        """
        check_identity(run, identity)
        checkpoint, passed_over = read_checkpoint(run)
        return Journal(run, checkpoint, passed_over)

    def note(self, event: Event, *, at_once: bool) -> None:
        """Keep what an event says; write a checkpoint if it is time, or at once.

        Raises:
            RunError: it cannot be written.
        """
        if isinstance(event, Planned):
            self._planned = event
        elif isinstance(event, EpochDone):
            self.epochs.append(asdict(event))
        elif isinstance(event, PhaseDone) and self._planned is not None:
            self.phases.append(phase_json(event, self._planned))
        self.choices = {**choice_json(event), **self.choices}
        if isinstance(event, StepDone | PhaseDone):
            self._latest = event.snapshot
        due = isinstance(event, StepDone) and time.monotonic() - self._written >= SECONDS
        if self._latest is not None and (at_once or due):
            self._number += 1
            write_checkpoint(self._run, Checkpoint(self._latest(), self.epochs, self.phases, self._number, self.choices))
            self._written = time.monotonic()

    def close(self) -> None:
        """The run is finished: its checkpoints are of no use any more."""
        remove_checkpoints(self._run)
        (self._run / layout.IDENTITY).unlink(missing_ok=True)
