"""Rankings on a terminal and in a notebook: what the bars mean, what a width leaves room for, and nothing to show."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from dearlite.documents import as_documents
from dearlite.hits import make_hits
from dearlite.ranking import Ranking, StageReport, StageScore
from dearlite.render.table import print_ranking


def ranking_of(scores, relevance=None, **facts):
    """A ranking of one short document per score."""
    records = [{"id": f"d{number}", "text": f"Snow falls on hill {number}."} for number in range(len(scores))]
    documents = as_documents(records)
    hits = make_hits(documents, scores, [(5, 5)] * len(scores), None, relevance, relevance and "calibration")
    facts = {"query": "snow", "model": "m", "device": "cpu", "elapsed_s": 0.5, "total": len(scores)} | facts
    return Ranking(hits=hits, **facts)


def shown(ranking, width, monkeypatch):
    """The lines of the table in a terminal of `width` columns."""
    monkeypatch.setenv("COLUMNS", str(width))
    stream = io.StringIO()
    print_ranking(ranking, stream)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def rows(lines):
    return [line for line in lines if re.match(r" \d", line)]


def cells_of_bar(row):
    return len(re.findall("[█▏▎▍▌▋▊▉]", row))


def tenth(score):
    return score / 10


def test_bars_of_a_calibrated_model_go_from_zero_to_one(monkeypatch):
    lines = shown(ranking_of([9.0, 5.0, 0.1], tenth), 100, monkeypatch)
    assert [row.split()[-8:-6] for row in rows(lines)] == [["0.90", "9.000"], ["0.50", "5.000"], ["0.01", "0.100"]]
    assert [cells_of_bar(row) for row in rows(lines)] == [8, 4, 1]
    assert "relevance" in lines[2] and "score" in lines[2]
    assert not any("bars:" in line for line in lines)
    # One document of little relevance has no full bar.
    (row,) = rows(shown(ranking_of([1.0], tenth), 100, monkeypatch))
    assert cells_of_bar(row) == 1


def test_bars_of_other_scores_state_their_ends_and_are_never_empty(monkeypatch):
    lines = shown(ranking_of([3.0, -1.0, 1.0]), 100, monkeypatch)
    assert [cells_of_bar(row) for row in rows(lines)] == [8, 5, 1]
    assert lines[-1] == "bars: from the lowest score shown, -1.000, to the highest, 3.000"
    assert "relevance" not in lines[2]


@pytest.mark.parametrize("scores", [[0.25], [0.25, 0.25]])
def test_scores_with_nothing_to_compare_have_no_bar(monkeypatch, scores):
    lines = shown(ranking_of(scores), 100, monkeypatch)
    assert [cells_of_bar(row) for row in rows(lines)] == [0] * len(scores)
    assert "0.250" in rows(lines)[0]
    assert not any("bars:" in line for line in lines)


@pytest.mark.parametrize(
    ("width", "names"),
    [
        (100, "# moved relevance score id document"),
        (80, "# moved relevance id document"),
        (60, "# relevance id document"),
        (40, "# relevance id document"),
        (34, "# relevance document"),
        (20, "# document"),
    ],
)
def test_a_narrow_terminal_leaves_columns_out_and_keeps_the_document(monkeypatch, width, names):
    lines = shown(ranking_of([9.0, 5.0], tenth), width, monkeypatch)
    assert lines[2].split() == names.split()
    assert max(map(len, lines)) <= width
    assert any("Snow falls" in line for line in lines)
    assert any(cells_of_bar(row) for row in rows(lines)) is (width >= 70)


@pytest.mark.parametrize(("width", "like"), [(0, 80), (1, 20), (19, 20)])
def test_a_width_that_no_terminal_has_loses_no_document(monkeypatch, width, like):
    ranking = ranking_of([9.0, 5.0], tenth)
    assert shown(ranking, width, monkeypatch) == shown(ranking, like, monkeypatch)
    assert "Snow falls" in " ".join(shown(ranking, width, monkeypatch))


def test_a_cascade_shows_the_ranks_of_its_stages_and_the_relevance(monkeypatch):
    ranking = ranking_of(
        [9.0, 5.0], tenth, stages=(StageReport("a", "cpu", 2, 2, 0.1), StageReport("b", "cpu", 2, 2, 1))
    )
    hits = [replace(hit, stages=(StageScore("a", 3 - hit.rank, 1), StageScore("b", hit.rank, 1))) for hit in ranking]
    lines = shown(replace(ranking, hits=tuple(hits)), 100, monkeypatch)
    assert lines[2].split() == ["#", "moved", "by", "stage", "relevance", "id", "document"]
    assert "2 → 1" in lines[4] and "0.90" in lines[4]


def staged(ranking, depth):
    """`ranking` as that of a cascade whose second stage read the first `depth` hits."""
    first = [StageScore("a", hit.rank, 1.0) for hit in ranking]
    hits = [
        replace(hit, stages=(first[hit.rank - 1], *([StageScore("b", hit.rank, 1.0)] * (hit.rank <= depth))))
        for hit in ranking
    ]
    reports = (StageReport("a", "cpu", len(hits), len(hits), 0.1), StageReport("b", "cpu", depth, depth, 0.1))
    return replace(ranking, hits=tuple(hits), stages=reports)


@pytest.mark.parametrize(
    ("depth", "line"),
    [(2, "ranks 3 to 4 were not read by b"), (3, "rank 4 was not read by b"), (4, "")],
)
def test_ranks_that_the_last_stage_did_not_read_are_named(monkeypatch, depth, line):
    ranking = staged(ranking_of([9.0, 5.0, 4.0, 3.0], tenth), depth)
    assert shown(ranking, 100, monkeypatch)[-1] == line
    assert (" were not read" in ranking._repr_html_()) is (depth == 2)
    assert "not read" not in shown(ranking.top(depth), 100, monkeypatch)[-1]


@pytest.mark.parametrize(
    ("fusion", "line"),
    [
        ("rrf", "order: by the fused ranks of all queries, not by relevance"),
        ("mean", "order: by the mean scores of all"),
    ],
)
def test_an_order_that_is_not_that_of_the_bars_is_explained(monkeypatch, fusion, line):
    falling = replace(ranking_of([9.0, 5.0], tenth), fusion=fusion)
    rising = replace(falling, hits=tuple(replace(hit, relevance=hit.rank / 10) for hit in falling))
    assert shown(rising, 100, monkeypatch)[-1].startswith(line)
    assert line in rising._repr_html_()
    assert "order:" not in " ".join(shown(falling, 100, monkeypatch))
    cascade = replace(staged(rising, 2), fusion=None)
    assert shown(cascade, 100, monkeypatch)[-1] == "order: by the ranks of the stages, not by relevance"


def test_an_empty_result_is_a_sentence(monkeypatch):
    empty = ranking_of([9.0, 5.0], tenth).above(0.99)
    assert shown(empty, 80, monkeypatch) == ["snow", "None of the 2 documents is relevant enough."]
    assert "None of the 2 documents is relevant enough." in empty._repr_html_()
    assert "<table" not in empty._repr_html_()
    assert "None of the 1 document " in ranking_of([9.0], tenth).above(0.99)._repr_html_()


def test_a_printed_ranking_has_the_width_of_its_console():
    for width in (50, 90):
        console = Console(width=width, file=io.StringIO())
        console.print(ranking_of([9.0, 5.0], tenth))
        lines = console.file.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert ("moved" in lines[2]) is (width >= 70)


def test_a_notebook_has_the_relevance_with_its_bar_and_the_score_beside_it():
    page = ranking_of([9.0, 5.0], tenth)._repr_html_()
    assert re.findall(r"<th [^>]*>(.*?)</th>", page) == ["#", "moved", "relevance", "score", "id", "document"]
    assert "width:90%" in page and "width:50%" in page
    assert "opacity:.6'>9.000" in page
    page = ranking_of([9.0, 5.0])._repr_html_()
    assert "score" in re.findall(r"<th [^>]*>(.*?)</th>", page) and "relevance" not in page
    assert "bars: from the lowest score shown, 5.000, to the highest, 9.000" in page


def test_a_notebook_says_how_queries_were_fused_and_which_a_document_answers():
    ranking = ranking_of([9.0, 5.0])
    hits = (replace(ranking[0], best_query="who <skis>?"), ranking[1])
    page = replace(ranking, hits=hits, queries=("who <skis>?", "snow"), fusion="rrf")._repr_html_()
    assert "; fused by rrf" in page and page.count("[nearest query: who &lt;skis&gt;?]") == 1
    assert "nearest query" in hits[0]._repr_html_() and "nearest query" not in hits[1]._repr_html_()
    assert "fused" not in ranking._repr_html_() and "nearest query" not in ranking._repr_html_()


def test_a_notebook_has_no_column_of_ids_where_no_document_has_one():
    ranking = ranking_of([9.0, 5.0])
    page = replace(ranking, hits=tuple(replace(hit, id=None) for hit in ranking))._repr_html_()
    assert re.findall(r"<th [^>]*>(.*?)</th>", page) == ["#", "moved", "score", "document"]
    assert page.count("<td") == 2 * 4


def test_a_long_id_is_cut_in_a_notebook_and_whole_in_its_tooltip():
    name = "https://example.org/a-b-c/" + "x" * 200 + "'"
    hits = [replace(hit, id=name) for hit in ranking_of([1.0, 2.0])]
    page = replace(ranking_of([1.0, 2.0]), hits=tuple(hits))._repr_html_()
    cell = re.search(r"<td style='([^']*)' title='([^']*)'", page)
    assert "text-overflow:ellipsis" in cell[1] and "white-space:nowrap" in cell[1] and "max-width" in cell[1]
    assert cell[2] == name.replace("'", "&#x27;")
