"""The server process: a socket, and uvicorn on it until it is told to stop; then every request that was received is answered first."""

from __future__ import annotations

import ipaddress
import socket

import uvicorn

from frostline.errors import ServeError
from frostline.serve.app import make_app
from frostline.serve.limits import Guard, Limits, patient
from frostline.use import Labeller

_DRAIN_SECONDS = 30


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; connections wait in it until they are served.

    Args:
        host: an address or name of this machine.
        port: 0 takes a free one.

    Raises:
        ServeError: the address is not to be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as fault:
        raise ServeError(f"is no address of this machine ({fault.strerror or fault})", where=f"--host {host}") from fault
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(512)
    except (OSError, OverflowError) as fault:
        made.close()
        why = fault.strerror if isinstance(fault, OSError) else str(fault)
        raise ServeError(f"cannot be had ({why})", where=f"{host}:{port}", advice="give another --port, or 0 for a free one") from fault
    return made


def is_loopback(made: socket.socket) -> bool:
    """Whether only this machine can reach a socket."""
    return ipaddress.ip_address(made.getsockname()[0]).is_loopback


def address(made: socket.socket) -> str:
    """``http://127.0.0.1:8000``."""
    host, port = made.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_server(labeller: Labeller, made: socket.socket, limits: Limits) -> None:
    """Serve until SIGINT or SIGTERM; new connections are refused then, requests under way answered.

    Args:
        labeller: the run.
        made: see :func:`listen`.
        limits: what clients may do.
    """
    app = Guard(make_app(labeller, limits), limits, loopback=is_loopback(made))
    config = uvicorn.Config(
        app,
        http=patient(limits),
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        limit_concurrency=1024,
    )
    uvicorn.Server(config).run([made])
