"""``frostline explain RUN PATH...``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from frostline.cli.output import print_json, printable
from frostline.cli.settings import is_offline
from frostline.errors import DataError


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="run directory")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="files, folders, quoted patterns such as '*.jpg'")],
    method: Annotated[str, typer.Option(help="gradcam, cam, integrated-gradients or occlusion")] = "gradcam",
    label: Annotated[str | None, typer.Option("--class", help="the class to explain [default: the answer]")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the pictures [default: RUN/explained]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="print one JSON object a picture")] = False,
) -> None:
    """Draw which pixels spoke for the answer, and the training images that a picture is most like."""
    from frostline import explaining, use
    from frostline.errors import DecodeError
    from frostline.run import read_run

    use.check_named(paths)
    files = list(use.files_named(paths))
    folder = out or run / "explained"
    bad = 0
    opened = read_run(run, offline=is_offline())
    for number, found in enumerate(explaining.explain(opened, files, method=method, label=label, device=device)):
        if isinstance(found, DecodeError):
            bad += 1
            print(f"frostline: {found}", file=sys.stderr)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{number:03}-{found.path.stem}.png"
        found.save(target)
        if json:
            near = [{"path": printable(s.path), "label": s.label, "similarity": s.similarity} for s in found.nearest]
            answer = {"path": printable(found.path), "label": found.label, "probability": found.probabilities[found.label]}
            print_json({**answer, "class": found.of, "method": method, "picture": printable(target), "nearest": near})
        else:
            print(f"{printable(target)}: {found.label}, {found.probabilities[found.label]:.3f}", flush=True)
    if bad == len(files):
        raise DataError(f"none of {bad} files is an image that can be read", where="PATH")
