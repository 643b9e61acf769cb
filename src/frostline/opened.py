"""A finished run to look at: its facts, its epochs, its answers, and figures of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from frostline._html import facts_table
from frostline.plotting import Plots
from frostline.report import Report, epochs_of, examine
from frostline.run import read_summary


class OpenRun:
    """A run in a notebook: ``run = fl.open_run("runs/a")``, then ``run.summary``, ``run.plot.history()``; alone in a cell it shows itself.

    Facts and epochs are read at once. Its images are answered again when a figure or the report first needs that.

    Args:
        folder: the run directory.
        cache: folder of the feature cache; None computes what it needs in memory.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``mps``.
        offline: fetch nothing.

    Attributes:
        folder: the run directory.
        summary: what ``summary.json`` holds.
        history: one mapping an epoch, as ``metrics.jsonl`` holds them.
    """

    def __init__(self, folder: Path, cache: Path | None, device: str, *, offline: bool) -> None:
        self.folder = folder
        self.summary: Mapping[str, Any] = read_summary(folder)
        self.history: tuple[Mapping[str, Any], ...] = epochs_of(folder)
        self._cache, self._device, self._offline = cache, device, offline

    @cached_property
    def report(self) -> Report:
        """Everything that the page of ``frostline report`` says.

        Raises:
            RunError: the run's weights or its split are damaged.
        """
        return examine(self.folder, self._cache, self._device, offline=self._offline)

    @cached_property
    def plot(self) -> Plots:
        """Figures of matplotlib: ``history``, ``confusion``, ``calibration``, ``depths``.

        Raises:
            ExtraError: matplotlib is not installed.
        """
        return Plots(self.folder, self.history, lambda: self.report)

    def _repr_html_(self) -> str:
        split = next((s for s in ("test", "val") if self.summary.get(s)), None)
        scores = None if split is None else self.summary[split]
        accuracy = None if scores is None else f"{scores['accuracy']:.3f} ({scores['interval'][0]:.3f} to {scores['interval'][1]:.3f})"
        facts = {
            "backbone": self.summary["backbone"],
            "unfrozen": ", ".join(self.summary["unfrozen_blocks"]) or "nothing",
            "head": self.summary["head"],
            "accuracy": None if scores is None else f"{accuracy}, {scores['n']} {split} images",
            "frozen layers unchanged": self.summary["audit"]["frozen_unchanged"],
            "epochs": self.summary["epochs_run"],
            "seconds": f"{self.summary['seconds']['total']:.1f}",
        }
        return facts_table(f"run {self.folder.name}", facts)


def open_run(folder: str | Path, *, cache: str | Path | None = None, device: str = "auto", offline: bool = False) -> OpenRun:
    """Open a finished run to look at it.

    Args:
        folder: the run directory.
        cache: folder of the feature cache; None computes what it needs in memory.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``mps``.
        offline: fetch nothing.

    Raises:
        RunError: the run is incomplete or damaged.
    """
    return OpenRun(Path(folder), None if cache is None else Path(cache), device, offline=offline)
