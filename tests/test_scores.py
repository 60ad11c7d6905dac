"""Scores in a run, and documents without one in every format, table and frame."""

import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from dearlite.documents import as_documents
from dearlite.hits import make_hits, unread_hit
from dearlite.ranking import Ranking
from dearlite.render.notebook import ranking_html
from dearlite.render.table import ranking_table
from dearlite.render.writers import WRITERS
from dearlite.scores import falling_scores


@pytest.mark.parametrize(
    ("scores", "total", "expected"),
    [
        ([], 0, []),
        ([9.0, 9.0, -1.5], 3, [9.0, 9.0, -1.5]),  # equal scores do not rise
        ([9.0, 9.5], 2, [1.0, 0.0]),
        ([3.5, None], 2, [1.0, 0.0]),
        ([None, None], 9, [8.0, 7.0]),  # the best two of nine
    ],
)
def test_scores_of_a_run_are_the_models_own_if_they_fall(scores, total, expected):
    assert falling_scores(scores, total) == expected


@pytest.fixture
def partial():
    """A ranking whose third document no model read."""
    documents = as_documents([{"id": name, "text": f"snow {name}"} for name in "abc"])
    read = make_hits(documents[:2], [1.25, 2.5], [(5, 5)] * 2, None)
    hits = (*read, unread_hit(documents[2], 3, 2))
    return Ranking(hits, "snow", "a-model", "cpu", 0.5, 3, complete=False, unscored=1)


def written(ranking, form):
    stream = io.StringIO()
    WRITERS[form]({"7": ranking}, stream, False)
    return stream.getvalue()


def test_a_document_that_was_not_read_has_no_score_in_any_format(partial):
    assert [row["score"] for row in map(json.loads, written(partial, "jsonl").splitlines())] == [2.5, 1.25, None]
    assert [row["score"] for row in json.loads(written(partial, "json"))["hits"]] == [2.5, 1.25, None]
    for form, dialect in (("csv", "excel"), ("tsv", "excel-tab")):
        rows = list(csv.DictReader(io.StringIO(written(partial, form)), dialect=dialect))
        assert [row["score"] for row in rows] == ["2.5", "1.25", ""]
    parquet, content = pytest.importorskip("pyarrow.parquet"), io.BytesIO()
    stream = io.TextIOWrapper(content)
    WRITERS["parquet"]({"7": partial}, stream, False)
    assert parquet.read_table(content)["score"].to_pylist() == [2.5, 1.25, None]
    assert written(partial, "trec").splitlines() == [
        "7 Q0 b 1 2 dearlite-a-model",
        "7 Q0 a 2 1 dearlite-a-model",
        "7 Q0 c 3 0 dearlite-a-model",
    ]
    assert written(partial.top(2), "trec").splitlines()[1] == "7 Q0 a 2 1.25 dearlite-a-model"


def test_a_document_that_was_not_read_is_named_so_on_screen(partial):
    console = Console(file=io.StringIO(), width=100)
    console.print(ranking_table(partial))
    shown = console.file.getvalue()
    assert "2.500" in shown
    assert shown.count("not scored") == ranking_html(partial).count("not scored") == 1
    nothing = replace(partial, hits=tuple(replace(hit, score=None) for hit in partial), unscored=3)
    console.print(ranking_table(nothing))
    assert repr(nothing) == "<Ranking of 3 documents by a-model on cpu>"


def test_a_document_that_was_not_read_is_a_missing_value_in_a_data_frame(partial):
    pandas = pytest.importorskip("pandas")
    assert list(partial.to_pandas()["score"].isna()) == [False, False, True]
    assert pandas.api.types.is_float_dtype(partial.to_pandas()["score"])
