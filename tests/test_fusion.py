"""Several queries about the same documents: one ranking, fused by score or by rank."""

import asyncio
import json
from dataclasses import replace
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dearlite import BudgetTooShort, Cancelled, InvalidInput, Reranker, UsageError, arerank, rerank
from dearlite.documents import Document
from dearlite.fusion import MOST_QUERIES, fuse_rankings, rank_queries
from dearlite.hits import make_hits
from dearlite.options import FUSIONS, Call
from dearlite.ranking import Ranking

QUERIES = ["who invented the light bulb?", "how is grain carried?"]
DOCS = ["Grain prices rose.", "Coffee is good for diet.", "Ships carry grain over the sea.", "Edison's bulb, 1879"]
DOCUMENTS = [Document(text) for text in DOCS]


@pytest.fixture(scope="module")
def reranker():
    with Reranker.load(threads=1) as loaded:
        yield loaded


def ranking_of(scores, total=None):
    """The ranking of a query in which document i has the score scores[i]; documents beyond them were not read."""
    total = len(scores) if total is None else total
    documents = [Document(f"text {index}") for index in range(total)]
    hits = make_hits(documents, scores, [(1, 1)] * len(scores), None)
    return Ranking(hits, "q", "m", "cpu", 0.0, total, unscored=total - len(scores)), documents


@pytest.mark.parametrize("fuse", FUSIONS)
def test_scores_and_best_queries_are_those_of_the_single_rankings(reranker, fuse):
    single = [{hit.index: hit for hit in reranker.rerank(query, DOCS)} for query in QUERIES]
    fused = reranker.rerank(QUERIES, DOCS, fuse=fuse)
    for hit in fused:
        of_query = [hits[hit.index] for hits in single]
        expected = {
            "max": max(each.score for each in of_query),
            "mean": sum(each.score for each in of_query) / 2,
            "rrf": sum(1 / (60 + each.rank) for each in of_query),
        }[fuse]
        assert hit.score == pytest.approx(expected)
        key = (lambda each: -each.rank) if fuse == "rrf" else (lambda each: each.score)
        best = max(range(2), key=lambda query: key(of_query[query]))
        assert hit.best_query == QUERIES[best]
        assert hit.relevance == of_query[best].relevance
    assert [hit.rank for hit in fused] == [1, 2, 3, 4]
    assert [hit.score for hit in fused] == sorted((hit.score for hit in fused), reverse=True)
    assert (fused.queries, fused.fusion, fused.query) == (tuple(QUERIES), fuse, " | ".join(QUERIES))


def test_the_default_is_max_and_every_entry_point_takes_a_list(reranker):
    expected = reranker.rerank(QUERIES, DOCS, fuse="max")
    assert {hit.index for hit in expected[:2]} == {2, 3}  # each query has its answer at the head
    assert reranker.rerank(QUERIES, DOCS) == expected
    assert reranker.rerank(queries=QUERIES, docs=iter(DOCS)) == expected
    assert rerank(QUERIES, DOCS, threads=1) == expected
    assert rerank(queries=tuple(QUERIES), docs=DOCS, threads=1) == expected
    assert asyncio.run(arerank(QUERIES, DOCS, threads=1)) == expected
    assert asyncio.run(reranker.arerank(queries=QUERIES, docs=DOCS, fuse="max")) == expected
    assert reranker.rerank(QUERIES, DOCS, top_k=2) == expected[:2]
    assert expected.to_dicts()[0]["best_query"] in QUERIES
    assert "best_query" not in reranker.rerank(QUERIES[0], DOCS).to_dicts()[0]


def test_one_query_in_a_list_orders_as_the_query_alone(reranker):
    alone = reranker.rerank(QUERIES[0], DOCS)
    for fuse in FUSIONS:
        assert [hit.index for hit in reranker.rerank(QUERIES[:1], DOCS, fuse=fuse)] == [hit.index for hit in alone]


@pytest.mark.parametrize(
    ("query", "options", "error", "words"),
    [
        ([], {}, InvalidInput, "the list of queries has 0: give 1 to 64"),
        (["x"] * (MOST_QUERIES + 1), {}, InvalidInput, "the list of queries has 65"),
        (["rain", "  "], {}, InvalidInput, "query 1 of the list: the query is empty"),
        (["rain", 7], {}, InvalidInput, "query 1 of the list: the query is a int"),
        (["rain", "tea"], {"fuse": "sum"}, UsageError, "no fusion 'sum': it is one of max, mean, rrf"),
        (["rain", "tea"], {"fuse": ["max"]}, UsageError, r"no fusion \['max'\]: it is one of max, mean, rrf"),
        (["rain", "tea"], {"top_k": 0}, UsageError, "top_k is 0"),
        ("rain", {"fuse": "max"}, UsageError, "fuse is 'max', and there is one query"),
        (None, {}, InvalidInput, "the query is a NoneType"),
    ],
)
def test_bad_queries_and_fusions_are_named(reranker, query, options, error, words):
    with pytest.raises(error, match=words):
        reranker.rerank(query, DOCS, **options)


def test_swapped_arguments_are_still_named(reranker):
    with pytest.raises(InvalidInput, match="docs is one str, and the query a list: the order is rerank"):
        reranker.rerank(DOCS, "who invented the bulb?")
    with pytest.raises(UsageError, match="query is given twice"):
        reranker.rerank(query="a", queries=["b"], docs=DOCS)


@given(
    st.lists(st.lists(st.floats(-20, 20), min_size=4, max_size=4), min_size=1, max_size=5),
    st.sampled_from(list(FUSIONS)),
    st.booleans(),
)
def test_every_document_is_in_the_fused_ranking_once(scores, fuse, by_score):
    rankings = [ranking_of(of_query)[0] for of_query in scores]
    documents = ranking_of(scores[0])[1]
    queries = [f"query {number}" for number in range(len(scores))]
    fused = fuse_rankings(queries, rankings, documents, fuse, by_score=by_score and fuse != "rrf")
    assert sorted(hit.index for hit in fused) == [0, 1, 2, 3]
    assert [hit.rank for hit in fused] == [1, 2, 3, 4]
    values = [hit.score for hit in fused]
    assert values == sorted(values, reverse=True)
    assert all(hit.text == documents[hit.index].text and hit.best_query in queries for hit in fused)


def test_ranks_are_fused_where_scores_do_not_compare():
    rankings = [ranking_of([9.0, 1.0, 0.0])[0], ranking_of([2.0, 1.5, 1.0])[0], ranking_of([0.0, 1.5, 500.0])[0]]
    documents = ranking_of([0.0] * 3)[1]
    best = fuse_rankings("abc", rankings, documents, "max", by_score=False)
    assert [(hit.index, hit.score, hit.best_query) for hit in best] == [(0, 2.0, "a"), (2, 2.0, "c"), (1, 1.0, "a")]
    mean = fuse_rankings("abc", rankings, documents, "mean", by_score=False)
    assert [(hit.index, round(hit.score, 3)) for hit in mean] == [(0, 1.333), (1, 1.0), (2, 0.667)]


def test_documents_that_no_query_reached_come_last_without_a_score():
    rankings = [ranking_of([1.0, 3.0], total=4)[0], ranking_of([2.0, 0.5, 4.0], total=4)[0]]
    documents = ranking_of([], total=4)[1]
    for fuse in FUSIONS:
        fused = fuse_rankings("ab", rankings, documents, fuse, by_score=fuse != "rrf")
        assert (fused[3].index, fused[3].score, fused[3].best_query) == (3, None, None)
        assert fused.unscored == 1
        assert all(hit.score is not None for hit in fused[:3])


def test_a_budget_is_shared_by_the_queries(reranker):
    fused = reranker.rerank(QUERIES, DOCS, budget_s=float("inf"))
    assert fused.complete
    assert [(hit.index, hit.score) for hit in fused] == [
        (hit.index, hit.score) for hit in reranker.rerank(QUERIES, DOCS)
    ]
    assert [(stage.depth, stage.scored) for stage in fused.stages] == [(8, 8)]


class TimedModel:
    """A model that notes the budget of each query, and has no time for the queries from `ends_at` on."""

    pointwise = True

    def __init__(self, ends_at):
        self.budgets, self.ends_at = [], ends_at

    def rank(self, jobs, call):
        if len(self.budgets) == self.ends_at:
            raise BudgetTooShort("too short", batch_s=1.0)
        self.budgets.append(call.budget_s)
        return [ranking_of([1.0, 2.0])[0] for _ in jobs]


def test_each_query_has_its_share_of_the_time_left():
    model = TimedModel(ends_at=3)
    fused = rank_queries(model, ["a", "b", "c"], ["x", "y"], Call(budget_s=9000.0))
    assert fused.complete
    # the work takes no time: a third of all, half of the rest, all of the rest
    assert [round(budget_s / 1500) for budget_s in model.budgets] == [2, 3, 6]


def test_queries_without_time_are_left_out_and_the_ranking_says_so():
    fused = rank_queries(TimedModel(ends_at=1), ["a", "b"], ["x", "y"], Call(budget_s=5.0))
    assert not fused.complete
    assert {hit.best_query for hit in fused} == {"a"}
    with pytest.raises(BudgetTooShort, match=r"^a budget of 5 s, which 2 queries share, is too short for the first"):
        rank_queries(TimedModel(ends_at=0), ["a", "b"], ["x", "y"], Call(budget_s=5.0))
    with pytest.raises(BudgetTooShort, match=r"^too short$"):
        rank_queries(TimedModel(ends_at=0), ["a"], ["x", "y"], Call(budget_s=5.0))


def test_a_cancelled_call_has_the_ranking_so_far(reranker):
    stop = Event()

    def stop_in_the_second_query(done, total):
        assert total == 2 * len(DOCS)
        if done > len(DOCS):
            stop.set()

    with pytest.raises(Cancelled) as raised:
        reranker.rerank(QUERIES, DOCS, progress=stop_in_the_second_query, cancel=stop)
    partial = raised.value.partial
    assert not partial.complete
    assert sorted(hit.index for hit in partial) == [0, 1, 2, 3]
    assert all(hit.score is not None for hit in partial)  # the first query read them all


def test_a_cascade_is_fused_by_rank(reranker):
    pytest.importorskip("bm25s", reason="bm25s is not installed (extra first-stage)")
    with Reranker.load([("bm25", 3), ("minilm-l12", 2)], threads=1) as cascade:
        single = [{hit.index: hit for hit in cascade.rerank(query, DOCS)} for query in QUERIES]
        fused = cascade.rerank(QUERIES, DOCS)
    assert [hit.score for hit in fused] == [max(4 - hits[hit.index].rank for hits in single) for hit in fused]
    assert [stage.depth for stage in fused.stages] == [8, 4]  # (query, document) pairs


def test_files_and_tables_say_which_query_a_document_answers(cli, tmp_path):
    (tmp_path / "docs.jsonl").write_text(
        "".join(json.dumps({"id": f"d{n}", "text": t}) + "\n" for n, t in enumerate(DOCS))
    )
    code, out, err = cli("rerank", "-q", QUERIES[0], "-q", QUERIES[1], tmp_path / "docs.jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert {row["id"]: row["best_query"] for row in rows[:2]} == {"d2": QUERIES[1], "d3": QUERIES[0]}
    out = cli(
        "rerank", "-q", QUERIES[0], "-q", QUERIES[1], "--fuse", "rrf", "--format", "table", tmp_path / "docs.jsonl"
    )[1]
    assert f"{QUERIES[0]} | {QUERIES[1]}  (fused by rrf)" in out
    assert "[nearest query: " in out
    code, out, err = cli("rerank", "-q", QUERIES[0], "--fuse", "rrf", tmp_path / "docs.jsonl")
    assert (code, out) == (2, "")
    assert err.startswith("dearlite: --fuse rrf fuses the rankings of several queries: give -q several times")
    code, _, err = cli("rerank", "-q", "rain", "-q", " ", tmp_path / "docs.jsonl")
    assert code == 2
    assert "the query is empty or only spaces: give at least one word (-q number 2)" in err


def test_a_single_query_goes_to_the_model_unchanged(reranker):
    assert rank_queries(reranker, QUERIES[0], DOCS, Call()) == reranker.rerank(QUERIES[0], DOCS)
    assert replace(reranker.rerank(QUERIES[0], DOCS)).queries == ()
