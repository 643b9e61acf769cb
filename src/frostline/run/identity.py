"""What a run is, beyond its recipe: the data, the weights and the kind of machine. A run goes on only where all are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from frostline._atomic import write_text
from frostline._digest import settings_digest
from frostline.backbone.network import Backbone
from frostline.data.manifest import Manifest
from frostline.errors import RunError
from frostline.recipe import Recipe
from frostline.run import layout


def identity_of(manifest: Manifest, digests: Sequence[str], backbone: Backbone, device: torch.device) -> dict[str, Any]:
    """The identity, as plain JSON values.

    Args:
        manifest: the images, split.
        digests: SHA-256 of each image's content.
        backbone: as it was opened.
        device: only its kind counts.
    """
    rows = [[d, r.label, r.split] for d, r in zip(digests, manifest.records, strict=True)]
    return {
        "classes": list(manifest.classes),
        "data": settings_digest({"rows": rows}),
        "backbone": backbone.digest,
        "device": device.type,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def begin(folder: Path, recipe: Recipe, identity: Mapping[str, Any]) -> None:
    """Write what it takes to go on with a run that is beginning.

    Raises:
        RunError: the folder cannot be written.
    """
    try:
        write_text(folder / layout.RECIPE, recipe.to_toml())
        write_text(folder / layout.IDENTITY, json.dumps(identity, indent=1) + "\n")
    except OSError as fault:
        raise RunError(f"cannot be written ({fault.strerror or fault})", where=folder, advice="give another folder with --out") from fault


def check_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to go on with a run whose data, weights or machine are others by now.

    Raises:
        RunError: naming the first field that differs.
    """
    try:
        begun = cast("dict[str, Any]", json.loads((folder / layout.IDENTITY).read_text(encoding="utf-8")))
    except (OSError, ValueError) as fault:
        raise RunError(f"is damaged ({fault})", where=folder / layout.IDENTITY) from fault
    for field, now in identity.items():
        if begun.get(field) != now:
            shown = "" if field in ("data", "backbone") else f" ({begun.get(field)} then, {now} now)"
            raise RunError(f"{field} is not what the run was begun with{shown}", where=folder, advice="restore it, or start a new run")


def check_same(recipe: Recipe, given: Mapping[str, object]) -> None:
    """Refuse flags that differ from the recipe of the run that is gone on with.

    Args:
        recipe: the run's.
        given: what was given now; None where it was not.

    Raises:
        RunError: naming the flag, what it was and what was given.
    """
    for name, value in given.items():
        was = getattr(recipe, name)
        if value is not None and value != was:
            raise RunError(
                f"the run was begun with {was if was is not None else 'the default'}, not {value}",
                where=f"--{name.replace('_', '-')}" if name != "data" else "DATA",
                advice="leave it out, or start a new run",
            )
