"""The desk of a server: it counts requests, runs each in a thread, and ends work that no client waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from dearlite.serve.limits import Limits
from dearlite.serve.models import ServedModel
from dearlite.serve.refusals import Refused
from dearlite.serve.turns import Turn

Result = TypeVar("Result")


class ClientGone(Exception):
    """The client closed its connection before the answer was there."""


class Desk:
    """The requests that run or wait, at most `limits.queue`. Its methods are called from the event loop only."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._turns: set[Turn] = set()
        self._pool = ThreadPoolExecutor(limits.queue, thread_name_prefix="dearlite-request")

    @property
    def size(self) -> int:
        """Number of requests that run or wait. One that was given up counts until its thread has ended."""
        return len(self._turns)

    def admit(self, model: ServedModel) -> Turn:
        """A place in the order of the model. Raises Refused if there is none; every place must be used by `run`."""
        if self.size >= self.limits.queue:
            raise Refused(429, f"{self.size} requests are running or waiting: try again soon", retry_after_s=1)
        return Turn(model.turns)

    async def run(self, turn: Turn, work: Callable[[], Result], gone: Callable[[], Awaitable[object]]) -> Result:
        """The result of `work`, which runs in a thread.

        `gone` returns when the client has closed the connection: the work is stopped, and ClientGone raised. Raises
        Refused if the work takes longer than the limit, and what `work` raises.
        """
        loop = asyncio.get_running_loop()
        future = self._pool.submit(work)
        self._turns.add(turn)
        future.add_done_callback(lambda _: self._free(loop, turn))
        result = asyncio.wrap_future(future)
        watcher = asyncio.ensure_future(gone())
        try:
            waited: set[asyncio.Future[Any]] = {result, watcher}
            await asyncio.wait(waited, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            self._give_up(turn, future, result)
            if watcher.done():
                raise ClientGone
            raise Refused(
                504, f"the work took longer than {self.limits.seconds:g} s: send fewer documents, or a budget"
            )
        except asyncio.CancelledError:
            self._give_up(turn, future, result)
            raise
        finally:
            watcher.cancel()

    def stop(self) -> None:
        """Stops the work of all requests; they are answered with a refusal."""
        for turn in list(self._turns):
            turn.stop()

    def close(self) -> None:
        """Stops the work of all requests, and waits for its end."""
        self.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _give_up(self, turn: Turn, future: Future[Result], result: asyncio.Future[Result]) -> None:
        turn.stop()
        result.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # its error interests nobody

    def _free(self, loop: asyncio.AbstractEventLoop, turn: Turn) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._turns.discard, turn)
