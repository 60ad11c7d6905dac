"""Random runs and judgements, written in every form that is read: none of an id, a number or an order is lost."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dearlite.errors import InvalidInput
from dearlite.files.trec import read_qrels, read_run

# ids as collections have them; one with a space can only stand in a file with tabs, commas or JSON
plain_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9:/._%#-]{0,8}", fullmatch=True).filter(
    lambda text: text not in ("0", "Q0")
)
any_ids = st.one_of(plain_ids, st.sampled_from(["doc 1", "a, b", 'say "hi"', "ü ö", "007", "1.0", "1e3"]))
scores = st.lists(st.integers(-10_000, 10_000), unique=True, min_size=1, max_size=5).map(
    lambda numbers: [number + 0.25 for number in sorted(numbers, reverse=True)]  # a fraction: no rank
)


def runs(ids):
    documents = st.lists(ids, unique=True, min_size=5, max_size=5)
    of_query = st.tuples(documents, scores).map(lambda pair: dict(zip(*pair, strict=False)))
    return st.dictionaries(ids, of_query, min_size=1, max_size=3)


def judgements(ids):
    return st.dictionaries(
        ids, st.dictionaries(ids, st.integers(-2, 4), min_size=1, max_size=5), min_size=1, max_size=3
    )


def rows_of(table):
    return [(query, document, number) for query, entries in table.items() for document, number in entries.items()]


def as_csv(rows, delimiter=",", quoting=csv.QUOTE_MINIMAL):
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerows(rows)
    return out.getvalue()


def as_records(rows, names):
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)


RUNS = {
    "trec": ("trec", lambda rows: "".join(f"{q} Q0 {d} {n} {s} t\n" for n, (q, d, s) in enumerate(rows, 1))),
    "blanks": (
        "txt",
        lambda rows: "".join(f" {q}   Q0\t {d}  {n}\t\t{s}   t \r\n" for n, (q, d, s) in enumerate(rows, 1)),
    ),
    "three": ("tsv", lambda rows: "".join(f"{q} {d} {s}\n" for q, d, s in rows)),
}
RUNS_OF_ANY_ID = {
    "tabs": ("tsv", lambda rows: "".join(f"{q}\tQ0\t{d}\t{n}\t{s}\tmy tag\n" for n, (q, d, s) in enumerate(rows, 1))),
    "header": ("tsv", lambda rows: "Query-ID\tCorpus_ID\tScore\n" + "".join(f"{q}\t{d}\t{s}\n" for q, d, s in rows)),
    "other order": (
        "csv",
        lambda rows: as_csv(
            [("score", "docno", "rank", "qid"), *((s, d, n, q) for n, (q, d, s) in enumerate(rows, 1))]
        ),
    ),
    "semicolons": ("csv", lambda rows: as_csv([("qid", "docid", "score"), *rows], ";")),
    "quoted": ("csv", lambda rows: as_csv([("qid", "docid", "score"), *rows], ",", csv.QUOTE_ALL)),
    "records": ("jsonl", lambda rows: as_records(rows, ("topic", "doc_id", "score"))),
    "strings": ("jsonl", lambda rows: as_records([(q, d, str(s)) for q, d, s in rows], ("query_id", "pid", "SCORE"))),
    "list": ("json", lambda rows: json.dumps([{"qid": q, "docno": d, "score": s} for q, d, s in rows])),
    "dict": ("json", lambda rows: json.dumps({q: {d: s for other, d, s in rows if other == q} for q, _, _ in rows})),
}
QRELS = {
    "trec": ("txt", lambda rows: "".join(f"{q} 0 {d} {g}\n" for q, d, g in rows)),
    "blanks": ("qrels", lambda rows: "".join(f"{q}\t 0   {d}\t{g} \r\n" for q, d, g in rows)),
    "three": ("tsv", lambda rows: "".join(f"{q}\t{d}\t{g}\n" for q, d, g in rows)),
    "commas": ("csv", lambda rows: "".join(f"{q},0,{d},{g}\n" for q, d, g in rows)),
    "commas and blanks": ("csv", lambda rows: "".join(f"{q}, 0, {d}, {g}\n" for q, d, g in rows)),
}
QRELS_OF_ANY_ID = {
    "BEIR": ("tsv", lambda rows: "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{g}\n" for q, d, g in rows)),
    "floats": ("tsv", lambda rows: "qid\tdocid\trel\n" + "".join(f"{q}\t{d}\t{float(g)}\n" for q, d, g in rows)),
    "commas": (
        "csv",
        lambda rows: as_csv([("query_id", "iteration", "doc_id", "relevance"), *((q, 0, d, g) for q, d, g in rows)]),
    ),
    "other order": ("csv", lambda rows: as_csv([("Label", "PID", "QID"), *((g, d, q) for q, d, g in rows)])),
    "quoted": ("csv", lambda rows: as_csv(rows, ",", csv.QUOTE_ALL)),
    "semicolons": ("csv", lambda rows: as_csv([("topic", "docno", "grade"), *rows], ";")),
    "records": ("jsonl", lambda rows: as_records(rows, ("query-id", "corpus-id", "score"))),
    "dict": ("json", lambda rows: json.dumps({q: {d: g for other, d, g in rows if other == q} for q, _, _ in rows})),
}
quick = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder, form, rows, *, zipped):
    suffix, write = form
    data = write(rows).encode()
    path = folder / f"table.{suffix}{'.gz' if zipped else ''}"
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


def check_run(folder, form, run, zipped):
    read, _ = read_run(written(folder, form, rows_of(run), zipped=zipped))
    assert read == run
    assert [list(entries) for entries in read.values()] == [list(entries) for entries in run.values()]


@pytest.mark.parametrize("name", RUNS)
@quick
@given(run=runs(plain_ids), zipped=st.booleans())
def test_runs_of_plain_ids(tmp_path, name, run, zipped):
    check_run(tmp_path, RUNS[name], run, zipped)


@pytest.mark.parametrize("name", RUNS_OF_ANY_ID)
@quick
@given(run=runs(any_ids), zipped=st.booleans())
def test_runs_of_any_ids(tmp_path, name, run, zipped):
    check_run(tmp_path, RUNS_OF_ANY_ID[name], run, zipped)


@pytest.mark.parametrize("name", QRELS)
@quick
@given(qrels=judgements(plain_ids), zipped=st.booleans())
def test_judgements_of_plain_ids(tmp_path, name, qrels, zipped):
    assert read_qrels(written(tmp_path, QRELS[name], rows_of(qrels), zipped=zipped)) == qrels


@pytest.mark.parametrize("name", QRELS_OF_ANY_ID)
@quick
@given(qrels=judgements(any_ids), zipped=st.booleans())
def test_judgements_of_any_ids(tmp_path, name, qrels, zipped):
    assert read_qrels(written(tmp_path, QRELS_OF_ANY_ID[name], rows_of(qrels), zipped=zipped)) == qrels


def test_parquet(tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pd.DataFrame({"query-id": [1, 1], "corpus-id": [7, 8], "score": [1, -1]}).to_parquet(tmp_path / "q.parquet")
    assert read_qrels(tmp_path / "q.parquet") == {"1": {"7": 1, "8": -1}}
    pd.DataFrame({"qid": ["a"], "docno": ["x"], "score": [1.5], "rank": [0]}).to_parquet(tmp_path / "r.parquet")
    assert read_run(tmp_path / "r.parquet")[0] == {"a": {"x": 1.5}}


@pytest.mark.parametrize(
    ("text", "run", "words"),
    [
        (
            "1\ta\t1\n1\tb\t2\n2\tc\t1\n",
            {"1": {"a": -1.0, "b": -2.0}, "2": {"c": -1.0}},
            "read as qid docid rank (MS MARCO)",
        ),
        ("1\ta\t30\n1\tb\t20\n", {"1": {"a": 30.0, "b": 20.0}}, "read as qid docid score"),
        ("1,a,0.5\n1,b,0.75\n", {"1": {"b": 0.75, "a": 0.5}}, "read as qid docid score"),
    ],
)
def test_a_third_column_is_a_rank_or_a_score_and_this_is_said(tmp_path, text, run, words):
    (tmp_path / "r.tsv").write_text(text)
    read, notes = read_run(tmp_path / "r.tsv")
    assert read == run and list(read["1"]) == list(run["1"])
    assert notes[0] == f"r.tsv has three columns: {words}"


def test_colbert_has_four_columns(tmp_path):
    (tmp_path / "r.tsv").write_text("1\ta\t1\t30.5\n1\tb\t2\t20\n")
    assert read_run(tmp_path / "r.tsv") == ({"1": {"a": 30.5, "b": 20.0}}, [])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.tsv", "1\ta\t3\n1\tb\t5\n1\tc\t4\n", "neither a rank, which rises, nor a score, which falls"),
        ("r.trec", "1 0 d 1\n", "the four columns are those of judgements"),
        ("r.trec", '{"1": {"d": 2}}\n', "r.trec looks like JSON: name the file .json or .jsonl"),
        ("r.json", '{"1": {"d": 2}', "is not JSON"),
        ("r.json", '"x"', "is one str"),
        ("r.json", '{"1": {"d": 2, "d": 3}}', "'d' comes twice in an object"),
        ("r.json", '{"1": 2}', "query '1' has a int: it must be {document id: number}"),
        ("r.jsonl", '{"qid": 1, "docid": 2}\n', "is no row of a run (it has 'qid', 'docid'): it needs"),
        ("r.csv", "qid,docid,score\n1,a,2,3\n", "r.csv:2 has 4 columns instead of the 3 of a run (qid docid score)"),
        ("r.csv", "qid,docid,score\n1,,2\n", "r.csv:2 has no document id"),
        ("r.csv", "qid,docid,score,Score\n1,a,2,3\n", "has two columns 'score': keep one"),
    ],
)
def test_other_shapes_say_what_they_look_like(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput) as caught:
        read_run(tmp_path / name)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_tabs_and_blanks_mixed_and_ids_with_spaces(tmp_path):
    (tmp_path / "a.txt").write_text("1 0 d1 2\n1\t0\td2\t1\n2\t 0   d3\t0\n")
    assert read_qrels(tmp_path / "a.txt") == {"1": {"d1": 2, "d2": 1}, "2": {"d3": 0}}
    (tmp_path / "b.tsv").write_text("q\tdoc 1\t1\nq\tdoc2\t0\n")
    assert read_qrels(tmp_path / "b.tsv") == {"q": {"doc 1": 1, "doc2": 0}}
    (tmp_path / "c.tsv").write_text("qid\tdocid\tscore\nq 1\t\t5\n")
    with pytest.raises(InvalidInput, match=r"c\.tsv:2 has no document id"):
        read_qrels(tmp_path / "c.tsv")


def test_a_damaged_first_line_does_not_decide_the_columns(tmp_path):
    (tmp_path / "r.trec").write_text("1 a 5\n1 Q0 b 1 3 t\n1 Q0 c 2 2 t\n")
    with pytest.raises(InvalidInput, match=r"r\.trec:1 has 3 columns instead of the 6 of a run"):
        read_run(tmp_path / "r.trec")
    assert read_run(tmp_path / "r.trec", skip_bad=True)[0] == {"1": {"b": 3.0, "c": 2.0}}
