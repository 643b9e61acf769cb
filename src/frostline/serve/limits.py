"""What a client may send: from where, how much, and how slowly. Everything is refused before it takes memory.

How much is an ASGI layer, :class:`Guard`. How slowly has to be known earlier: a socket that never finishes its headers reaches no
application, so that :func:`patient` gives uvicorn's own protocol a deadline for the receipt of each request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Limits:
    """What the server puts up with.

    Attributes:
        body: bytes of one request.
        held: bytes of all requests that are being received or answered.
        pictures: that wait for the network, of all requests.
        seconds: until a request has to be there whole ...
        rate: ... and one second more for each so many bytes of it: a slow line may send a photograph, a stalled one may not hold a socket.
    """

    body: int = 32 * 2**20
    held: int = 256 * 2**20
    pictures: int = 512
    seconds: float = 10.0
    rate: int = 64 * 2**10


class Guard:
    """ASGI layer: refuses foreign hosts and pages (403), too large bodies (413) and what is too much at once (503).

    Args:
        app: what is guarded.
        limits: see there.
        loopback: whether only this machine is served. Then another host's name in ``Host`` is a page that was made to point here (DNS
            rebinding), and is refused.
    """

    def __init__(self, app: ASGIApp, limits: Limits, *, loopback: bool) -> None:
        self._app, self._limits, self._loopback = app, limits, loopback
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._foreign(headers) or self._declared(headers)
        if refusal is not None:
            await answer(send, *refusal)
            return
        request = _Request(receive, send, self)
        try:
            await self._app(scope, request.receive, request.send)
            if request.refused is not None and not request.started:
                await answer(send, *request.refused)
        finally:
            self._held -= request.received

    def _foreign(self, headers: Mapping[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self._loopback and host.rpartition(":")[0 if ":" in host.rpartition("]")[2] else 2] not in LOOPBACK:
            return 403, "only this machine is served, under 127.0.0.1 or localhost"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "the pages of other sites are not served"
        return None

    def _declared(self, headers: Mapping[str, str]) -> tuple[int, str] | None:
        length = headers.get("content-length", "0")
        return self.over(int(length) if length.isdecimal() else 0, 0)

    def over(self, size: int, more: int) -> tuple[int, str] | None:
        """The refusal of a request of ``size`` bytes of which ``more`` have just come, or None; those are counted."""
        self._held += more
        if size > self._limits.body:
            return 413, f"a request may have {self._limits.body} bytes"
        if self._held + (0 if more else size) > self._limits.held:
            return 503, "too much is being received, try again soon"
        return None


class _Request:
    """Counts what arrives, whatever was declared; what is too much is not handed on."""

    def __init__(self, receive: Receive, send: Send, guard: Guard) -> None:
        self._receive, self._send, self._guard = receive, send, guard
        self.received, self.started = 0, False
        self.refused: tuple[int, str] | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        size = len(message.get("body", b""))
        self.received += size
        self.refused = self._guard.over(self.received, size)
        return {"type": "http.disconnect"} if self.refused is not None else message

    async def send(self, message: Message) -> None:
        if self.refused is not None and not self.started:
            return  # what the application says about a body that it was not given
        self.started = True
        await self._send(message)


async def answer(send: Send, status: int, detail: str) -> None:
    """Answer with ``{"detail": ...}``, as FastAPI does; 503 says when to come back."""
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def patient(limits: Limits) -> type[H11Protocol]:
    """uvicorn's protocol with a deadline for the receipt of each request, its headers included; a late one is cut off.

    Args:
        limits: ``seconds`` and ``rate`` are taken.
    """

    class Patient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._timer: asyncio.TimerHandle | None = None
            self._wait()

        def data_received(self, data: bytes) -> None:
            if self._timer is None:
                self._wait()
            self._received += len(data)
            super().data_received(data)
            if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
                self._rest()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._began, self._received = self.loop.time(), 0
            self._timer = self.loop.call_later(limits.seconds, self._late)

        def _rest(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None

        def _late(self) -> None:
            until: Any = self._began + limits.seconds + self._received / limits.rate
            if self.loop.time() < until:
                self._timer = self.loop.call_at(until, self._late)
            else:
                self.transport.abort()

    return Patient
