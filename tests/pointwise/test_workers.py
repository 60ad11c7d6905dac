"""Jobs side by side on cores of several speeds: who takes which, in times worked by hand, and with real threads."""

import heapq
import random
import threading

import pytest
from waiting import WITHIN_S, eventually

from dearlite.pointwise import workers
from dearlite.pointwise.memory import MemoryLimits
from dearlite.pointwise.workers import Job, Queue, side_by_side


def run(costs, speeds):
    """The end of each job's run in seconds, by worker, where worker w works off `speeds[w]` of cost a second."""
    queue = Queue(len(speeds))
    for cost in costs:
        queue.add(Job(cost, float))
    queue.complete = True
    events, done, free = [], [[] for _ in speeds], [(0.0, worker) for worker in range(len(speeds))]
    while free or events:
        if not free:
            free.append(heapq.heappop(events))
            queue.ended(free[0][1], free[0][0] - done[free[0][1]][-1][1])
        at, worker = free.pop(0)
        if (job := queue.take(worker)) is not None:
            done[worker].append((job.cost, at))
            heapq.heappush(events, (at + job.cost / speeds[worker], worker))
    assert not queue
    return [[start + cost / speeds[worker] for cost, start in jobs] for worker, jobs in enumerate(done)]


@pytest.mark.parametrize(
    ("costs", "speeds", "ends"),
    [
        ([1, 1, 1, 1, 4], [1, 1], [[4], [1, 2, 3, 4]]),  # in order, the last would end at 6
        ([4] * 6, [4, 1], [[1, 2, 3, 4, 5], [4]]),
        ([4] * 7, [4, 1], [[1, 2, 3, 4, 5, 6], [4]]),  # the slow one would end the seventh at 8
        ([4] * 12, [4, 1], [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [4, 8]]),
        ([2, 2, 2], [1, 1], [[2, 4], [2]]),  # equal workers leave nothing
        ([4] * 5, [4, 4, 1], [[1, 2], [1, 2], [4]]),  # a first job is taken by all: their speeds are not known yet
        ([], [1, 1], [[], []]),
    ],
)
def test_jobs_go_to_the_workers_that_end_first(costs, speeds, ends):
    assert run(costs, speeds) == ends


def test_jobs_before_the_last_are_taken_in_order():
    queue = Queue(1)
    for cost in (*range(1, 8), 9, 8):
        queue.add(Job(cost, float))
    taken = []
    for number in range(9):
        queue.complete = number > 1
        taken.append(queue.take(0).cost)
        queue.ended(0, 1.0)
    assert taken == [1, 2, 3, 4, 5, 9, 8, 7, 6]


def calls_of(results, before=lambda number: None):
    """A call for each result, of equal costs; `before(number)` is called within it."""

    def call(number, result):
        before(number)
        if isinstance(result, Exception):
            raise result
        return result

    return [(1, lambda number=number, result=result: call(number, result)) for number, result in enumerate(results)]


def test_a_worker_that_is_stuck_holds_no_job_but_its_own():
    done, others = threading.Semaphore(0), 39

    def wait_for_the_others(number):
        if number:
            done.release()
        else:
            assert all(done.acquire(timeout=WITHIN_S) for _ in range(others))

    calls = calls_of(range(others + 1), wait_for_the_others)
    assert list(side_by_side(calls, 2, MemoryLimits())) == list(range(others + 1))


class OwnClocks(threading.local):
    """A stand-in for the module `time`: each thread's time goes on only where its jobs say so."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clocks(monkeypatch):
    """The clocks of the workers."""
    clocks = OwnClocks()
    monkeypatch.setattr(workers, "time", clocks)
    return clocks


@pytest.fixture
def queues(monkeypatch):
    """The queues that `side_by_side` makes; `asked` has the workers in the order in which they asked for a job."""
    made = []

    class Made(Queue):
        def __init__(self, count):
            super().__init__(count)
            self.asked = []
            made.append(self)

        def take(self, worker):
            job = super().take(worker)
            self.asked.append(worker)
            return job

    monkeypatch.setattr(workers, "Queue", Made)
    return made


def test_a_slow_worker_leaves_the_last_jobs(clocks, queues):
    """Its first job takes 0.5 s, those of the other 0.03 s: it comes back when two wait, and the other works."""
    slow, taken, done = set(), [], threading.Semaphore(0)

    def work(number):
        if number == 0:
            slow.add(threading.get_ident())
            assert all(done.acquire(timeout=WITHIN_S) for _ in range(16))
            eventually(lambda: queues[0].complete)
        elif number == 17:
            eventually(lambda: queues[0].asked.count(*slow) == 2)
        taken.append(threading.get_ident() in slow)
        clocks.now += 0.5 if taken[-1] else 0.03
        done.release()

    list(side_by_side(calls_of(range(20), work), 2, MemoryLimits()))
    assert (sum(taken), len(taken)) == (1, 20)


def test_an_exception_takes_the_place_of_its_result():
    results = side_by_side(calls_of([0, 1, OSError("broken"), 3]), 2, MemoryLimits())
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="broken"):
        next(results)


def test_a_closed_stream_stops_after_the_jobs_that_run(queues):
    """Every job but the first ends when no other waits any more, which only the end of the stream brings about."""
    started, before = [], set(threading.enumerate())

    def work(number):
        started.append(number)
        if number:
            eventually(lambda: not queues[0])

    stream = side_by_side(calls_of(range(50), work), 2, MemoryLimits())
    assert next(stream) == 0
    stream.close()
    assert sorted(started) in ([0], [0, 1], [0, 1, 2])
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("dearlite_")]


def test_any_order_of_speeds_comes_to_an_end(monkeypatch, clocks):
    """Workers whose speeds change all the time leave jobs to others, which leave them too: none is forgotten."""
    chance, left = random.Random(0), []
    take = Queue.take

    def counted(self, worker):
        job = take(self, worker)
        left.append(job is None and len(self) > 0)
        return job

    def some_time(number):
        clocks.now += chance.choice([1e-5, 1e-5, 0.0005, 0.003])

    monkeypatch.setattr(Queue, "take", counted)
    for threads in (2, 3, 5):
        for _ in range(15):
            costs = [(chance.choice([1, 2, 9]), call) for _, call in calls_of(range(24), some_time)]
            assert list(side_by_side(costs, threads, MemoryLimits())) == list(range(24))
    assert sum(left)
