"""`arerank` and `astream`: calls of asyncio tasks, whose end is the end of the work."""

import asyncio
import inspect
import threading
import time
from contextlib import aclosing

import pytest
from waiting import WITHIN_S, eventually_in_loop

import dearlite
from dearlite import (
    Cancelled,
    InvalidInput,
    Listwise,
    ProgressEvent,
    RankingEvent,
    Reranker,
    TextEvent,
    UsageError,
    arerank,
)
from dearlite.tasks import CALLS_AT_ONCE

DOCS = ["Tea", "Rain falls.", "Ships carry grain."]
LONG = ["rain and ships " * 15] * 3000  # minutes of work


@pytest.fixture
def reranker(own_threads):
    with Reranker.load(threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def listwise_path(tmp_path_factory):
    tiny_gguf = pytest.importorskip("tiny_gguf", reason="gguf is not installed (extra export)")
    return tiny_gguf.write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


def scores(ranking):
    return [(hit.index, hit.score) for hit in ranking]


@pytest.fixture
def own_threads():
    """Call: dearlite's threads that started in this test. A model of an earlier test may still have others."""
    before = set(threading.enumerate())

    def call(prefix="dearlite"):
        return [thread for thread in set(threading.enumerate()) - before if thread.name.startswith(prefix)]

    return call


def test_the_ranking_is_that_of_rerank(reranker):
    async def both():
        return await reranker.arerank("rain", DOCS, top_k=2), await arerank("rain", DOCS, threads=1, top_k=2)

    expected = scores(reranker.rerank("rain", DOCS, top_k=2))
    assert [scores(ranking) for ranking in asyncio.run(both())] == [expected, expected]


@pytest.mark.parametrize(
    ("coroutine", "function", "without"),
    [
        (Reranker.arerank, Reranker.rerank, set()),
        (Reranker.astream, Reranker.rerank, {"progress"}),
        (dearlite.arerank, dearlite.rerank, set()),
    ],
)
def test_the_arguments_are_those_of_rerank(coroutine, function, without):
    expected = [parameter for name, parameter in parameters(function) if name not in without]
    assert [parameter for _, parameter in parameters(coroutine)] == expected


def parameters(function):
    return [(name, value) for name, value in inspect.signature(function).parameters.items() if name != "self"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top_k": 0}, UsageError, "top_k is 0"),
        ({"listwise": Listwise()}, UsageError, "is a pointwise model"),
        ({"listwise": "reason"}, UsageError, "listwise is a str"),
        ({"budget_s": -1}, UsageError, "the budget is -1"),
    ],
)
def test_errors_are_those_of_rerank(reranker, options, error, message):
    with pytest.raises(error, match=message):
        asyncio.run(reranker.arerank("rain", DOCS, **options))

    async def events():
        return [event async for event in reranker.astream("rain", DOCS, **options)]

    with pytest.raises(error, match=message):
        asyncio.run(events())


def test_many_tasks_share_one_model(reranker, own_threads):
    queries = ["rain", "ships", "tea"] * 10
    expected = {query: scores(reranker.rerank(query, DOCS)) for query in set(queries)}

    async def together():
        return await asyncio.gather(*(reranker.arerank(query, DOCS) for query in queries))

    assert [scores(ranking) for ranking in asyncio.run(together())] == [expected[query] for query in queries]
    assert len(own_threads("dearlite-call")) <= CALLS_AT_ONCE


def test_a_cancelled_task_ends_at_once_and_its_place_is_free(reranker, monkeypatch):
    """It ends before its thread, which is held between two documents meanwhile."""
    expected, score = scores(reranker.rerank("rain", DOCS)), reranker._backend.score
    held, release = threading.Semaphore(0), threading.Event()

    def stops(rows):
        for value in score(rows):
            held.release()
            assert release.wait(2 * WITHIN_S)
            yield value

    monkeypatch.setattr(reranker._backend, "score", stops)

    async def run():
        tasks = [asyncio.create_task(reranker.arerank("rain", LONG)) for _ in range(CALLS_AT_ONCE + 3)]
        await eventually_in_loop(lambda: held.acquire(blocking=False))
        for task in tasks:
            task.cancel()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), WITHIN_S)
        assert all(isinstance(err, asyncio.CancelledError) for err in ended)
        assert not release.is_set()
        release.set()
        return scores(await asyncio.wait_for(reranker.arerank("rain", DOCS), WITHIN_S))

    try:
        assert asyncio.run(run()) == expected
    finally:
        release.set()


def test_two_hundred_cancelled_tasks_leave_no_thread(reranker, own_threads):
    async def run():
        for number in range(200):
            task = asyncio.create_task(reranker.arerank("rain", LONG))
            await asyncio.sleep(0.02 if number % 20 == 0 else 0)  # some of them run, most wait
            task.cancel()
        await eventually_in_loop(lambda: len(own_threads()) <= CALLS_AT_ONCE)
        assert scores(await reranker.arerank("rain", DOCS)) == expected
        await eventually_in_loop(lambda: not own_threads("dearlite_"))  # those of a call's work

    expected = scores(reranker.rerank("rain", DOCS))
    asyncio.run(run())


@pytest.mark.parametrize("closed", [True, False])
def test_the_threads_end_with_the_model(closed, own_threads):
    async def run():
        model = Reranker.load(threads=1)
        await model.arerank("rain", DOCS)
        own = own_threads()
        assert own
        if closed:
            await model.aclose()
        del model
        await eventually_in_loop(lambda: not any(thread.is_alive() for thread in own))

    asyncio.run(run())


def test_a_timeout_stops_the_work(reranker, own_threads):
    async def run():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await reranker.arerank("rain", LONG)
        await eventually_in_loop(lambda: not own_threads("dearlite_"))

    asyncio.run(run())


def test_the_callers_event_still_counts(reranker):
    stop = threading.Event()

    async def run(**options):
        return await reranker.arerank("rain", LONG, cancel=stop, progress=lambda *_: stop.set(), **options)

    with pytest.raises(Cancelled, match="of 3000 documents"):
        asyncio.run(run())
    stop.clear()
    assert not asyncio.run(run(budget_s=600)).complete


def test_callbacks_run_in_the_event_loop_and_their_error_ends_the_call(reranker):
    threads = []

    async def run(progress):
        return await reranker.arerank("rain", LONG, progress=progress, top_k=1)

    def fail(done, total):
        threads.append(threading.current_thread())
        raise KeyError(done)

    with pytest.raises(KeyError, match="1"):
        asyncio.run(run(fail))
    assert threads == [threading.main_thread()]


def test_astream_yields_progress_and_then_the_ranking(reranker):
    async def run():
        return [event async for event in reranker.astream("rain", DOCS, top_k=1)]

    *progress, last = asyncio.run(run())
    assert progress == [ProgressEvent(done, 3) for done in (1, 2, 3)]
    assert isinstance(last, RankingEvent)
    assert scores(last.ranking) == scores(reranker.rerank("rain", DOCS, top_k=1))


def test_leaving_astream_stops_the_work_in_silence(reranker, own_threads, caplog):
    async def run():
        async with aclosing(reranker.astream("rain", LONG)) as events:
            async for event in events:
                assert event == ProgressEvent(1, 3000)
                break
        await eventually_in_loop(lambda: not own_threads("dearlite_"))

    asyncio.run(run())
    assert not caplog.records


def test_astream_yields_the_reasoning_as_it_is_written(listwise_path):
    texts = []

    async def run():
        async with Reranker.load(listwise_path, threads=1) as model:
            options = Listwise(mode="reason", reasoning_tokens=8, on_text=texts.append)
            return [event async for event in model.astream("rain", DOCS, listwise=options)]

    events = asyncio.run(run())
    ranking = events[-1].ranking
    written = "".join(event.text for event in events if isinstance(event, TextEvent))
    assert written == "".join(texts)
    assert ranking.reasoning and written.strip() == "".join(ranking.reasoning).strip()
    assert ProgressEvent(3, 3) in events


@pytest.mark.parametrize("end", ["timeout", "cancel"])
def test_no_callback_is_called_after_the_end_of_its_task(reranker, own_threads, end):
    """The thread goes on for a moment, and leaves calls in the loop."""
    reached = []

    async def run():
        def progress(done, total):
            reached.append(done)
            if done == 1:
                time.sleep(0.1)  # further calls queue up in the loop meanwhile
                if end == "cancel":
                    task.cancel()
                else:
                    timer.reschedule(asyncio.get_running_loop().time())

        task = asyncio.create_task(reranker.arerank("rain", LONG, progress=progress))
        with pytest.raises((TimeoutError, asyncio.CancelledError)):
            async with asyncio.timeout(None) as timer:
                await task
        count = len(reached)
        await eventually_in_loop(lambda: not own_threads("dearlite_"))
        await asyncio.sleep(0)  # the loop has called all that the threads left in it
        assert reached[count:] == []

    asyncio.run(run())
    assert reached


def wait_for_the_turn(backend):
    """Returns when no call runs."""
    with backend.turn():
        return


def test_on_text_is_not_called_after_astream_was_left(listwise_path):
    texts = []

    async def run():
        async with Reranker.load(listwise_path, threads=1) as model:
            options = Listwise(mode="reason", reasoning_tokens=64, on_text=texts.append)
            async with aclosing(model.astream("rain", DOCS, listwise=options)) as events:
                async for event in events:
                    if isinstance(event, TextEvent):
                        time.sleep(0.1)  # further calls queue up in the loop meanwhile
                        break
            count = len(texts)
            await asyncio.to_thread(wait_for_the_turn, model._backend)
            await asyncio.sleep(0)  # the loop has called all that the thread left in it
            assert texts[count:] == []

    asyncio.run(run())
    assert texts


def test_a_cancelled_listwise_task_that_waits_for_its_turn_frees_its_place(listwise_path, own_threads):
    """llama.cpp runs one call at a time: a waiting one leaves the queue when its task is cancelled."""

    async def run():
        async with Reranker.load(listwise_path, threads=1) as model:
            backend = model._backend
            with backend.turn():
                tasks = [asyncio.create_task(model.arerank("rain", DOCS)) for _ in range(CALLS_AT_ONCE)]
                await eventually_in_loop(lambda: len(own_threads("dearlite-call")) == CALLS_AT_ONCE)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                idle = asyncio.get_running_loop().run_in_executor(model.call_threads(), lambda: "free")
                assert await asyncio.wait_for(idle, WITHIN_S) == "free"
            return scores(await model.arerank("rain", DOCS))

    assert len(asyncio.run(run())) == 3


def test_a_document_that_cannot_be_read_is_named(reranker):
    with pytest.raises(InvalidInput, match="document 1 is empty"):
        asyncio.run(reranker.arerank("rain", ["Tea", ""]))
