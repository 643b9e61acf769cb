"""``frostline predict RUN PATH...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frostline.cli.output import print_json, printable
from frostline.cli.settings import is_offline


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="run directory")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="image files or folders")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Label images (files or folders), in their order."""
    from frostline import use
    from frostline.run import read_run

    files = use.list_images(paths)
    opened = read_run(run, offline=is_offline())
    for answer in use.predict(opened, files, device=device):
        path = printable(answer.path)
        if answer.label is None:
            if json:
                print_json({"path": path, "error": answer.error})
            else:
                print(f"{path}\tno answer: {answer.error}")
        elif json:
            print_json(
                {
                    "path": path,
                    "label": answer.label,
                    "probability": answer.probabilities[answer.label],
                    "probabilities": answer.probabilities,
                    "unfamiliar": None,
                }
            )
        else:
            print(f"{path}\t{answer.label}\t{answer.probabilities[answer.label]:.3f}")
