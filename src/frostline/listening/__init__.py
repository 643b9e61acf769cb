"""Listeners: called with each event of :func:`frostline.fit`, they show it or write it down elsewhere, and change nothing."""

from __future__ import annotations

from frostline.listening.bar import ProgressBar
from frostline.listening.board import TensorBoard

__all__ = ["ProgressBar", "TensorBoard"]
