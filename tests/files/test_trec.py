"""Files of runs and judgements: what they hold, the errors of bad lines, and notes."""

import gzip

import pytest

from dearlite.errors import InvalidInput, UsageError
from dearlite.files.trec import read_qrels, read_run, run_line


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_scores_make_the_order_and_the_depth(tmp_path):
    run, notes = read_run(write(tmp_path / "run.trec", "q Q0 a 1 1.5 t\nq Q0 b 2 9 t\nq Q0 c 3 4 t\n"), depth=2)
    assert run == {"q": {"b": 9.0, "c": 4.0}}
    assert list(run["q"]) == ["b", "c"]
    assert notes == [
        "run.trec: the ranks of 1 query ('q' first) do not follow their scores: ordered by score, as trec_eval does"
    ]


def test_equal_scores_stand_by_their_ranks(tmp_path):
    run, notes = read_run(write(tmp_path / "run.trec", "q Q0 a 2 1 t\nq Q0 b 1 1 t\n"))
    assert list(run["q"]) == ["b", "a"]
    assert notes == []


@pytest.mark.parametrize(
    "text",
    [
        "7 Q0 007 1 2.5 t\n7 Q0 7 2 1e-3 t\n",
        "7\tQ0\t007\t1\t2.5\tt\n7\tQ0\t7\t2\t1e-3\tt\n",
        "7 Q0 007 1 2.5 t\r\n\r\n7  Q0   7 2 1e-3 t\r\n",
        "\ufeff7 Q0 007 1 2.5 t\n7 Q0 7 2 1e-3 t",
    ],
)
def test_tabs_crlf_marks_and_ids_that_look_like_numbers(tmp_path, text):
    run, _ = read_run(write(tmp_path / "run.trec", text))
    assert run == {"7": {"007": 2.5, "7": 0.001}}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("q Q0 a 1 2.5", "run.trec:2 has 5 columns instead of the 6 of a run (qid Q0 docid rank score tag)"),
        ("q Q0 a 1 2.5 my tag", "run.trec:2 has 7 columns"),
        ("q Q0 x 2 1 t", "run.trec:2: query 'q' names document 'x' twice"),
        ("q Q0 a one 2.5 t", "run.trec:2: the rank 'one' is not a whole number"),
        ("q Q0 a 1 much t", "run.trec:2: the score 'much' is not a number"),
        ("q Q0 a 1 nan t", "run.trec:2: the score 'nan' is not a number"),
    ],
)
def test_a_bad_line_is_named_or_left_out(tmp_path, line, reason):
    path = write(tmp_path / "run.trec", f"q Q0 x 1 3 t\n{line}\n")
    with pytest.raises(InvalidInput) as caught:
        read_run(path)
    assert str(caught.value).startswith(reason)
    assert str(caught.value).endswith("correct the run (or go on without the line: --skip-bad)")
    run, notes = read_run(path, skip_bad=True)
    assert run == {"q": {"x": 3.0}}
    assert notes == [f"skipped: {notes[0].removeprefix('skipped: ')}"] and reason in notes[0]


def test_gzip_cut_short_and_bytes_that_are_no_text(tmp_path):
    whole = gzip.compress(b"".join(b"q Q0 d%d %d %d t\n" % (i, i, -i) for i in range(2000)))
    with pytest.raises(InvalidInput, match=r"run\.trec\.gz is damaged gzip .*: fetch or compress it again"):
        read_run(write(tmp_path / "run.trec.gz", whole[: len(whole) // 2]))
    assert len(read_run(write(tmp_path / "whole.gz", whole))[0]["q"]) == 2000
    with pytest.raises(InvalidInput, match=r"latin\.trec:1 is not UTF-8"):
        read_run(write(tmp_path / "latin.trec", b"q Q0 caf\xe9 1 1 t\n"))


def test_an_empty_run_a_folder_and_no_file(tmp_path):
    with pytest.raises(InvalidInput, match="holds no run lines"):
        read_run(write(tmp_path / "empty.trec", "\n"))
    for path in (tmp_path, tmp_path / "none.trec"):
        with pytest.raises(UsageError, match="cannot read"):
            read_run(path)


def test_qrels_of_trec_and_of_beir(tmp_path):
    expected = {"1": {"d1": 2, "d2": -1}, "2": {"d1": 0}}
    trec = write(tmp_path / "a.txt", "1 0 d1 2\r\n1 0 d2 -1\n2\t0\td1\t0\n1 0 d1 2\n")
    beir = write(tmp_path / "b.tsv", "query-id\tcorpus-id\tscore\n1\td1\t2\n1\td2\t-1\n2\td1\t0\n")
    assert read_qrels(trec) == read_qrels(beir) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "1 d1\n",
            r"q\.tsv:1 has 2 columns instead of the 4 of qrels \(qid 0 docid grade\): it has no number in a third",
        ),
        ("1 0 d1 2\n1 d1 2\n", r"q\.tsv:2 has 3 columns instead of the 4 of qrels \(qid 0 docid grade\)"),
        ("1 Q0 d1 1 2.5 t\n", r"q\.tsv:1 has 6 columns instead of the 4 of qrels .*: it looks like a line of a run"),
        ("1 0 d1 1.5\n", r"q\.tsv:1: the grade '1\.5' is not a whole number"),
        ("1 0 d1 high\n", r"q\.tsv:1: the grade 'high' is not a number"),
        ("1 0 d1 1\n1 0 d1 2\n", r"q\.tsv:2: document 'd1' of query '1' has two grades: keep one"),
        ("", r"q\.tsv holds no judgements"),
    ],
)
def test_bad_qrels_are_refused(tmp_path, text, reason):
    with pytest.raises(InvalidInput, match=reason):
        read_qrels(write(tmp_path / "q.tsv", text))


def test_a_line_tells_float32_apart_and_refuses_spaces():
    assert run_line("1", "d", 3, 0.1, "my model") == "1 Q0 d 3 0.1 dearlite-my_model\n"
    assert run_line("1", "d", 1, 9.655132293701172, "m").split()[4] == "9.65513229"
    for query_id, document_id in (("1 2", "d"), ("1", "a b"), ("", "d"), ("1", "")):
        with pytest.raises(InvalidInput, match="which a TREC run cannot hold"):
            run_line(query_id, document_id, 1, 1.0, "m")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1 Q0 a 1 nan t", "the score 'nan' is not a number: correct the run"),
        ("1 Q0 a 1 0,5 t", "write it with a point instead of the comma"),
        ("1 Q0 a 1 1_0 t", "the score '1_0' is not a number: correct the run"),
        ("1 Q0 a 1_0 2 t", "the rank '1_0' is not a whole number"),
        ("1 Q0 a 1.5 2 t", "the rank '1.5' is not a whole number"),
    ],
)
def test_numbers_that_are_none_have_a_remedy_of_their_own(tmp_path, line, reason):
    (tmp_path / "r.trec").write_text(f"{line}\n1 Q0 b 2.0 1 t\n", encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        read_run(tmp_path / "r.trec")
    assert reason in str(caught.value)
    assert read_run(tmp_path / "r.trec", skip_bad=True)[0] == {"1": {"b": 1.0}}
