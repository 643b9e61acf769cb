"""timm's own training script, where it is at hand.

It has no option that freezes by name, but ``--layer-decay 0.1 --layer-decay-no-opt-scale 0.5`` leaves nothing trained but the classifier
(checked on timm 1.0.31: of tf_efficientnet_lite0 only ``classifier.weight`` and ``classifier.bias`` keep ``requires_grad``). The frozen
body stays in training mode, so that its batch norm uses the batch's statistics and moves its own.

The script, ``train.py``, is in timm's repository and not in the package that pip installs, and this benchmark downloads nothing but
packages. Name yours, of the same release, in the environment variable ``TIMM_TRAIN``; otherwise this prints that it cannot, and why,
and the table says so instead of a number. It was tried with a stand-in for the script only.
"""

from __future__ import annotations

import csv
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from _job import BACKBONE, MEAN, SIZE, STD, Job, cannot, pretrained, read_arguments, report

NAME = "timm train.py"


def command(script: Path, job: Job, weights: Path, classes: int) -> list[str]:
    """The script's command line: no augmentation, no smoothing, everything but the classifier frozen."""
    flags: dict[str, object] = {
        "--data-dir": job.data,
        "--train-split": "train",
        "--val-split": "val",
        "--model": BACKBONE,
        "--initial-checkpoint": weights,
        "--num-classes": classes,
        "--input-size": [3, SIZE, SIZE],
        "--mean": [*MEAN],
        "--std": [*STD],
        "--interpolation": "bicubic",
        "--batch-size": job.batch_size,
        "--workers": job.workers,
        "--epochs": job.epochs,
        "--warmup-epochs": 0,
        "--opt": "adamw",
        "--lr": 3e-3,
        "--smoothing": 0,
        "--layer-decay": 0.1,
        "--layer-decay-no-opt-scale": 0.5,
        "--device": job.device,
        "--output": job.scratch,
        "--experiment": "run",
        "--checkpoint-hist": 1,
    }
    words: list[object] = [sys.executable, script, "--no-aug"]
    for flag, value in flags.items():
        words += [flag, *value] if isinstance(value, list) else [flag, value]
    return [str(word) for word in words]


def main(job: Job) -> None:
    named = os.environ.get("TIMM_TRAIN")
    if not named:
        found = importlib.metadata.version("timm")
        cannot(NAME, f"timm {found} as pip installs it has no train.py; TIMM_TRAIN=/path/to/train.py names one")
        return
    import torch

    classes = len([p for p in (job.data / "train").iterdir() if p.is_dir()])
    weights = job.scratch / "published.pt"
    torch.save(pretrained(classes).state_dict(), weights)
    subprocess.run(command(Path(named), job, weights, classes), check=True, stdout=sys.stderr)
    with next((job.scratch / "run").rglob("summary.csv")).open() as stream:
        rows = list(csv.DictReader(stream))
    n = sum(1 for p in (job.data / "val").rglob("*") if p.is_file())
    best = max(float(row["eval_top1"]) for row in rows)
    report(job, NAME, right=round(best / 100 * n), n=n, trained=None)


if __name__ == "__main__":
    main(read_arguments(__doc__))
