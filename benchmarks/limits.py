"""What the machine could do at best: imports alone, decoding alone, the forward pass alone with every engine there is.

    python benchmarks/limits.py DATA --repeats 3 --seconds 3

- *imports*: ``python -c "import ..."`` in a fresh process, less an empty one;
- *decode*: reading, decoding, resizing and cropping by frostline's own functions, in one thread and in as many as there are cores;
- *forward*: ``forward.py``, one process an engine and batch size, in the environment of the peers, which has openvino.

The sum of imports, decoding and the best exact forward is what a cold run cannot fall below on a machine whose cores they share.
Without DATA, generated photographs of 500 pixels are decoded.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import records
from harness.arguments import ROOT, add_common, command_line
from harness.machine import load, machine, versions
from harness.page import write_page
from harness.process import run

MODULES = ("torch", "timm", "torchvision", "sklearn.linear_model", "openvino", "pytorch_lightning", "fastai.vision.all")
TOGETHER = "torch, timm"  # what a run that opens a timm network cannot do without
ENGINES = ("eager", "channels-last", "folded", "folded-bf16", "openvino", "openvino-bf16")
PACKAGES = ("frostline", "torch", "timm", "pillow", "openvino")


def import_seconds(python: str, modules: Sequence[str], repeats: int) -> dict[str, float]:
    """Median seconds that importing takes, less what an empty process takes; what is not installed is left out."""
    taken: dict[str, list[float]] = {}
    for turn in range(repeats + 1):  # the first turn fills the file cache and is dropped
        for module in ("sys", *modules):
            ran = run([python, "-c", f"import {module}"])
            if ran.code == 0 and turn:
                taken.setdefault(module, []).append(ran.seconds)
    empty = statistics.median(taken.pop("sys"))
    return {module: statistics.median(seconds) - empty for module, seconds in taken.items()}


def decode_rates(files: Sequence[Path], threads: Sequence[int], repeats: int, seconds: float) -> dict[int, float]:
    """Images a second, read, decoded, resized and cropped by frostline's functions."""
    from frostline import open_backbone
    from frostline.features.pixels import load_image

    preprocess = open_backbone("tf_efficientnet_lite0", offline=True).preprocess

    def one(file: Path) -> None:
        preprocess.pixels(load_image(file))

    found: dict[int, float] = {}
    for count in threads:
        rates = []
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(one, files[: 4 * count]))
            for _ in range(repeats):
                began, done = time.perf_counter(), 0
                while (passed := time.perf_counter() - began) < seconds:
                    part = files[done % len(files) :][:64]
                    list(pool.map(one, part))
                    done += len(part)
                rates.append(done / passed)
        found[count] = statistics.median(rates)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="that each rate is measured for, in each repeat")
    parser.add_argument("--engines", default=",".join(ENGINES), help="also compile and compile-bf16")
    parser.add_argument("--batches", default="16,32")
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    add_common(parser)
    given = parser.parse_args()
    facts = {
        "kind": "limits",
        "session": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "machine": machine(),
        "load_before": load(),
        "command": command_line(),
        "versions": {"frostline": versions(given.frostline, PACKAGES), "peers": versions(given.peers, PACKAGES)},
    }

    def keep(what: str, name: str, value: float, **more: object) -> None:
        records.append(given.docs / "benchmarks.jsonl", {**facts, "what": what, "name": name, "value": value, **more})
        print(f"{what:8} {name:28} {value:9.2f} {'s' if what == 'imports' else 'images/s'}", flush=True)

    for module, seconds in import_seconds(given.peers, (*MODULES, TOGETHER), given.repeats).items():
        keep("imports", module, seconds)
    for engine in given.engines.split(","):
        for batch in given.batches.split(","):
            words = ["--engine", engine, "--batch", batch, "--model", given.model]
            words += ["--seconds", str(given.seconds), "--repeats", str(given.repeats)]
            found = run([given.peers, ROOT / "benchmarks" / "forward.py", *words]).answer()
            if "cannot" in found:
                print(f"{engine}: {found['cannot']}")
                break
            keep("forward", engine, float(str(found["rate"])), batch=int(batch), prepared=found["prepared"], difference=found["difference"])
    with tempfile.TemporaryDirectory() as scratch:
        if given.data is None:
            run([given.frostline, ROOT / "benchmarks" / "pictures.py", "noise", scratch, "--images", "200", "--size", "500"])
        files = sorted(p for p in (given.data or Path(scratch)).rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        name = "generated, 500 pixels" if given.data is None else given.data.name
        # last, since it imports torch into this process
        for threads, rate in decode_rates(files, sorted({1, cores}), given.repeats, given.seconds).items():
            keep("decode", f"{threads} thread{'s' * (threads > 1)}", rate, images=name)
    print(write_page(given.docs))


if __name__ == "__main__":
    main()
