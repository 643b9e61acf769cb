"""How time and memory grow with the number of images, the number of classes and the depth of the cut.

    python benchmarks/growth.py --sizes 100,1000,5000,20000 --classes 2,10,100,1000 --depths none,last:1,last:2,last:4,last:8,all

Every point is a fresh process of ``frostline train ... --json`` with generated JPEG files; seconds are wall time, the parts are what the
run reports, peak memory is the system's word (``wait4``). Straight lines are fitted to seconds and to memory over the number of images.

- *images*: 2 classes, nothing cached, ``--epochs`` epochs;
- *classes*: the same ``--class-images`` images sorted into more and more classes, features cached before, so that only the head grows;
- *depth*: ``--depth-images`` images, nothing cached, ``--unfreeze`` from nothing to everything.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness import records
from harness.arguments import ROOT, add_common, command_line
from harness.figures import fit_line
from harness.machine import load, machine, versions
from harness.page import write_page
from harness.process import Ran, run


@dataclass(frozen=True)
class Growth:
    """What all points share."""

    python: str
    epochs: int
    scratch: Path
    limit: float

    def pool(self, images: int, size: int) -> list[Path]:
        """``images`` different JPEG files; made once, by a process of its own."""
        folder = self.scratch / f"pool-{size}"
        have = len(list(folder.glob("*.jpg"))) if folder.exists() else 0
        if have < images:
            words = ["noise", folder, "--images", str(images), "--size", str(size)]
            ran = run([self.python, ROOT / "benchmarks" / "pictures.py", *words], limit=self.limit)
            if ran.code:
                raise SystemExit(ran.err)
        return sorted(folder.glob("*.jpg"))[:images]

    def sorted_into(self, classes: int, files: Iterable[Path]) -> Path:
        """A folder with ``train`` and ``val`` (every third), each with all classes."""
        folder = self.scratch / "data"
        shutil.rmtree(folder, ignore_errors=True)
        for i, file in enumerate(files):
            turn, label = divmod(i, classes)
            place = folder / ("val" if turn % 3 == 2 else "train") / f"{label:04d}"
            place.mkdir(parents=True, exist_ok=True)
            os.link(file, place / file.name)
        return folder

    def train(self, data: Path, home: Path, unfreeze: str = "none") -> Ran:
        words = [
            "--unfreeze",
            unfreeze,
            "--epochs",
            str(self.epochs),
            "--device",
            "cpu",
            "--out",
            self.scratch / "run",
            "--json",
            "--quiet",
        ]
        shutil.rmtree(self.scratch / "run", ignore_errors=True)
        return run([self.python, "-m", "frostline", "train", data, *words], env={"FROSTLINE_HOME": str(home)}, limit=self.limit)


def figures(ran: Ran) -> dict[str, object]:
    """What is kept of one run."""
    told = ran.answer()
    parts = told["seconds"]
    return {
        "seconds": ran.seconds,
        "features": parts["features"],
        "train": parts["train"],
        "peak_mb": ran.peak_mb,
        "cut": told["cache"]["cut"],
        "cache_mb": round((told["cache"]["bytes"] or 0) / 1e6, 2),
        "trained": told["trainable_parameters"],
        "epochs_run": told.get("epochs_run"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100,1000,5000,20000")
    parser.add_argument("--classes", default="2,10,100,1000")
    parser.add_argument("--depths", default="none,last:1,last:2,last:4,last:8,all")
    parser.add_argument("--class-images", type=int, default=3000, help="at least three for every class")
    parser.add_argument("--depth-images", type=int, default=300)
    parser.add_argument("--pixels", type=int, default=64, help="height and width of the generated files")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--limit", type=float, default=3600)
    add_common(parser)
    given = parser.parse_args()
    facts = {
        "kind": "growth",
        "session": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "machine": machine(),
        "load_before": load(),
        "epochs": given.epochs,
        "command": command_line(),
        "versions": {"frostline": versions(given.frostline, ("frostline", "torch"))},
    }

    def keep(what: str, at: object, ran: Ran, **more: object) -> dict[str, object]:
        found = figures(ran)
        records.append(given.docs / "benchmarks.jsonl", {**facts, "what": what, "at": at, **found, **more})
        print(
            f"{what:8} {at!s:10} {ran.seconds:8.1f} s (features {found['features']:.1f}, train {found['train']:.1f}) {ran.peak_mb:7.0f} MB",
            flush=True,
        )
        return found

    def listed(text: str) -> list[str]:
        return [word for word in text.split(",") if word]

    with tempfile.TemporaryDirectory(prefix="frostline-growth-") as scratch:
        growth = Growth(given.frostline, given.epochs, Path(scratch), given.limit)

        def empty() -> Path:
            shutil.rmtree(growth.scratch / "home", ignore_errors=True)
            return growth.scratch / "home"

        sizes = sorted(int(s) for s in listed(given.sizes))
        found = [keep("images", n, growth.train(growth.sorted_into(2, growth.pool(n, given.pixels)), empty())) for n in sizes]
        for part, unit in (("seconds", "s"), ("peak_mb", "MB")):
            line = fit_line(sizes, [f[part] for f in found]) if found else None
            if line:
                print(f"{part}: {line.start:.2f} {unit} and {1000 * line.slope:+.2f} {unit} for 1,000 images, r2 {line.r2:.4f}")
        counts = sorted(int(c) for c in listed(given.classes))
        if counts:
            files, home = growth.pool(given.class_images, given.pixels), empty()
            growth.train(growth.sorted_into(counts[0], files), home).answer()
            for count in counts:
                keep("classes", count, growth.train(growth.sorted_into(count, files), home), images=len(files))
        for depth in listed(given.depths):
            files = growth.pool(given.depth_images, given.pixels)
            keep("depth", depth, growth.train(growth.sorted_into(2, files), empty(), depth), images=len(files))
    print(write_page(given.docs))


if __name__ == "__main__":
    main()
