"""Calls of an engine side by side, with the results in order. The last ones go to the workers that end first.

Cores of one CPU may differ in speed (P and E cores), and documents in length. A worker that is free takes the next
document, so that a slow core takes fewer. When few are left, the longest goes first, and a worker that would end it
after the faster ones have ended all of them leaves it to those.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Condition, get_ident

from dearlite.pointwise.memory import MemoryLimits

_LOOK_AHEAD = 32  # jobs queued per worker: enough to keep all of them busy while the next rows are tokenised
_LAST = 4  # jobs left per worker from which on their order is chosen; the others are taken in order, for progress


@dataclass(eq=False, slots=True)
class Job:
    """A call and its cost, a number that is proportional to its time."""

    cost: float
    call: Callable[[], float]
    result: Future[float] = field(default_factory=Future)


class Queue:
    """The jobs that wait, and the choice of the next for a worker. It has no lock, and no clock of its own.

    `complete`: no more jobs will be added.
    """

    def __init__(self, workers: int) -> None:
        self.complete = False
        self._workers = workers
        self._waiting: deque[Job] = deque()
        self._running: dict[int, float] = {}  # worker -> cost of its job
        self._rates: dict[int, float] = {}  # worker -> cost per second in its latest job

    def __len__(self) -> int:
        """Number of jobs that wait."""
        return len(self._waiting)

    def add(self, job: Job) -> None:
        """Appends a job."""
        self._waiting.append(job)

    def clear(self) -> None:
        """Drops the jobs that wait."""
        self._waiting.clear()

    def take(self, worker: int) -> Job | None:
        """The next job for `worker`. None if none waits, or if faster workers will have ended all of them before it.

        In the second case the worker must not come back.
        """
        if not self._waiting:
            return None
        if self.complete and len(self._waiting) <= _LAST * self._workers:
            job = max(self._waiting, key=lambda job: job.cost)  # the first of the longest
            if self._ends_last(worker, job):
                del self._rates[worker]
                return None
            self._waiting.remove(job)
        else:
            job = self._waiting.popleft()
        self._running[worker] = job.cost
        return job

    def ended(self, worker: int, seconds: float) -> None:
        """Notes that `worker` has ended its job, after `seconds`."""
        self._rates[worker] = self._running.pop(worker) / max(seconds, 1e-9)

    def _ends_last(self, worker: int, job: Job) -> bool:
        """True if `worker` would end `job` after the faster workers have ended their jobs and all that wait."""
        own = self._rates.get(worker)
        if own is None:
            return False
        faster = {other: rate for other, rate in self._rates.items() if rate > own}
        work = sum(job.cost for job in self._waiting) + sum(self._running.get(other, 0.0) for other in faster)
        return bool(faster) and job.cost / own > work / sum(faster.values())


def side_by_side(
    jobs: Iterable[tuple[float, Callable[[], float]]], threads: int, limits: MemoryLimits
) -> Generator[float, None, None]:
    """The results of calls in order, computed by `threads` workers; each comes with its cost.

    Calls are taken `_LOOK_AHEAD` per worker ahead. An exception of a call is raised in its place.
    """
    queue, change, results = Queue(threads), Condition(), deque[Future[float]]()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="dearlite")

    def work() -> None:
        """Computes one job that waits, or leaves it to a faster worker."""
        worker = get_ident()
        with change:
            job = queue.take(worker)
            if job is None:
                if queue:
                    pool.submit(work)  # for a faster worker: each job that waits needs one of these calls
                    change.wait_for(lambda: not queue)
                return
            change.notify_all()
        start = time.perf_counter()
        try:
            value = limits.call(job.call)
        except BaseException as err:
            job.result.set_exception(err)
        else:
            job.result.set_result(value)
        finally:
            with change:
                queue.ended(worker, time.perf_counter() - start)

    try:
        for cost, call in jobs:
            job = Job(cost, call)
            results.append(job.result)
            with change:
                queue.add(job)
            pool.submit(work)
            while len(results) > _LOOK_AHEAD * threads or (results and results[0].done()):
                yield results.popleft().result()
        with change:
            queue.complete = True
        while results:
            yield results.popleft().result()
    finally:
        with change:
            queue.clear()
            change.notify_all()
        pool.shutdown(wait=True, cancel_futures=True)
