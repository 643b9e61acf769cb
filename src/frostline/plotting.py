"""Figures of a run, as objects of matplotlib that belong to whoever asked: pyplot knows nothing of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline._extras import require
from frostline.errors import RunError
from frostline.report import Report
from frostline.report.confusion import confusion_of
from frostline.report.mistakes import Answer
from frostline.report.reliability import bins_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK, _TRAIN, _VAL = "#333333", "#b35900", "#005f99"


class Plots:
    """Each method makes a new figure.

    Args:
        folder: the run directory, for messages.
        epochs: rows of ``metrics.jsonl``.
        report: gives what else is known of the run; asked where a figure needs it.

    Raises:
        ExtraError: matplotlib is not installed.
    """

    def __init__(self, folder: Path, epochs: Sequence[Mapping[str, Any]], report: Callable[[], Report]) -> None:
        require("matplotlib", where="plot", extra="plot")
        self._folder, self._epochs, self._report = folder, epochs, report

    def history(self) -> Figure:
        """Loss and accuracy over the epochs of all phases, on the training and the validation images.

        Raises:
            RunError: the head was solved: there are no epochs.
        """
        rows = self._epochs
        if not rows:
            raise RunError("has no epochs to draw: its head was solved", where=self._folder)
        figure = _figure(9, 3.6)
        for place, what in enumerate(("loss", "accuracy"), start=1):
            axes = figure.add_subplot(1, 2, place)
            epochs = range(1, len(rows) + 1)
            axes.plot(epochs, [row[f"train_{what}"] for row in rows], color=_TRAIN, label="training")
            if rows[0][f"val_{what}"] is not None:
                axes.plot(epochs, [row[f"val_{what}"] for row in rows], color=_VAL, linestyle="--", label="validation")
            for number in range(1, len(rows)):
                if rows[number]["phase"] != rows[number - 1]["phase"]:
                    axes.axvline(number + 0.5, color=_INK, linewidth=0.8, linestyle=":")
            axes.set_xlabel("epoch")
            axes.set_ylabel(what)
            axes.legend(frameon=False)
        return figure

    def confusion(self) -> Figure:
        """How many images of each class got which label, on the test images, or else those of validation.

        Raises:
            RunError: none of those images can be read any more.
        """
        answers, names = self._answers(), self._report().classes
        counts = confusion_of([a.label for a in answers], [a.predicted for a in answers], len(names))
        side = max(3.5, 0.45 * len(names) + 2)
        figure = _figure(side, side)
        axes = figure.add_subplot()
        axes.imshow(counts, cmap="Blues")
        most = max(max(row) for row in counts)
        for row, cells in enumerate(counts):
            for column, count in enumerate(cells):
                axes.text(column, row, str(count), ha="center", va="center", color="white" if count > most / 2 else _INK)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("answer")
        axes.set_ylabel("label")
        return figure

    def calibration(self) -> Figure:
        """Share of right answers by confidence, with intervals; on the diagonal probabilities mean what they say.

        Raises:
            RunError: none of the test or validation images can be read any more.
        """
        answers = self._answers()
        bins = [b for b in bins_of([a.probability for a in answers], [a.right for a in answers]) if b.count]
        figure = _figure(4.2, 4.2)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":")
        errors = [[max(0.0, b.right - b.interval[0]) for b in bins], [max(0.0, b.interval[1] - b.right) for b in bins]]
        axes.errorbar([b.confidence for b in bins], [b.right for b in bins], errors, color=_VAL, marker="o", capsize=3)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="share that is right")
        return figure

    def depths(self) -> Figure:
        """Accuracy of a simple head on every block, with intervals, where ``frostline advise`` has measured it.

        Raises:
            RunError: it has not, or its features are not in the cache that was named.
        """
        depths = self._report().depths
        if not depths:
            raise RunError("accuracy by depth is not known", where=self._folder, advice="run frostline advise, and name its cache")
        figure = _figure(6, 0.25 * len(depths) + 1.2)
        axes = figure.add_subplot()
        rows = list(range(len(depths)))
        errors = [[d.accuracy - d.interval[0] for d in depths], [d.interval[1] - d.accuracy for d in depths]]
        axes.errorbar([d.accuracy for d in depths], rows, xerr=errors, color=_VAL, marker="o", linestyle="none", capsize=3)
        axes.set_yticks(rows, [d.name for d in depths])
        axes.invert_yaxis()
        axes.set_xlabel("accuracy of a ridge, held out")
        return figure

    def _answers(self) -> Sequence[Answer]:
        answers = self._report().answers
        if not answers:
            raise RunError("none of its test or validation images can be read any more", where=self._folder)
        return answers


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")
