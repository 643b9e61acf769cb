"""``frostline train DATA``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from frostline.cli import options
from frostline.cli.early import images_ahead
from frostline.cli.opening import Opening
from frostline.cli.output import print_json, print_next, print_summary
from frostline.cli.screen import Screen
from frostline.cli.settings import cache_folder, default_out, is_offline
from frostline.cli.signals import SIGNALS
from frostline.errors import RecipeError

if TYPE_CHECKING:
    from frostline.listening import TensorBoard
    from frostline.recipe import Recipe


_NOT_OF_THE_RECIPE = ("context", "cache_dir", "no_cache", "out", "resume", "log", "json", "quiet")


def train(
    context: typer.Context,
    data: options.Data = None,
    val: options.Val = None,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    replace_layer: options.ReplaceLayer = None,
    unfreeze: options.Unfreeze = None,
    head: options.Head = None,
    strategy: options.Strategy = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lr: options.Lr = None,
    backbone_lr: options.BackboneLr = None,
    weight_decay: options.WeightDecay = None,
    layer_decay: options.LayerDecay = None,
    augment: options.Augment = None,
    views: options.Views = None,
    class_weights: options.ClassWeights = None,
    label_smoothing: options.LabelSmoothing = None,
    mixup: options.Mixup = None,
    clip_norm: options.ClipNorm = None,
    accumulate: options.Accumulate = None,
    ema: options.Ema = None,
    l2_sp: options.L2Sp = None,
    wise: options.Wise = None,
    batch_norm: options.BatchNorm = None,
    sweep: options.Sweep = None,
    budget: options.Budget = None,
    nested: options.Nested = None,
    precision: options.Precision = None,
    engine: options.Engine = None,
    storage: options.Storage = None,
    device: options.Device = None,
    seed: options.Seed = None,
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    out: options.Out = None,
    resume: options.Resume = None,
    log: options.Log = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train on images sorted into class folders."""
    given: dict[str, Any] = {n: v for n, v in context.params.items() if n not in _NOT_OF_THE_RECIPE}
    given |= {"data": data and str(data), "val": val and str(val), "cache": False if no_cache else None}
    plain = augment in (None, "none")
    with images_ahead(data if plain else None, val, backbone, weights, None if no_cache else cache_folder(cache_dir)):
        recipe, folder = _recipe(given, out, resume)
        from frostline import pipeline
        from frostline.cli.main import seconds_since_start

        with Screen(quiet=quiet, board=_board(log, folder)) as screen, SIGNALS.deferred(f"go on with: frostline train --resume {folder}"):
            summary = pipeline.train(
                recipe,
                folder,
                cache=cache_folder(cache_dir) if recipe.cache else None,
                listen=Opening(recipe, folder, screen).listen,
                offline=is_offline(),
                startup=seconds_since_start(),
                resume=resume is not None,
                stop=SIGNALS.pending,
            )
    if json:
        print_json(summary)
    else:
        print_summary(summary)
        print_next(str(folder), recipe.data)


def _board(log: str | None, run: Path) -> TensorBoard | None:
    """What writes for TensorBoard, if it was asked for."""
    if log is None:
        return None
    if log != "tensorboard":
        raise RecipeError(f"nothing is written for {log!r}", where="--log", advice="use tensorboard; RUN/metrics.jsonl is written always")
    from frostline.listening import TensorBoard

    return TensorBoard(run / "tensorboard")


def _recipe(given: dict[str, object], out: Path | None, resume: Path | None) -> tuple[Recipe, Path]:
    """The recipe and the run directory: of a new run, or of the one that is gone on with."""
    from frostline.recipe import make_recipe, read_recipe

    if resume is None:
        if given["data"] is None:
            raise RecipeError("no images were named", where="DATA", advice="give a folder of class folders, or --resume RUN")
        recipe = make_recipe({name: value for name, value in given.items() if value is not None})
        return recipe, default_out(Path(recipe.data).resolve().stem) if out is None else out
    from frostline.run.identity import check_same
    from frostline.run.layout import check_begun

    if out is not None and out.resolve() != resume.resolve():
        raise RecipeError("a run is gone on with where it lies", where="--out", advice="leave it out")
    check_begun(resume)
    recipe = read_recipe(resume / "recipe.toml")
    check_same(recipe, given)
    return recipe, resume
