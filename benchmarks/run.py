"""frostline and its peers side by side: the same images, backbone weights, batch size and epochs on the same machine.

    make bench DATA=DIR                                   # installs everything, then this, then limits.py and growth.py
    python benchmarks/run.py DIR --repeats 5              # DIR has train/ and val/, one folder a class in each
    python benchmarks/run.py DIR --only tutorial,cold     # a part again; the page is written from all results
    python benchmarks/run.py --table                      # only the page

Without DIR, 400 of scikit-learn's handwritten digits are written as JPEG files. Every contestant is a process of its own and its wall
time counts from start to end, imports included. They run in turn, one repeat of all after the other; the training loops, which take
minutes, run ``--repeats-of-loops`` times. Three ways of frostline:

- *cold*: no cache of any kind (``FROSTLINE_HOME`` is an empty folder);
- *new*: the cache of another set of images, so that whatever frostline prepares once for a backbone is there, and no feature is;
- *warm*: the same command a second time.

Results are added to ``docs/benchmarks.jsonl``; ``docs/benchmarks.md`` and ``docs/benchmarks.svg`` are written from them.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import records
from harness.arguments import ROOT, add_common, command_line
from harness.machine import load, machine, versions
from harness.page import write_page
from harness.process import Ran, run

BATCH = 32
SUFFIXES = {".jpg", ".jpeg", ".png"}  # what every contestant lists; some would take more, and see other images
PACKAGES = ("frostline", "torch", "torchvision", "timm", "scikit-learn", "pillow", "openvino", "fastai", "pytorch-lightning")


@dataclass(frozen=True)
class Contestant:
    """Who takes part.

    Attributes:
        key: its name on the command line.
        shown: its name in the table.
        peer: script and variant below ``peers``; None is frostline.
        loop: whether it runs the backbone in every epoch and takes minutes.
        flags: more flags, of frostline.
        cache: what frostline finds: ``empty``, ``other`` (of another set of images) or ``same``.
    """

    key: str
    shown: str
    peer: tuple[str, str] | None = None
    loop: bool = False
    flags: tuple[str, ...] = ()
    cache: str = "empty"


CONTESTANTS = (
    Contestant("cold", "frostline, nothing cached"),
    Contestant("new", "frostline, new images", cache="other"),
    Contestant("warm", "frostline, second run", cache="same"),
    Contestant("sweep", "frostline, 13 heads, nothing cached", flags=("--sweep", "13")),
    Contestant("sweep-64", "frostline, 64 heads, nothing cached", flags=("--sweep", "64")),
    Contestant("extract", "extract once, scikit-learn, channels-last", ("extract_once", "channels-last")),
    Contestant("extract-nchw", "extract once, scikit-learn", ("extract_once", "nchw")),
    Contestant("dinov2", "DINOv2-style, 13 heads", ("dinov2_linear", "default"), loop=True),
    Contestant("tutorial", "PyTorch tutorial's loop", ("tutorial", "default"), loop=True),
    Contestant("lightning-by-hand", "Lightning, frozen by hand", ("lightning_finetuning", "by-hand"), loop=True),
    Contestant("lightning", "Lightning, BackboneFinetuning", ("lightning_finetuning", "finetuning"), loop=True),
    Contestant("fastai-no-bn", "fastai, train_bn=False", ("fastai_learner", "no-batch-norm"), loop=True),
    Contestant("fastai", "fastai vision_learner", ("fastai_learner", "default"), loop=True),
    Contestant("timm", "timm train.py", ("timm_train", "default"), loop=True),
)


@dataclass(frozen=True)
class Bench:
    """Everything a contestant's command line is made of."""

    data: Path
    other: Path
    epochs: int
    workers: int
    device: str
    frostline: str
    peers: str
    scratch: Path
    limit: float

    def measure(self, who: Contestant, turn: int) -> Ran:
        """One whole process of ``who``."""
        folder = self.scratch / f"{who.key}-{turn}"
        folder.mkdir()
        try:
            if who.peer is None:
                return self.train(folder / "run", self.home(who, folder), who.flags)
            script, variant = who.peer
            flags = ["--epochs", self.epochs, "--batch-size", BATCH, "--workers", self.workers, "--device", self.device]
            words = [
                self.peers,
                ROOT / "benchmarks" / "peers" / f"{script}.py",
                self.data,
                *flags,
                "--variant",
                variant,
                "--scratch",
                folder,
            ]
            return run(words, limit=self.limit)
        finally:
            shutil.rmtree(folder)

    def home(self, who: Contestant, folder: Path) -> Path:
        """A folder for ``FROSTLINE_HOME`` with what ``who`` is to find there, made before the clock starts."""
        if who.cache == "empty":
            return folder / "home"
        ready = self.scratch / f"home-{who.cache}"
        if not ready.exists():
            self.train(folder / "before", ready, who.flags, self.other if who.cache == "other" else self.data).answer()
        if who.cache == "same":
            return ready
        return Path(shutil.copytree(ready, folder / "home"))

    def train(self, out: Path, home: Path, flags: Sequence[str] = (), data: Path | None = None) -> Ran:
        """``frostline train`` with everything that it keeps in ``home``."""
        words = [self.frostline, "-m", "frostline", "train", data or self.data, "--epochs", self.epochs, "--batch-size", BATCH]
        words += ["--device", self.device, "--out", out, "--json", "--quiet", *flags]
        return run(words, env={"FROSTLINE_HOME": str(home)}, limit=self.limit)


def result(who: Contestant, ran: Ran) -> dict[str, object]:
    """What is kept of one process: the figures, or why there are none."""
    try:
        told = ran.answer()
    except ValueError as fault:
        return {"failed": str(fault)}
    if "cannot" in told:
        return {"cannot": told["cannot"]}
    kept: dict[str, object] = {"seconds": ran.seconds, "cpu_seconds": ran.cpu_seconds, "peak_mb": ran.peak_mb}
    if who.peer is None:
        val = told["val"]
        return kept | {
            "right": round(val["accuracy"] * val["n"]),
            "n": val["n"],
            "trained": told["trainable_parameters"],
            "inside": told["seconds"],
            "cut": told["cache"]["cut"],
            "hit": told["cache"]["hit"],
            "epochs_run": told.get("epochs_run"),
        }
    return kept | {"right": told["right"], "n": told["n"], "trained": told["trained"], "inside": told["seconds_after_imports"]}


def copied(data: Path, to: Path) -> tuple[Path, dict[str, int], str]:
    """The images that every contestant lists, in a folder of their own; how many there are, and a digest of all of them."""
    counts, digest = {}, hashlib.sha256()
    for split in ("train", "val"):
        files = sorted(p for p in (data / split).glob("*/*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise SystemExit(f"{data / split}: no images in class folders")
        counts[split] = len(files)
        for file in files:
            place = to / file.relative_to(data)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
            digest.update(str(file.relative_to(data)).encode() + hashlib.sha256(file.read_bytes()).digest())
    return to, counts, digest.hexdigest()[:16]


def made(what: str, folder: Path, python: str, images: int, size: int) -> Path:
    """Generated images, of a process of its own."""
    ran = run([python, ROOT / "benchmarks" / "pictures.py", what, folder, "--images", str(images), "--size", str(size)])
    if ran.code:
        raise SystemExit(ran.err)
    return folder


def other_images(folder: Path, python: str) -> Path:
    """Other images of two classes, 144: as many as it takes for an engine to be made."""
    for split, images in (("train", 48), ("val", 24)):
        for label in ("a", "b"):
            # another size is another picture, so that no two of the four folders are alike
            made("noise", folder / split / label, python, images, 96 + 16 * (split == "val") + 8 * (label == "b"))
    return folder


def offered(python: str) -> str:
    """The help of ``frostline train``, to see which flags this version has."""
    return run([python, "-m", "frostline", "train", "--help"], env={"COLUMNS": "200"}).out


def chosen(only: str | None, python: str) -> list[Contestant]:
    """Who takes part: all, or those named; a way that this frostline has no flag for is left out, and named."""
    keys = [c.key for c in CONTESTANTS] if only is None else only.split(",")
    unknown = set(keys) - {c.key for c in CONTESTANTS}
    if unknown:
        raise SystemExit(f"--only: unknown {', '.join(sorted(unknown))}; known: {', '.join(c.key for c in CONTESTANTS)}")
    has, found = offered(python), []
    for who in (c for c in CONTESTANTS if c.key in keys):
        missing = [flag for flag in who.flags if flag.startswith("--") and flag not in has]
        if missing:
            print(f"{who.key}: left out, this frostline has no {missing[0]}", file=sys.stderr)
        else:
            found.append(who)
    return found


def warm_up(bench: Bench) -> None:
    """Read every image, and import everything once, so that no contestant pays for a cold file cache."""
    for file in bench.data.rglob("*.*"):
        file.read_bytes()
    run([bench.frostline, "-c", "import frostline, timm, torchvision, sklearn.linear_model"])
    run([bench.peers, "-c", "import timm, torchvision, sklearn.linear_model, pytorch_lightning, fastai.vision.all"])


def measure_all(bench: Bench, who: Sequence[Contestant], given: argparse.Namespace, facts: dict[str, object]) -> None:
    """In turn, and each result kept at once."""
    for turn in range(max(given.repeats, given.repeats_of_loops)):
        for one in who:
            if turn >= (given.repeats_of_loops if one.loop else given.repeats):
                continue
            found = result(one, bench.measure(one, turn))
            records.append(given.docs / "benchmarks.jsonl", {**facts, "who": one.key, "shown": one.shown} | found)
            seconds = f"{found['seconds']:.2f} s, {found['right']} of {found['n']}" if "seconds" in found else next(iter(found.values()))
            print(f"{turn + 1}  {one.key:18} {seconds}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--repeats-of-loops", type=int, default=1)
    parser.add_argument("--only", metavar="KEY[,KEY]", help=", ".join(c.key for c in CONTESTANTS))
    parser.add_argument("--workers", type=int, default=2, help="processes that load images, of the peers")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a process is ended")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the page")
    add_common(parser)
    given = parser.parse_args()
    if given.table:
        print(write_page(given.docs))
        return
    with tempfile.TemporaryDirectory(prefix="frostline-bench-") as scratch:
        folder = Path(scratch)
        data = given.data or made("digits", folder / "digits", given.frostline, 400, 256)
        images, counts, digest = copied(data, folder / "images")
        other = other_images(folder / "other", given.frostline)
        bench = Bench(images, other, given.epochs, given.workers, given.device, given.frostline, given.peers, folder, given.limit)
        facts = {
            "kind": "contest",
            "session": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "machine": machine(),
            "load_before": load(),
            "device": given.device,
            "data": digest,
            "data_name": data.name,
            "images": counts,
            "classes": len(list((images / "train").iterdir())),
            "epochs": given.epochs,
            "command": command_line(),
            "versions": {"frostline": versions(given.frostline, PACKAGES), "peers": versions(given.peers, PACKAGES)},
        }
        who = chosen(given.only, given.frostline)
        warm_up(bench)
        try:
            measure_all(bench, who, given, facts)
        finally:
            print(write_page(given.docs))


if __name__ == "__main__":
    main()
