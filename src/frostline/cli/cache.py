"""``frostline cache list|verify|prune``."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frostline.cli.output import print_json
from frostline.cli.settings import cache_folder
from frostline.errors import RecipeError

if TYPE_CHECKING:
    from frostline.features.inventory import Entry

cache = typer.Typer(help="See, verify and empty the cache of features and engines.", rich_markup_mode=None)

CacheDir = Annotated[Path | None, typer.Option(help="folder of the feature cache")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object")]


@cache.command(name="list")
def list_(cache_dir: CacheDir = None, json: Json = False) -> None:
    """What lies in the cache, the oldest first."""
    from frostline.features.inventory import entries

    folder = cache_folder(cache_dir)
    found = entries(folder)
    if json:
        print_json({"folder": str(folder), "bytes": sum(e.bytes for e in found), "entries": [_as_json(e) for e in found]})
        return
    for entry in found:
        images = f", {entry.images} images" if entry.kind == "features" else ""
        print(f"{_day(entry)}  {entry.bytes / 1e6:9.1f} MB  {entry.kind:<9}{entry.what}{images}")
    print(f"{len(found)} entries, {sum(e.bytes for e in found) / 1e6:.1f} MB in {folder}")


@cache.command()
def verify(cache_dir: CacheDir = None, json: Json = False) -> None:
    """Check every byte; damaged parts are removed and computed again when they are wanted. What cannot be read is told and stays."""
    from frostline.features.inventory import checked, entries

    folder = cache_folder(cache_dir)
    found = {entry: checked(entry) for entry in entries(folder)}
    bad = {e: c for e, c in found.items() if c.damaged}
    unreadable = {e: c for e, c in found.items() if c.unreadable}
    if json:
        damaged = [_as_json(e) | {"parts": c.damaged, "left": c.left} for e, c in bad.items()]
        closed = [_as_json(e) | {"parts": c.unreadable} for e, c in unreadable.items()]
        print_json({"folder": str(folder), "checked": len(found), "damaged": damaged, "unreadable": closed})
        return
    for entry, c in bad.items():
        if c.damaged > c.left:
            print(f"removed {_parts(c.damaged - c.left, 'damaged ')}: {entry.kind} {entry.path}")
        if c.left:
            print(f"left {_parts(c.left, 'damaged ')}, in use or not to be removed: {entry.kind} {entry.path}")
    for entry, c in unreadable.items():
        print(f"cannot read {_parts(c.unreadable)}, of another user perhaps: {entry.kind} {entry.path}")
    print(f"{len(found)} entries checked, {len(bad)} had damage" + (f", {len(unreadable)} cannot be read in full" if unreadable else ""))


def _parts(number: int, kind: str = "") -> str:
    return f"{number} {kind}{'part' if number == 1 else 'parts'}"


@cache.command()
def prune(
    cache_dir: CacheDir = None,
    older_than: Annotated[float | None, typer.Option(metavar="DAYS", help="what nothing was written to for so many days")] = None,
    max_size: Annotated[float | None, typer.Option(metavar="MB", help="the oldest, until the rest takes no more megabytes")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all of it")] = False,
    json: Json = False,
) -> None:
    """Throw parts of the cache away; they are computed again when they are wanted."""
    from frostline.features import inventory

    if sum((older_than is not None, max_size is not None, everything)) != 1:
        raise RecipeError("say what is to go", where="frostline cache prune", advice="give one of --older-than DAYS, --max-size MB, --all")
    if not all(math.isfinite(n) and n >= 0 for n in (older_than or 0.0, max_size or 0.0)):
        raise RecipeError("no such number of days or megabytes", where="frostline cache prune", advice="give 0 or more")
    found = inventory.entries(cache_folder(cache_dir))
    if older_than is not None:
        found = inventory.older_than(found, older_than)
    elif max_size is not None:
        found = inventory.beyond(found, int(max_size * 1e6))
    gone = inventory.remove(found)
    if json:
        print_json({"removed": [_as_json(e) for e in gone], "kept": [_as_json(e) for e in found if e not in gone]})
        return
    for entry in found:
        if entry not in gone:
            print(f"kept {entry.path}: it is in use, or cannot be removed")
    print(f"{len(gone)} entries removed, {sum(e.bytes for e in gone) / 1e6:.1f} MB")


def _as_json(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "path": str(entry.path),
        "what": entry.what,
        "images": entry.images,
        "bytes": entry.bytes,
        "written": entry.written,
    }


def _day(entry: Entry) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(entry.written))
