"""What `frostline advise` says that plans take, against what `frostline train` takes for them.

    python benchmarks/predicted_seconds.py ../shared/data/hymenoptera --longest 150

Every plan is trained in a process of its own, from a copy of the cache as advice left it. Times are `seconds.total` less
`seconds.startup` of its summary, for the predictions leave out the start-up. Run nothing beside it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.machine import machine
from harness.process import run


def frostline(*arguments: str) -> dict[str, Any]:
    return run([sys.executable, "-m", "frostline", *arguments, "--json"]).answer()


def taken(asked: list[str], plan: dict[str, Any], known: Path, scratch: Path) -> float:
    """Seconds of training a plan, the start-up left out."""
    cache, out = scratch / "copy", scratch / "run"
    for folder in (cache, out):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(known, cache)
    flags = [f"--{name}={plan[name]}" for name in ("unfreeze", "strategy", "head")]
    seconds = frostline("train", *asked, *flags, "--cache-dir", str(cache), "--out", str(out))["seconds"]
    return seconds["total"] - seconds["startup"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--longest", type=float, default=120.0, help="seconds of a plan, as predicted, that is still trained")
    parser.add_argument("--backbone")
    parser.add_argument("--weights")
    given = parser.parse_args()
    asked = [given.data, *(f"--{n}={v}" for n in ("backbone", "weights") if (v := getattr(given, n)))]
    print(f"{machine()}; {' '.join(asked)}")
    with tempfile.TemporaryDirectory(prefix="frostline-predicted-") as scratch:
        known = Path(scratch, "advice")
        plans = frostline("advise", *asked, "--cache-dir", str(known))["candidates"]
        inside, count = 0, 0
        for plan in sorted(plans, key=lambda p: p["seconds"]):
            low, high = plan["seconds_interval"]
            what = f"{plan['unfreeze']:7} {plan['strategy']:6} {plan['head']:13} {low:6.1f} to {high:6.1f} s"
            if plan["seconds"] > given.longest:
                print(f"{what}  (not trained)")
                continue
            seconds = taken(asked, plan, known, Path(scratch))
            inside, count = inside + (low <= seconds <= high), count + 1
            print(f"{what}  took {seconds:6.1f} s{'' if low <= seconds <= high else '  outside'}", flush=True)
    print(f"{inside} of {count} inside")


if __name__ == "__main__":
    main()
