"""``frostline report RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frostline.cli.completion import one_of
from frostline.cli.output import print_json, printable
from frostline.cli.settings import cache_folder, is_offline
from frostline.errors import RecipeError


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="run directory")],
    compare: Annotated[list[Path] | None, typer.Option(metavar="RUN...", help="runs to lay beside it, on the same images")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.html", help="the page [default: RUN/report.html]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps", autocompletion=one_of("device"))] = "auto",
    cache_dir: Annotated[Path | None, typer.Option(help="folder of the feature cache")] = None,
    json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Write one page about a run: what it is worth, what was frozen, where it errs, how to use it."""
    if len(runs) > 1 and not compare:
        raise RecipeError(f"{len(runs)} runs were named", where="RUN", advice="lay others beside the first with --compare")
    if out is not None and (out.is_dir() or out.suffix.lower() not in (".html", ".htm")):
        raise RecipeError("is no name for a page", where=f"--out {printable(out)}", advice="give FILE.html")
    from frostline.report import write_report

    others = [*(compare or []), *runs[1:]]  # --compare A B: what follows A is an argument to typer
    done = write_report(runs[0], others, out=out, cache=cache_folder(cache_dir), device=device, offline=is_offline())
    if json:
        differences = [
            {
                "run": d.other,
                "n": d.n,
                "only_this": d.only_other,
                "only_first": d.only_first,
                "difference": d.value,
                "interval": list(d.interval),
                "chance": d.chance,
                "noise": d.noise,
                "words": d.words(),
            }
            for d in done.differences
        ]
        print_json(
            {
                "report": printable(done.path),
                "bytes": done.bytes,
                "split": done.split,
                "images": done.images,
                "images_missing": done.missing,
                "decoded": done.decoded,
                "comparisons": differences,
            }
        )
        return
    print(f"written     {printable(done.path)} ({done.bytes / 1e6:.1f} MB, needs nothing else)")
    if done.missing:
        print(f"missing     {done.missing} images cannot be read any more and are not in it")
    for difference in done.differences:
        print(f"compared    {difference.other} against {difference.first}: {difference.words()}")
