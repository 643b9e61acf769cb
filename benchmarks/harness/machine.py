"""The machine and the software, in words."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from harness.process import run

_ASK = """
import importlib.metadata as m, json, sys
names = sys.argv[1:]
found = {}
for name in names:
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def machine() -> str:
    """Processor, cores that may be used, memory, system, GPU: what figures depend on, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB memory, {platform.system()} {platform.machine()}, {gpu() or 'no GPU'}"


def gpu() -> str | None:
    """Name of the first GPU, None where there is none."""
    try:
        found = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip().splitlines()[0] if found.stdout.strip() else None


def load() -> float:
    """Average number of processes that wanted to run in the last minute; above about 0.5 the machine is not idle."""
    return round(os.getloadavg()[0], 2)


def versions(python: Path | str, names: tuple[str, ...]) -> dict[str, str]:
    """Versions of the packages ``names`` that ``python`` has."""
    found = run([python, "-c", _ASK, *names], limit=60).answer()
    return {"python": platform.python_version()} | {str(k): str(v) for k, v in found.items()}


def this_python() -> Path:
    """The interpreter that runs this."""
    return Path(sys.executable)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or "unknown processor"
    lines = info.read_text().splitlines()
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    told = [word for word in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if word in flags]
    return f"{name} ({', '.join(told)})" if told else name
