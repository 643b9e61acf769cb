"""``frostline advise DATA``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frostline.cli import options
from frostline.cli.completion import one_of
from frostline.cli.early import images_ahead
from frostline.cli.output import print_json
from frostline.cli.screen import Screen
from frostline.cli.settings import cache_folder, is_offline

if TYPE_CHECKING:
    from frostline.advise import Advice
    from frostline.advise.evidence import Evidence
    from frostline.advise.recommend import Candidate
    from frostline.recipe import Recipe

_BAR = 32


def advise(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="folder of class folders, or a CSV or Parquet manifest")],
    val: options.Val = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME, timm:NAME, torchvision:NAME, hf:NAME or module:attr; several are compared", autocompletion=one_of("backbone")
        ),
    ] = None,
    weights: options.Weights = None,
    replace_layer: options.ReplaceLayer = None,
    precision: options.Precision = None,
    engine: options.Engine = None,
    storage: options.Storage = None,
    device: options.Device = None,
    seed: options.Seed = None,
    cache_dir: options.CacheDir = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="keep no features on disk")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure, then recommend what to freeze, with the evidence."""
    kept = None if no_cache else cache_folder(cache_dir)
    with images_ahead(data, val, backbone[0] if backbone else None, weights, kept):
        from frostline.advise import advise as ask
        from frostline.advise.advice import advice_json
        from frostline.recipe import make_recipe

        given = {
            "data": str(data),
            "val": val and str(val),
            "weights": weights,
            "replace_layer": replace_layer,
            "precision": precision,
            "engine": engine,
            "storage": storage,
            "device": device,
            "seed": seed,
            "cache": False if no_cache else None,
        }
        recipe = make_recipe({n: v for n, v in given.items() if v is not None})
        with Screen(quiet=quiet) as screen:
            advice = ask(recipe, backbone or (), cache=kept, listen=screen.listen, offline=is_offline())
    if json:
        print_json(advice_json(advice))
    else:
        _print(advice, recipe, "" if cache_dir is None else f" --cache-dir {shlex.quote(str(cache_dir))}")


def _print(advice: Advice, recipe: Recipe, more: str) -> None:
    several = len(advice.evidences) > 1
    for evidence in advice.evidences:
        _print_depths(evidence)
    print("plans, the recommended one first; the accuracy of heads is measured where held out,")
    print("that of unfreezing is predicted from the features of all layers behind the cut; seconds without start-up")
    rows = [_row(c, several=several) for c in advice.recommendation.ranked]
    titles = (["backbone"] if several else []) + ["plan", "accuracy", "95 % interval", "seconds", "memory"]
    wide = [max(len(row[i]) for row in (titles, *rows)) for i in range(len(titles))]
    for row in (titles, *rows):
        print("  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip())
    print(f"\n{advice.recommendation.why}")
    pick, second = advice.recommendation.pick, advice.recommendation.runner_up
    if second is not None:
        print(f"runner-up: {second}" + (f" ({second.backbone})" if several else ""))
    picked = recipe.model_copy(update={n: getattr(pick, n) for n in ("backbone", "unfreeze", "head", "strategy")})
    print(f"next\n  {picked.command()}{more}")
    print(f"  {recipe.model_copy(update={'backbone': pick.backbone, 'strategy': 'auto'}).command()}{more}")


def _print_depths(evidence: Evidence) -> None:
    sample = f" of {evidence.of}" if evidence.of > evidence.images else ""
    print(
        f"{evidence.backbone}: {evidence.images}{sample} images of {evidence.classes} classes, {evidence.folds} folds; "
        f"the most frequent class is {evidence.majority:.1%} of them"
    )
    if evidence.why:
        print(f"only the end is looked at: {evidence.why}")
    low = min(min(d.ridge.accuracy, evidence.majority) for d in evidence.depths)
    name = max(len(d.name) for d in evidence.depths)
    print(
        f"{'depth'.ljust(name)}  accuracy by depth ({low:.2f} to 1)".ljust(name + _BAR + 4), " ridge  logistic  neighbours  LogME  H-score"
    )
    for depth in evidence.depths:
        filled = round(_BAR * (depth.ridge.accuracy - low) / max(1e-9, 1 - low))
        print(
            f"{depth.name.ljust(name)}  {'█' * filled}{'░' * (_BAR - filled)}   {depth.ridge.accuracy:6.3f}  {depth.logistic.accuracy:8.3f}"
            f"  {depth.neighbours.accuracy:10.3f}  {depth.logme:5.2f}  {depth.h_score:7.3f}"
        )
    curve = ", ".join(f"{held.accuracy:.3f} with {n}" for n, held in evidence.curve)
    print(f"learning curve at the end: {curve} training images\n")


def _row(candidate: Candidate, *, several: bool) -> list[str]:
    low, high = candidate.held.interval
    least, most = candidate.cost.interval
    seconds = f"{most:.0f}" if most - least < 1 else f"{least:.0f} to {most:.0f}"
    cells = [
        str(candidate),
        *(("not predicted", "") if candidate.unfreeze == "norm" else (f"{candidate.held.accuracy:.3f}", f"{low:.3f} to {high:.3f}")),
        seconds,
        f"{candidate.cost.peak_memory / 1e9:.1f} GB",
    ]
    return ([candidate.backbone] if several else []) + cells
