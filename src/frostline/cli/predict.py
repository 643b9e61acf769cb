"""``frostline predict RUN PATH...``."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frostline.cli.completion import one_of
from frostline.cli.output import print_json, printable
from frostline.cli.settings import is_offline
from frostline.errors import DataError, RecipeError

if TYPE_CHECKING:
    from frostline.use import Prediction

_FORMATS = ("table", "csv", "jsonl")
_CHUNK = 1 << 16
_WIDEST = 24


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="run directory")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="files, folders, quoted patterns such as '*.jpg', or - for stdin")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps", autocompletion=one_of("device"))] = "auto",
    format: Annotated[
        str | None, typer.Option(help="table, csv or jsonl [default: table]", autocompletion=one_of("predict_format"))
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="the same as --format jsonl")] = False,
    null: Annotated[bool, typer.Option("--null", "-0", help="names on stdin end with a NUL, as find -print0 writes them")] = False,
) -> None:
    """Label images, in their order; answers come while later ones are still read."""
    if format not in (None, *_FORMATS):
        raise RecipeError(f"no format is called {format!r}", where="--format", advice=f"use {', '.join(_FORMATS)}")
    if json and format not in (None, "jsonl"):
        raise RecipeError(f"contradicts --format {format}", where="--json", advice="give one of them")
    if null and Path("-") not in paths:
        raise RecipeError("no names are read from stdin", where="--null", advice="give - as a PATH")
    from frostline import use
    from frostline.run import read_run

    use.check_named([p for p in paths if p != Path("-")])
    labeller = use.Labeller(read_run(run, offline=is_offline()), device)
    write = {"table": _table, "csv": _csv, "jsonl": _jsonl}["jsonl" if json else format or "table"](labeller.run.classes)
    if labeller.familiar is None:
        _note(f"{printable(run)} does not say what is unfamiliar: it was saved without familiar.safetensors")
    asked = bad = 0
    for answer in use.label_files(labeller, use.files_named(_named(paths, b"\0" if null else b"\n"))):
        write(answer)
        asked, bad = asked + 1, bad + (answer.label is None)
    if asked == bad:
        where = printable(paths[0]) if len(paths) == 1 and paths[0] != Path("-") else None
        raise DataError(f"none of {asked} files is an image that can be read" if asked else "holds no files", where=where or "PATH")
    if bad:
        _note(f"{bad} of {asked} files gave no answer; their rows say why")


def _named(paths: Iterable[Path], end: bytes) -> Iterator[Path]:
    """The paths; in place of ``-`` those that stdin names."""
    for path in paths:
        if path == Path("-"):
            yield from (Path(os.fsdecode(name)) for name in _lines(end))
        else:
            yield path


def _lines(end: bytes) -> Iterator[bytes]:
    """What stdin holds between ends, as it arrives; names are bytes, and need be no text."""
    rest = b""
    while chunk := os.read(0, _CHUNK):
        *whole, rest = (rest + chunk).split(end)
        yield from (name.removesuffix(b"\r") if end == b"\n" else name for name in whole if name.strip())
    if rest.strip():
        yield rest


def _jsonl(classes: Sequence[str]) -> Callable[[Prediction], None]:
    del classes
    return lambda answer: print_json(answer.to_json(printable(answer.path)))


def _csv(classes: Sequence[str]) -> Callable[[Prediction], None]:
    def row(cells: Iterable[object]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        sys.stdout.write(text.getvalue())
        sys.stdout.flush()

    def write(answer: Prediction) -> None:
        path = printable(answer.path)
        if answer.label is None:
            row([path, "", "", "", "", answer.error, *("" for _ in classes)])
            return
        strange = "" if answer.unfamiliar is None else str(answer.unfamiliar).lower()
        score = "" if answer.unfamiliarity is None else repr(answer.unfamiliarity)
        row([path, answer.label, repr(answer.probabilities[answer.label]), strange, score, "", *map(repr, answer.probabilities.values())])

    row(["path", "label", "probability", "unfamiliar", "unfamiliarity", "error", *(f"p:{c}" for c in classes)])
    return write


def _table(classes: Sequence[str]) -> Callable[[Prediction], None]:
    from frostline.data._names import shown

    names = {c: shown(c) for c in classes}
    width = min(_WIDEST, max(len("label"), *map(len, names.values())))

    def write(answer: Prediction) -> None:
        path = shown(printable(answer.path))
        if answer.label is None:
            print(f"{'-':<{width}}  {'-':>11}  {'no image':<10}  {path}: {answer.error}", flush=True)
            return
        strange = "unfamiliar" if answer.unfamiliar else ""
        print(f"{names[answer.label]:<{width}}  {answer.probabilities[answer.label]:>11.3f}  {strange:<10}  {path}", flush=True)

    print(f"{'label':<{width}}  probability  {'note':<10}  path", flush=True)
    return write


def _note(line: str) -> None:
    print(f"frostline: {line}", file=sys.stderr)
