"""``frostline inspect BACKBONE``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from frostline.cli.completion import one_of
from frostline.cli.output import print_json
from frostline.cli.settings import cache_folder, is_offline

if TYPE_CHECKING:
    from frostline.features.engine import Engine
    from frostline.freeze.table import LayerRow


def inspect(
    backbone: Annotated[
        str, typer.Argument(metavar="BACKBONE", help="NAME, timm:NAME, torchvision:NAME, hf:NAME or module:attr")
    ] = "tf_efficientnet_lite0",
    weights: Annotated[str, typer.Option(help="default, random, or a file", autocompletion=one_of("weights"))] = "default",
    replace_layer: Annotated[str | None, typer.Option(help="layer of one's own network to drop, such as fc")] = None,
    unfreeze: Annotated[
        str, typer.Option(help="none, last:N, from:NAME, NAME[,NAME], params:N, norm, bias or all", autocompletion=one_of("unfreeze"))
    ] = "none",
    head: Annotated[str, typer.Option(help="linear, mlp:WIDTH, conv:CHANNELS or attention", autocompletion=one_of("head"))] = "linear",
    classes: Annotated[int, typer.Option(help="number of classes of the head")] = 2,
    batch_norm: Annotated[
        str, typer.Option(help="in frozen layers: frozen, affine or train", autocompletion=one_of("batch_norm"))
    ] = "frozen",
    json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Show the layers, and what a plan would freeze, train and cache."""
    from frostline._device import resolve_device
    from frostline.backbone import open_backbone
    from frostline.backbone.tap import output_shapes
    from frostline.features.choice import FEWEST, decided_engine
    from frostline.features.known import prefix_subject
    from frostline.freeze import FreezePlan
    from frostline.freeze.apply import evaluating
    from frostline.freeze.cut import split_resolved
    from frostline.freeze.plan import BatchNorm
    from frostline.freeze.table import rows
    from frostline.model import TransferModel

    opened = open_backbone(backbone, weights, replace=replace_layer, offline=is_offline())
    model = TransferModel(opened, head, classes)
    resolved = FreezePlan(unfreeze, cast("BatchNorm", batch_norm)).apply(model)
    table = rows(model, resolved)
    with evaluating(model):
        shapes = output_shapes(model, [r.modules[-1] for r in table if r.modules], opened.example())
    parts = split_resolved(model, resolved, model.example(2))
    cut = parts.cut
    subject = prefix_subject(parts, model.opened, device=resolve_device("auto"), precision="auto", engine="auto")
    engine = decided_engine(subject, FEWEST, cache_folder(None)) if cut.cached else None
    layers = [_layer_json(r, shapes) for r in table]
    if json:
        print_json(
            {
                "backbone": opened.name,
                "weights": str(opened.report),
                "preprocess": opened.preprocess.settings(),
                "unfreeze": unfreeze,
                "head": head,
                "matched": list(resolved.matched),
                "trainable": list(resolved.trainable),
                "cut": {"name": cut.name, "way": cut.way, "why": cut.why, "bytes_per_image": cut.bytes},
                "engine": None if engine is None else engine.facts(),
                "trainable_parameters": sum(r.trained for r in table),
                "frozen_parameters": sum(r.parameters - r.trained for r in table),
                "layers": layers,
            }
        )
        return
    print(f"{opened.name}: {opened.report}")
    _print_table(layers, after=_cut_row(layers, cut.name))
    print(f"cut at {cut.name}: {cut.why}")
    if cut.cached:
        _print_engine(engine)
    print(f"{sum(r.trained for r in table):,} parameters trained, {sum(r.parameters - r.trained for r in table):,} frozen")


def _layer_json(row: LayerRow, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    last = row.modules[-1] if row.modules else ""
    return {
        "name": row.name,
        "type": row.kind,
        "output_shape": list(shapes[last]) if last in shapes else None,
        "parameters": row.parameters,
        "trained": row.trained,
        "state": row.state,
    }


def _print_engine(engine: Engine | None) -> None:
    if engine is None:
        print("engine not chosen yet: it is verified on the images of a job")
        return
    print(f"engine {engine.name} in {engine.precision}, chosen before on this machine: {engine.why}")
    speed = "" if engine.images_per_second is None else f", {engine.images_per_second:.0f} images/s where it was measured"
    print(f"its output differs by {engine.error or 0.0:.1e} (relative L2) from the module's{speed}")


def _cut_row(layers: list[dict[str, Any]], cut: str) -> int:
    """How many rows lie above the cut."""
    if cut == "backbone":
        return len(layers) - 1
    return next((i for i, row in enumerate(layers, start=1) if row["name"] == f"backbone.{cut}"), 0)


def _print_table(layers: list[dict[str, Any]], after: int) -> None:
    cells = [
        (
            r["name"],
            r["type"],
            "x".join(map(str, r["output_shape"])) if r["output_shape"] else "",
            f"{r['parameters']:,}",
            r["state"],
        )
        for r in layers
    ]
    titles = ("layer", "type", "output", "parameters", "state")
    wide = [max(len(row[i]) for row in (titles, *cells)) for i in range(5)]
    for number, row in enumerate((titles, *cells)):
        if number == after + 1:
            print(
                f"{'-- cut: above it is computed once and cached ':-<{sum(wide) + 8}}"
                if after
                else f"{'-- cut: nothing is cached ':-<{sum(wide) + 8}}"
            )
        print("  ".join(c.rjust(w) if i == 3 else c.ljust(w) for i, (c, w) in enumerate(zip(row, wide, strict=True))).rstrip())
