"""Calls of a Reranker by asyncio tasks: they run in threads, and the end of a task is the end of its call."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from dearlite.errors import Cancelled
from dearlite.lifetime import Lifetime
from dearlite.options import Listwise
from dearlite.ranking import Ranking, T_co
from dearlite.renamed import with_former_names

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from dearlite.fields import Fields
    from dearlite.options import Fuse, Long
    from dearlite.progress import Progress

# Calls of one Reranker that run at the same time; the others wait in order. Each uses all of the model's threads: more
# calls at once finish no sooner, and one alone would let a small call wait for a large one.
CALLS_AT_ONCE = 4

Result = TypeVar("Result")
T = TypeVar("T")
_starting = Lock()


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """`done` of `total` documents have been read."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class TextEvent:
    """A piece of the text that a listwise model writes: its reasoning, in mode "reason"."""

    text: str


@dataclass(frozen=True, slots=True)
class RankingEvent(Generic[T_co]):
    """The end of a call, and its result."""

    ranking: Ranking[T_co]


RerankEvent = ProgressEvent | TextEvent | RankingEvent[T_co]
"""An item of `astream`; `RerankEvent[T]` for documents of type T."""


class Tasks(Lifetime):
    """The coroutines of a Reranker."""

    _threads_of = 0  # the process of the threads

    @with_former_names
    async def arerank(
        self: Reranks,
        query: str | Sequence[str],
        docs: Iterable[T],
        *,
        top_k: int | None = None,
        listwise: Listwise | None = None,
        progress: Progress | bool | None = None,
        cancel: Event | None = None,
        budget_s: float | None = None,
        long: Long | None = None,
        fields: Fields | None = None,
        fuse: Fuse | None = None,
    ) -> Ranking[T]:
        """The ranking that `rerank` returns, computed in a thread while the event loop goes on.

        When the task is cancelled, its `await` ends at once and the model stops within a document (llama.cpp: within a
        batch of tokens). Of the calls of one Reranker 4 run at a time, the others wait in order. `progress` and
        `on_text` are called in the event loop; an error that they raise ends the call. `docs` is read in a thread: do
        not change it before the call ends.
        """
        self.check_open()
        options = {
            "top_k": top_k,
            "listwise": listwise,
            "progress": progress,
            "cancel": cancel,
            "budget_s": budget_s,
            "long": long,
            "fields": fields,
            "fuse": fuse,
        }
        return await call_in_thread(self.call_threads(), partial(self.rerank, query, docs), options)

    async def astream(
        self: Reranks,
        query: str | Sequence[str],
        docs: Iterable[T],
        *,
        top_k: int | None = None,
        listwise: Listwise | None = None,
        cancel: Event | None = None,
        budget_s: float | None = None,
        long: Long | None = None,
        fields: Fields | None = None,
        fuse: Fuse | None = None,
    ) -> AsyncIterator[RerankEvent[T]]:
        """Yields a ProgressEvent per count of documents, a TextEvent per piece of reasoning, and last a RankingEvent.

        The arguments and errors are those of `arerank`. Leaving the loop ends the call; where the generator is kept,
        `contextlib.aclosing` or its `aclose()` does.
        """
        import asyncio

        events: asyncio.Queue[RerankEvent[T] | None] = asyncio.Queue()
        if isinstance(listwise, Listwise):  # another type is refused by the call
            listwise = replace(
                listwise, on_text=_both(listwise.on_text, lambda text: events.put_nowait(TextEvent(text)))
            )
        call = self.arerank(
            query,
            docs,
            top_k=top_k,
            listwise=listwise,
            progress=lambda done, total: events.put_nowait(ProgressEvent(done, total)),
            cancel=cancel,
            budget_s=budget_s,
            long=long,
            fields=fields,
            fuse=fuse,
        )

        def end(task: asyncio.Task[Ranking[T]]) -> None:
            if not task.cancelled():
                task.exception()  # asyncio logs an error that nobody has read, after the loop was left
            events.put_nowait(None)

        task = asyncio.create_task(call)
        task.add_done_callback(end)
        try:
            while (event := await events.get()) is not None:
                yield event
            yield RankingEvent(task.result())
        finally:
            task.cancel()
            await asyncio.wait([task])  # `on_text` is not called after the end of the loop

    def call_threads(self) -> Executor:
        """The threads that run the calls of tasks, started as they are needed, anew in a forked process."""
        with _starting:
            if self._threads is None or self._threads_of != os.getpid():
                self._threads, self._threads_of = new_threads(CALLS_AT_ONCE), os.getpid()
            return self._threads


class Reranks(Protocol):
    """A Reranker as its coroutines see it."""

    @property
    def rerank(self) -> Callable[..., Ranking[Any]]: ...
    @property
    def arerank(self) -> Callable[..., Coroutine[Any, Any, Ranking[Any]]]: ...
    def check_open(self) -> None: ...
    def call_threads(self) -> Executor: ...


def new_threads(count: int) -> Executor:
    """At most `count` threads for calls, which end when it is dropped."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(count, thread_name_prefix="dearlite-call")


async def call_in_thread(threads: Executor, call: Callable[..., Result], options: Mapping[str, Any]) -> Result:
    """The result of `call(**options)` by one of `threads`. The end of the running task sets its `cancel`.

    The callbacks `progress` and `listwise.on_text` are called in the event loop, none after the end of the task. The
    first error of one ends the call.
    """
    import asyncio
    from contextvars import copy_context

    loop, stop, failures = asyncio.get_running_loop(), LinkedEvent(options["cancel"]), list[Exception]()
    ended = False

    def run(callback: Callable[..., None], *values: object) -> None:
        try:
            if not failures and not ended:  # those that wait in the loop when the task is cancelled
                callback(*values)
        except Exception as err:
            failures.append(err)
            stop.set()

    def in_loop(callback: Callable[..., None]) -> Callable[..., None]:
        def call_later(*values: object) -> None:
            loop.call_soon_threadsafe(run, callback, *values)

        return call_later

    changed: dict[str, Any] = {"cancel": stop}
    if callable(options["progress"]):  # True is a bar, which the thread draws
        changed["progress"] = in_loop(options["progress"])
    listwise = options["listwise"]
    if isinstance(listwise, Listwise) and listwise.on_text is not None:
        changed["listwise"] = replace(listwise, on_text=in_loop(listwise.on_text))
    work = partial(copy_context().run, partial(call, **{**options, **changed}))
    try:
        result = await loop.run_in_executor(threads, work)
    except Cancelled:
        if not failures:
            raise
    finally:
        ended = True
        stop.set()
    if failures:
        raise failures[0]
    return result


class LinkedEvent(Event):
    """An event that is set when it or `other` is."""

    def __init__(self, other: Event | None) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or (self._other is not None and self._other.is_set())


def _both(first: Callable[[str], None] | None, second: Callable[[str], None]) -> Callable[[str], None]:
    if first is None:
        return second

    def call(text: str) -> None:
        first(text)
        second(text)

    return call
