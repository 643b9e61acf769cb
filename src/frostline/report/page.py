"""The page: facts to HTML. Every name in it is escaped, and it needs nothing else: no script, no network."""

from __future__ import annotations

import importlib.resources
import shlex
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from frostline.data._names import shown
from frostline.report.clock import clock, shares_of
from frostline.report.confusion import MOST_DRAWN, cells_of, class_rows, confusion_of, pairs_of
from frostline.report.contents import Report
from frostline.report.curves import curves, marks_of
from frostline.report.depths import by_depth
from frostline.report.network import network, short
from frostline.report.reliability import bins_of, reliability
from frostline.report.strip import strip
from frostline.report.words import SPLITS, against_baselines, counted, headline, judged_on, listed_names, margin, percent, whole

MOST_ROWS = 30
"""Classes that the tables list; of more, those that are found least often, and those with the fewest pictures for training."""


def page(report: Report) -> str:
    """The whole page.

    Args:
        report: everything it says.
    """
    summary = report.summary
    facts: dict[str, Any] = {
        "report": report,
        "summary": summary,
        "scores": None if report.split is None else summary[report.split],
        "style": Markup(_text("page.css")),
        "changed": _changed(report),
        "measured": [(key, SPLITS[key]) for key in ("test", "val") if summary.get(key)],
        "split_name": SPLITS.get(report.split or "", ""),
        "classes": [shown(c) for c in report.classes],
        "counted_rows": _fewest(report),
        "class_names": listed_names(report.classes),
        "skipped": [(shown(s["path"]), shown(s["why"])) for s in summary.get("images_skipped") or ()],
        "notes": [shown(n) for n in (*(summary.get("warnings") or ()), *(summary.get("notes") or ()))],
        "recipe": shown_lines(report.recipe.to_toml()),
        "shares": shares_of(summary),
        "clock": Markup(clock(shares_of(summary))),
        "network": Markup(network(report.layers, _cut(summary))),
        "cut": shown(_cut(summary)),
        "why_cut": shown((summary.get("cache") or {}).get("why", "")),
        "depths": Markup(by_depth(report.depths)) if report.depths else None,
        "commands": commands(report),
        **_headline(report),
        **_classes(report),
        **_calibration(report),
        **_learning(report),
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    filters: dict[str, Any] = {"percent": percent, "counted": counted, "shown": shown, "short": short, "whole": whole}
    environment.filters.update(filters)
    return environment.from_string(_text("page.html.j2")).render(facts)


def _text(name: str) -> str:
    return importlib.resources.files("frostline.report").joinpath(name).read_text(encoding="utf-8")


def shown_lines(text: str) -> list[str]:
    """The lines of a text, each safe to print."""
    return [shown(line) for line in text.splitlines()]


def commands(report: Report) -> list[tuple[str, str]]:
    """What to do with the run: a few words and a command line each."""
    run = shlex.quote(report.folder)
    return [
        ("Train it again", report.recipe.command()),
        ("Label other pictures", f"frostline predict {run} PICTURE.jpg"),
        ("Score it on other labelled pictures", f"frostline evaluate {run} LABELLED_FOLDER"),
        ("Serve it: an HTTP API and a web page on this machine", f"frostline serve {run}"),
        ("Take it elsewhere", f"frostline export {run} --format onnx"),
        ("Look for wrong labels, copies and outliers", f"frostline data {shlex.quote(shown(report.recipe.data))} --out data.html"),
    ]


def _changed(report: Report) -> int | None:
    """How many images are labelled right now, where all are there and that is not what ``summary.json`` says; else None."""
    if report.split is None or report.missing or not report.answers:
        return None
    scores, right = report.summary[report.split], sum(a.right for a in report.answers)
    return None if (len(report.answers), right) == (scores["n"], round(scores["accuracy"] * scores["n"])) else right


def _fewest(report: Report) -> list[int]:
    """Numbers of the classes whose pictures are counted on the page: all, or of many those with the fewest for training, in order."""
    every = range(len(report.classes))
    sizes = report.counts.get("train") or [0] * len(every)
    return sorted(sorted(every, key=lambda i: (sizes[i], i))[:MOST_ROWS])


def _cut(summary: Mapping[str, Any]) -> str:
    return str((summary.get("cache") or {}).get("cut", "input"))


def _headline(report: Report) -> dict[str, Any]:
    if report.split is None:
        return {"headline": "How good this run is was not measured: it has neither validation nor test images.", "strip": None, "said": []}
    scores = report.summary[report.split]
    neighbours = (report.summary.get("baselines") or {}).get("neighbours")
    compared = [] if report.majority is None else [(f"always “{shown(report.majority[0])[:18]}”", report.majority[1])]
    compared += [] if neighbours is None else [("most similar training picture", neighbours)]
    said = [judged_on(report.summary, report.split), *against_baselines(scores, report.majority, neighbours), margin(scores)]
    drawn = strip(scores["accuracy"], (scores["interval"][0], scores["interval"][1]), compared)
    return {"headline": headline(scores, report.majority), "strip": Markup(drawn), "said": said}


def _classes(report: Report) -> dict[str, Any]:
    if not report.answers:
        return {"rows": [], "left_out": 0, "cells": None, "pairs": []}
    counts = confusion_of([a.label for a in report.answers], [a.predicted for a in report.answers], len(report.classes))
    rows = class_rows(counts, report.classes)
    if len(rows) > MOST_ROWS:
        rows = sorted((r for r in rows if r.count), key=lambda r: (r.found / r.count, r.name))[:MOST_ROWS]
    return {
        "rows": rows,
        "left_out": len(report.classes) - len(rows),
        "cells": cells_of(counts) if len(report.classes) <= MOST_DRAWN else None,
        "pairs": pairs_of(counts, report.classes),
    }


def _calibration(report: Report) -> dict[str, Any]:
    if not report.answers:
        return {"reliability": None, "calibration": None}
    found = bins_of([a.probability for a in report.answers], [a.right for a in report.answers])
    return {"reliability": Markup(reliability(found)), "calibration": report.summary.get("calibration")}


def _learning(report: Report) -> dict[str, Any]:
    rows = report.epochs
    if len(rows) < 2:
        return {"curves": []}
    marks = marks_of(rows, report.summary.get("phases") or ())
    loss = curves("Loss", [r["train_loss"] for r in rows], [r["val_loss"] for r in rows], marks, shares=False)
    share = curves("Accuracy", [r["train_accuracy"] for r in rows], [r["val_accuracy"] for r in rows], marks, shares=True)
    return {"curves": [("Labelled right, by epoch", Markup(share)), ("Loss, by epoch: lower is better", Markup(loss))]}
