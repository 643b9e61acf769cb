"""Train through the real command line on noise images, and compare the losses of every epoch with those on record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess

from conftest import make_images

RECORD = Path(__file__).parent / "trajectories.json"
RUNS = {
    "linear": ("--head", "linear"),
    "mlp": ("--head", "mlp:16"),
    "unfrozen": ("--head", "linear", "--unfreeze", "last:1", "--no-cache"),
}
TOLERANCE = {"linear": 1e-5, "mlp": 1e-5, "unfrozen": 1e-4}
"""Relative. Other processors and thread counts add float32 numbers in another order, and AdamW's first steps, which look at little
more than the sign of a gradient, enlarge that. Measured: one thread instead of two 0 (linear, mlp) and 5e-6 (unfrozen), kernels without
AVX 9e-8 and 1e-6. Another order of the images, which is the least change of what is learnt, is 2e-4 and more (linear, mlp) or 1e-3."""

Losses = list[dict[str, float]]


def losses_of(frostline: Callable[..., CompletedProcess[str]], folder: Path, run: str, seed: int = 0) -> Losses:
    """Train loss and validation loss of each epoch, as ``metrics.jsonl`` has them."""
    # Split by folder: frostline's own split goes by the files' bytes, and another zlib writes other bytes for the same pixels.
    make_images(folder / "data" / "train", {"green": 24, "red": 24})
    make_images(folder / "data" / "val", {"green": 6, "red": 6}, seed=1)
    settings = ("--backbone", "tiny_net:build", "--device", "cpu", "--epochs", "3", "--seed", seed, "--quiet")
    done = frostline("train", folder / "data", *settings, *RUNS[run], "--out", folder / run)
    assert done.returncode == 0, done.stderr
    epochs = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    return [{name: epoch[name] for name in ("train_loss", "val_loss")} for epoch in epochs]


def differences(found: Losses, wanted: Losses, tolerance: float) -> list[str]:
    """Where two trajectories part, in words; none where they agree within the tolerance."""
    if len(found) != len(wanted):
        return [f"{len(found)} epochs instead of {len(wanted)}"]
    return [
        f"epoch {number} {name}: {now[name]!r} instead of {then[name]!r}"
        for number, (now, then) in enumerate(zip(found, wanted, strict=True), start=1)
        for name in ("train_loss", "val_loss")
        if not math.isclose(now[name], then[name], rel_tol=tolerance)
    ]


def on_record() -> Mapping[str, Losses]:
    """The committed trajectories, by run."""
    return json.loads(RECORD.read_text())
