"""Run a command as a whole process and say what it took.

Peak memory comes from ``wait4``. Linux counts what the parent held when it forked as well, so a program that measures must stay small
itself: nothing here, nor in what calls it, imports numpy or torch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Ran:
    """A process that ended.

    Attributes:
        seconds: wall time from start to end.
        cpu_seconds: of all its threads, and of the processes that it waited for.
        peak_mb: largest resident memory of it, or of the largest process that it waited for; not their sum. In 10^6 bytes.
        code: exit code; negative where a signal ended it.
        out: what it printed.
        err: what it printed on stderr.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    code: int
    out: str
    err: str

    def answer(self) -> dict[str, object]:
        """The JSON object on the last line of its output.

        Raises:
            ValueError: it failed, or the last line is none.
        """
        if self.code == -signal.SIGKILL:
            raise ValueError(f"killed after {self.seconds:.0f} s, by the limit or for want of memory")
        if self.code != 0:
            raise ValueError(f"exit code {self.code}: {' '.join(self.err.split())[-300:]}")
        lines = self.out.strip().splitlines()
        if not lines:
            raise ValueError("it printed nothing")
        return json.loads(lines[-1])


def run(words: Sequence[str | Path | float], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, limit: float = 3600) -> Ran:
    """Run a command to its end, and kill it with all its children after ``limit`` seconds.

    Args:
        words: the command line.
        env: added to the environment.
        cwd: where it runs.
        limit: seconds.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
        timer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return Ran(
        round(seconds, 3),
        round(used.ru_utime + used.ru_stime, 3),
        round(used.ru_maxrss * _MAXRSS_UNIT / 1e6, 1),
        process.returncode,
        *texts,
    )
