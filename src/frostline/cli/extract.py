"""``frostline extract DATA``: fill the feature cache, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from frostline.cli import options
from frostline.cli.early import images_ahead
from frostline.cli.output import print_json
from frostline.cli.screen import Screen
from frostline.cli.settings import cache_folder, is_offline
from frostline.errors import RecipeError

if TYPE_CHECKING:
    from frostline.fitting.events import FeaturesReady

_NOT_OF_THE_RECIPE = ("context", "cache_dir", "json", "quiet")


def extract(
    context: typer.Context,
    data: options.Data = None,
    val: options.Val = None,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    replace_layer: options.ReplaceLayer = None,
    unfreeze: options.Unfreeze = None,
    head: options.Head = None,
    batch_norm: options.BatchNorm = None,
    augment: options.Augment = None,
    views: options.Views = None,
    precision: options.Precision = None,
    engine: options.Engine = None,
    storage: options.Storage = None,
    device: options.Device = None,
    seed: options.Seed = None,
    cache_dir: options.CacheDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fill the feature cache for a later training with the same flags, and train nothing."""
    if data is None:
        raise RecipeError("no images were named", where="DATA", advice="give a folder of class folders, or a manifest")
    folder = cache_folder(cache_dir)
    with images_ahead(data if augment in (None, "none") else None, val, backbone, weights, folder):
        from frostline import pipeline
        from frostline.recipe import make_recipe

        given: dict[str, Any] = {n: v for n, v in context.params.items() if n not in _NOT_OF_THE_RECIPE}
        given |= {"data": str(data), "val": val and str(val)}
        recipe = make_recipe({name: value for name, value in given.items() if value is not None})
        with Screen(quiet=quiet) as screen:  # a signal ends it at once: what is finished is in the cache
            ready = pipeline.extract(recipe, cache=folder, listen=screen.listen, offline=is_offline())
    if json:
        print_json(_as_json(ready, folder))
    else:
        print(f"{ready.extracted.forwarded} images computed, {ready.bytes / 1e6:.1f} MB of features in {folder}")


def _as_json(ready: FeaturesReady, folder: Path) -> dict[str, Any]:
    return {
        "cache": str(folder),
        "decoded": ready.extracted.decoded,
        "forwarded": ready.extracted.forwarded,
        "hit": ready.extracted.hit,
        "bytes": ready.bytes,
        "seconds": ready.extracted.seconds,
        "storage_error": ready.extracted.storage_error,
        "engine": dict(ready.engine),
        "images_skipped": [{"path": str(p), "why": why} for p, why in ready.skipped],
    }
