"""A progress bar of the epochs, in a notebook or on a terminal."""

from __future__ import annotations

from typing import Any

from frostline.features import FeatureProgress
from frostline.fitting import EpochDone, Event, PhaseDone, Planned


class ProgressBar:
    """Shows a bar for the features and one for each phase: ``for event in fl.fit(...): bar(event)``.

    Args:
        file: where a terminal's bar is written; stderr where None.
    """

    def __init__(self, file: Any = None) -> None:
        self._file = file
        self._bar: Any = None
        self._what = ""

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Planned):
            self._next(event.phase, event.hyper.epochs, "epoch")
        elif isinstance(event, FeatureProgress):
            if self._what != "features":
                self._after = self._what, getattr(self._bar, "total", None)
                self._next("features", event.total, "image")
            self._move(event.done)
            if event.done == event.total:
                self._next(self._after[0], self._after[1], "epoch")
        elif isinstance(event, EpochDone):
            shown = {"loss": f"{event.train_loss:.3f}"}
            if event.val_accuracy is not None:
                shown["validation"] = f"{event.val_accuracy:.3f}"
            self._bar.set_postfix(shown, refresh=False)
            self._move(event.epoch)
        elif isinstance(event, PhaseDone):
            self.close()

    def _next(self, what: str, total: int | None, unit: str) -> None:
        from tqdm.auto import tqdm

        self.close()
        self._what = what
        self._bar = tqdm(total=total, desc=what, unit=unit, file=self._file)

    def _move(self, done: int) -> None:
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
