"""The inputs of `rerank` as people have them: reported cases, field options, ids, and files in place of the query."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from dearlite import Fields, InvalidInput, Reranker, rerank

CASES = Path(__file__).parents[1] / "data" / "cases"


def ranked(result):
    """The rows of a successful call, in the order of the input, and stderr."""
    code, out, err = result
    assert code == 0, err
    return sorted(map(json.loads, out.splitlines()), key=lambda row: row["index"]), err


def refused(result, code):
    assert result[0] == code, result
    assert result[1] == ""
    (line,) = result[2].splitlines()
    return line


# case -> (id, text) of its documents
READ = {
    "c01-utf16/docs.jsonl": [("a", "Rain falls in spring."), ("b", "Granite is hard.")],
    "c02-semicolon/sepline.csv": [("1", "Rain falls in spring."), ("2", "Granite is hard.")],
    "c03-content-field/body.jsonl": [("a", "Rain falls in spring.")],
    "c03-content-field/content.jsonl": [("a", "Rain falls in spring."), ("b", "Granite is hard.")],
    "c03-content-field/page_content.jsonl": [("a", "Rain falls in spring.")],
    "c04-one-json-object/docs.json": [("a", "Rain falls in spring."), ("b", "Granite is hard.")],
    "c05-nan-json/docs.jsonl": [("a", "Rain falls in spring."), ("b", "Granite is hard.")],
    "c07-csv-quotes/backslash.csv": [("1", "ends with backslash\\"), ("2", "rain")],
    "c07-csv-quotes/inch.csv": [("1", 'a 5" screen in the rain'), ("2", "plain")],
    "c08-csv-blank-line/d.csv": [("1", "rain"), ("2", "snow")],
    "c08-csv-blank-line/msmarco.tsv": [("101", "Rain falls in spring."), ("102", "Granite is hard.")],
    "c10-json-lines-as-json/docs.json": [("a", "rain"), ("b", "snow")],
    "c11-array-as-jsonl/docs.jsonl": [("a", "rain"), ("b", "snow")],
    "c11-array-as-jsonl/oneline.jsonl": [("a", "rain"), ("b", "snow")],
    "c11-array-as-jsonl/pretty.jsonl": [("a", "rain"), ("b", "snow")],
    "c12-header-spelling/pandas-index.csv": [("x", "rain"), ("y", "snow")],
    "c12-header-spelling/space.csv": [("1", " rain"), ("2", " snow")],
    "c12-header-spelling/upper.csv": [("1", "rain"), ("2", "snow")],
    "c13-cr-only/d.csv": [("1", "rain"), ("2", "snow")],
    "c13-cr-only/d.jsonl": [("a", "rain"), ("b", "snow")],
    "c13-cr-only/d.txt": [(None, "rain falls"), (None, "snow melts")],
    "c14-many-extra-cols/nul.csv": [("1", "ra\0in"), ("2", "snow")],
    "c14-many-extra-cols/nul.jsonl": [("a", "rain\0 nul"), ("b", "snow")],
    "p04-ids/doc_id.jsonl": [("x1", "rain"), ("x2", "snow")],
    "p04-ids/docno.jsonl": [("FT911-3", "rain"), ("FT911-4", "snow")],
    "p04-ids/pid.jsonl": [("7067032", "rain")],
}
# case -> words of the error, and the number of documents that --skip-bad ranks
REFUSED = {
    "c07-csv-quotes/inner.csv": (["inner.csv:2", "quotation mark", '("")'], 1),
    "c08-csv-blank-line/extra-tab.tsv": (["extra-tab.tsv:2", "'in spring' is beyond", "--delimiter"], 1),
    "c02-semicolon/docs.csv": (["docs.csv:3", "' basalt too.' is beyond", "quotation marks"], 1),
    "c15-unquoted-comma/d.csv": (["d.csv:2", "and the river floods", "quotation marks"], 1),
}


@pytest.mark.parametrize("case", READ)
def test_a_reported_file_is_read_whole(case):
    from dearlite.files.readers import read_documents

    file = read_documents(str(CASES / case))
    assert [(document.id, document.text) for document in file.documents] == READ[case]
    assert file.skipped == []


@pytest.mark.parametrize("case", REFUSED)
def test_a_reported_file_that_would_lose_text_is_refused_by_line(cli, case):
    words, others = REFUSED[case]
    line = refused(cli("rerank", "-q", "rain", CASES / case), 1)
    assert all(word in line for word in words), line
    rows, err = ranked(cli("rerank", "-q", "rain", CASES / case, "--skip-bad"))
    assert len(rows) == others
    assert "skipped: " + words[0] in err


def test_every_reported_file_of_documents_is_in_a_table():
    folders = {case.partition("/")[0] for case in (*READ, *REFUSED)}
    files = {f"{folder}/{path.name}" for folder in folders for path in (CASES / folder).iterdir()}
    assert files == {*READ, *REFUSED, "c01-utf16/query.txt"}


def test_query_and_documents_in_utf16(cli):
    rows, err = ranked(cli("rerank", CASES / "c01-utf16/query.txt", CASES / "c01-utf16/docs.jsonl"))
    assert [row["text"] for row in rows] == ["Rain falls in spring.", "Granite is hard."]
    assert err == ""


# Ids


def test_ids_that_are_not_known_are_told_where_they_matter(cli, tmp_path):
    (tmp_path / "d.jsonl").write_text('{"uuid": "u1", "text": "rain"}\n{"uuid": "u2", "text": "snow"}\n')
    _, out, err = cli("rerank", "-q", "rain", tmp_path / "d.jsonl", "--format", "trec")
    assert {line.split()[2] for line in out.splitlines()} == {"0", "1"}
    assert "2 documents have no id under a known name (d.jsonl:1 first; it has 'uuid', 'text')" in err
    assert "--id-field" in err
    assert cli("rerank", "-q", "rain", tmp_path / "d.jsonl")[2] == ""
    _, out, err = cli("rerank", "-q", "rain", tmp_path / "d.jsonl", "--format", "trec", "--id-field", "uuid")
    assert {line.split()[2] for line in out.splitlines()} == {"u1", "u2"}
    assert err == ""


def test_documents_of_one_id_are_all_ranked_and_refused_for_a_run(cli, tmp_path):
    (tmp_path / "d.jsonl").write_text('{"id": "a.pdf", "text": "rain"}\n{"id": "a.pdf", "text": "snow"}\n')
    rows, err = ranked(cli("rerank", "-q", "rain", tmp_path / "d.jsonl"))
    assert [row["id"] for row in rows] == ["a.pdf", "a.pdf"]
    assert err == "dearlite: 1 document id occurs more than once (first 'a.pdf'): all their documents are ranked\n"
    line = refused(cli("rerank", "-q", "rain", tmp_path / "d.jsonl", "--format", "trec"), 1)
    assert "d.jsonl:2: id 'a.pdf' is already at d.jsonl:1" in line
    assert cli("rerank", "-q", "rain", tmp_path / "d.jsonl", "--format", "trec", "--id-field", "")[0] == 0


# Options


def test_field_options_name_text_id_and_title(cli, tmp_path):
    (tmp_path / "d.csv").write_text("Key;Body text;Head\n7;rain falls;Rain\n")
    options = ("--text-field", "body text", "--id-field", "key", "--title-field", "head", "--delimiter", "semicolon")
    rows, err = ranked(cli("rerank", "-q", "rain", tmp_path / "d.csv", *options))
    assert [(row["index"], row["Body text"]) for row in rows] == [(0, "rain falls")]
    assert err == ""
    line = refused(cli("rerank", "-q", "rain", tmp_path / "d.csv", "--delimiter", ";;"), 2)
    assert "';;' is not one character" in line
    line = refused(cli("rerank", "-q", "rain", tmp_path / "d.csv", "--text-field", "Head", "--title-field", "x"), 2)
    assert "no document of d.csv has a field 'x' for its title" in line


# In place of the query


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("docs.jsonl", '{"text": "a"}\n', "docs.jsonl is JSONL"),
        ("docs.csv", "id,text\n1,a\n", "docs.csv is CSV"),
        ("docs", '{"text": "a"}\n{"text": "b"}\n', "docs holds JSON"),
        ("docs.txt", '[{"text": "a"}]', "docs.txt holds JSON"),
        ("docs.parquet", "PAR1", "docs.parquet is PARQUET"),
    ],
)
def test_documents_in_place_of_the_query_are_refused_with_the_right_order(cli, tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    (tmp_path / "q.txt").write_text("rain\n")
    line = refused(cli("rerank", tmp_path / name, tmp_path / "q.txt"), 2)
    assert words in line
    assert f"the order is QUERY DOCS: dearlite rerank {tmp_path / 'q.txt'} {tmp_path / name}" in line
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n')
    assert "or the text itself: -q TEXT" in refused(cli("rerank", tmp_path / name, tmp_path / "d.jsonl"), 2)


def test_a_query_of_several_lines_is_one_query_and_this_is_told(cli, tmp_path):
    (tmp_path / "q.txt").write_text("rain\n\nsnow\n")
    (tmp_path / "d.txt").write_text("rain\n")
    _, err = ranked(cli("rerank", tmp_path / "q.txt", tmp_path / "d.txt"))
    assert err.startswith(f"dearlite: one query of 2 lines: {tmp_path / 'q.txt'} (")
    assert f"for a query per line: --queries {tmp_path / 'q.txt'} DOCS" in err
    assert cli("rerank", tmp_path / "q.txt", tmp_path / "d.txt", "--quiet")[2] == ""


def test_several_files_and_two_standard_inputs_are_refused(cli, tmp_path):
    assert "give one file of documents: 3 given instead of 2" in refused(cli("rerank", "q", "a", "b"), 2)
    assert "cannot hold both" in refused(cli("rerank", "-", "-"), 2)
    assert f"no file of {tmp_path} can be read: nothing to rank" in refused(cli("rerank", "-q", "x", tmp_path), 1)


def test_lines_of_text_on_standard_input_name_the_option_that_helps(cli, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Rain falls.\n")))
    line = refused(cli("rerank", "-q", "x", "-"), 1)
    assert "--docs-format" in line
    assert "txt" in line


# Entry points of Python


@pytest.fixture(scope="module")
def reranker():
    return Reranker.load(threads=1)


RECORDS = [
    {"headline": "Rain", "prose": "Rain falls.", "key": 7.0},
    SimpleNamespace(headline=float("nan"), prose="Snow melts.", key=None),
]
PLAIN = [{"title": "Rain", "text": "Rain falls."}, "Snow melts."]
FIELDS = Fields(text="prose", id="key", title="headline")


def test_every_entry_point_reads_the_fields_that_the_caller_names(reranker):
    expected = [(hit.index, hit.score) for hit in reranker.rerank("rain", PLAIN)]
    for ranking in (
        reranker.rerank("rain", RECORDS, fields=FIELDS),
        rerank("rain", RECORDS, fields=FIELDS),
        *reranker.rerank_many([("rain", RECORDS), ("rain", iter(RECORDS))], fields=FIELDS),
    ):
        assert [(hit.index, hit.score) for hit in ranking] == expected
        assert {hit.id for hit in ranking} == {"7", None}
        assert all(hit.document is RECORDS[hit.index] for hit in ranking)
    scores = reranker.score([("rain", record) for record in RECORDS], fields=FIELDS)
    assert dict(enumerate(scores)) == dict(expected)


@pytest.mark.parametrize("record", [{"text": float("nan")}, {"text": ["a"]}, {"text": "a", "Text": "b"}, float("nan")])
def test_every_entry_point_refuses_a_record_by_its_position(reranker, record):
    calls = [
        lambda: reranker.rerank("rain", ["good", record]),
        lambda: reranker.rerank_many([("rain", ["good", record])]),
        lambda: reranker.score([("rain", "good"), ("rain", record)]),
        lambda: rerank("rain", ["good", record], budget_s=5),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match=r"^(document 1|the document of pair 1) "):
            call()


def test_missing_titles_and_ids_of_pandas_are_no_error(reranker):
    pandas = pytest.importorskip("pandas")
    texts = ["Rain falls on hills.", "Ships carry grain.", "Granite is hard."]
    frame = pandas.DataFrame({"text": texts, "title": ["Rain", None, None], "id": [1, None, 3]})
    for docs in (frame, frame.to_dict("records")):
        ranking = reranker.rerank("rain", docs)
        assert {hit.index: (hit.id, hit.title) for hit in ranking} == {0: ("1", "Rain"), 1: (None, ""), 2: ("3", "")}
