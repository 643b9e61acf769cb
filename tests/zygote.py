"""A process that has imported what commands import, and forks for each: importing torch anew takes longer than most tests.

A child is what ``python -m frostline`` is by then: a process of its own with its own streams, folder and exit code. What depends on how a
command starts, on signals or on the environment starts it anew.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

IMPORTED = ("torch", "timm", "torchvision", "frostline.cli.main", "frostline.cli.train", "frostline.fitting", "frostline.use")


class Zygote:
    """The process, from outside."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def run(self, arguments: list[str], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run one command; its streams are read when it has ended."""
        with tempfile.TemporaryDirectory(prefix="frostline-tests-") as place:
            files = [str(Path(place) / name) for name in ("out", "err")]
            told, answers = self._process.stdin, self._process.stdout
            assert told is not None
            assert answers is not None
            told.write(json.dumps({"arguments": arguments, "cwd": str(cwd), "files": files}) + "\n")
            if not select.select([answers], [], [], timeout)[0]:
                self.close()
                raise subprocess.TimeoutExpired(arguments, timeout)
            answer = answers.readline()
            assert answer, f"the process that forks commands ended with {self._process.wait()}: see the error of the test before"
            out, err = (Path(file).read_text() for file in files)
            return subprocess.CompletedProcess(arguments, int(answer), out, err)

    def close(self) -> None:
        """End the process, and the command under way."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)


def command(arguments: list[str], cwd: str, files: list[str]) -> NoReturn:
    """In the child: become the command."""
    from frostline.cli.main import main

    for stream, file in zip((sys.stdout, sys.stderr), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream.fileno())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    sys.path[0] = cwd
    sys.argv = ["frostline", *arguments]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main()
    raise AssertionError("main ends the process")


def serve() -> None:
    """Answer one line with one line, for ever."""
    child = 0

    def end(*_: object) -> NoReturn:
        if child:
            os.kill(child, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    for name in IMPORTED:
        __import__(name)
    threads = Path("/proc/self/task")
    assert not threads.exists() or len(list(threads.iterdir())) == 1, "a process with threads cannot be forked"
    for line in sys.stdin:
        child = os.fork()
        if not child:
            command(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        child = 0


if __name__ == "__main__":
    serve()
