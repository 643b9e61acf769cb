"""The way of a report, in order: the run, its images, its answers, what is doubtful, the page. The page to read first in this room."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from frostline._atomic import write_bytes
from frostline._device import resolve_device
from frostline.data._names import shown
from frostline.data.manifest import Manifest
from frostline.errors import RunError
from frostline.freeze.plan import FreezePlan
from frostline.freeze.table import LayerRow, rows
from frostline.report.album import Copy, album_of
from frostline.report.compare import Contender, Difference, compare, facts_of, name_of
from frostline.report.contents import Report
from frostline.report.depths import depths_of
from frostline.report.doubtful import doubts_of
from frostline.report.judged import judge, prefix_of_run, still_there
from frostline.report.listed import listed
from frostline.report.mistakes import answers
from frostline.report.page import page
from frostline.report.words import SPLITS
from frostline.run import Run, layout, read_run

REPORT = "report.html"


@dataclass(frozen=True, eq=False)
class Written:
    """What was written.

    Attributes:
        path: the file.
        bytes: its size.
        split: what it reports on: ``test``, ``val``, or None.
        images: that were judged again for it.
        missing: images that are not there any more.
        decoded: images that had to be decoded and run through the backbone, besides the thumbnails.
        differences: of the other runs from the first.
    """

    path: Path
    bytes: int
    split: str | None
    images: int
    missing: int
    decoded: int
    differences: tuple[Difference, ...]


def write_report(
    folder: Path,
    others: Sequence[Path] = (),
    *,
    out: Path | None = None,
    cache: Path | None = None,
    device: str = "auto",
    offline: bool = False,
) -> Written:
    """Write one self-contained HTML page about a run.

    Args:
        folder: the run directory.
        others: runs to lay beside it.
        out: the file; ``report.html`` in the run directory where None.
        cache: folder of the feature cache; None keeps nothing.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``mps``.
        offline: fetch nothing.

    Raises:
        RunError: a run is incomplete or damaged, runs are not comparable, or the page cannot be written.
        FrostlineError: a run cannot be opened.
    """
    first, report, decoded = _examined(folder, others, cache, device, offline=offline)
    target = folder / REPORT if out is None else out
    data = page(report).encode("utf-8", errors="backslashreplace")
    try:
        write_bytes(target, data)
    except OSError as fault:
        raise RunError(f"cannot be written ({fault.strerror or fault})", where=target, advice="give another file with --out") from fault
    images = 0 if first is None else len(first.judged.images)
    return Written(target, len(data), report.split, images, report.missing, decoded, report.differences)


def examine(folder: Path, cache: Path | None, device: str, *, offline: bool) -> Report:
    """What is known of a run; its test or validation images are answered again.

    Raises:
        RunError: it is incomplete or damaged.
    """
    return _examined(folder, (), cache, device, offline=offline)[1]


def _examined(
    folder: Path, others: Sequence[Path], cache: Path | None, device: str, *, offline: bool
) -> tuple[Contender | None, Report, int]:
    run = read_run(folder, offline=offline)
    on, kept = resolve_device(device), cache if run.recipe.cache else None
    manifest = listed(run)
    there = still_there(manifest)
    prefix = prefix_of_run(run, there, kept, on)
    judged = judge(run, there, prefix, kept)
    first = None if judged is None else Contender(run, judged)
    contenders = [first, *(_contender(other, cache, device, offline=offline) for other in others)]
    if others and first is None:
        raise RunError("none of its test or validation images can be read any more", where=folder, advice="leave --compare out")
    side_by_side = [c for c in contenders if c is not None] if others else []
    copies = _copies(run.summary, manifest)
    doubts = doubts_of(run, there, prefix, kept, [(a, b) for (a, _), (b, _) in copies or ()])
    split = next((s for s in ("test", "val") if run.summary.get(s)), None)
    report = Report(
        name=name_of(run),
        folder=shown(folder),
        summary=run.summary,
        environment=_environment(folder),
        recipe=run.recipe,
        classes=run.classes,
        counts=_counts(manifest),
        split=split,
        majority=_majority(manifest, split, run.summary.get("baselines")),
        answers=() if judged is None or judged.split != split else tuple(answers(judged.probabilities, judged.labels)),
        missing=0 if judged is None else len(judged.missing),
        layers=_layers(run),
        epochs=epochs_of(folder),
        depths=depths_of(run, there, kept, on),
        album=album_of(judged, doubts, copies, run.classes, Path(run.recipe.data)),
        contenders=tuple(facts_of(c) for c in side_by_side),
        differences=tuple(compare(side_by_side)) if side_by_side else (),
    )
    return first, report, 0 if judged is None else judged.decoded


def _contender(folder: Path, cache: Path | None, device: str, *, offline: bool) -> Contender:
    run = read_run(folder, offline=offline)
    kept = cache if run.recipe.cache else None
    there = still_there(listed(run))
    judged = judge(run, there, prefix_of_run(run, there, kept, resolve_device(device)), kept)
    if judged is None:
        raise RunError("none of its test or validation images can be read any more", where=folder, advice="leave it out")
    return Contender(run, judged)


def _copies(summary: Mapping[str, Any], manifest: Manifest) -> list[Copy] | None:
    """Pairs of images in two splits that show one picture, as training found them; None where it did not look."""
    exact, near = summary.get("duplicates_across_splits"), summary.get("near_duplicates_across_splits")
    if exact is None and near is None:
        return None
    split = {str(r.path): SPLITS.get(r.split or "", "another split") for r in manifest.records}
    pairs = [(str(a), str(b)) for a, b in [*(exact or ()), *(near or ())]]
    return [((a, split.get(a, "another split")), (b, split.get(b, "another split"))) for a, b in pairs]


def _counts(manifest: Manifest) -> dict[str, list[int]]:
    splits = [s for s in ("train", "val", "test") if any(r.split == s for r in manifest.records)]
    return {split: list(manifest.only(split).counts().values()) for split in splits}


def _majority(manifest: Manifest, split: str | None, baselines: Mapping[str, Any] | None) -> tuple[str, float] | None:
    """The class that always giving gets most of a split right, of equals the first, and its share.

    Where the run knows the share (it leaves out what is no image), that is taken, with the class whose share is nearest.
    """
    judged = Counter(r.label for r in manifest.records if r.split == split and r.label is not None)
    if not judged:
        return None
    known = (baselines or {}).get("majority")
    aim = judged.total() if known is None else known * judged.total()
    most = min(sorted(judged), key=lambda label: abs(judged[label] - aim))
    return manifest.classes[most], judged[most] / judged.total() if known is None else float(known)


def _layers(run: Run) -> tuple[LayerRow, ...]:
    """The network with what the phases that were kept have trained."""
    kept = [p for p in run.summary.get("phases") or () if p.get("kept", True)]
    names = list(dict.fromkeys(name for p in kept for name in p.get("unfrozen_blocks") or ()))
    simple = run.recipe.strategy in ("plain", "lp-ft") and len(kept) == len(run.summary.get("phases") or ())
    selector = run.recipe.unfreeze if simple else ",".join(names) or "none"
    return rows(run.model, FreezePlan(selector, run.recipe.batch_norm).resolve(run.model))


def epochs_of(folder: Path) -> tuple[dict[str, Any], ...]:
    """One mapping an epoch of a run; none where it has no metrics.

    Raises:
        RunError: they are damaged.
    """
    try:
        text = (folder / layout.METRICS).read_text(encoding="utf-8")
        return tuple(cast("dict[str, Any]", json.loads(row)) for row in text.splitlines() if row.strip())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as fault:
        raise RunError(f"is damaged ({fault})", where=folder / layout.METRICS) from fault


def _environment(folder: Path) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads((folder / layout.ENVIRONMENT).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as fault:
        raise RunError(f"is damaged ({fault})", where=folder / layout.ENVIRONMENT) from fault
