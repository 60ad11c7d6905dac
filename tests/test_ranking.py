from __future__ import annotations

import copy
import io
from dataclasses import FrozenInstanceError, dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dearlite.documents import Document, as_documents
from dearlite.errors import ScoringError, UsageError
from dearlite.fields import Fields
from dearlite.hits import make_hits
from dearlite.ranking import Hit, Ranking, check_top_k, hit_fields
from dearlite.scores import rank_order


def ranking_of(items, scores, *, tokens=None, top_k=None):
    documents = as_documents(items)
    return Ranking(
        hits=make_hits(documents, scores, tokens or [(5, 5)] * len(documents), top_k),
        query="snow",
        model="a-model",
        device="cpu",
        elapsed_s=0.5,
        total=len(documents),
    )


@pytest.mark.parametrize(
    ("scores", "order"),
    [
        ([], []),
        ([3.0], [0]),
        ([0.1, 0.9, 0.5], [1, 2, 0]),
        ([-4.0, -11.5, -0.25], [2, 0, 1]),
        ([0.5, 0.5, 0.5], [0, 1, 2]),  # ties keep the caller's order
        ([1.0, 2.0, 1.0, 2.0], [1, 3, 0, 2]),
        ([0.0, -0.0, 0.0], [0, 1, 2]),  # the two zeros are one number
        ([1e-300, -1e308, 1e308], [2, 0, 1]),
    ],
)
def test_rank_orders_by_score_then_input(scores, order):
    assert rank_order(scores) == order
    assert rank_order(np.array(scores)) == order


@given(st.lists(st.integers(-3, 3).map(float), max_size=40))
def test_the_order_is_numpys_stable_one(scores):
    assert rank_order(scores) == np.argsort(-np.array(scores), kind="stable").tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), np.float32("nan")])
def test_a_score_that_is_no_number_is_an_error_that_names_the_document(bad):
    with pytest.raises(ScoringError, match=r"document 1 .*(nan|inf)"):
        rank_order([0.3, bad, 0.1])


def test_a_hit_says_where_it_came_from_and_what_was_read():
    items = ["Rain is wet.", {"_id": 7, "title": "Snow", "text": "Snow is cold.", "stars": 4}]
    hits = make_hits(as_documents(items), [np.float32(-1.5), np.float32(2.25)], [(6, 6), (512, 900)], None)
    assert hits == (
        Hit(1, 1, "7", 2.25, None, "Snow is cold.", "Snow", items[1], 512, 900, True),
        Hit(2, 0, None, -1.5, None, "Rain is wet.", "", items[0], 6, 6, False),
    )
    assert hits[0].document is items[1]
    assert type(hits[0].score) is float


@pytest.mark.parametrize(("top_k", "texts"), [(None, "bca"), (1, "b"), (2, "bc"), (3, "bca"), (99, "bca")])
def test_top_k_gives_the_best_and_no_more_than_there_are(top_k, texts):
    ranking = ranking_of(["a", "b", "c"], [0.1, 0.9, 0.5], top_k=top_k)
    assert "".join(hit.text for hit in ranking) == texts
    assert [hit.rank for hit in ranking] == list(range(1, len(texts) + 1))
    assert ranking.total == 3


def test_a_ranking_is_a_sequence_of_hits():
    ranking = ranking_of(["a", "b", "c"], [0.1, 0.9, 0.5])
    assert len(ranking) == 3
    assert ranking[0].text == "b"
    assert ranking[-1].text == "a"
    assert [hit.text for hit in ranking[:2]] == ["b", "c"]
    assert [hit.index for hit in ranking] == [1, 2, 0]
    assert [hit.index for hit in reversed(ranking)] == [0, 2, 1]
    assert ranking[1] in ranking
    assert len(ranking_of([], [])) == 0


def test_a_ranking_cannot_be_changed():
    ranking = ranking_of(["a"], [1.0])
    with pytest.raises(FrozenInstanceError):
        ranking.model = "another"
    with pytest.raises(FrozenInstanceError):
        ranking[0].score = 2.0


def test_a_ranking_says_in_one_line_what_it_is():
    whole = repr(ranking_of(["a", "b"], [1.0, 2.5]))
    cut = repr(ranking_of(["a", "b"], [1.0, 2.5], top_k=1))
    assert whole == "<Ranking of 2 documents by a-model on cpu, best 2.500>"
    assert cut == "<Ranking of 1 of 2 documents by a-model on cpu, best 2.500>"


def test_dicts_hold_the_callers_fields_then_ours():
    items = [{"text": "a", "url": "u1"}, {"docid": 3, "text": "b", "stars": [5]}, "c"]
    assert ranking_of(items, [0.5, 0.75, 0.25]).to_dicts() == [
        {"id": "3", "docid": 3, "text": "b", "stars": [5], "rank": 1, "score": 0.75, "index": 1},
        {"text": "a", "url": "u1", "rank": 2, "score": 0.5, "index": 0},
        {"text": "c", "rank": 3, "score": 0.25, "index": 2},
    ]


def test_an_object_is_given_by_its_id_title_and_text():
    @dataclass
    class Page:
        text: str
        id: int
        title: str = ""

    rows = ranking_of([Page("a", 1), Page("b", 2, "B")], [2.0, 1.0]).to_dicts()
    assert rows == [
        {"id": "1", "text": "a", "rank": 1, "score": 2.0, "index": 0},
        {"id": "2", "title": "B", "text": "b", "rank": 2, "score": 1.0, "index": 1},
    ]


def test_only_a_cut_document_tells_its_tokens():
    whole, cut = ranking_of(["a", "b"], [2.0, 1.0], tokens=[(9, 9), (512, 700)]).to_dicts()
    assert set(whole) == {"text", "rank", "score", "index"}
    assert cut == {
        "text": "b",
        "rank": 2,
        "score": 1.0,
        "index": 1,
        "truncated": True,
        "tokens_used": 512,
        "tokens_total": 700,
    }


def test_relevance_is_given_only_where_there_is_one():
    (hit,) = make_hits(as_documents(["a"]), [1.0], [(5, 5)], None)
    assert "relevance" not in hit_fields(hit)
    calibrated = Hit(1, 0, None, 1.0, 0.875, "a", "", "a", 5, 5, False)
    assert hit_fields(calibrated)["relevance"] == 0.875


def test_a_callers_own_score_stays_as_input_score():
    (row,) = ranking_of([{"text": "a", "score": 17.5, "rank": 40, "truncated": "no"}], [0.5]).to_dicts()
    assert row == {
        "text": "a",
        "input_score": 17.5,
        "input_rank": 40,
        "truncated": "no",
        "rank": 1,
        "score": 0.5,
        "index": 0,
    }


# A file that was ranked twice has both names; the second ranking's own must not depend on the order of the keys.
@pytest.mark.parametrize("first", ["score", "input_score"])
def test_a_callers_score_is_kept_beside_an_older_input_score(first):
    fields = {"score": 17.5, "input_score": 3.5}
    record = {"text": "a", first: fields[first]} | fields
    (row,) = ranking_of([record], [0.5]).to_dicts()
    assert row["score"] == 0.5
    assert row["input_score"] == 17.5


def test_a_data_frame_has_a_row_for_each_hit():
    pandas = pytest.importorskip("pandas")
    frame = ranking_of(
        [{"id": "x", "text": "a", "score": 9}, {"id": "y", "text": "b", "score": 8}], [1.0, 2.0]
    ).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["id"]) == ["y", "x"]
    assert list(frame["score"]) == [2.0, 1.0]
    assert list(frame["input_score"]) == [8, 9]
    assert list(frame["rank"]) == [1, 2]


def test_what_the_caller_gave_is_not_changed():
    items = [{"text": "a", "score": 1, "tags": ["t"]}, {"text": "b"}]
    scores = [0.1, 0.2]
    before = copy.deepcopy((items, scores))
    rows = ranking_of(items, scores).to_dicts()
    rows[0]["text"] = "changed"
    assert (items, scores) == before


@pytest.mark.parametrize("top_k", [None, 1, 1000])
def test_a_usable_top_k_is_given_back(top_k):
    assert check_top_k(top_k) == top_k


@pytest.mark.parametrize("top_k", [0, -1, True, False, 1.5, 2.0, "3", [1]])
def test_a_top_k_that_is_no_whole_number_from_one_is_a_usage_error(top_k):
    with pytest.raises(UsageError, match="top_k is") as caught:
        check_top_k(top_k)
    assert caught.value.exit_code == 2


def test_a_slice_is_a_ranking_and_an_index_a_hit():
    ranking = ranking_of(["a", "b", "c"], [1.0, 3.0, 2.0])
    assert isinstance(ranking[:2], Ranking)
    assert [(hit.rank, hit.text) for hit in ranking[1:]] == [(2, "c"), (3, "a")]
    assert (ranking[:2].query, ranking[:2].total) == ("snow", 3)
    assert ranking[-1] is ranking.hits[2]
    assert ranking[0] in ranking[:1]


def test_rankings_of_equal_values_are_equal_whatever_time_they_took():
    first, second = (ranking_of([{"text": "a", "tags": [1]}], [1.0]) for _ in range(2))
    assert first == replace(second, elapsed_s=9.0)
    assert hash(first) == hash(second)
    assert len({first, second, first[0], second[0]}) == 2
    assert first != ranking_of([{"text": "a", "tags": [2]}], [1.0])
    assert first != ranking_of([{"text": "a", "tags": [1]}], [2.0])
    assert first[0] != "a"


def test_documents_without_a_truth_value_of_equality_are_equal_as_the_same_object():
    first, second = ({"text": "a", "vector": np.arange(3)} for _ in range(2))
    assert ranking_of([first], [1.0]) == ranking_of([first], [1.0])
    assert ranking_of([first], [1.0]) != ranking_of([second], [1.0])


def test_a_hit_says_in_one_line_what_it_is_and_all_of_it_in_a_notebook():
    long = {"id": "a", "title": "Snow", "text": "<b>white</b> " * 300}
    (hit,) = ranking_of([long], [2.0], tokens=[(5, 9)])
    assert repr(hit) == "<Hit 1 'a': 'Snow <b>white</b> <b>white</b> <b>white</b> <b>white</b>…', score 2.000>"
    assert repr(replace(hit, id=None, title="", text="x", score=None)) == "<Hit 1: 'x', not scored>"
    page = hit._repr_html_()
    assert "<b>" not in page and "&lt;b&gt;white" in page
    assert "read 5 of 9" in page and "relevance" not in page
    console = Console(file=io.StringIO(), width=60)
    console.print(hit)
    assert "2.000" in console.file.getvalue()


def test_a_document_record_is_the_callers_own_object():
    own, wrapped = Document("a"), Document("b", record={"page": 1})
    assert [hit.document for hit in ranking_of([own, wrapped], [2.0, 1.0])] == [own, {"page": 1}]


@pytest.mark.parametrize(
    ("record", "fields", "row"),
    [
        ({"docno": "FT-1", "text": "a"}, {}, {"id": "FT-1", "docno": "FT-1", "text": "a"}),
        ({"id": 7, "text": "a"}, {}, {"id": 7, "text": "a"}),
        ({"id": 7.0, "text": "a"}, {}, {"id": 7.0, "text": "a"}),
        ({"id": "x", "key": "k", "text": "a"}, {"id": "key"}, {"id": "k", "input_id": "x", "key": "k", "text": "a"}),
        ({"id": "x", "text": "a"}, {"id": ""}, {"id": "x", "text": "a"}),
        ({"text": "a"}, {}, {"text": "a"}),
    ],
)
def test_a_row_has_the_id_under_one_name(record, fields, row):
    (hit,) = make_hits(as_documents([record], Fields(**fields)), [0.5], [(5, 5)], None)
    assert hit_fields(hit) == row | {"rank": 1, "score": 0.5, "index": 0}
