"""Features a second on many images, against what a CPU allows: decoding and forward one after the other, for they share its cores.

    python benchmarks/overlap.py ../shared/data/hymenoptera --images 2000 --repeats 3

So many JPEG files, no two alike, are made of the pictures in the folder. In every repeat decoding alone, forward alone (on 512 decoded
pictures) and both together, as training does it, are timed one after the other in this process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from frostline import Compute, FreezePlan, ImageSet, TransferModel, open_backbone
from frostline.features import FeatureStore, ensure_features
from frostline.features.images import digest_files
from frostline.features.pixels import full_batches, pixel_batches
from frostline.fitting.prepare import Labelled, prefix_of
from frostline.freeze.cut import split_resolved

HELD = 512


def made(pictures: Path, count: int, folder: Path) -> ImageSet:
    sources = sorted(pictures.rglob("*.jpg"))
    paths = [folder / f"{number:06}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        with Image.open(sources[number % len(sources)]) as opened:
            pixels = np.array(opened.convert("RGB"))
        pixels[:8, :8] = [number % 256, number // 256 % 256, number // 65536]
        Image.fromarray(pixels).save(path, quality=90)
    return ImageSet(tuple(paths), tuple(digest_files(paths)), tuple(number % 2 for number in range(count)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        images = made(given.pictures, given.images, Path(scratch))
        model = TransferModel(open_backbone(given.backbone), "linear", 2)
        resolved = FreezePlan("none").apply(model)
        parts = split_resolved(model, resolved, model.example(2))
        prefix = prefix_of(parts, model.opened, Labelled(images, None), Compute(Path(scratch) / "engine"), torch.device("cpu"))
        count, shown = len(images), model.opened.preprocess
        held = [p for batch in pixel_batches(images.paths[:HELD], shown, full_batches(min(HELD, count))) for p in batch]
        pictures = torch.stack([p for p in held if isinstance(p, torch.Tensor)])
        prefix(pictures[:16])
        print(f"{given.backbone}, {prefix.engine.name}, {count} images")
        shares: list[float] = []
        for turn in range(given.repeats):
            began = time.perf_counter()
            for _ in pixel_batches(images.paths, shown, full_batches(count)):
                pass
            decoding = (time.perf_counter() - began) / count
            began = time.perf_counter()
            prefix(pictures)
            forward = (time.perf_counter() - began) / len(pictures)
            store = FeatureStore.open(Path(scratch) / f"cache-{turn}", prefix.key())
            began = time.perf_counter()
            for _ in ensure_features(store, prefix.key(), prefix, images):
                pass
            both = (time.perf_counter() - began) / count
            shares.append((decoding + forward) / both)
            print(f"decoding {1 / decoding:.0f}/s, forward {1 / forward:.0f}/s, together {1 / both:.0f}/s: {shares[-1]:.2f} of that")
        print(f"median {statistics.median(shares):.2f} (aim: 0.9 or more)")


if __name__ == "__main__":
    main()
