"""The command ``frostline``: verbs, exit codes, and one line for every error. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import contextlib
import os
import sys
import time

import typer
from typer.exceptions import TyperException

from frostline import _collector
from frostline.cli.advise import advise
from frostline.cli.cache import cache
from frostline.cli.completion import completion
from frostline.cli.data import data
from frostline.cli.demo import demo
from frostline.cli.doctor import doctor
from frostline.cli.evaluate import evaluate
from frostline.cli.explain import explain
from frostline.cli.export import export
from frostline.cli.extract import extract
from frostline.cli.inspect import inspect
from frostline.cli.predict import predict
from frostline.cli.report import report
from frostline.cli.serve import serve
from frostline.cli.signals import SIGNALS, Terminated
from frostline.cli.train import train
from frostline.errors import FrostlineError

_STARTED = time.perf_counter()

INTERRUPTED, TERMINATED, WRONG_INPUT, BUG = 130, 75, 2, 1

app = typer.Typer(
    name="frostline",
    help="Train a PyTorch model on top of pre-trained layers that stay frozen, provably, and are computed once.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (train, advise, data, inspect, evaluate, predict, explain, report, serve, export, extract, doctor, demo, completion):
    app.command()(verb)
app.add_typer(cache, name="cache")


def seconds_since_start() -> float:
    """Wall time since this process imported frostline."""
    return time.perf_counter() - _STARTED


def main() -> None:
    """Run the command line and end the process with its exit code.

    At once: taking torch down in good order would cost half a second, and everything that was to be written is.
    """
    _collector.put_off()
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # whoever read it is gone
            stream.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run one command.

    Returns:
        0 done; 2 the input is wrong; 130 interrupted; 75 terminated; 1 a bug (its traceback is shown).
    """
    SIGNALS.install()
    try:
        code: object = app(arguments or ["--help"], standalone_mode=False, prog_name="frostline")
        sys.stdout.flush()
        if code == INTERRUPTED:  # typer answers KeyboardInterrupt itself, without a word
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except TyperException as fault:
        return _refuse(fault.format_message().replace("\n", " ") or "nothing to do; see frostline --help")
    except FrostlineError as fault:
        return _refuse(str(fault), fault.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _refuse(f"interrupted; what was finished is kept, {SIGNALS.advice}", INTERRUPTED)
    except Terminated:
        return _refuse(f"terminated; what was finished is kept, {SIGNALS.advice}", TERMINATED)
    except typer.Exit as end:
        return end.exit_code
    except RuntimeError as fault:
        if type(fault).__name__ != "OutOfMemoryError":  # torch's, which is not imported for its name
            raise
        return _refuse("the GPU has not enough memory for this; what was finished is kept: use a smaller --batch-size, or --device cpu")
    except BrokenPipeError:  # whoever read our output has enough (frostline predict ... | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _refuse(line: str, code: int = WRONG_INPUT) -> int:
    print(f"frostline: {line}", file=sys.stderr)
    return code
