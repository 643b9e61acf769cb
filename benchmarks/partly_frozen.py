"""A partly frozen network, cached against uncached, and against what its suffix alone costs.

    python benchmarks/partly_frozen.py DATA [--unfreeze last:2] [--epochs 20] [--repeats 3]

Three ways to train the same layers for the same epochs on the same batches, in turn, in one process; training seconds, without the
features (they are computed once and timed apart):

- *cached*: ``frostline.fit``, features at the cut in memory; validation after every epoch, proof and checkpoint hooks included;
- *suffix alone*: a bare loop of forward, loss, backward and optimizer over the same suffix and rows, with the same validation;
- *uncached*: ``frostline.fit`` with ``Compute(recompute=True, engine="plain")``, the loop that everybody writes, for
  ``--uncached-epochs`` epochs, scaled to all of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import nn

import frostline as fl
from frostline._rng import permutation
from frostline.features.images import ImageSet
from frostline.fitting import EpochDone, FeaturesReady, PhaseDone
from frostline.fitting.hyper import default_hyper
from frostline.fitting.optim import make_optimizer, set_rates
from frostline.fitting.prepare import Labelled, prefix_of, prepare
from frostline.fitting.schedule import warmup_cosine
from frostline.fitting.sources import in_order, merge_last
from frostline.freeze.cut import split_resolved


def ran(work):
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def fitted(unfreeze: str, train: ImageSet, val: ImageSet, epochs: int, compute: fl.Compute) -> tuple[float, float, list[float]]:
    """Seconds of training, seconds of features, and validation losses."""
    model = fl.TransferModel("tf_efficientnet_lite0", num_classes=2)
    seconds, features, losses = 0.0, 0.0, []
    phases = [fl.Phase("timed", fl.FreezePlan(unfreeze), epochs=epochs)]
    for event in fl.fit(model, fl.FreezePlan(unfreeze), train, val, strategy=phases, compute=compute):
        if isinstance(event, FeaturesReady):
            features = event.extracted.seconds
        elif isinstance(event, EpochDone):
            losses.append(event.val_loss)
        elif isinstance(event, PhaseDone):
            seconds = event.seconds * epochs / event.epochs  # it may have stopped early
    return seconds, features, losses


def suffix_alone(unfreeze: str, train: ImageSet, val: ImageSet, epochs: int, cache: Path) -> float:
    model = fl.TransferModel("tf_efficientnet_lite0", num_classes=2)
    resolved = fl.FreezePlan(unfreeze).apply(model)
    parts = split_resolved(model, resolved, model.example(2))
    compute = fl.Compute(cache, engine="plain")
    images = Labelled(train, val)
    prefix = prefix_of(parts, model.opened, images, compute, torch.device("cpu"))
    sources, _ = ran(prepare(parts, prefix, images, fl.Views(), compute, 0))
    hyper = default_hyper(images=len(train), head="linear", backbone_trained=True)
    optimizer = make_optimizer(model, resolved, hyper)
    rows, layout, labels = sources.train.views[0], parts.layout, sources.train.labels
    judged = sources.val.views[0]
    began = time.perf_counter()
    for epoch in range(epochs):
        model.train()
        parts.suffix.train()
        batches = merge_last(list(permutation(len(labels), 0, epoch).split(hyper.batch_size)))
        for step, batch in enumerate(batches):
            set_rates(optimizer, warmup_cosine(epoch * len(batches) + step, epochs * len(batches), hyper.warmup_fraction))
            loss = nn.functional.cross_entropy(parts.suffix(layout.unpack(rows[batch])[0]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        parts.suffix.eval()
        with torch.inference_mode():
            for batch in in_order(len(judged), 32):
                parts.suffix(layout.unpack(judged[batch])[0])
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--unfreeze", default="last:2")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--uncached-epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/frostline-bench").expanduser())
    given = parser.parse_args()
    train, val = (ImageSet.of(fl_manifest(given.data, split)) for split in ("train", "val"))
    cached, alone, uncached = [], [], []
    for _ in range(given.repeats):
        seconds, features, losses = fitted(given.unfreeze, train, val, given.epochs, fl.Compute(given.cache, engine="plain"))
        cached.append(seconds)
        alone.append(suffix_alone(given.unfreeze, train, val, given.epochs, given.cache))
        slow, _, theirs = fitted(given.unfreeze, train, val, given.uncached_epochs, fl.Compute(recompute=True, engine="plain"))
        uncached.append(slow * given.epochs / given.uncached_epochs)
        print(
            f"cached {cached[-1]:.1f} s (features {features:.1f} s), suffix alone {alone[-1]:.1f} s, uncached {uncached[-1]:.1f} s",
            flush=True,
        )
    ratio = statistics.median(a / b for a, b in zip(cached, alone, strict=True))
    print(f"cached / suffix alone: {ratio:.2f}; cached / uncached: {statistics.median(cached) / statistics.median(uncached):.2f}")
    same = fitted(given.unfreeze, train, val, given.uncached_epochs, fl.Compute(given.cache, engine="plain"))[2] == theirs
    print(f"validation losses of cached and uncached training: {'equal to the last bit' if same else 'NOT equal'} ({losses[0]:.6f} ...)")


def fl_manifest(data: Path, split: str):
    from frostline.data import read_data

    return read_data(data).only(split)


if __name__ == "__main__":
    main()
