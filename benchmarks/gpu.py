"""On a GPU: images a second of frostline's features against the pure forward pass and against decoding.

    python benchmarks/gpu.py --models resnet50,vit_base_patch16_224 --images 8192

Weights are random, which changes no speed. Forward alone: ``forward.py`` on tensors that are on the device already. Decoding alone:
frostline's own functions, in one thread up to as many as there are cores. frostline: the feature part of ``frostline train``, nothing
cached, in every precision of ``--precisions``; beside it the relative L2 difference of these features, of 128 images, from those of
the CPU in fp32. Without a GPU it says so and ends well. ``--frostline`` and ``--peers`` may be the same interpreter;
``gpu.sh`` runs it, and the tests, on a machine that has neither frostline nor a network.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from harness import records
from harness.arguments import ROOT, add_common, command_line
from harness.machine import gpu, machine, versions
from harness.page import write_page
from harness.process import run
from limits import decode_rates

COMPARED = 128
ENGINES = ("cuda", "cuda-channels-last", "cuda-bf16", "cuda-compile-bf16")


_COMPARE = """
import json, sys
import numpy as np
from frostline.extractor import FeatureExtractor
model, precision, home, *paths = sys.argv[1:]
found = FeatureExtractor(model, "random", home, "cuda", precision=precision).transform(paths)
wanted = FeatureExtractor(model, "random", None, "cpu", precision="fp32").transform(paths)
print(json.dumps({"difference": float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet50,vit_base_patch16_224")
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--pixels", type=int, default=500)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--engines", default=",".join(ENGINES))
    add_common(parser)
    given = parser.parse_args()
    if gpu() is None:
        print("no GPU on this machine: nothing measured")
        return
    facts = {
        "kind": "gpu",
        "session": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "machine": machine(),
        "command": command_line(),
        "versions": {"frostline": versions(given.frostline, ("frostline", "torch", "timm"))},
    }

    def keep(model: str, what: str, rate: float, **more: object) -> None:
        records.append(given.docs / "benchmarks.jsonl", {**facts, "model": model, "what": what, "rate": rate, **more})
        print(f"{model:24} {what:24} {rate:9.0f} images/s", flush=True)

    with tempfile.TemporaryDirectory(prefix="frostline-gpu-") as scratch:
        data = Path(scratch) / "data"
        for i, label in enumerate(("a", "b")):
            words = ["noise", data / label, "--images", str(given.images // 2), "--size", str(given.pixels), "--seed", str(i)]
            run([given.frostline, ROOT / "benchmarks" / "pictures.py", *words])
        some = sorted(data.rglob("*.jpg"))[:COMPARED]
        for model in given.models.split(","):
            for engine in given.engines.split(","):
                words = ["--engine", engine, "--model", model, "--batch", str(given.batch), "--seconds", str(given.seconds)]
                found = run([given.peers, ROOT / "benchmarks" / "forward.py", *words]).answer()
                keep(model, f"forward, {engine}", float(str(found["rate"])), difference=found["difference"])
            for precision in given.precisions.split(","):
                words = ["--backbone", f"timm:{model}", "--weights", "random", "--precision", precision, "--epochs", "1"]
                place = Path(scratch) / f"{model}-{precision}"
                command = [given.frostline, "-m", "frostline", "train", data, "--out", place / "run", *words, "--device", "cuda"]
                told = run([*command, "--json", "--quiet"], env={"FROSTLINE_HOME": str(place / "home")}).answer()
                rate = given.images / told["seconds"]["features"]
                compared = [given.frostline, "-c", _COMPARE, f"timm:{model}", precision, place / "home", *some]
                apart = run(compared).answer()["difference"]
                keep(model, f"frostline's features, {precision}", rate, difference=apart, engine=told["engine"])
        cores = len(os.sched_getaffinity(0))
        for threads, rate in decode_rates(sorted(data.rglob("*.jpg")), sorted({1, 2, cores}), 3, given.seconds).items():
            keep("decode", f"{threads} threads", rate)
    print(write_page(given.docs))


if __name__ == "__main__":
    main()
