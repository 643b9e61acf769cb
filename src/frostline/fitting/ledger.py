"""What the phases before have done: carried from phase to phase, and over an interruption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from frostline.errors import RunError
from frostline.fitting.snapshot import Snapshot, copies
from frostline.freeze.audit import Audit


@dataclass
class Ledger:
    """Mutable; the job that runs the phases owns it.

    Attributes:
        phase: number of the phase under way, counted from 0.
        val_loss: validation loss of the weights that the phase under way began with, or None.
        kept: number of the phase whose weights were kept last.
        best_epoch: the epoch of that phase whose weights were kept.
        epochs: epochs run in the phases before.
        seconds: wall time of their training.
        engine: identity of the engine that runs the prefix of the phase under way.
        touched: names of all tensors that any phase so far may have changed.
        changed: frozen tensors that changed all the same; never any.
        still: trainable tensors that did not move.
        decisions: what ``auto`` decided after each phase, in words.
        over: whether it decided to end.
        head: the head, with the depth that was chosen for it; empty before that.
        probe: log loss of each validation image before the second phase, which later ones are held against as well; None before.
    """

    phase: int = 0
    val_loss: float | None = None
    kept: int = 0
    best_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    engine: str = ""
    touched: list[str] = field(default_factory=list[str])
    changed: list[str] = field(default_factory=list[str])
    still: list[str] = field(default_factory=list[str])
    decisions: list[str] = field(default_factory=list[str])
    over: bool = False
    head: str = ""
    probe: torch.Tensor | None = None

    def snapshot(self) -> Snapshot:
        """A copy of it; :meth:`of` is the reverse. Wall time is left out: it is no part of the state."""
        facts = {n: list(v) if isinstance(v, list) else v for n, v in vars(self).items() if n not in ("seconds", "probe")}
        return Snapshot({"ledger": facts}, {} if self.probe is None else copies({"losses": self.probe}, "probe"))

    @staticmethod
    def of(snapshot: Snapshot) -> Ledger:
        """As it was when the snapshot was taken."""
        return Ledger(**snapshot.facts["ledger"], probe=snapshot.part("probe").get("losses"))

    def touch(self, names: Sequence[str]) -> None:
        """A phase begins that may change these tensors."""
        self.touched = list(dict.fromkeys([*self.touched, *names]))

    def use(self, engine: str, *, resumed: bool) -> None:
        """A phase begins, or is gone on with, whose prefix this engine runs.

        Raises:
            RunError: it was begun with another, whose features differ in their last bits.
        """
        if resumed and self.engine and engine != self.engine:
            raise RunError(
                f"the frozen layers were run by {self.engine} when the run was begun, and would be by {engine} now",
                advice="restore the cache folder or install what is missing, or start a new run",
            )
        self.engine = engine

    def close(self, kept: bool, epoch: int, epochs: int, val_loss: float | None, proof: Audit) -> None:
        """The phase under way has ended."""
        if kept:
            self.kept, self.best_epoch, self.val_loss = self.phase, epoch, val_loss
        self.epochs += epochs
        self.changed.extend(proof.changed)
        self.still.extend(proof.still if epochs else ())  # one that diverged in its first epoch may not have made a step
        self.phase += 1

    def decide(self, go_on: bool, why: str) -> None:
        """``auto`` goes on to the next phase, or ends."""
        self.decisions.append(why)
        self.over = not go_on

    @property
    def audit(self) -> Audit:
        """The proof over all phases so far."""
        return Audit(not self.changed, not self.still, tuple(self.changed), tuple(self.still))
