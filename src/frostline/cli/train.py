"""``frostline train DATA``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frostline.cli.output import print_json, print_next, print_summary
from frostline.cli.screen import Screen
from frostline.cli.settings import cache_folder, default_out, is_offline


def train(
    data: Annotated[
        Path,
        typer.Argument(help="folder of class folders, one with train/ and val/ in it, or a CSV or Parquet manifest"),
    ],
    val: Annotated[Path | None, typer.Option(help="a separate validation folder")] = None,
    backbone: Annotated[str, typer.Option(help="NAME, timm:NAME, torchvision:NAME or module:attr")] = "tf_efficientnet_lite0",
    weights: Annotated[str, typer.Option(help="default, random, or a safetensors or state-dict file")] = "default",
    replace_layer: Annotated[str | None, typer.Option(help="layer of one's own network to drop, such as fc")] = None,
    unfreeze: Annotated[str, typer.Option(help="none, last:N, from:NAME, NAME[,NAME], params:N, norm, bias or all")] = "none",
    head: Annotated[str, typer.Option(help="linear or mlp:WIDTH")] = "linear",
    strategy: Annotated[str, typer.Option(help="plain")] = "plain",
    epochs: Annotated[int | None, typer.Option(help="passes over the training images; by rule")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images a step; by rule")] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate of the head; by rule")] = None,
    backbone_lr: Annotated[float | None, typer.Option(help="peak learning rate of unfrozen layers; a tenth of --lr")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="of AdamW; by rule")] = None,
    batch_norm: Annotated[str, typer.Option(help="in frozen layers: frozen, affine or train")] = "frozen",
    precision: Annotated[str, typer.Option(help="of the frozen layers: auto, fp32 or bf16")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps")] = "auto",
    seed: Annotated[int, typer.Option(help="same seed, same result")] = 0,
    cache_dir: Annotated[Path | None, typer.Option(help="folder of the feature cache")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="compute frozen layers anew in every epoch")] = False,
    out: Annotated[Path | None, typer.Option(help="run directory; runs/<time>-<name>")] = None,
    json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
) -> None:
    """Train on images sorted into class folders."""
    from frostline.recipe import make_recipe

    recipe = make_recipe(
        {
            "data": str(data),
            "val": None if val is None else str(val),
            "backbone": backbone,
            "weights": weights,
            "replace_layer": replace_layer,
            "unfreeze": unfreeze,
            "head": head,
            "strategy": strategy,
            "batch_norm": batch_norm,
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "backbone_lr": backbone_lr,
            "weight_decay": weight_decay,
            "precision": precision,
            "device": device,
            "seed": seed,
            "cache": not no_cache,
        }
    )
    folder = default_out(data.resolve().stem) if out is None else out
    from frostline import pipeline
    from frostline.cli.main import seconds_since_start

    with Screen(quiet=quiet) as screen:
        summary = pipeline.train(
            recipe,
            folder,
            cache=None if no_cache else cache_folder(cache_dir),
            listen=screen.listen,
            offline=is_offline(),
            startup=seconds_since_start(),
        )
    if json:
        print_json(summary)
    else:
        print_summary(summary)
        print_next(str(folder), str(data))
