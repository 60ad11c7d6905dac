"""Requests at once share a model: their scores stay as they are, and a small one is not stuck behind a large one."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from waiting import WITHIN_S, Clock, eventually, eventually_in_loop, join

from dearlite import Reranker
from dearlite.errors import Cancelled
from dearlite.models.chain import resolve
from dearlite.serve.body import parse_json
from dearlite.serve.desk import ClientGone, Desk
from dearlite.serve.limits import Limits
from dearlite.serve.models import serve_model
from dearlite.serve.refusals import Refused
from dearlite.serve.requests import read_rerank
from dearlite.serve.turns import Turn, Turns
from dearlite.templates.families import FAMILIES
from dearlite.templates.template import Template


def request_of(documents, **fields):
    return read_rerank({"query": "bulb", "documents": documents, **fields}, Limits())


def nothing(done, total):
    """A progress callback."""


def test_requests_at_once_get_the_scores_that_the_library_gives_one(serve, tiny):
    """To the last digit, in any order of turns: every request is one call of `rerank`."""
    client = serve()
    tiny.turns.slice_s, before = 0.0, tiny.turns.slice_s  # a turn for each document
    lists = [[f"bulb {n} of list {k}" * (1 + n % 7) for n in range(40)] for k in range(8)]
    try:
        with ThreadPoolExecutor(8) as pool:
            bodies = [{"query": f"bulb {k}", "documents": texts, "raw_scores": True} for k, texts in enumerate(lists)]
            answers = list(pool.map(lambda body: client.post("/rerank", json=body).json()["results"], bodies))
    finally:
        tiny.turns.slice_s = before
    for k, (texts, results) in enumerate(zip(lists, answers, strict=True)):
        ranking = tiny.reranker.rerank(f"bulb {k}", texts)
        assert [(row["index"], row["relevance_score"]) for row in results] == [
            (hit.index, hit.score) for hit in ranking
        ]


def test_relevance_of_the_embedded_model_is_that_of_the_library(serve):
    from dearlite import Reranker
    from dearlite.models.chain import resolve
    from dearlite.serve.models import serve_model

    texts = ["Coffee is a drink", "Edison's light bulb of 1879", "The bulb of a tulip"]
    results = (
        serve(serve_model(resolve(None), {})).post("/v1/rerank", json={"query": "bulb", "documents": texts}).json()
    )
    ranking = Reranker.load().rerank("bulb", texts)
    assert [row["relevance_score"] for row in results["results"]] == [hit.relevance for hit in ranking]


def test_turns_alternate_between_two_requests():
    turns, order = Turns(slice_s=0.0), []
    together = threading.Barrier(2)

    def work(name):
        turn = Turn(turns)
        together.wait()
        with turn.held():
            eventually(lambda: len(turns.waiting) + (turns.running is not None) >= 2)
            for _ in range(5):
                order.append(name)
                turn.pause()

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    join(*threads)
    assert "".join(order) in ("ababababab", "bababababa")
    assert turns.running is None
    assert not turns.waiting


def test_a_small_request_does_not_wait_for_the_end_of_a_large_one(tiny):
    """The large one stops in the middle until the small one has its answer."""
    ended, started = [], threading.Event()

    def progress(done, total):
        started.set()
        if done == 1:
            eventually(lambda: tiny.turns.waiting)
        if done == total // 2:
            eventually(lambda: ended, within_s=30)

    def large():
        tiny.rank(request_of(["bulb " * 40] * 200), Turn(tiny.turns), progress)
        ended.append("large")

    thread = threading.Thread(target=large)
    thread.start()
    assert started.wait(WITHIN_S)
    tiny.rank(request_of(["bulb"]), Turn(tiny.turns), nothing)
    ended.append("small")
    join(thread)
    assert ended == ["small", "large"]


@pytest.mark.parametrize("waits", [False, True])
def test_a_stopped_request_ends_and_frees_its_turn(tiny, waits):
    turn, started = Turn(tiny.turns), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        if waits:
            holder = Turn(tiny.turns)
            with holder.held():
                future = pool.submit(tiny.rank, request_of(["bulb"] * 9), turn, nothing)
                eventually(lambda: tiny.turns.waiting)
                turn.stop()
                assert isinstance(future.exception(WITHIN_S), Cancelled)
        else:
            future = pool.submit(tiny.rank, request_of(["bulb " * 400] * 1000), turn, lambda done, total: started.set())
            assert started.wait(WITHIN_S)
            turn.stop()
            assert isinstance(future.exception(WITHIN_S), Cancelled)
    assert tiny.turns.running is None
    assert not tiny.turns.waiting


@pytest.mark.parametrize(("seconds", "error"), [(WITHIN_S, ClientGone), (0.05, Refused)])
def test_a_client_that_leaves_and_a_time_limit_free_the_place(tiny, seconds, error):
    async def main():
        desk = Desk(Limits(seconds=seconds, queue=1))

        async def gone():
            await asyncio.sleep(0.02 if error is ClientGone else 2 * WITHIN_S)

        turn = desk.admit(tiny)
        work = lambda: tiny.rank(request_of(["bulb " * 400] * 1000), turn, nothing)  # noqa: E731
        running = asyncio.create_task(desk.run(turn, work, gone))
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="1 requests are running") as full:
            desk.admit(tiny)
        assert full.value.status == 429
        assert full.value.headers["Retry-After"] == "1"
        with pytest.raises(error) as ended:
            await running
        await eventually_in_loop(lambda: desk.size == 0)
        desk.close()
        return ended.value

    ended = asyncio.run(main())
    assert error is ClientGone or ended.status == 504
    assert tiny.turns.running is None


@pytest.fixture
def slow(tiny, monkeypatch):
    """Makes a document take some seconds, of a clock that stands still otherwise."""
    clock, score = Clock(), tiny.reranker._backend.score

    def make(document_s):
        for module in ("anytime", "deadline", "serve.requests", "serve.models"):
            monkeypatch.setattr(f"dearlite.{module}.time", clock)

        def slowly(rows):
            for value in score(rows):
                clock.sleep(document_s)
                yield value

        monkeypatch.setattr(tiny.reranker._backend, "score", slowly)

    return make


def test_a_budget_ends_the_work_and_every_document_comes_back(client, slow):
    slow(0.01)
    body = {"query": "bulb", "documents": ["bulb " * 4] * 1000}
    for fields, headers in (({"budget_ms": 800}, {}), ({}, {"x-timeout-ms": "800"})):
        answer = client.post("/v1/rerank", json={**body, **fields, "return_documents": False}, headers=headers).json()
        assert len(answer["results"]) == 1000
        assert answer["meta"]["dearlite"]["complete"] is False
        warnings = answer["meta"]["warnings"]
        count = sum(row.get("scored", True) for row in answer["results"])
        assert 60 < count <= 80
        assert f"the budget ended when {count} of 1000 documents had a score: the others keep their order" in warnings
        assert all("scored" not in row for row in answer["results"][:count])
        scores = [row["relevance_score"] for row in answer["results"]]
        assert scores == sorted(scores, reverse=True)
        assert scores[-1] == 0.0


def test_a_budget_that_ended_in_the_queue_is_a_timeout(tiny):
    request = request_of(["bulb"], budget_ms=20)
    with ThreadPoolExecutor(1) as pool:
        with Turn(tiny.turns).held():
            future = pool.submit(tiny.rank, request, Turn(tiny.turns), nothing)
            eventually(lambda: tiny.turns.waiting)
            time.sleep(0.05)  # more than the budget, however slow the machine is
        error = future.exception(WITHIN_S)
    assert (error.status, str(error)) == (503, "the budget ended while the request waited: send it again")
    assert tiny.turns.running is None


def test_a_budget_below_the_first_documents_is_a_timeout(client, slow):
    body = {"query": "bulb", "documents": ["a", "b"], "budget_ms": 1e-9}
    for budget_ms in (1e-300, 1e-9):
        response = client.post("/rerank", json=body | {"budget_ms": budget_ms})
        assert response.status_code == 504
        assert response.json()["message"].startswith(
            f"budget_ms is {budget_ms:g} ms, and ends before the first document"
        )
    response = client.post("/rerank", json=body | {"budget_ms": None}, headers={"X-Timeout-Ms": "1e-9"})
    assert response.json()["message"].startswith("X-Timeout-Ms is 1e-09 ms, and ends before the first document is read")

    slow(0.2)
    response = client.post("/rerank", json=body | {"budget_ms": 100})
    assert response.status_code == 504
    assert response.json()["message"] == (
        "budget_ms is 100 ms, and ends before the first document is read, which takes 200 ms: give more"
    )


def test_a_request_has_its_own_instruction(client, serve, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
    from tiny_template import write_template_bundle

    family = FAMILIES["qwen3-reranker"]
    template = Template(parts=family.parts, instructed=family.instructed, instruction=family.instruction)
    path = write_template_bundle(tmp_path / "tiny.dear", template)
    model = serve_model(resolve(path), {"threads": 1})
    body = {"query": "bulb", "documents": ["Edison", "Coffee"], "raw_scores": True}

    def scores(**fields):
        answer = serve(model).post("/rerank", json=body | fields).json()
        assert not answer["meta"]["warnings"]
        return {row["index"]: row["relevance_score"] for row in answer["results"]}

    for text in ("Find inventors", "Find tea", *map(str, range(20)), "Find inventors"):
        expected = Reranker.load(path, threads=1, instruction=text).score([("bulb", "Edison"), ("bulb", "Coffee")])
        assert scores(instruction=text) == dict(enumerate(expected))
    assert scores(instruction=" ") == scores() != scores(instruction="Find tea")
    assert len(model._instructed) <= 8
    response = serve(model).post("/rerank", json=body | {"instruction": "tea " * 600})
    assert (response.status_code, "shorten the instruction" in response.json()["message"]) == (400, True)
    (warning,) = client.post("/rerank", json=body | {"instruction": "Find tea"}).json()["meta"]["warnings"]
    assert warning == "the instruction had no effect: the prompt of tiny has no place for one"


def test_events_tell_the_progress_and_end_with_the_answer(client):
    body = {"query": "bulb", "documents": ["Edison", "Coffee"]}
    with client.stream("POST", "/rerank", json=body, headers={"accept": "text/event-stream"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [part.split("\ndata: ") for part in response.read().decode().strip().split("\n\n")]
    assert events[-2] == ["event: progress", '{"done": 2, "total": 2}']
    name, text = events[-1]
    assert name == "event: result"
    assert parse_json(text.encode())["results"] == client.post("/rerank", json=body).json()["results"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("Text/Event-Stream; q=0.5", "text/event-stream"),
        ("application/json, text/event-stream", "text/event-stream"),
        ("application/json;q=0.5, text/event-stream;q=0.9", "text/event-stream"),
        ("text/event-stream;q=0", "application/json"),
        ("text/event-stream ; q=0.000, */*", "application/json"),
        ("application/json, text/event-stream;q=0.5", "application/json"),
        ("text/event-stream-not", "application/json"),
        ("*/*", "application/json"),
    ],
)
def test_events_are_sent_to_clients_that_prefer_them(client, accept, kind):
    body = {"query": "bulb", "documents": ["Edison"]}
    with client.stream("POST", "/rerank", json=body, headers={"accept": accept}) as response:
        assert response.headers["content-type"].partition(";")[0] == kind


def test_accept_in_two_headers_is_one_list(client):
    headers = [("accept", "application/json"), ("accept", "text/event-stream")]
    with client.stream("POST", "/rerank", json={"query": "a", "documents": ["b"]}, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")


def test_an_error_of_the_work_is_an_event(client):
    body = {"query": "bulb", "documents": ["Edison " * 2000], "truncate": False}
    with client.stream("POST", "/rerank", json=body, headers={"accept": "text/event-stream"}) as response:
        assert response.status_code == 200
        name, text = response.read().decode().strip().split("\n\n")[-1].split("\ndata: ")
    assert name == "event: error"
    assert parse_json(text.encode())["error"]["code"] == 422


def test_metrics_count_requests_documents_and_cuts(serve):
    client = serve()
    client.post("/rerank", json={"query": "bulb", "documents": ["Edison " * 2000, "b"]})
    client.post("/rerank", json={})
    client.get("/nowhere")
    text = client.get("/metrics").text
    for line in (
        'dearlite_requests_total{endpoint="/rerank",status="200"} 1',
        'dearlite_requests_total{endpoint="/rerank",status="400"} 1',
        'dearlite_requests_total{endpoint="other",status="404"} 1',
        "dearlite_documents_total 2",
        "dearlite_truncated_total 1",
        "dearlite_queue_size 0",
        "dearlite_request_duration_seconds_count 1",
    ):
        assert line + "\n" in text
