"""On a GPU: images a second of frostline's features against the pure forward pass and against decoding.

    python benchmarks/gpu.py --models resnet50,vit_base_patch16_224 --images 4096

Weights are random, which changes no speed. Forward alone: ``forward.py`` on tensors that are on the device already. Decoding alone:
frostline's own functions, in one thread up to as many as there are cores. frostline: the feature part of ``frostline train``, nothing
cached. Without a GPU it says so and ends well. ``--frostline`` and ``--peers`` may be the same interpreter.
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

ENGINES = ("cuda", "cuda-channels-last", "cuda-bf16", "cuda-compile-bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet50,vit_base_patch16_224")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--pixels", type=int, default=500)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=3)
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
        for model in given.models.split(","):
            for engine in given.engines.split(","):
                words = ["--engine", engine, "--model", model, "--batch", str(given.batch), "--seconds", str(given.seconds)]
                found = run([given.peers, ROOT / "benchmarks" / "forward.py", *words]).answer()
                keep(model, f"forward, {engine}", float(str(found["rate"])), difference=found["difference"])
            words = ["--backbone", f"timm:{model}", "--weights", "random", "--epochs", "1", "--device", "cuda", "--json", "--quiet"]
            home = {"FROSTLINE_HOME": str(Path(scratch) / "home" / model)}
            told = run(
                [given.frostline, "-m", "frostline", "train", data, "--out", Path(scratch) / f"run-{model}", *words], env=home
            ).answer()
            keep(model, "frostline's features", given.images / told["seconds"]["features"])
        cores = len(os.sched_getaffinity(0))
        for threads, rate in decode_rates(sorted(data.rglob("*.jpg")), sorted({1, 2, cores}), 3, given.seconds).items():
            keep("decode", f"{threads} threads", rate)
    print(write_page(given.docs))


if __name__ == "__main__":
    main()
