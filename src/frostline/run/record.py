"""Write a finished run. ``summary.json`` comes last: a run directory without it is not finished."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save

from frostline._atomic import write_bytes, write_text
from frostline._digest import tensors_digest
from frostline.data.manifest import Manifest
from frostline.errors import RunError
from frostline.model import TransferModel
from frostline.recipe import Recipe
from frostline.run import layout
from frostline.run.environment import environment


@dataclass(frozen=True)
class RunRecord:
    """Everything a run directory holds.

    Attributes:
        recipe: what was asked for.
        summary: the outcome, plain JSON values.
        metrics: one mapping an epoch.
        manifest: every image with its class and split.
        model: with the final weights.
        original: digest of each of the backbone's tensors as published, by name; those are not written again.
    """

    recipe: Recipe
    summary: Mapping[str, Any]
    metrics: Sequence[Mapping[str, object]]
    manifest: Manifest
    model: TransferModel
    original: Mapping[str, str]


def write_run(folder: Path, record: RunRecord) -> dict[str, Any]:
    """Write all files of a run; gives the summary as written, with the seconds that writing the files before it took.

    Raises:
        RunError: the folder cannot be written.
    """
    began = time.perf_counter()
    device = next(record.model.parameters()).device
    try:
        write_text(folder / layout.RECIPE, record.recipe.to_toml())
        write_text(folder / layout.METRICS, "".join(f"{json.dumps(dict(row))}\n" for row in record.metrics))
        write_text(folder / layout.SPLIT, _split_csv(record.manifest))
        write_text(folder / layout.LABELS, as_json(list(record.manifest.classes)))
        write_text(folder / layout.PREPROCESS, as_json(record.model.opened.preprocess.settings()))
        write_text(folder / layout.ENVIRONMENT, as_json(environment(device)))
        write_bytes(folder / layout.WEIGHTS, _weights(record))
        summary = dict(record.summary)
        if not summary["seconds"]["write"]:  # a run that is saved again keeps the seconds of its first time
            spent = time.perf_counter() - began
            summary["seconds"] = {**summary["seconds"], "write": spent, "total": summary["seconds"]["total"] + spent}
        write_text(folder / layout.SUMMARY, as_json(summary))
    except OSError as fault:
        raise RunError(f"cannot be written ({fault.strerror or fault})", where=folder, advice="give another folder with --out") from fault
    return summary


def as_json(value: object) -> str:
    """Indented JSON with a final newline; no NaN."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def tensor_digests(model: TransferModel) -> dict[str, str]:
    """Digest of every tensor of the backbone, by name."""
    return {name: tensors_digest({name: t}) for name, t in model.backbone.state_dict().items()}


def _weights(record: RunRecord) -> bytes:
    """The head and, of a published backbone, only what differs; of any other, all of it.

    The metadata is one entry: safetensors writes several in no fixed order, and equal runs must give equal files.
    """
    backbone = record.model.backbone.state_dict()
    now = tensor_digests(record.model)
    changed = {n: t for n, t in backbone.items() if not record.model.opened.published or now[n] != record.original.get(n)}
    tensors = {f"backbone.{n}": t for n, t in changed.items()} | {f"head.{n}": t for n, t in record.model.head.state_dict().items()}
    about = {
        "format": 1,
        "backbone": record.model.opened.name,
        "backbone_published_sha256": record.model.opened.digest,
        "backbone_sha256": tensors_digest(backbone),
        "head": str(record.model.head_spec),
        "classes": list(record.manifest.classes),
    }
    return save(
        {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()},
        metadata={"frostline": json.dumps(about)},
    )


def _split_csv(manifest: Manifest) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["path", "label", "split", "group"])
    for r in manifest.records:
        writer.writerow([str(r.path), "" if r.label is None else manifest.classes[r.label], r.split or "", r.group or ""])
    return text.getvalue()
