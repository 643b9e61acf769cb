"""``frostline serve RUN``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from frostline.cli.completion import one_of
from frostline.cli.output import printable
from frostline.cli.settings import is_offline
from frostline.cli.signals import Terminated
from frostline.errors import ServeError


def serve(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="run directory")],
    host: Annotated[str, typer.Option(help="address to listen on; the default is reached from this machine only")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one", min=0, max=65535)] = 8000,
    max_body: Annotated[int, typer.Option(help="MB that one request may have", min=1)] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps", autocompletion=one_of("device"))] = "auto",
) -> None:
    """Answer over HTTP, and serve a page to drop images on; the address is the first line of output."""
    missing = [n for n in ("fastapi", "uvicorn", "python_multipart") if importlib.util.find_spec(n) is None]
    if missing:
        raise ServeError(f"{', '.join(missing)} is not installed", where="frostline serve", advice='pip install "frostline[serve]"')
    from frostline.run import read_run
    from frostline.serve.limits import Limits
    from frostline.serve.server import address, is_loopback, listen, run_server
    from frostline.use import Labeller

    with listen(host, port) as made:
        labeller = Labeller(read_run(run, offline=is_offline()), device)
        print(address(made), flush=True)
        if not is_loopback(made):
            print("frostline: whoever reaches this address can use it, and sees training images; there is no password", file=sys.stderr)
        if labeller.familiar is None:
            print(f"frostline: {printable(run)} does not say what is unfamiliar: it has no familiar.safetensors", file=sys.stderr)
        limits = Limits(body=max_body * 2**20, held=max(Limits.held, max_body * 2**20))
        try:
            run_server(labeller, made, limits)
        except (KeyboardInterrupt, Terminated):  # raised once more by uvicorn, when all is answered
            print("frostline: stopped; every request that had been received was answered", file=sys.stderr)
