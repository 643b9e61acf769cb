"""SIGINT and SIGTERM: at once where nothing is lost, at the next step where training has something to write first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Terminated(BaseException):
    """SIGTERM arrived."""


class Signals:
    """What arrived so far. One for the process; :meth:`install` makes it the handler."""

    def __init__(self) -> None:
        self._deferring = False
        self._arrived: BaseException | None = None
        self.advice = "run the same command again"

    def install(self) -> None:
        """Handle both signals here."""
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    @contextlib.contextmanager
    def deferred(self, advice: str) -> Iterator[None]:
        """Within the block the first signal only sets :meth:`pending`; a second one is raised at once.

        Args:
            advice: how to go on, for the person who stopped it.
        """
        self._deferring, self.advice = True, advice
        try:
            yield
        finally:
            self._deferring = False

    def pending(self) -> BaseException | None:
        """What to raise for the signal that arrived, or None."""
        return self._arrived

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        again = self._arrived is not None
        self._arrived = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        if again or not self._deferring:
            raise self._arrived


SIGNALS = Signals()
