"""The calls in order: pictures, the format's files, the gate, the card. A folder appears whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from frostline._atomic import atomic_folder, write_bytes, write_text
from frostline.errors import ExportError
from frostline.export import bundle, lines, onnx, torch_program
from frostline.export.card import Written, model_card
from frostline.export.parity import Answer, CheckedOn, Parity, check
from frostline.export.pictures import Pictures, pictures_in, pictures_of
from frostline.export.pixels_in import INPUT, Inside, Program, example_for, stated
from frostline.run import Run
from frostline.run.record import as_json

FORMATS = ("safetensors", "torch-export", "onnx")
LABELS, PREPROCESS, CONFIG, CARD = "labels.json", "preprocess.json", "config.json", "README.md"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        format: ``safetensors``, ``torch-export`` or ``onnx``.
        path: the folder.
        max_abs_difference: of any logit from the run's, on the pictures it was checked on.
        largest_logit: in magnitude, of the run.
        checked_on: those pictures.
        lines: of Python, that load it.
        what: it is, in words.
    """

    format: str
    path: Path
    max_abs_difference: float
    largest_logit: float
    checked_on: CheckedOn
    lines: tuple[str, ...]
    what: str


def export(run: Run, format: str, out: str | Path, *, preprocess: Inside | None = None, check_on: str | Path | None = None) -> Exported:
    """Write a run in another form, if what was written answers as the run does.

    Args:
        run: the run; it is moved to the CPU.
        format: ``safetensors`` (an ordinary model of timm, torchvision or one's own), ``torch-export`` (a ``.pt2`` program) or ``onnx``.
        out: the folder to make.
        preprocess: whether a program normalises pixels itself (``inside``, the default) or takes normalised images (``json``).
        check_on: images to check on, in a folder or a table, instead of the run's own.

    Raises:
        ExportError: no such format, the folder exists already, the network or its head cannot be exported so, or what was exported
            disagrees with the run. Nothing is left of it.
        DataError: there are no pictures in ``check_on``.
    """
    out = Path(out)
    if format not in FORMATS:
        raise ExportError(f"no format is called {format!r}", where="--format", advice=f"use {', '.join(FORMATS)}")
    if format == "safetensors" and preprocess == "inside":
        advice = "use --format onnx or torch-export, or leave it out"
        raise ExportError("an ordinary model does not normalise pixels itself", where="--preprocess", advice=advice)
    if format == "onnx":
        onnx.check_installed()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError("exists already", where=out, advice="give another --out, or remove it")
    run.model.to(torch.device("cpu"))
    pictures = pictures_of(run) if check_on is None else pictures_in(Path(check_on), run.classes)
    new_folders = [folder for folder in out.parents if not folder.exists()]
    try:
        with atomic_folder(out) as made:
            parity, written = _WRITERS[format](run, made, pictures, preprocess or "inside")
            write_text(made / LABELS, as_json(list(run.classes)))
            write_text(made / PREPROCESS, as_json(dict(written.preprocess)))
            write_text(made / CARD, model_card(run, written, parity))
            identity = made.stat().st_ino
        if not out.is_dir() or out.stat().st_ino != identity:
            raise ExportError("something else was put there meanwhile", where=out, advice="give another --out")
    except OSError as fault:
        raise ExportError(f"cannot be written ({fault.strerror or fault})", where=out, advice="give another folder with --out") from fault
    finally:
        _remove_if_empty(new_folders)
    loading = lines.placed(written.lines, str(out))
    return Exported(format, out, parity.max_abs_difference, parity.largest_logit, parity.checked_on, loading, written.what)


def _safetensors(run: Run, made: Path, pictures: Pictures, inside: Inside) -> tuple[Parity, Written]:
    """The first of the ordinary models that passes the gate."""
    del inside
    preprocess = run.model.opened.preprocess
    refused: ExportError | None = None
    for candidate in bundle.bundles(run):
        tensors = {n: t.detach().cpu().contiguous().clone() for n, t in candidate.state.items()}
        write_bytes(made / bundle.FILE, save(tensors, metadata={"format": "pt"}))
        (made / CONFIG).unlink(missing_ok=True)
        if candidate.config is not None:
            write_text(made / CONFIG, as_json(dict(candidate.config)))
        try:
            parity = check(bundle.network_answer(candidate.load(made), run), run, pictures)
        except ExportError as fault:
            refused = refused or fault
            continue
        usage = (
            *("import json", *candidate.lines),
            *(*lines.picture_lines(preprocess, normalised=True), *lines.model_answer()),
        )
        return parity, Written(
            "safetensors", candidate.what, candidate.library, candidate.lines, usage, stated(preprocess, "json") | {"outputs": ["logits"]}
        )
    raise refused or ExportError("there is no ordinary model that it is")


def _torch_export(run: Run, made: Path, pictures: Pictures, inside: Inside) -> tuple[Parity, Written]:
    preprocess = run.model.opened.preprocess
    about = stated(preprocess, inside)
    texts = {LABELS: json.dumps(list(run.classes)), PREPROCESS: json.dumps(about)}
    program = Program(run.model, preprocess, inside)
    torch_program.write_program(program, example_for(preprocess, inside), made / torch_program.FILE, texts)
    parity = check(_given(torch_program.load_program(made / torch_program.FILE), run, inside), run, pictures)
    loading = lines.torch_lines()
    usage = (*loading, *lines.picture_lines(preprocess, normalised=inside == "json"), *lines.torch_answer())
    what = f"a program written by torch {torch.__version__.partition('+')[0]}"
    return parity, Written("torch-export", what, "pytorch", loading, usage, about)


def _onnx(run: Run, made: Path, pictures: Pictures, inside: Inside) -> tuple[Parity, Written]:
    preprocess = run.model.opened.preprocess
    about = stated(preprocess, inside)
    texts = {"labels": json.dumps(list(run.classes)), "preprocess": json.dumps(about)}
    program = Program(run.model, preprocess, inside)
    opset = onnx.write_onnx(program, example_for(preprocess, inside), made / onnx.FILE, INPUT[inside], texts)
    parity = check(_given(onnx.load_onnx(made / onnx.FILE), run, inside), run, pictures)
    loading = lines.onnx_lines()
    usage = (*loading, *lines.picture_lines(preprocess, normalised=inside == "json"), *lines.onnx_answer(INPUT[inside]))
    return parity, Written("onnx", f"an ONNX file of opset {opset}", "onnx", loading, usage, about)


_Writer = Callable[[Run, Path, Pictures, Inside], tuple[Parity, Written]]
_WRITERS: dict[str, _Writer] = {"safetensors": _safetensors, "torch-export": _torch_export, "onnx": _onnx}


def _given(program: Answer, run: Run, inside: Inside) -> Answer:
    """A program at work on pixels, normalised for it where it wants that."""
    if inside == "inside":
        return program

    def answer(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return program(run.model.opened.preprocess.normalise(pictures))

    return answer


def _remove_if_empty(folders: Sequence[Path]) -> None:
    """Folders that were made on the way to one that was not written, the innermost first."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
