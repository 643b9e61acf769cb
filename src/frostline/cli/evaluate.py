"""``frostline evaluate RUN DATA``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frostline.cli.completion import one_of
from frostline.cli.output import interval, print_json, printable
from frostline.cli.settings import cache_folder, is_offline


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="run directory")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="folder of class folders, or a CSV or Parquet manifest")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps", autocompletion=one_of("device"))] = "auto",
    cache_dir: Annotated[Path | None, typer.Option(help="folder of the feature cache")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="neither read nor write the feature cache")] = False,
    json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Score a finished run on labelled images."""
    from frostline import use
    from frostline.run import read_run
    from frostline.run.summary import scores_json

    opened = read_run(run, offline=is_offline())
    scores, skipped = use.evaluate(opened, data, cache=None if no_cache else cache_folder(cache_dir), device=device)
    plain = scores_json(scores, opened.classes)
    if json:
        print_json(plain | {"images_skipped": [{"path": printable(p), "why": why} for p, why in skipped]})
        return
    print(f"accuracy            {interval(plain)}")
    print(f"balanced accuracy   {scores.balanced_accuracy:.3f}")
    print(f"log loss            {scores.log_loss:.3f}")
    print(f"calibration error   {scores.calibration_error:.3f}")
    for name, row in plain["per_class"].items():
        recall = "no images" if row["recall"] is None else f"{row['recall']:.3f} of {row['n']} found"
        print(f"  {name:<18}{recall}")
    for path, why in skipped:
        print(f"skipped {printable(path)}: {why}")
