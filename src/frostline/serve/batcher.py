"""Pictures of many requests through one network: decoded in threads, labelled in one, in batches of what is waiting.

No batch waits to become full while the network has nothing to do: while one is being computed the next one gathers. Batches have the run's
fixed shape, so that an answer does not depend on who else asks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from frostline.errors import DecodeError
from frostline.features.pixels import decode_threads, pixels_of
from frostline.use import Labeller, Prediction

_T = TypeVar("_T")


class BusyError(Exception):
    """More pictures wait than the server keeps; the client is to come back."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    name: str
    picture: torch.Tensor
    answer: asyncio.Future[Prediction]


class Batcher:
    """The queue before a labeller. Start and close it in the event loop that asks.

    Args:
        labeller: the run.
        most: pictures that may be decoded or wait; what would be more is refused. A request alone may have any number.
    """

    def __init__(self, labeller: Labeller, most: int) -> None:
        self._labeller, self._most = labeller, most
        self._inside = 0
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._network = ThreadPoolExecutor(1, "network")  # evaluation mode is set and given back around every pass: one at a time
        self._decoders = ThreadPoolExecutor(decode_threads(), "decode")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._task = asyncio.create_task(self._answer())

    async def close(self) -> None:
        """Stop; whoever asks is answered before by the server, which drains first."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._network.shutdown()
        self._decoders.shutdown()

    async def ask(self, files: Sequence[tuple[str, bytes]]) -> list[Prediction]:
        """One answer a file, in order.

        Args:
            files: name and content of each.

        Raises:
            BusyError: too many pictures are waiting.
        """
        if self._inside and self._inside + len(files) > self._most:
            raise BusyError
        self._inside += len(files)
        try:
            return list(await asyncio.gather(*(self._one(name, data) for name, data in files)))
        finally:
            self._inside -= len(files)

    async def decoded(self, data: bytes) -> torch.Tensor | DecodeError:
        """A file's content as the network sees it, ``(3, H, W)`` uint8, or why it is no image."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoders, pixels_of, data, self._labeller.prefix.preprocess)

    async def on_network(self, work: Callable[[], _T]) -> _T:
        """Do some other work in the thread that the network is run in."""
        return await asyncio.get_running_loop().run_in_executor(self._network, work)

    async def _one(self, name: str, data: bytes) -> Prediction:
        picture = await self.decoded(data)
        if isinstance(picture, DecodeError):
            return self._labeller.answers([name], [picture])[0]
        waiting = _Waiting(name, picture, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._wake.set()
        return await waiting.answer

    async def _answer(self) -> None:
        """Hand batches to the network's thread: one when it has nothing to do, and a full one more, so that it need not wait for us."""
        size = self._labeller.prefix.batch
        under_way: set[asyncio.Task[None]] = set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            under_way = {task for task in under_way if not task.done()}
            while self._queue and (not under_way or (len(under_way) == 1 and len(self._queue) >= size)):
                batch = [self._queue.popleft() for _ in range(min(size, len(self._queue)))]
                task = asyncio.create_task(self._label(batch))
                task.add_done_callback(lambda _: self._wake.set())
                under_way.add(task)

    async def _label(self, batch: Sequence[_Waiting]) -> None:
        names, pictures = [w.name for w in batch], [w.picture for w in batch]
        try:
            answers = await self.on_network(lambda: self._labeller.answers(names, pictures))
        except Exception as fault:  # a bug, or a device that fails: those who asked hear of it, and the next batch is tried
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(fault)
            return
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)
