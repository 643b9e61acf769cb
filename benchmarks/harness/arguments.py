"""Arguments that several benchmarks take."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def add_common(parser: argparse.ArgumentParser) -> None:
    """Where results go, and which interpreters run what."""
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of benchmarks.md, .svg and .jsonl")
    parser.add_argument("--frostline", default=sys.executable, metavar="PYTHON", help="interpreter that has frostline")
    parser.add_argument("--peers", default=str(ROOT / ".venv-bench" / "bin" / "python"), metavar="PYTHON", help="interpreter of the peers")


def command_line() -> str:
    """What was typed, as it can be typed again."""
    return f"python {shlex.join([Path(sys.argv[0]).as_posix(), *sys.argv[1:]])}"
