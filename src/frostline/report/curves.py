"""How training went: a curve over the epochs for training and one for validation, with the phases and the epoch that was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frostline.report.svg import WIDTH, dot, drawing, line, path, text, ticks
from frostline.report.words import percent, whole

_LEFT, _TOP, _WIDE, _HIGH = 44.0, 34.0, 300.0, 170.0


@dataclass(frozen=True)
class Marks:
    """What is marked on the axis of epochs, counted from 1 over all phases.

    Attributes:
        phases: the name of each phase and its first epoch.
        kept: the epoch whose weights the run has; None where that is none of them.
    """

    phases: tuple[tuple[str, int], ...]
    kept: int | None


def marks_of(epochs: Sequence[Mapping[str, Any]], phases: Sequence[Mapping[str, Any]]) -> Marks:
    """Where phases begin, and the best epoch of the phase that was kept last.

    Args:
        epochs: the rows of ``metrics.jsonl``.
        phases: as in ``summary.json``.
    """
    starts: list[tuple[str, int]] = []
    for at, row in enumerate(epochs, start=1):
        if not starts or row["phase"] != starts[-1][0] or row["epoch"] == 1:
            starts.append((str(row["phase"]), at))
    first = dict(starts)
    last = next((p for p in reversed(phases) if p.get("kept")), None)
    kept = first[last["name"]] + int(last["best_epoch"]) - 1 if last and last["name"] in first and last.get("best_epoch") else None
    return Marks(tuple(starts), kept if kept is not None and kept <= len(epochs) else None)


def curves(what: str, train: Sequence[float], val: Sequence[float | None], marks: Marks, *, shares: bool) -> str:
    """One chart.

    Args:
        what: is drawn, in a word or two.
        train: its value on the training images, one an epoch; at least one.
        val: on the validation images; None where there are none.
        marks: phases and the kept epoch.
        shares: whether values are shares of 1, drawn as per cent, or else numbers from 0 up.
    """
    known = [v for v in (*train, *val) if v is not None]
    low, high = (min(known), 1.0) if shares else (0.0, max(known))
    low = max(0.0, low - 0.05) if shares else low
    high = high if high > low else low + 1.0
    count = len(train)

    def at(epoch: int, value: float) -> tuple[float, float]:
        return _LEFT + _WIDE * ((epoch - 1) / (count - 1) if count > 1 else 0.5), _TOP + _HIGH * (high - value) / (high - low)

    parts = [part for value in ticks(low, high) for part in _level(value, at(1, value)[1], shares=shares)]
    for epoch in sorted({1, count, *(e for e in map(int, ticks(1, count)) if 1 < e < count * 0.95)}):
        parts.append(text(at(epoch, low)[0], _TOP + _HIGH + 16, epoch, anchor="middle", kind="soft"))
    parts.append(text(_LEFT + _WIDE / 2, _TOP + _HIGH + 34, "epoch", anchor="middle", kind="soft"))
    for name, start in marks.phases if len(marks.phases) > 1 else ():
        x = at(start, low)[0]
        parts += [line(x, _TOP, x, _TOP + _HIGH, "phase"), text(min(x + 3, WIDTH - 6.2 * len(name)), _TOP + 11, name, kind="small")]
    parts.append(path([at(e, v) for e, v in enumerate(train, start=1)], "line training"))
    points = [at(e, v) for e, v in enumerate(val, start=1) if v is not None]
    if points:
        parts.append(path(points, "line validation"))
    parts += [line(_LEFT, 12, _LEFT + 22, 12, "line training"), text(_LEFT + 27, 16, "training")]
    if points:
        parts += [line(_LEFT + 96, 12, _LEFT + 118, 12, "line validation"), text(_LEFT + 123, 16, "validation")]
    if marks.kept is not None:
        best = val[marks.kept - 1] if val[marks.kept - 1] is not None else train[marks.kept - 1]
        assert best is not None  # training always has a value
        parts.append(dot(*at(marks.kept, best), 5, "kept", f"epoch {marks.kept}, whose weights were kept"))
        parts += [dot(_LEFT + 211, 12, 5, "kept"), text(_LEFT + 220, 16, "kept")]
    return drawing(_TOP + _HIGH + 40, _said(what, train, val, marks, shares=shares), parts)


def _level(value: float, y: float, *, shares: bool) -> list[str]:
    words = whole(value) if shares else f"{value:g}"
    return [line(_LEFT, y, _LEFT + _WIDE, y, "grid"), text(_LEFT - 6, y + 4, words, anchor="end", kind="soft")]


def _said(what: str, train: Sequence[float], val: Sequence[float | None], marks: Marks, *, shares: bool) -> str:
    def words(value: float) -> str:
        return percent(value) if shares else f"{value:.3f}"

    said = f"{what} over {len(train)} epochs: training from {words(train[0])} to {words(train[-1])}"
    if val[0] is not None and val[-1] is not None:
        said += f", validation from {words(val[0])} to {words(val[-1])}"
    return said + ("" if marks.kept is None else f"; the weights of epoch {marks.kept} were kept")
