"""How well ``frostline data`` finds what is planted in real images: altered copies, wrong labels, pictures that do not belong.

``python benchmarks/data_quality.py ../shared/data/hymenoptera --cache /tmp/quality`` prints tables for docs/data-quality.md.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from frostline.data.decode import decode
from frostline.data.folder import read_folder
from frostline.gather import gather
from frostline.quality import near
from frostline.quality.examination import looked_at
from frostline.quality.findings import Picture
from frostline.quality.held_out import HeldOut, held_out
from frostline.quality.likeness import likenesses, thumbnail
from frostline.quality.neighbours import directions, nearest, unit_length
from frostline.quality.outliers import outlyingness
from frostline.quality.suspects import find_suspects
from frostline.recipe import Recipe

Change = Callable[[Image.Image], tuple[Image.Image, int]]


def cropped(share: float, left: float, top: float) -> Change:
    def change(image: Image.Image) -> tuple[Image.Image, int]:
        w, h = image.size
        x, y = round(left * (1 - share) * w), round(top * (1 - share) * h)
        return image.crop((x, y, x + round(share * w), y + round(share * h))), 92

    return change


def resized(share: float, quality: int = 92) -> Change:
    return lambda image: (image.resize((max(1, round(image.width * share)), max(1, round(image.height * share)))), quality)


CHANGES: dict[str, Change] = {
    "JPEG quality 50": lambda image: (image, 50),
    "JPEG quality 20": lambda image: (image, 20),
    "resized by 0.5": resized(0.5),
    "resized by 0.25, quality 60": resized(0.25, 60),
    "cropped to 0.95, centre": cropped(0.95, 0.5, 0.5),
    "cropped to 0.9, centre": cropped(0.9, 0.5, 0.5),
    "cropped to 0.9, a corner": cropped(0.9, 0.0, 0.0),
    "cropped to 0.8, off centre": cropped(0.8, 0.2, 0.8),
    "mirrored": lambda image: (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 92),
    "mirrored, 0.5, quality 50": lambda image: (resized(0.5)(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))[0], 50),
    "gray": lambda image: (image.convert("L").convert("RGB"), 92),
    "brighter by a third": lambda image: (image.point(lambda v: min(255, round(v * 1.33))), 92),
}


def features_of(rows: Sequence[tuple[Path, str, str]], cache: Path) -> tuple[tuple[Picture, ...], torch.Tensor]:
    """Pictures and features of path, label and split."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "all.csv"
        with table.open("w", newline="") as stream:
            csv.writer(stream).writerows([("path", "label", "split"), *rows])
        recipe = Recipe(data=str(table))
        pictures, features, _ = looked_at(recipe, gather(recipe, cache, offline=True), cache, lambda _: None)
    return pictures, features


def listed(data: Path) -> list[tuple[Path, str, str]]:
    manifest = read_folder(data)
    return [(r.path.resolve(), manifest.classes[r.label or 0], r.split or "train") for r in manifest.records]


def copies(data: Path, cache: Path, folder: Path, count: int) -> None:
    """Altered copies of ``count`` images of train, planted in val, one kind at a time."""
    rows = listed(data)
    whole = [row for row in rows if row[0].suffix == ".jpg"]
    sources = [whole[i] for i in np.random.default_rng(0).permutation(len(whole))[:count]]
    print(f"\nnear copies: {count} altered copies among {len(rows)} images; cosine and likeness of copy and source: lowest, 5 %, median")
    print("| change | cosine | likeness | a candidate | found | other pairs found |\n|---|---|---|---|---|---|")
    for kind, change in CHANGES.items():
        planted: list[tuple[Path, str, str]] = []
        for number, (path, label, _) in enumerate(sources):
            image, quality = change(decode(path.read_bytes()).image)
            planted.append((folder / f"{kind.replace(' ', '_').replace(',', '')}_{number:03}.jpg", label, "val"))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality)
            planted[-1][0].write_bytes(buffer.getvalue())
        _one_kind(kind, rows + planted, dict(zip([p[0] for p in planted], [s[0] for s in sources], strict=True)), cache)


def _one_kind(kind: str, rows: list[tuple[Path, str, str]], source: dict[Path, Path], cache: Path) -> None:
    pictures, features = features_of(rows, cache)
    pointing = directions(features)
    place = {p.path: i for i, p in enumerate(pictures)}
    true = {tuple(sorted((place[copy], place[original]))) for copy, original in source.items()}
    cosine = torch.tensor([float(pointing[a] @ pointing[b]) for a, b in true])
    thumbnails = near.thumbnails_of(range(len(pictures)), [p.path for p in pictures], [p.digest for p in pictures])
    first, second = (torch.stack([thumbnails[pair[i]] for pair in true]) for i in (0, 1))
    alike = torch.tensor([found.value for found in likenesses(first, second)])
    pairs = near.candidates(nearest(pointing, pointing, 10, same=True))
    found = {c.rows for c in near.confirmed(pairs, thumbnails)}
    named = {(a, b) for a, b, _ in pairs}
    levels = torch.tensor([0.0, 0.05, 0.5])
    quantiles = [" ".join(f"{float(v):.2f}" for v in x.quantile(levels)) for x in (cosine, alike)]
    others = [" ~ ".join(pictures[i].path.name for i in pair) for pair in sorted(found - true)]
    print(
        f"| {kind} | {' | '.join(quantiles)} | {len(true & named)} | {len(true & found)} | {len(others)} {', '.join(others)} |", flush=True
    )


def real_pairs(data: Path, cache: Path) -> None:
    """The most similar pairs of different real images: what thresholds must keep out."""
    pictures, features = features_of(listed(data), cache)
    pointing = directions(features)
    pairs = near.candidates(nearest(pointing, pointing, 10, same=True), least=0.3, most=100_000)
    thumbnails = [thumbnail(decode(p.path.read_bytes()).image) for p in pictures]
    alike = likenesses(torch.stack([thumbnails[a] for a, _, _ in pairs]), torch.stack([thumbnails[b] for _, b, _ in pairs]))
    scored = sorted(((found.value, cosine, a, b) for found, (a, b, cosine) in zip(alike, pairs, strict=True)), reverse=True)
    named = sum(cosine >= near.SIMILAR for _, cosine, _, _ in scored)
    print(f"\nreal pairs: {len(pairs)} with a cosine of 0.3 or more, {named} candidates; the most alike")
    for value, cosine, a, b in scored[:15]:
        print(f"  likeness {value:.3f} cosine {cosine:.3f} {pictures[a].path.name} ~ {pictures[b].path.name}")
    print("  the most similar by features")
    for value, cosine, a, b in sorted(scored, key=lambda s: -s[1])[:15]:
        print(f"  likeness {value:.3f} cosine {cosine:.3f} {pictures[a].path.name} ~ {pictures[b].path.name}")


def average_precision(order: Sequence[int], true: set[int]) -> float:
    hits, total = 0, 0.0
    for place, row in enumerate(order, start=1):
        if row in true:
            hits += 1
            total += hits / place
    return total / len(true)


def labels(data: Path, cache: Path, share: float, seeds: int) -> None:
    """A share of labels turned to another class; who finds them?"""
    pictures, features = features_of(listed(data), cache)
    right = torch.tensor([p.label for p in pictures])
    classes = int(right.max()) + 1
    table: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        flipped = set(draw.permutation(len(right))[: round(share * len(right))].tolist())
        given = right.clone()
        for row in flipped:
            given[row] = (right[row] + 1 + draw.integers(classes - 1)) % classes
        held = held_out(features, given, classes, range(len(given)), seed)
        assert held is not None
        for name, order in _judges(held).items():
            hits = len(flipped & set(order))
            table.setdefault(name, []).append((hits / max(1, len(order)), hits / len(flipped), average_precision(order, flipped)))
    print(f"\nlabels: {share:.0%} of {len(right)} turned, mean of {seeds} seeds")
    print("| rule | precision | recall | average precision |\n|---|---|---|---|")
    for name, scores in table.items():
        print(f"| {name} | " + " | ".join(f"{np.mean(s):.3f}" for s in zip(*scores, strict=True)) + " |")


def _judges(held: HeldOut) -> dict[str, list[int]]:
    p, y = held.probabilities, held.labels
    own = p.gather(1, y[:, None])[:, 0]
    found = {
        "confident learning (frostline)": [s.row for s in find_suspects(p, y)],
        "another class is more probable": [i for i in own.argsort().tolist() if int(p[i].argmax()) != int(y[i])],
    }
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return found
    for rule in ("confident_learning", "prune_by_noise_rate", "prune_by_class", "both"):
        ranked = find_label_issues(y.numpy(), p.numpy(), filter_by=rule, return_indices_ranked_by="normalized_margin", n_jobs=1)
        found[f"cleanlab {rule}"] = [int(i) for i in ranked]
    return found


def outliers(data: Path, cache: Path, folder: Path) -> None:
    """Pictures that do not belong: at what place does each score have each of them, planted alone, and all at once?"""
    rows = listed(data)
    for name, picture in _strange_pictures().items():
        picture.save(folder / f"strange_{name}.png")
        rows.append((folder / f"strange_{name}.png", "ants", "train"))
    pictures, features = features_of(rows, cache)
    planted = [i for i, p in enumerate(pictures) if p.path.name.startswith("strange_") or p.path.name == "imageNotFound.gif"]
    real = [i for i in range(len(pictures)) if i not in planted]
    names = [pictures[i].path.stem.removeprefix("strange_") for i in planted]
    alone: dict[str, list[int]] = {}
    for row in planted:
        for name, score in _scores(features[[*real, row]]).items():
            alone.setdefault(name, []).append(int((score > score[-1]).sum()) + 1)
    print(f"\noutliers among {len(real)} images: places when planted alone ({', '.join(names)}), all {len(planted)} at once")
    print("| score | alone, at place | all at once: average precision | called | planted of them |\n|---|---|---|---|---|")
    together = [*real, *planted]
    true = set(range(len(real), len(together)))
    for name, score in _scores(features[together]).items():
        middle = score.median()
        called = set((score > middle + 3.5 * 1.4826 * (score - middle).abs().median()).nonzero()[:, 0].tolist())
        precision = average_precision(score.argsort(descending=True).tolist(), true)
        print(f"| {name} | {' '.join(map(str, alone[name]))} | {precision:.3f} | {len(called)} | {len(called & true)} |")


def _scores(features: torch.Tensor) -> dict[str, torch.Tensor]:
    from sklearn.covariance import ledoit_wolf
    from sklearn.neighbors import LocalOutlierFactor

    pointing = directions(features)
    x = features.double() - features.double().mean(0)
    plain = torch.cdist(x, x)
    length = unit_length(features)
    found = {f"cosine, {k} nearest": (1 - nearest(length, length, k, same=True).similarity).mean(1) for k in (1, 5, 10, 20)}
    assert torch.equal(found["cosine, 10 nearest"], outlyingness(nearest(length, length, 10, same=True)).score)
    found["cosine of centred features, 10 nearest"] = (1 - nearest(pointing, pointing, 10, same=True).similarity).mean(1)
    found["Euclid, 10 nearest"] = plain.topk(11, largest=False).values[:, 1:].mean(1)
    covariance = torch.from_numpy(ledoit_wolf(x.numpy())[0])
    found["Mahalanobis, Ledoit-Wolf"] = (x @ torch.linalg.inv(covariance) * x).sum(1).sqrt()
    found["local outlier factor, 20"] = -torch.from_numpy(LocalOutlierFactor(20).fit(x.numpy()).negative_outlier_factor_)
    found["distance from the mean"] = x.norm(dim=1)
    return found


def _strange_pictures() -> dict[str, Image.Image]:
    """Ten pictures with neither ants nor bees."""
    from sklearn.datasets import load_sample_images

    draw = np.random.default_rng(1)
    found = {name: Image.fromarray(draw.integers(0, 256, (300, 400, 3), dtype=np.uint8)) for name in ("noise",)}
    found["black"], found["gray"] = Image.new("RGB", (300, 300), "black"), Image.new("RGB", (300, 300), "gray")
    found["ramp"] = Image.fromarray(np.tile(np.linspace(0, 255, 400, dtype=np.uint8)[None, :, None], (300, 1, 3)))
    found["temple"] = Image.fromarray(load_sample_images().images[0])
    text = Image.new("RGB", (400, 300), "white")
    for line in range(18):
        ImageDraw.Draw(text).text((10, 8 + 16 * line), "invoice number 20391, page 4 of 12, amount due 391.20", fill="black")
    found["text"] = text
    chart = Image.new("RGB", (400, 300), "white")
    for bar, height in enumerate((120, 200, 60, 170, 240)):
        ImageDraw.Draw(chart).rectangle((40 + 65 * bar, 280 - height, 85 + 65 * bar, 280), fill="steelblue")
    found["chart"] = chart
    found["code"] = Image.fromarray(np.kron(draw.integers(0, 2, (25, 25), dtype=np.uint8) * 255, np.ones((12, 12), dtype=np.uint8)))
    face = Image.new("RGB", (300, 300), "yellow")
    ImageDraw.Draw(face).ellipse((90, 90, 120, 120), fill="black")
    ImageDraw.Draw(face).arc((80, 120, 220, 230), 0, 180, fill="black", width=8)
    found["smiley"] = face
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", default="real,copies,labels,outliers")
    asked = parser.parse_args()
    folder = asked.cache / "planted"
    folder.mkdir(parents=True, exist_ok=True)
    for what in asked.only.split(","):
        if what == "real":
            real_pairs(asked.data, asked.cache)
        elif what == "copies":
            copies(asked.data, asked.cache, folder, asked.copies)
        elif what == "labels":
            labels(asked.data, asked.cache, 0.1, asked.seeds)
        else:
            outliers(asked.data, asked.cache, folder)


if __name__ == "__main__":
    main()
