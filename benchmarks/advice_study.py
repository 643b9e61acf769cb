"""Does the advice hold? Every candidate plan by brute force on every offline set of images, against ``advise`` and ``auto``.

    python benchmarks/advice_study.py --hymenoptera DIR --out docs/advice-study.jsonl      # runs what is not there yet
    python benchmarks/advice_study.py --out docs/advice-study.jsonl --table                # only the page, docs/advice-study.md

Sets: ants/bees (``--hymenoptera``), the same as noisy negatives, scikit-learn's digits, the same digits in random colours on random
colours, faces against other crops (scikit-image's subset of Labeled Faces in the Wild), cut-out objects on photographs (Debian's
tuxpaint-stamps-default), the place in a photograph that a small window is from, emoji by group (``--emoji DIR``: npm's
emoji-datasource-google, unpacked). A set whose images are not here is left out and named. Each at two sizes, and split anew by every seed.
A quarter of the images to train on is held out to choose epochs and steps; the test images are seen by nobody. Images are 128 pixels a
side for the network, so that one seed takes about an hour on two cores.

*Regret* of a way: accuracy of the best plan less its own, on the test images of all seeds of a case: the best plan is the one that is best
over them. The best of eight plans on the images that it is judged by is partly luck, so that it is told twice: *plain*, and *fair*: the
best plan is chosen on one half of the test images and compared on the other, both ways round, mean. The head on all depths
is one plan, whether ridge or logistic.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import head_defaults
import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr

from frostline import Compute, Finished, FreezePlan, ImageSet, TransferModel, fit, open_backbone
from frostline.advise.advice import candidates_of
from frostline.advise.cost import Images
from frostline.advise.evidence import gather_evidence
from frostline.advise.recommend import Candidate, recommend
from frostline.backbone import Backbone
from frostline.features.images import digest_files
from frostline.features.pixels import full_batches, pixel_batches
from frostline.freeze.apply import evaluating

SIDE = 128
CPU = torch.device("cpu")
SIZES = {
    "ants/bees": (20, 80),
    "faces": (10, 40),
    "digits": (8, 30),
    "coloured digits": (8, 30),
    "stamps": (12, 45),
    "tiles": (12, 45),
    "negatives": (20, 80),
    "emoji": (12, 45),
}
"""Images a class, of each set the smaller and the larger number."""
Sample = tuple[Image.Image, int, str]


def coloured_digits() -> Iterator[Sample]:
    """Digits whose ink and paper have colours of their own: the shape is left, brightness tells nothing."""
    draw = np.random.default_rng(5)
    for image, label, group in head_defaults.digits():
        ink = np.asarray(image.convert("L")).astype(float)[..., None] / 255
        one, other = draw.uniform(0, 255, 3), draw.uniform(0, 255, 3)
        pixels = ink * one + (1 - ink) * other + draw.normal(0, 10, (*ink.shape[:2], 3))
        yield Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), label, group


def negatives(paths: list[Path]) -> Callable[[], Iterator[Sample]]:
    """Photographs as negatives with noise: what is in them is left, colours and textures are not those of photographs."""

    def make() -> Iterator[Sample]:
        draw = np.random.default_rng(6)
        for path in paths:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            image.thumbnail((192, 192))
            pixels = 255 - np.asarray(image, dtype=float) + draw.normal(0, 25, (image.height, image.width, 3))
            yield Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), int(path.parent.name == "bees"), path.name

    return make


def emoji(folder: Path) -> Callable[[], Iterator[Sample]]:
    """Drawings of things, by their group in Unicode, on white; the skin tones of one are one group."""

    def make() -> Iterator[Sample]:
        names = ("Animals & Nature", "Food & Drink", "Travel & Places", "Objects", "Smileys & Emotion", "People & Body")
        for row in json.loads((folder / "emoji.json").read_text()):
            file = folder / "img" / "google" / "64" / row["image"]
            if row["category"] in names and file.exists():
                with Image.open(file) as opened:
                    drawn = opened.convert("RGBA")
                yield (
                    Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB"),
                    names.index(row["category"]),
                    row["unified"],
                )

    return make


def faces() -> Iterator[Sample]:
    from skimage import data

    for number, pixels in enumerate(data.lfw_subset()):
        image = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8)).resize((100, 100), Image.Resampling.BICUBIC)
        yield image.convert("RGB"), int(number >= 100), str(number)


@dataclass(frozen=True)
class Pool:
    """Images of one set; those of one group stay on one side of a split."""

    paths: list[Path]
    y: np.ndarray
    group: np.ndarray

    @property
    def classes(self) -> int:
        return int(self.y.max()) + 1


def written(name: str, make: Callable[[], Iterator[Sample]], folder: Path) -> Pool:
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    paths, labels, groups = [], [], []
    for number, (image, label, group) in enumerate(make()):
        paths.append(place / f"{number:05d}.png")
        if not paths[-1].exists():
            image.save(paths[-1])
        labels.append(label)
        groups.append(group)
    return Pool(paths, np.array(labels), np.array(groups))


def pools(folder: Path, hymenoptera: Path | None, emojis: Path | None) -> tuple[dict[str, Pool], list[str]]:
    found = {"digits": written("digits", head_defaults.digits, folder), "coloured digits": written("coloured", coloured_digits, folder)}
    missing: list[str] = []
    if hymenoptera is not None and hymenoptera.is_dir():
        paths = sorted(p for s in ("train", "val") for p in (hymenoptera / s).rglob("*.jpg"))
        found["ants/bees"] = Pool(paths, np.array([int(p.parent.name == "bees") for p in paths]), np.array([p.name for p in paths]))
        found["negatives"] = written("negatives", negatives(paths), folder)
    else:
        missing.append("ants/bees and their negatives (--hymenoptera DIR)")
    if emojis is not None and emojis.is_dir():
        found["emoji"] = written("emoji", emoji(emojis), folder)
    else:
        missing.append("emoji (--emoji DIR)")
    if importlib.util.find_spec("skimage") is None:
        missing.append("faces (pip install scikit-image)")
    else:
        found["faces"] = written("faces", faces, folder)
    if head_defaults.STAMPS.is_dir():
        found["stamps"] = written("stamps", head_defaults.stamps, folder)
    else:
        missing.append("stamps (apt install tuxpaint-stamps-default)")
    found["tiles"] = written("tiles", head_defaults.tiles, folder)
    return found, missing


@dataclass(frozen=True)
class Case:
    """One set at one size, split."""

    name: str
    seed: int
    train: ImageSet
    val: ImageSet
    test: ImageSet
    classes: int


def case_of(name: str, pool: Pool, per_class: int, seed: int, most_tests: int) -> Case:
    learn, judge = head_defaults.divide(pool, per_class, seed)
    inner, held = head_defaults.hold_out(pool.y[learn], pool.group[learn], seed)
    judge = np.random.default_rng(seed).permutation(judge)[:most_tests]

    def images(rows: np.ndarray) -> ImageSet:
        paths = [pool.paths[i] for i in rows]
        return ImageSet(tuple(paths), tuple(digest_files(paths)), tuple(int(pool.y[i]) for i in rows))

    return Case(f"{name}, {per_class} a class", seed, images(learn[inner]), images(learn[held]), images(judge), pool.classes)


def backbone() -> Backbone:
    opened = open_backbone("tf_efficientnet_lite0", offline=True)
    return replace(opened, preprocess=replace(opened.preprocess, crop=(SIDE, SIDE), resize=SIDE))


def pictures(opened: Backbone, images: ImageSet) -> torch.Tensor:
    found = [p for batch in pixel_batches(images.paths, opened.preprocess, full_batches(len(images))) for p in batch]
    return opened.preprocess.normalise(torch.stack(found))


def trained(case: Case, test: torch.Tensor, cache: Path, head: str, unfreeze: str, strategy: str) -> dict[str, Any]:
    """Train one plan; which test images it labels right, and the seconds of training."""
    began = time.perf_counter()
    model = TransferModel(backbone(), head, case.classes)
    plan, compute = FreezePlan(unfreeze), Compute(cache)
    finished = next(e for e in fit(model, plan, case.train, case.val, strategy=strategy, compute=compute) if isinstance(e, Finished))
    seconds = time.perf_counter() - began
    with evaluating(model), torch.no_grad():
        logits = torch.cat([model(part.contiguous(memory_format=torch.channels_last)) for part in test.split(32)])
    right = (logits.argmax(1) == torch.tensor(case.test.labels)).tolist()
    return {"seconds": seconds, "right": [int(r) for r in right], "decisions": list(finished.decisions)}


def advised(case: Case, cache: Path) -> tuple[list[Candidate], Candidate, str, float]:
    began = time.perf_counter()
    opened = backbone()
    opening = time.perf_counter() - began
    images = case.train + case.val
    evidence = gather_evidence(opened, images, case.classes, Compute(cache), CPU, 0, lambda _: None)
    candidates = list(candidates_of(opened, evidence, Images(len(case.train), len(case.val)), opening))
    found = recommend(candidates, [evidence], len(case.val))
    return candidates, found.pick, found.why, time.perf_counter() - began


def again(case: Case, row: dict[str, Any]) -> dict[str, Any]:
    """``advise`` and ``auto`` once more, beside plans that were trained before; a plan that is new is trained."""
    test = pictures(backbone(), case.test)
    with tempfile.TemporaryDirectory(prefix="frostline-study-") as scratch:
        candidates, pick, why, advice_seconds = advised(case, Path(scratch, "advise"))
        auto = trained(case, test, Path(scratch, "auto"), "linear", "none", "auto")
        plans = dict(row["plans"])
        for c in candidates:
            known = plans.get(str(c)) or trained(case, test, Path(scratch, "brute"), c.head, c.unfreeze, c.strategy)
            plans[str(c)] = known | {"predicted": c.held.accuracy, "predicted_seconds": [c.cost.seconds, *c.cost.interval]}
    print(
        f"  auto {np.mean(row['auto']['right']):.3f} before, {np.mean(auto['right']):.3f} now; {row['advice']['pick']}, now {pick}",
        flush=True,
    )
    return {**row, "plans": plans, "auto": auto, "advice": {"pick": str(pick), "why": why, "seconds": advice_seconds}}


def run_case(case: Case) -> dict[str, Any]:
    test = pictures(backbone(), case.test)
    scratch = Path(tempfile.mkdtemp(prefix="frostline-study-"))
    try:
        candidates, pick, why, advice_seconds = advised(case, scratch / "advise")
        auto = trained(case, test, scratch / "auto", "linear", "none", "auto")
        plans: dict[str, Any] = {}
        for c in candidates:
            row = trained(case, test, scratch / "brute", c.head, c.unfreeze, c.strategy)
            plans[str(c)] = row | {"predicted": c.held.accuracy, "predicted_seconds": [c.cost.seconds, *c.cost.interval]}
            print(f"  {c}: {np.mean(row['right']):.3f} in {row['seconds']:.0f} s (predicted {c.held.accuracy:.3f})", flush=True)
    finally:
        shutil.rmtree(scratch)
    sizes = {"train": len(case.train), "val": len(case.val), "test": len(case.test), "classes": case.classes}
    advice = {"pick": str(pick), "why": why, "seconds": advice_seconds}
    return {
        "case": case.name,
        "seed": case.seed,
        **sizes,
        "plans": plans,
        "auto": auto,
        "advice": advice,
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True)
class Found:
    """One case, all seeds.

    Attributes:
        name: the case.
        rows: one a seed.
        plans: which test images each plan labels right, one seed after the other.
        auto: likewise.
        advised: likewise, of the plan that was recommended.
    """

    name: str
    rows: list[dict[str, Any]]
    plans: dict[str, np.ndarray]
    auto: np.ndarray
    advised: np.ndarray

    @property
    def halves(self) -> np.ndarray:
        return np.arange(len(self.auto)) % 2 == 0

    def regret(self, right: np.ndarray) -> tuple[float, float]:
        """Plain and fair regret of a way that labels ``right``, in points."""
        plans = np.array(list(self.plans.values()))
        plain = plans.mean(1).max() - right.mean()
        fair = np.mean([plans[plans[:, a].mean(1).argmax(), ~a].mean() - right[~a].mean() for a in (self.halves, ~self.halves)])
        return 100 * float(plain), 100 * float(fair)


ALL = "the head on all depths"


def plan_of(name: str) -> str:
    """The plan, whichever kind of head is on all depths, and whichever head unfreezing starts from."""
    if name.startswith("--unfreeze"):
        return re.sub(r" --head \S+", "", name)
    return ALL if "@all" in name else name


def gathered(name: str, rows: list[dict[str, Any]]) -> Found:
    alone = [{plan_of(n): np.array(p["right"]) for n, p in row["plans"].items()} for row in rows]
    joined = {n: np.concatenate([plans[n] for plans in alone]) for n in alone[0] if all(n in plans for plans in alone)}
    auto = np.concatenate([np.array(row["auto"]["right"]) for row in rows])
    advised = np.concatenate([np.array(row["plans"][row["advice"]["pick"]]["right"]) for row in rows])
    return Found(name, rows, joined, auto, advised)


def ranks(row: dict[str, Any]) -> float:
    plans = row["plans"].values()
    return float(spearmanr([p["predicted"] for p in plans], [np.mean(p["right"]) for p in plans]).statistic)


def seconds(row: dict[str, Any]) -> tuple[float, float, float]:
    return sum(p["seconds"] for p in row["plans"].values()), row["auto"]["seconds"], row["advice"]["seconds"]


def page(rows: list[dict[str, Any]]) -> str:
    found = [gathered(name, [r for r in rows if r["case"] == name]) for name in dict.fromkeys(r["case"] for r in rows)]
    lines = ["# Does the advice hold?", "", "Written by `python benchmarks/advice_study.py`; what the columns mean stands in its head.", ""]
    titles = "case | seeds | test images | best plan | its accuracy | head alone | auto | advised | regret of auto | of advise"
    lines += [f"| {titles} | rank correlation | brute s | auto s | advise s |", "|---" * 14 + "|"]
    means: list[tuple[float, ...]] = []
    for case in found:
        accuracy = {n: float(right.mean()) for n, right in case.plans.items()}
        best = max(accuracy, key=lambda n: accuracy[n])
        auto, advice = case.regret(case.auto), case.regret(case.advised)
        rank = float(np.mean([ranks(r) for r in case.rows]))
        brute, own, asked = np.mean([seconds(r) for r in case.rows], axis=0)
        means.append((*auto, *advice, rank, own / brute, asked / brute))
        sizes = f"{case.name} ({case.rows[0]['train']}+{case.rows[0]['val']}) | {len(case.rows)} | {len(case.auto)}"
        picks = "; ".join(dict.fromkeys(r["advice"]["pick"] for r in case.rows))
        shown = f"{best} | {accuracy[best]:.3f} | {accuracy['the head alone']:.3f} | {case.auto.mean():.3f} | {picks}"
        apart = f"{auto[0]:+.1f} ({auto[1]:+.1f}) | {advice[0]:+.1f} ({advice[1]:+.1f}) | {rank:+.2f}"
        lines.append(f"| {sizes} | {shown} | {apart} | {brute:.0f} | {own:.0f} | {asked:.0f} |")
    table = np.array(means)
    lines += ["", "Regret in points, plain (fair). Over all cases:", "", "| | mean | worst |", "|---|---|---|"]
    names = ("auto, plain regret", "auto, fair regret", "advise, plain regret", "advise, fair regret")
    lines += [f"| {n} | {table[:, i].mean():+.2f} | {table[:, i].max():+.2f} |" for i, n in enumerate(names)]
    lines += [f"| rank correlation of predicted and found accuracy | {np.nanmean(table[:, 4]):+.2f} | {np.nanmin(table[:, 4]):+.2f} |"]
    lines += [f"| auto's time, share of brute force | {table[:, 5].mean():.2f} | {table[:, 5].max():.2f} |"]
    lines += [f"| advise's time, share of brute force | {table[:, 6].mean():.2f} | {table[:, 6].max():.2f} |", ""]
    fixed = {n: np.mean([case.regret(case.plans[n])[1] for case in found if n in case.plans]) for n in found[0].plans}
    lines += ["Always the same plan, mean fair regret: " + "; ".join(f"{n} {v:+.1f}" for n, v in fixed.items()) + ".", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hymenoptera", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/advice-study.jsonl"))
    parser.add_argument("--images", type=Path, default=Path(tempfile.gettempdir()) / "frostline-study-images")
    parser.add_argument("--emoji", type=Path)
    parser.add_argument("--seeds", default="0,1", help="with commas")
    parser.add_argument("--sizes", default="0,1", help="0 the smaller ones, 1 the larger ones")
    parser.add_argument("--tests", type=int, default=600)
    parser.add_argument("--only", help="names of sets, with commas")
    parser.add_argument("--anew", action="store_true", help="keep the plans that are there, run advise and auto again")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    if not given.table:
        found, missing = pools(given.images, given.hymenoptera, given.emoji)
        if missing:
            print(f"left out: {', '.join(missing)}")
        jobs = [
            (name, counts[int(index)], int(seed))
            for seed in given.seeds.split(",")
            for index in given.sizes.split(",")
            for name, counts in SIZES.items()
            if name in found and (not given.only or name in given.only.split(","))
        ]
        for name, per_class, seed in jobs:
            place = next((i for i, r in enumerate(rows) if (r["case"], r["seed"]) == (f"{name}, {per_class} a class", seed)), None)
            if place is not None and not given.anew:
                continue
            case = case_of(name, found[name], per_class, seed, given.tests)
            print(
                f"{case.name}, seed {seed}: {len(case.train)} to train on, {len(case.val)} held out, {len(case.test)} to test", flush=True
            )
            if place is None:
                rows.append(run_case(case))
            else:
                rows[place] = again(case, rows[place])
            given.out.parent.mkdir(exist_ok=True)
            given.out.write_text("".join(json.dumps(r) + "\n" for r in rows))
    text = page(rows)
    given.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
