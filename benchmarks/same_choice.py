"""Who chooses on which images: DINOv2's evaluation against frostline, on the same features and many splits.

    python benchmarks/same_choice.py DATA --splits 20

DINOv2's linear evaluation names the best of 13 heads on the very images that it reports, which flatters it; ``frostline train --sweep``
chooses by cross-validation on the training images. Here all images of ``DATA`` are split anew, by class, in the proportion of its
``train`` and ``val`` folders, and these are judged on the second part:

- *frostline, default*: one head; the second part tells which epoch is kept, as in the contest of ``run.py``;
- *frostline, --sweep 13*: chosen by cross-validation on the first part, trained on all of it, its last epoch kept;
- *DINOv2, best named*: the best of its 13 heads on the second part, as it does;
- *DINOv2, cross-validated*: the one of the same 13 heads that is best in 5-fold cross-validation on the first part.

The second and the fourth never see the second part before they are judged on it.

Differences are from frostline's default, with the standard error of their mean over splits, which share images: it is too small by about
the square root of 1 + splits x judged / trained (Nadeau and Bengio 2003), and is corrected by that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from torch import nn

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from dinov2_linear import LEARNING_RATES, heads_for

import frostline as fl
from frostline.data import read_data
from frostline.extractor import FeatureExtractor

EPOCHS, BATCH, FOLDS = 20, 32, 5


def dinov2(x: torch.Tensor, y: torch.Tensor, judged: torch.Tensor, seed: int) -> torch.Tensor:
    """What each of DINOv2's heads, trained on features that do not change, takes the judged ones for: ``(13, N)``."""
    torch.manual_seed(seed)
    heads = heads_for(x.shape[1], int(y.max()) + 1)
    groups = [{"params": h.parameters(), "lr": lr * BATCH / 256} for h, lr in zip(heads, LEARNING_RATES, strict=True)]
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(x) // BATCH), eta_min=0)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = torch.stack([nn.functional.cross_entropy(head(x[rows]), y[rows]) for head in heads]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    with torch.no_grad():
        return torch.stack([head(judged).argmax(1) for head in heads])


def dinov2_both(x: torch.Tensor, y: torch.Tensor, learn: np.ndarray, judge: np.ndarray, seed: int) -> tuple[float, float]:
    """Accuracy of the head that is best where it is judged, and of the one that cross-validation takes."""
    right = (dinov2(x[learn], y[learn], x[judge], seed) == y[judge]).double().mean(1)
    folds = torch.zeros(len(LEARNING_RATES), dtype=torch.float64)
    for part, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x[learn], y[learn]):
        inner, outer = learn[part], learn[held]
        folds += (dinov2(x[inner], y[inner], x[outer], seed) == y[outer]).double().sum(1)
    return float(right.max()), float(right[int(folds.argmax())])


def frostline(images: fl.ImageSet, x: torch.Tensor, learn: np.ndarray, judge: np.ndarray, cache: Path, seed: int, sweep: int) -> float:
    """Accuracy of ``frostline.fit`` on images, their features from the cache; a sweep is not shown those that it is judged on."""

    def some(rows: Sequence[int] | np.ndarray) -> fl.ImageSet:
        return fl.ImageSet(*(tuple(column[i] for i in rows) for column in (images.paths, images.digests, images.labels)))

    model = fl.TransferModel(fl.open_backbone("tf_efficientnet_lite0", offline=True), "linear", max(images.labels) + 1)
    compute = fl.Compute(cache)
    val = None if sweep else some(judge)
    for _ in fl.fit(model, fl.FreezePlan(), some(learn), val, epochs=EPOCHS, batch_size=BATCH, seed=seed, sweep=sweep, compute=compute):
        pass
    with torch.no_grad():
        found = model.head.eval()(x[judge]).argmax(1)
    return float((found == torch.tensor(images.labels)[judge]).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    given = parser.parse_args()
    manifest = read_data(given.data)
    images = fl.ImageSet.of(manifest)
    counts = [sum(r.split == s for r in manifest.records) for s in ("train", "val")]
    with tempfile.TemporaryDirectory(prefix="frostline-choice-") as scratch:
        x = torch.from_numpy(FeatureExtractor(cache_dir=scratch).transform([str(p) for p in images.paths]))
        y = torch.tensor(images.labels)
        rows = []
        splits = StratifiedShuffleSplit(given.splits, test_size=counts[1] / sum(counts), random_state=0)
        for split, (learn, judge) in enumerate(splits.split(x, y)):
            ours = [frostline(images, x, learn, judge, Path(scratch), split, sweep) for sweep in (0, 13)]
            rows.append([*ours, *dinov2_both(x, y, learn, judge, split)])
            print(f"split {split}: " + "  ".join(f"{v:.3f}" for v in rows[-1]), flush=True)
    found = 100 * np.array(rows)
    widen = (1 + given.splits * len(judge) / len(learn)) ** 0.5
    print(f"\n| {len(learn)} to train on, {len(judge)} to judge, {given.splits} splits | accuracy | difference |\n|---|---|---|")
    for i, name in enumerate(("frostline, default", "frostline, --sweep 13", "DINOv2, best named", "DINOv2, cross-validated")):
        apart = found[:, i] - found[:, 0]
        error = widen * apart.std(ddof=1) / given.splits**0.5
        print(f"| {name} | {found[:, i].mean():.2f} | {apart.mean():+.2f} ± {error:.2f} |")


if __name__ == "__main__":
    main()
