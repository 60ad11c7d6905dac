"""Field names of each reader: the first in its table counts, and each reader keeps its own order."""

import json

import pytest

from dearlite.documents import as_document
from dearlite.errors import InvalidInput
from dearlite.fields import Fields
from dearlite.offline.collection.candidates import iter_candidates
from dearlite.offline.collection.texts import read_corpus, read_queries


def written(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(
    ("record", "query_id", "text"),
    [
        ({"_id": "1", "id": "2", "qid": "3", "query_id": "4", "text": "a", "query": "b", "title": "c"}, "1", "a"),
        ({"id": "2", "qid": "3", "query_id": "4", "query": "b", "title": "c"}, "2", "b"),
        ({"_id": None, "qid": 3, "query_id": "4", "text": "", "title": "c"}, "3", "c"),  # an empty text is passed over
        ({"query_id": 0, "text": None, "query": "b"}, "0", "b"),
    ],
)
def test_fields_of_a_query(tmp_path, record, query_id, text):
    assert read_queries(written(tmp_path / "q.jsonl", record)) == {query_id: text}


def test_a_query_needs_an_id_and_a_text(tmp_path):
    with pytest.raises(InvalidInput, match=r"q\.jsonl:1 has no query id: name the field '_id'"):
        read_queries(written(tmp_path / "q.jsonl", {"docid": "1", "text": "a"}))
    with pytest.raises(InvalidInput, match=r"q\.jsonl:1, query '1': the query is empty"):
        read_queries(written(tmp_path / "q.jsonl", {"_id": "1", "text": ""}))


@pytest.mark.parametrize(
    ("record", "document_id", "text"),
    [
        ({"id": "1", "_id": "2", "docid": "3", "text": "a", "contents": "b", "passage": "c"}, "1", "a"),
        ({"_id": "2", "docid": "3", "contents": "b", "passage": "c"}, "2", "b"),
        ({"id": None, "docid": 3, "passage": "c"}, "3", "c"),
    ],
)
def test_fields_of_a_document(tmp_path, record, document_id, text):
    documents, _ = read_corpus([written(tmp_path / "c.jsonl", record)], ids={"1", "2", "3"})
    assert {name: document.text for name, document in documents.items()} == {document_id: text}
    assert as_document(record, "document").id == document_id


@pytest.mark.parametrize(
    ("hit", "document_id", "text"),
    [
        ({"docid": "1", "id": "2", "_id": "3", "content": "a", "contents": "b", "text": "c"}, "1", "a"),
        ({"id": "2", "_id": "3", "contents": "b", "text": "c"}, "2", "b"),
        ({"docid": None, "_id": 3, "text": "c", "segment": "d"}, "3", "c"),
        ({"docid": "1", "doc": {"segment": "d", "passage": "e", "body": "f"}}, "1", "d"),
        ({"docid": "1", "doc": {"passage": "e", "body": "f"}}, "1", "e"),
        ({"docid": "1", "content": "a", "doc": {"body": "f", "title": "T"}}, "1", "f"),  # texts in `doc` count alone
    ],
)
def test_fields_of_a_candidate(tmp_path, hit, document_id, text):
    path = written(tmp_path / "c.jsonl", {"query": "q", "hits": [hit]})
    (candidates,) = iter_candidates(path)
    assert [(document.id, document.text) for document in candidates.documents] == [(document_id, text)]
    assert candidates.documents[0].title == (hit.get("doc", {}).get("title") or "")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("1\tfirst\n2\tsecond\n", {"1": "first", "2": "second"}),  # MS MARCO: no header
        ("qid\tquery\n1\tfirst\n", {"1": "first"}),
        ("query\tdocid\tid\nfirst\t7\t1\n", {"1": "first"}),
    ],
)
def test_columns_of_tab_separated_queries(tmp_path, lines, expected):
    (tmp_path / "q.tsv").write_text(lines)
    assert read_queries(tmp_path / "q.tsv") == expected


def test_a_header_without_a_text_is_no_query(tmp_path):
    (tmp_path / "q.tsv").write_text("id\tother\n1\tfirst\n")
    with pytest.raises(InvalidInput, match=r"^q\.tsv:1 has no text among its columns \(it has 'id', 'other'\)"):
        read_queries(tmp_path / "q.tsv")


def test_a_corpus_loses_no_cell_and_no_quotation_mark_in_silence(tmp_path):
    (tmp_path / "c.tsv").write_text('id\ttext\n1\t"a ""b"""\n2\tc\n')
    documents, notes = read_corpus([tmp_path / "c.tsv"], ids={"1", "2"})
    assert documents["1"].text == 'a "b"'
    assert notes == ["c.tsv: the quotation marks of 1 cell are around cells, as in CSV, and are left out"]
    (tmp_path / "c.csv").write_text("id;text\n1;a, b\n2;c; d\n")
    with pytest.raises(InvalidInput, match=r"^c\.csv:3 has 3 cells instead of 2"):
        read_corpus([tmp_path / "c.csv"], ids={"1"})


def test_fields_of_a_corpus_and_of_candidates_may_be_named(tmp_path):
    fields = Fields(text="prose", id="more.key", title="head")
    record = {"prose": "Snow", "more": {"key": 7.0}, "head": "Weather", "id": "no", "text": "no"}
    corpus, _ = read_corpus([written(tmp_path / "c.jsonl", record)], ids={"7"}, fields=fields)
    path = written(tmp_path / "q.jsonl", {"query": "q", "hits": [record]})
    (candidates,) = iter_candidates(path, fields=fields)
    for document in (corpus["7"], candidates.documents[0]):
        assert (document.id, document.text, document.title) == ("7", "Snow", "Weather")
    (tmp_path / "c.csv").write_text("key:prose\n7:Snow\n")
    corpus, _ = read_corpus([tmp_path / "c.csv"], ids={"7"}, fields=Fields(text="prose", id="key"), delimiter=":")
    assert corpus["7"].text == "Snow"


def test_a_title_of_candidates_may_be_named_alone(tmp_path):
    hit = {"docid": 1, "content": "Snow", "Text": "Rain", "title": "T", "head": "Weather"}
    path = written(tmp_path / "q.jsonl", {"query": "q", "hits": [hit]})
    titles = {name: next(iter_candidates(path, fields=Fields(title=name))).documents[0] for name in (None, "", "head")}
    assert {name: document.title for name, document in titles.items()} == {None: "T", "": "", "head": "Weather"}
    assert {document.text for document in titles.values()} == {"Snow"}


@pytest.mark.parametrize("command", ["batch", "eval"])
def test_commands_over_a_corpus_take_the_options_of_fields(cli, tmp_path, command):
    (tmp_path / "q.tsv").write_text("q1\train\n")
    (tmp_path / "c.csv").write_text("key:prose\n7:Rain falls.\n8:Snow, melts.\n")
    (tmp_path / "r.trec").write_text("q1 Q0 7 1 2 t\nq1 Q0 8 2 1 t\n")
    (tmp_path / "qrels.txt").write_text("q1 0 7 1\n")
    files = ("--queries", tmp_path / "q.tsv", "--corpus", tmp_path / "c.csv", "--run", tmp_path / "r.trec")
    files = (command, *files, *(("--qrels", tmp_path / "qrels.txt") if command == "eval" else ()), "--no-journal")
    code, _, err = cli(*files)
    assert (code, "c.csv:1 has no text among its columns" in err) == (1, True)
    code, _, err = cli(*files, "--text-field", "prose", "--id-field", "key", "--delimiter", ":")
    assert code == 0, err
