"""`rerank --queries`: several queries over one list of documents, in each format, and what cannot be meant."""

import csv
import gzip
import io
import json
import sys

import pytest

from dearlite import Reranker

DOCS = [{"id": "a", "text": "Rain falls in spring.", "query_id": 5}, {"id": "b", "text": "Granite is a hard stone."}]
QUERIES = {"1": "spring rain", "3": "hard stones"}


@pytest.fixture
def files(tmp_path):
    """The paths of the queries, a line each and one blank line, and of the documents."""
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in DOCS))
    (tmp_path / "q.txt").write_text("spring rain\n\nhard stones\n")
    return tmp_path / "q.txt", tmp_path / "docs.jsonl"


@pytest.fixture(scope="module")
def expected():
    """Query id -> the ids and scores of a call per query."""
    reranker = Reranker.load(threads=1)
    return {name: [(hit.id, hit.score) for hit in reranker.rerank(text, DOCS)] for name, text in QUERIES.items()}


def output(cli, files, *options):
    code, out, err = cli("rerank", "--queries", files[0], files[1], *options)
    assert (code, err) == (0, "")
    return out


def groups(rows):
    by_query = {}
    for row in rows:
        by_query.setdefault(row["query_id"], []).append((row["id"], float(row["score"])))
    return by_query


def near(expected):
    return {name: [(doc, pytest.approx(score, abs=1e-4)) for doc, score in pairs] for name, pairs in expected.items()}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_line_feeds_and_carriage_returns_end_a_query(cli, files, end, mark):
    files[0].write_bytes(f"spring{mark}rain{end}{end}hard stones{end}".encode())
    rows = [json.loads(line) for line in output(cli, files).split("\n") if line]
    assert {row["query_id"] for row in rows} == {"1", "3"}
    assert {row["query"] for row in rows} == {f"spring{mark}rain", "hard stones"}
    docs = files[1].with_name("docs.txt")
    docs.write_bytes(f"Rain{mark}falls.{end.replace(chr(13), '') or chr(10)}Stone.\n".encode())
    rows = [json.loads(line) for line in cli("rerank", "-q", "rain", docs)[1].split("\n") if line]
    assert sorted(row["text"] for row in rows) == sorted([f"Rain{mark}falls.", "Stone."])


def test_each_line_is_a_query_and_each_row_names_its_own(cli, files, expected):
    rows = [json.loads(line) for line in output(cli, files).splitlines()]
    assert groups(rows) == near(expected)
    assert [row["query"] for row in rows] == [QUERIES[row["query_id"]] for row in rows]
    assert {row["id"]: row.get("input_query_id") for row in rows} == {"a": 5, "b": None}
    assert list(rows[0])[:2] == ["query_id", "query"]
    assert [json.loads(line)["rank"] for line in output(cli, files, "-k", "1").splitlines()] == [1, 1]


@pytest.mark.parametrize(("form", "separator"), [("csv", ","), ("tsv", "\t")])
def test_tables_of_text_have_a_column_for_the_query(cli, files, expected, form, separator):
    rows = csv.DictReader(io.StringIO(output(cli, files, "--format", form)), delimiter=separator)
    rows = list(rows)
    assert groups(rows) == near(expected)
    assert [row["query"] for row in rows] == [QUERIES[row["query_id"]] for row in rows]


def test_parquet_has_the_columns_of_csv_with_types(cli, files, expected):
    parquet = pytest.importorskip("pyarrow.parquet")
    for name, several in (("best.parquet", True), ("one.parquet.gz", False)):
        path = files[0].with_name(name)
        query = ["--queries", files[0]] if several else ["-q", QUERIES["1"]]
        assert cli("rerank", *query, files[1], "-o", path) == (0, "", "")
        with gzip.open(path) if name.endswith(".gz") else open(path, "rb") as stream:
            table = parquet.read_table(io.BytesIO(stream.read()))
        csv_rows = csv.DictReader(io.StringIO(cli("rerank", *query, files[1], "--format", "csv")[1]))
        assert table.column_names == csv_rows.fieldnames
        fixed = ["int64", "double", "int64", *["string"] * 3]
        kinds = ["string", *fixed, "string", "double"] if several else [*fixed, "double"]
        assert [str(kind) for kind in table.schema.types] == kinds
        numbers = ("score", "relevance")
        assert [row | {name: pytest.approx(float(row[name])) for name in numbers} for row in csv_rows] == [
            {name: value if name in numbers else str(value) for name, value in row.items()} for row in table.to_pylist()
        ]
    documents = files[1].with_name("d.jsonl")
    documents.write_text(r'{"text": "rain \ud83d falls"}' + "\n")
    assert cli("rerank", "-q", "rain", documents, "-o", path.with_suffix(""), "--min-relevance", "1")[0] == 0
    assert parquet.read_table(path.with_suffix("")).num_rows == 0  # with its columns
    assert cli("rerank", "-q", "rain", documents, "-o", path.with_suffix(""))[0] == 0
    assert "rain" in parquet.read_table(path.with_suffix(""))["text"].to_pylist()[0]


def test_parquet_is_refused_before_the_work_on_a_terminal_and_without_its_extra(cli, files, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    code, _, err = cli("rerank", "-q", "rain", files[1], "--format", "parquet")
    assert (code, err) == (
        2,
        "dearlite: parquet is binary, which a terminal cannot show: name a file with -o, such as best.parquet\n",
    )
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    path = files[0].with_name("best.parquet")
    path.write_text("before")
    code, _, err = cli("rerank", "-q", "rain", files[1], "-o", path)
    assert code != 0 and "parquet" in err and err.count("\n") == 1
    assert path.read_text() == "before"


def test_json_trec_and_tables_are_grouped(cli, files, expected):
    parsed = json.loads(output(cli, files, "--format", "json"))["queries"]
    assert [(group["query_id"], group["query"]) for group in parsed] == list(QUERIES.items())
    assert [[hit["id"] for hit in group["hits"]] for group in parsed] == [
        [doc for doc, _ in pairs] for pairs in expected.values()
    ]
    run = [line.split() for line in output(cli, files, "--format", "trec").splitlines()]
    assert groups({"query_id": qid, "id": doc, "score": score} for qid, _, doc, _, score, _ in run) == near(expected)
    table = output(cli, files, "--format", "table")
    assert table.index("spring rain") < table.index("hard stones")
    assert table.count("document") == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.jsonl", '{"_id": "1", "text": "spring rain"}\n{"_id": "3", "text": "hard stones"}\n'),
        ("q.tsv", "1\tspring rain\n3\thard stones\n"),
    ],
)
def test_a_file_with_ids_keeps_them(cli, files, expected, name, text):
    queries = files[0].with_name(name)
    queries.write_text(text)
    assert groups(map(json.loads, output(cli, (queries, files[1])).splitlines())) == near(expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-q", "x", "--queries", "Q", "D"], "leave out the query"),
        (["--queries", "Q", "Q", "D"], "holds a document per record, and several DOCS are files of text"),
        (["--queries", "Q"], "name the file of documents"),
        (["--queries", "-", "-"], "cannot hold both"),
        (["--queries", "Q", "D", "--query-id", "7"], "--query-id names a single query"),
        (["--queries", "Q", "D", "-o", "Q", "--format", "jsonl"], "would overwrite"),
        (["--queries", "missing.txt", "D"], "cannot read the queries file missing.txt"),
        (["--queries", "missing.tsv", "D"], "missing.tsv"),
        (["--queries", "EMPTY", "D"], "holds no queries"),
        (["--queries", "JSON", "D"], "holds JSON, not a query per line: name it .jsonl"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(cli, files, arguments, words):
    places = {"Q": files[0], "D": files[1], "EMPTY": files[0].with_name("e.txt"), "JSON": files[0].with_name("j.txt")}
    places["EMPTY"].write_text("\n")
    places["JSON"].write_text('{"text": "rain"}\n{"text": "snow"}\n')
    before = files[0].read_bytes()
    code, out, err = cli("rerank", *(places.get(argument, argument) for argument in arguments))
    assert (code, out) == (2, "")
    assert words in err and err.count("\n") == 1
    assert files[0].read_bytes() == before


def test_remarks_name_their_query(cli, files):
    files[1].write_text(json.dumps({"text": "rain " * 2000}) + "\n")
    code, _, err = cli("rerank", "--queries", files[0], files[1])
    assert code == 0
    assert [line.partition(" of the 1 document")[0] for line in err.splitlines()] == [
        "dearlite: query 1: 1",
        "dearlite: query 3: 1",
    ]


def test_min_relevance_drops_over_all_queries(cli, files):
    code, out, err = cli("rerank", "--queries", files[0], files[1], "--min-relevance", "0.5")
    kept = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert f"{4 - len(kept)} of 4 documents have a relevance below 0.5" in err
