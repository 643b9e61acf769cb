"""``frostline export RUN``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from frostline.cli.completion import one_of
from frostline.cli.output import print_json, printable
from frostline.cli.settings import is_offline, silence_telemetry
from frostline.errors import ExportError


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="run directory")],
    format: Annotated[str, typer.Option(help="safetensors, torch-export or onnx", autocompletion=one_of("export_format"))] = "safetensors",
    out: Annotated[Path | None, typer.Option(help="folder to make [default: RUN/export-FORMAT]")] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(help="inside: torch-export and onnx normalise pixels themselves; json: they take normalised images [default: inside]"),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="DATA", help="images to check on: a folder or a table [default: the run's own]")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Write a run for timm, torchvision, torch or ONNX alone, with a model card; one that disagrees with the run is not written."""
    if preprocess not in (None, "inside", "json"):
        raise ExportError(f"no way is called {preprocess!r}", where="--preprocess", advice="use inside or json")
    silence_telemetry()
    from frostline.export import export as write
    from frostline.run import read_run

    opened = read_run(run, offline=is_offline())
    done = write(opened, format, out or run / f"export-{format}", preprocess=preprocess, check_on=check)
    on = done.checked_on
    if json:
        print_json(
            {
                "format": done.format,
                "path": printable(done.path),
                "max_abs_difference": done.max_abs_difference,
                "largest_logit": done.largest_logit,
                "checked_on": {"images": on.images, "batch_sizes": list(on.batch_sizes), "pictures": printable(on.pictures)},
                "what": done.what,
                "lines": list(done.lines),
            }
        )
        return
    print(f"written     {printable(done.path)}: {done.what}", flush=True)
    print(
        f"checked     logits differ by up to {done.max_abs_difference:.1e} where the largest is {done.largest_logit:.3g}; labels are equal"
    )
    print(f"            on {printable(str(on))}")
    print("load it")
    for line in done.lines:
        print(f"  {printable(line)}")
    sys.stdout.flush()
