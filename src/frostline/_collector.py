"""The garbage collector, put off while libraries are imported.

Importing torch and timm makes a million objects, all of which stay, and the collector looks through them again and again: a sixth of
the time of the import. The collector belongs to the whole process, so only the command line puts it off; the work that makes garbage
takes it up again.
"""

from __future__ import annotations

import gc

_SELDOM = 50_000
"""So many objects more than before let the collector look; of its own accord it looks after 700."""

_usual: tuple[int, int, int] | None = None


def put_off() -> None:
    """Look for garbage seldom from here on."""
    global _usual
    if _usual is None:
        _usual = gc.get_threshold()
        gc.set_threshold(_SELDOM, *_usual[1:])


def take_up() -> None:
    """Look as often as usual again, past what was imported, if it had been put off."""
    global _usual
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
        _usual = None
