"""Does the advice hold? Every candidate plan by brute force on every offline set of images, against ``advise`` and ``auto``.

    python benchmarks/advice_study.py --hymenoptera DIR --out docs/advice-study.jsonl      # runs what is not there yet
    python benchmarks/advice_study.py --out docs/advice-study.jsonl --table                # only the page, docs/advice-study.md

Sets: ants/bees (``--hymenoptera``), scikit-learn's digits, the same digits in random colours on random colours, faces against
other crops (scikit-image's subset of Labeled Faces in the Wild), cut-out objects on photographs (Debian's tuxpaint-stamps-default),
the place in a photograph that a small window is from. A set whose images are not here is left out and named. Each at two sizes. A quarter
of the images to train on is held out to choose epochs and steps; the test images are seen by nobody. Images are 128 pixels a side for the
network, so that the study ends within an hour on two cores.

*Regret* of a way: accuracy of the best plan less its own, on test images. The best of eight plans on the images that it is judged by
is partly luck, so that it is told twice: *plain*, and *fair*: the best plan is chosen on one half of the test images and compared on the
other, both ways round, mean.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
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
from frostline.advise.evidence import gather_evidence
from frostline.advise.recommend import Candidate, recommend
from frostline.backbone import Backbone
from frostline.features.images import digest_files
from frostline.features.pixels import full_batches, pixel_batches
from frostline.freeze.apply import evaluating

SIDE = 128
CPU = torch.device("cpu")
Sample = tuple[Image.Image, int, str]


def coloured_digits() -> Iterator[Sample]:
    """Digits whose ink and paper have colours of their own: the shape is left, brightness tells nothing."""
    draw = np.random.default_rng(5)
    for image, label, group in head_defaults.digits():
        ink = np.asarray(image.convert("L")).astype(float)[..., None] / 255
        one, other = draw.uniform(0, 255, 3), draw.uniform(0, 255, 3)
        pixels = ink * one + (1 - ink) * other + draw.normal(0, 10, (*ink.shape[:2], 3))
        yield Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), label, group


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


def pools(folder: Path, hymenoptera: Path | None) -> tuple[dict[str, Pool], list[str]]:
    found = {"digits": written("digits", head_defaults.digits, folder), "coloured digits": written("coloured", coloured_digits, folder)}
    missing: list[str] = []
    if hymenoptera is not None and hymenoptera.is_dir():
        paths = sorted(p for s in ("train", "val") for p in (hymenoptera / s).rglob("*.jpg"))
        found["ants/bees"] = Pool(paths, np.array([int(p.parent.name == "bees") for p in paths]), np.array([p.name for p in paths]))
    else:
        missing.append("ants/bees (--hymenoptera DIR)")
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
    train: ImageSet
    val: ImageSet
    test: ImageSet
    classes: int


def case_of(name: str, pool: Pool, per_class: int, most_tests: int) -> Case:
    learn, judge = head_defaults.divide(pool, per_class, seed=0)
    inner, held = head_defaults.hold_out(pool.y[learn], pool.group[learn], seed=0)
    judge = np.random.default_rng(0).permutation(judge)[:most_tests]

    def images(rows: np.ndarray) -> ImageSet:
        paths = [pool.paths[i] for i in rows]
        return ImageSet(tuple(paths), tuple(digest_files(paths)), tuple(int(pool.y[i]) for i in rows))

    return Case(f"{name}, {per_class} a class", images(learn[inner]), images(learn[held]), images(judge), pool.classes)


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
    images = case.train + case.val
    evidence = gather_evidence(opened, images, case.classes, Compute(cache), CPU, 0, lambda _: None)
    candidates = list(candidates_of(opened, evidence, (len(case.train), len(case.val))))
    found = recommend(candidates, [evidence])
    return candidates, found.pick, found.why, time.perf_counter() - began


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
    return {"case": case.name, **sizes, "plans": plans, "auto": auto, "advice": advice, "threads": torch.get_num_threads()}


def regrets(row: dict[str, Any], right: list[int]) -> tuple[float, float]:
    """Plain and fair regret of a way that labels ``right``, in points."""
    plans = np.array([p["right"] for p in row["plans"].values()])
    own = np.array(right)
    plain = plans.mean(1).max() - own.mean()
    halves = np.arange(len(own)) % 2 == 0
    fair = np.mean([plans[plans[:, a].mean(1).argmax(), ~a].mean() - own[~a].mean() for a in (halves, ~halves)])
    return 100 * float(plain), 100 * float(fair)


def page(rows: list[dict[str, Any]]) -> str:
    lines = ["# Does the advice hold?", "", "Written by `python benchmarks/advice_study.py`; what the columns mean stands in its head.", ""]
    titles = "case | best plan | its accuracy | head alone | auto | advised | regret of auto | of advise | rank correlation"
    lines += [f"| {titles} | brute s | auto s | advise s |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|---|---|"]
    means: list[tuple[float, ...]] = []
    for row in rows:
        plans = row["plans"]
        accuracy = {n: float(np.mean(p["right"])) for n, p in plans.items()}
        best = max(accuracy, key=lambda n: accuracy[n])
        picked = plans[row["advice"]["pick"]]
        auto, advice = regrets(row, row["auto"]["right"]), regrets(row, picked["right"])
        ranks = spearmanr([p["predicted"] for p in plans.values()], list(accuracy.values())).statistic
        brute = sum(p["seconds"] for p in plans.values())
        means.append((*auto, *advice, float(ranks), row["auto"]["seconds"] / brute, row["advice"]["seconds"] / brute))
        case = f"{row['case']} ({row['train']}+{row['val']}, {row['test']} test)"
        own = f"{accuracy['the head alone']:.3f} | {np.mean(row['auto']['right']):.3f} | {row['advice']['pick']}"
        apart = f"{auto[0]:+.1f} ({auto[1]:+.1f}) | {advice[0]:+.1f} ({advice[1]:+.1f}) | {ranks:+.2f}"
        seconds = f"{brute:.0f} | {row['auto']['seconds']:.0f} | {row['advice']['seconds']:.0f}"
        lines.append(f"| {case} | {best} | {accuracy[best]:.3f} | {own} | {apart} | {seconds} |")
    table = np.array(means)
    lines += ["", "Regret in points, plain (fair). Over all cases:", "", "| | mean | worst |", "|---|---|---|"]
    names = ("auto, plain regret", "auto, fair regret", "advise, plain regret", "advise, fair regret")
    lines += [f"| {n} | {table[:, i].mean():+.2f} | {table[:, i].max():+.2f} |" for i, n in enumerate(names)]
    lines += [f"| rank correlation of predicted and found accuracy | {np.nanmean(table[:, 4]):+.2f} | {np.nanmin(table[:, 4]):+.2f} |"]
    lines += [f"| auto's time, share of brute force | {table[:, 5].mean():.2f} | {table[:, 5].max():.2f} |"]
    lines += [f"| advise's time, share of brute force | {table[:, 6].mean():.2f} | {table[:, 6].max():.2f} |", ""]
    fixed = {n: np.mean([regrets(r, r["plans"][n]["right"])[1] for r in rows if n in r["plans"]]) for n in rows[0]["plans"]}
    lines += ["Always the same plan, mean fair regret: " + "; ".join(f"{n} {v:+.1f}" for n, v in fixed.items() if "@" not in n) + ".", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hymenoptera", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/advice-study.jsonl"))
    parser.add_argument("--images", type=Path, default=Path(tempfile.gettempdir()) / "frostline-study-images")
    parser.add_argument("--tests", type=int, default=400)
    parser.add_argument("--only", help="names of sets, with commas")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    if not given.table:
        found, missing = pools(given.images, given.hymenoptera)
        if missing:
            print(f"left out: {', '.join(missing)}")
        sizes = {
            "ants/bees": (20, 80),
            "faces": (10, 40),
            "digits": (8, 30),
            "coloured digits": (8, 30),
            "stamps": (12, 45),
            "tiles": (12, 45),
        }
        cases = [(n, p) for index in (0, 1) for n, counts in sizes.items() if n in found for p in (counts[index],)]
        for name, per_class in cases:
            if given.only and name not in given.only.split(","):
                continue
            if any(r["case"] == f"{name}, {per_class} a class" for r in rows):
                continue
            case = case_of(name, found[name], per_class, given.tests)
            print(f"{case.name}: {len(case.train)} to train on, {len(case.val)} held out, {len(case.test)} to test", flush=True)
            rows.append(run_case(case))
            given.out.parent.mkdir(exist_ok=True)
            given.out.write_text("".join(json.dumps(r) + "\n" for r in rows))
    text = page(rows)
    given.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
