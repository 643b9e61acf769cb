"""``frostline unpack SHARD... --out DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frostline.cli.output import print_json, printable


def unpack(
    shards: Annotated[list[Path], typer.Argument(metavar="SHARD...", help="tar files in the form of webdataset")],
    out: Annotated[Path, typer.Option(help="folder to write, one folder a class in it")],
    json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Turn tar shards into a folder that the other verbs take."""
    from frostline.given import unpack_shards

    count = unpack_shards(shards, out)
    if json:
        print_json({"out": printable(out), "images": count})
    else:
        print(f"written     {count} images in {printable(out)}\nnext\n  frostline train {printable(out)}")
