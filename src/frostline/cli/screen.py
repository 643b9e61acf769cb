"""What a person sees while work goes on: a bar on a terminal, plain lines otherwise, nothing with ``--quiet``. All on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from frostline.fitting import Event
    from frostline.listening import TensorBoard


class Screen:
    """Shows events as they come, and hands them on to a board, if there is one; use as a context manager."""

    def __init__(self, *, quiet: bool, board: TensorBoard | None = None) -> None:
        self._quiet = quiet
        self._board = board
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._said = 0.0
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )

    def __enter__(self) -> Screen:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            self._board.close()

    def say(self, line: str) -> None:
        """One line of progress."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        elif not self._quiet:
            print(line, file=sys.stderr)

    def advance(self, what: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total``; on no terminal, a line at most every two seconds and one at the end."""
        if self._bar is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total, note=note)
            self._bar.update(self._tasks[what], completed=done, total=total, note=note)
        elif done == total or time.monotonic() - self._said > 2:
            self._said = time.monotonic()
            self.say(f"{what}: {done} of {total} {note}".rstrip())

    def listen(self, event: Event) -> None:
        """Show one event of a fit, and hand it on."""
        self._show(event)
        if self._board is not None:
            self._board(event)

    def _show(self, event: Event) -> None:
        from frostline.features import FeatureProgress
        from frostline.fitting import (
            CachePlanned,
            DepthChosen,
            EpochDone,
            FeaturesReady,
            PhaseDone,
            Planned,
            Resumed,
            Solved,
            Stopped,
            Swept,
        )

        if isinstance(event, Resumed):
            for name in event.damaged:
                self.say(f"checkpoint {name} is damaged, the one before it is used")
            self.say(f"going on after {event.epochs} epochs" if event.epochs else "going on from the start")
        elif isinstance(event, Planned):
            self._epochs = event.hyper.epochs
            named = "" if event.phases == 1 else f"phase {event.number} of {event.phases}, {event.phase}: "
            self._phase = "training" if event.phases == 1 else event.phase
            self.say(
                f"{named}{len(event.resolved.trainable)} tensors trained, {len(event.resolved.frozen)} frozen; "
                f"cut at {event.cut.name}: {event.cut.why}"
            )
        elif isinstance(event, CachePlanned):
            about = "" if event.seconds is None else f", about {event.seconds:.0f} s"
            self.say(
                f"to cache: {event.images} images, {event.bytes / 1e6:.1f} MB in {event.folder} ({event.free / 1e9:.0f} GB free){about}; "
                f"engine {event.engine['name']} in {event.engine['precision']}: {event.engine['why']}"
            )
        elif isinstance(event, FeatureProgress):
            note = "(waiting for another process that computes some)" if event.waiting else ""
            self.advance("features", event.done, event.total, note)
        elif isinstance(event, FeaturesReady):
            found = "all cached, nothing computed" if event.extracted.hit else f"{event.extracted.forwarded} images computed"
            self.say(f"features: {found} in {event.extracted.seconds:.1f} s, {event.bytes / 1e6:.1f} MB")
            for path, why in event.skipped:
                self.say(f"skipped {path}: {why}")
        elif isinstance(event, Swept | Solved):
            best = event.chosen
            tried = f"sweep: {len(event.judged)} candidates" if isinstance(event, Swept) else f"{len(event.judged)} strengths"
            self.say(
                f"{tried} judged on {event.folds} folds of the training images in {event.seconds:.1f} s; best is {best.candidate}, "
                f"accuracy {best.accuracy:.3f}, log loss {best.log_loss:.3f} where held out"
            )
        elif isinstance(event, DepthChosen):
            self.say(f"depth: {event.chosen} of {len(event.names)}; {event.why}")
        elif isinstance(event, EpochDone):
            val = "" if event.val_accuracy is None else f", validation {event.val_accuracy:.3f}"
            self.advance(self._phase, event.epoch, self._epochs, f"loss {event.train_loss:.3f}{val}")
        elif isinstance(event, PhaseDone) and event.loss_before is not None and event.loss_after is not None:
            outcome = "kept" if event.kept else "undone: it did not help"
            mixed = "" if event.alpha is None else f", {event.alpha:.0%} of its weights mixed in"
            self.say(f"{event.phase}: validation loss {event.loss_before:.4f} before, {event.loss_after:.4f} after, {outcome}{mixed}")
        elif isinstance(event, Stopped):
            self.say(f"stopped after epoch {event.epoch}: {event.why}")
