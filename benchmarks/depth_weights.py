"""What a head on all depths should weigh each of them by, and which linear head to put there: the measurement behind two choices.

    python benchmarks/depth_weights.py --hymenoptera DIR --emoji DIR --seeds 0,1,2,3

On the sets, sizes and splits of ``advice_study.py``: accuracy on the test images of heads on features alone, nothing is
unfrozen. *ridge*, *logistic*: solved, their strength by cross-validation on the training images; *stepped*: the linear head by
the documented rule, last epoch. *end*: the last layer; *equal*: all depths, one weight for all features; *by loss*: each depth by
``exp(-10 L) / length``, ``L`` the log loss of a ridge on it alone; *weighed*: by :func:`frostline.fitting.weigh.weigh_depths`.
*auto*: the one that :func:`frostline.fitting.depth.tell_apart` takes, which is the linear probe of ``--strategy auto``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import advice_study
import head_defaults
import numpy as np
import torch

from frostline.features.depths import ALL, END, at_depths, joined
from frostline.features.pixels import full_batches, pixel_batches
from frostline.fitting.candidates import best_of
from frostline.fitting.depth import stepped_held, tell_apart
from frostline.fitting.folds import Fold, stratified_folds
from frostline.fitting.held import ridge_held
from frostline.fitting.solved import cross_validate_solved, held_out_answers
from frostline.fitting.weigh import weigh_depths
from frostline.freeze.apply import evaluating
from frostline.heads import HeadSpec
from frostline.heads.contract import factors

KINDS = ("ridge", "logistic", "stepped")
PLACES = ("end", "equal", "by loss", "weighed")


def features(pool: advice_study.Pool) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Of all depths, one after the other, of every image of a set."""
    opened = advice_study.backbone()
    depths = at_depths(opened)
    found: list[torch.Tensor] = []
    with evaluating(opened.body), torch.no_grad():
        for batch in pixel_batches(pool.paths, opened.preprocess, full_batches(len(pool.paths))):
            images = opened.preprocess.normalise(torch.stack(list(batch)))
            found.append(torch.cat(depths.body(images.contiguous(memory_format=torch.channels_last)), 1))
    return torch.cat(found), depths.sizes


def places(
    x: torch.Tensor, sizes: tuple[int, ...], learn: int, labels: torch.Tensor, classes: int, units: list[int]
) -> Iterator[torch.Tensor]:
    """The features of each of :data:`PLACES`, of the images to learn from and, behind them, of those to judge by."""
    folds = stratified_folds(labels, 5, 0, units)
    every = joined(x.split(sizes, 1))
    losses = torch.tensor([ridge_held(part[:learn], labels, classes, folds).log_loss for part in every.split(sizes, 1)])
    by_loss = torch.exp(-10 * (losses - losses.min())).double() / torch.tensor(sizes)
    yield x[:, -sizes[-1] :]
    for weights in (None, by_loss, weigh_depths(every[:learn], sizes, labels, classes, 0, units)):
        yield every * factors(sizes, weights).float()


def chosen(at: dict[str, torch.Tensor], labels: torch.Tensor, classes: int, units: list[int]) -> str:
    """The linear probe of ``auto``."""
    folds = stratified_folds(labels, 5, 0, units)
    features = {END: at["end"][: len(labels)], ALL: at["weighed"][: len(labels)]}
    ridge = {name: ridge_held(own, labels, classes, folds) for name, own in features.items()}
    head = tell_apart(features, ridge, labels, folds, classes, 0, way="solved").chosen
    return f"{head.kind} {'weighed' if head.at == ALL else 'end'}"


def judged(kind: str, x: torch.Tensor, y: torch.Tensor, learn: int, classes: int, units: list[int], place: str) -> float:
    """Accuracy on the images behind the first ``learn``."""
    fold = Fold(torch.arange(learn), torch.arange(learn, len(x)))
    if kind == "stepped":
        held = stepped_held(x, y, classes, [fold], 0, all_depths=place != "end")
        return float(held.right[learn:].double().mean())
    spec = HeadSpec(kind)
    tried = cross_validate_solved(spec, x[:learn], y[:learn], classes, stratified_folds(y[:learn], 5, 0, units))
    strength = torch.tensor([best_of(tried).candidate.strength], dtype=torch.float64)
    answers = held_out_answers(spec, x, y, classes, [fold], strength)[0, learn:]
    return float((answers.argmax(1) == y[learn:]).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hymenoptera", type=Path)
    parser.add_argument("--emoji", type=Path)
    parser.add_argument("--images", type=Path, default=Path(tempfile.gettempdir()) / "frostline-study-images")
    parser.add_argument("--seeds", default="0,1", help="with commas")
    given = parser.parse_args()
    found, missing = advice_study.pools(given.images, given.hymenoptera, given.emoji)
    print(f"left out: {', '.join(missing)}" if missing else "all sets")
    heads = [f"{kind} {place}" for kind in KINDS for place in PLACES]
    print("| case | " + " | ".join(heads) + " | auto |\n|" + "---|" * (len(heads) + 2))
    every: list[np.ndarray] = []
    for name, pool in found.items():
        x, sizes = features(pool)
        for per_class in advice_study.SIZES[name]:
            rows: list[list[float]] = []
            for seed in map(int, given.seeds.split(",")):
                learn, judge = head_defaults.divide(pool, per_class, seed)
                inner, _ = head_defaults.hold_out(pool.y[learn], pool.group[learn], seed)
                judge = np.random.default_rng(seed).permutation(judge)[:600]
                order, count = np.concatenate([learn[inner], judge]), len(inner)
                y, units = torch.from_numpy(pool.y[order]), np.unique(pool.group[learn[inner]], return_inverse=True)[1].tolist()
                at = dict(zip(PLACES, places(x[order], sizes, count, y[:count], pool.classes, units), strict=True))
                told = {f"{k} {p}": judged(k, at[p], y, count, pool.classes, units, p) for k in KINDS for p in PLACES}
                rows.append([*(told[h] for h in heads), told[chosen(at, y[:count], pool.classes, units)]])
            every.append(np.mean(rows, axis=0))
            print(f"| {name}, {per_class} a class | " + " | ".join(f"{v:.3f}" for v in every[-1]) + " |", flush=True)
    print("| mean | " + " | ".join(f"{v:.4f}" for v in np.mean(every, axis=0)) + " |")


if __name__ == "__main__":
    main()
