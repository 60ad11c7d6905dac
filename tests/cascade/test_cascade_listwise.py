"""Cascades that end in a listwise model, on a tiny random one: what must hold whatever it says."""

import math
import threading

import pytest
from tiny_gguf import write_tiny
from waiting import Clock

from dearlite import Listwise, Reranker, rerank
from dearlite.anytime import order_within
from dearlite.deadline import Deadline
from dearlite.documents import as_documents
from dearlite.errors import BudgetTooShort, Cancelled, UsageError

QUERY = "Who invented the light bulb?"
DOCS = [f"document {n} about bulbs" for n in range(30)]


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="module")
def tiny(tiny_path):
    return Reranker.load(tiny_path)


def test_listwise_stage_orders_the_head_of_the_pointwise_one(tiny_path, tiny):
    ranking = rerank(QUERY, DOCS, model=["minilm-l12", (tiny_path, 8)], listwise=Listwise(mode="first"))
    first = rerank(QUERY, DOCS)
    head = [hit.index for hit in first][:8]
    alone = tiny.rerank(QUERY, [DOCS[index] for index in head], listwise=Listwise(mode="first"))
    assert [hit.index for hit in ranking][:8] == [head[hit.index] for hit in alone]
    assert [hit.index for hit in ranking][8:] == [hit.index for hit in first][8:]
    assert [stage.model for stage in ranking[0].stages] == ["minilm-l12", "tiny"]
    assert [stage.score for stage in ranking[29].stages] == [first[29].score]


def test_options_of_a_listwise_model_need_a_listwise_stage():
    with pytest.raises(UsageError, match="has no listwise stage"):
        rerank(QUERY, DOCS, model=["minilm-l12", "minilm-l12:5"], listwise=Listwise(mode="first"))


def test_many_queries_are_decoded_side_by_side_to_the_same_orders(tiny_path):
    model = Reranker.load(["minilm-l12", (tiny_path, 6)])
    jobs = [(QUERY, DOCS[:10]), ("what is a document?", DOCS[10:]), ("bulbs", DOCS[:3])]
    assert [[hit.index for hit in one] for one in model.rerank_many(jobs)] == [
        [hit.index for hit in model.rerank(*job)] for job in jobs
    ]


def windows_of(tiny, seconds, monkeypatch, window_s):
    """`order_within` of a model that takes `window_s` a window of 10: the ranking, what was read, what was asked."""
    clock, asked, real = Clock(), [], type(tiny).rerank
    for module in ("dearlite.anytime", "dearlite.deadline"):
        monkeypatch.setattr(f"{module}.time", clock)
    deadline = Deadline(seconds)

    def slow(self, query, docs, *, listwise=None, cancel=None, **_):
        docs = list(docs)
        asked.append([doc.text for doc in docs])
        clock.now += window_s * (1 + max(0, -(-(len(docs) - 10) // 5)))
        if deadline.over:
            raise Cancelled(0, len(docs))
        return real(self, query, docs, listwise=listwise)

    monkeypatch.setattr(type(tiny), "rerank", slow)
    options = Listwise(window=10, stride=5, mode="first")
    ranking, read = order_within(tiny, QUERY, as_documents(DOCS), options, deadline, lambda *_: None, first=False)
    assert sorted(hit.index for hit in ranking) == list(range(len(DOCS)))
    assert [hit.rank for hit in ranking] == list(range(1, len(DOCS) + 1))
    assert read == {hit.index for hit in ranking if hit.tokens_total}
    return ranking, read, asked


def test_head_is_read_first_and_then_from_as_far_down_as_there_is_time(tiny, monkeypatch):
    ranking, read, asked = windows_of(tiny, 5.0, monkeypatch, 1.0)
    assert asked[0] == DOCS[:10]
    assert len(asked) == 2
    assert len(asked[1]) == 20  # four seconds are left: three windows, at 1.15 times the first one's time each
    assert read == set(range(20))
    assert [hit.index for hit in ranking][20:] == list(range(20, 30))


def test_time_enough_reads_all_of_it(tiny, monkeypatch):
    _, read, asked = windows_of(tiny, 100.0, monkeypatch, 1.0)
    assert [len(one) for one in asked] == [10, 30]
    assert read == set(range(30))


def test_an_unlimited_time_reads_all_of_it(tiny):
    ranking = tiny.rerank(QUERY, DOCS[:30], listwise=Listwise(window=10), budget_s=math.inf)
    assert ranking.complete and ranking.unscored == 0


def test_time_for_the_head_only_leaves_the_rest_as_it_was(tiny, monkeypatch):
    ranking, read, asked = windows_of(tiny, 2.0, monkeypatch, 1.0)
    assert len(asked) == 1
    assert read == set(range(10))
    assert [hit.index for hit in ranking][10:] == list(range(10, 30))


def test_second_reading_that_is_not_in_time_keeps_the_first(tiny, monkeypatch):
    monkeypatch.setattr("dearlite.anytime._SLOWER", 0.5)  # more windows than there is time for
    ranking, read, asked = windows_of(tiny, 3.0, monkeypatch, 1.0)
    assert len(asked) == 2
    assert read == set(range(10))
    assert [hit.index for hit in ranking][10:] == list(range(10, 30))


def test_no_time_for_the_head_changes_nothing(tiny, monkeypatch):
    ranking, read, _ = windows_of(tiny, 0.2, monkeypatch, 5.0)
    assert read == set()
    assert [hit.index for hit in ranking] == list(range(30))


def test_listwise_model_alone_keeps_to_a_budget(tiny):
    enough = tiny.rerank(QUERY, DOCS[:5], budget_s=60)
    assert enough.complete
    assert [hit.index for hit in enough] == [hit.index for hit in tiny.rerank(QUERY, DOCS[:5])]
    assert [hit.score for hit in enough] == [4, 3, 2, 1, 0]
    with pytest.raises(BudgetTooShort, match="below the first batch, which had not ended after 0") as caught:
        tiny.rerank(QUERY, DOCS, budget_s=1e-6)
    assert caught.value.batch_s is None


def test_event_ends_a_listwise_stage_and_keeps_the_one_before(tiny_path):
    stop = threading.Event()
    model = Reranker.load(["minilm-l12", (tiny_path, 20)])
    model.rerank(QUERY, DOCS)  # loads both
    before = [hit.index for hit in rerank(QUERY, DOCS)]

    def after_the_first(done, total):
        if done >= 30:
            stop.set()

    ranking = model.rerank(QUERY, DOCS, cancel=stop, budget_s=math.inf, progress=after_the_first)
    assert not ranking.complete
    assert [hit.index for hit in ranking] == before
    assert [stage.scored for stage in ranking.stages] == [30, 0]
