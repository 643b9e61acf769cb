"""Sixteen clients of ``frostline serve``, one picture a request, against the loop of ``frostline predict``: both in turn, on one machine.

python benchmarks/serve.py RUN PICTURES [ROUNDS]
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from frostline.run import read_run
from frostline.use import Labeller, files_named, label_files

CLIENTS = 16


def upload(path: Path) -> tuple[bytes, str]:
    """A body with one file, and its content type."""
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'.encode()
    return head + path.read_bytes() + f"\r\n--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def client(port: int, uploads: list[tuple[bytes, str]]) -> list[float]:
    """Ask one after the other; seconds of each."""
    line, found = http.client.HTTPConnection("127.0.0.1", port), []
    for body, kind in uploads:
        began = time.perf_counter()
        line.request("POST", "/predict", body, {"Content-Type": kind})
        reply = line.getresponse()
        answers = json.loads(reply.read())
        assert reply.status == 200, answers
        found.append(time.perf_counter() - began)
    return found


def main(run: Path, pictures: Path, rounds: int) -> None:
    """Print images a second of both, and the median ratio."""
    paths = list(files_named([pictures]))
    uploads = [upload(p) for p in paths]
    command = [sys.executable, "-m", "frostline", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().strip().rpartition(":")[2])
        labeller = Labeller(read_run(run, offline=True))

        def offline() -> float:
            began = time.perf_counter()
            return sum(1 for _ in label_files(labeller, paths)) / (time.perf_counter() - began)

        offline(), client(port, uploads[:32])
        ratios: list[float] = []
        for _ in range(rounds):
            before = offline()
            began = time.perf_counter()
            with ThreadPoolExecutor(CLIENTS) as pool:
                waits = [s for some in pool.map(lambda k: client(port, uploads[k::CLIENTS]), range(CLIENTS)) for s in some]
            served = len(paths) / (time.perf_counter() - began)
            after = offline()
            ratios.append(served / statistics.mean((before, after)))
            rates = f"offline {before:.1f} and {after:.1f}, served {served:.1f} images/s: {ratios[-1]:.2f}"
            print(f"{rates}; a request {statistics.median(waits):.3f} s", flush=True)
        print(f"median ratio {statistics.median(ratios):.2f}")
        server.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 5)
