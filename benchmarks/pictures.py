"""Folders of generated JPEG files, no two alike. Run as a program, so that the process that measures stays small.

python benchmarks/pictures.py noise FOLDER --images 1000 --classes 2 --size 64
python benchmarks/pictures.py digits FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

VAL_EVERY = 5


def save(pixels: np.ndarray, size: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(path, quality=85)


def noise(folder: Path, images: int, size: int, seed: int) -> None:
    """``images`` blurred random patterns in ``folder``, the same ones for the same seed."""
    for i in range(images):
        pixels = np.random.default_rng([seed, i]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        save(pixels, size, folder / f"{i:06d}.jpg")


def digits(folder: Path, per_class: int, size: int) -> None:
    """scikit-learn's handwritten digits: ``train`` and ``val``, 4 to 1, ten classes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    seen = [0] * 10
    for pixels, label in zip(data.images, data.target, strict=True):
        if seen[label] < per_class:
            split = "val" if seen[label] % VAL_EVERY == 0 else "train"
            grey = (pixels * 255 / 16).astype(np.uint8)
            save(np.repeat(grey[..., None], 3, axis=2), size, folder / split / str(label) / f"{seen[label]:03d}.jpg")
            seen[label] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("noise", "digits"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.what == "noise":
        noise(given.folder, given.images, given.size, given.seed)
    else:
        digits(given.folder, given.images // 10, given.size)


if __name__ == "__main__":
    main()
