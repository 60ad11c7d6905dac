"""Encodings, compressions and kinds of file: each is read, or named with the remedy that fits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dearlite.errors import InvalidInput, UsageError
from dearlite.files.readers import read_documents
from dearlite.files.trec import read_qrels, read_run
from dearlite.offline.collection.texts import read_corpus, read_queries

ENCODINGS = ["utf-8-sig", "utf-16", "utf-32"]
FILES = {
    "docs.jsonl": '{"text": "Zürich"}\n{"text": "雪 😀"}\n',
    "docs.json": '[{"text": "Zürich"},\n{"text": "雪 😀"}]',
    "docs.csv": "text\nZürich\n雪 😀\n",
    "docs.tsv": "text\nZürich\n雪 😀\n",
    "docs.txt": "Zürich\n雪 😀\n",
}
TEXTS = ["Zürich", "雪 😀"]


def save(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


def refused(path, **options):
    with pytest.raises(InvalidInput) as caught:
        read_documents(str(path), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("encoding", [*ENCODINGS, "big-endian"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_byte_order_mark_names_the_encoding(tmp_path, name, encoding, compress):
    text = FILES[name]
    data = ("\ufeff" + text).encode("utf-16-be") if encoding == "big-endian" else text.encode(encoding)
    file = read_documents(str(save(tmp_path, name, compress(data))))
    assert [document.text for document in file.documents] == TEXTS


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_file_of_a_collection_may_have_a_byte_order_mark(tmp_path, encoding):
    run = save(tmp_path, "run.trec", "q1 Q0 d1 1 2.5 tag\n".encode(encoding))
    qrels = save(tmp_path, "qrels.txt", "q1 0 d1 1\n".encode(encoding))
    queries = save(tmp_path, "queries.tsv", "q1\tSnow?\n".encode(encoding))
    corpus = save(tmp_path, "corpus.jsonl", '{"_id": "d1", "text": "Snow"}\n'.encode(encoding))
    assert read_run(run)[0] == {"q1": {"d1": 2.5}}
    assert read_qrels(qrels) == {"q1": {"d1": 1}}
    assert read_queries(queries) == {"q1": "Snow?"}
    assert read_corpus([corpus], ids={"d1"})[0]["d1"].text == "Snow"


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(codec="utf-8"), min_size=1),
    encoding=st.sampled_from(["utf-16", "utf-32", "utf-16-le", "utf-16-be"]),
    cut=st.integers(0, 3),
)
def test_utf16_and_utf32_are_read_exactly_or_refused(tmp_path, text, encoding, cut):
    data = text.encode(encoding)
    path = save(tmp_path, "docs.txt", data[: len(data) - cut])
    lines = [line.strip() for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    try:
        read = [document.text for document in read_documents(str(path)).documents]
    except InvalidInput:
        return
    if encoding in ("utf-16", "utf-32") and cut == 0 and "\r" not in text:
        assert read == lines


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE"])
def test_utf16_without_a_mark_is_named(tmp_path, name, encoding):
    data = '{"text": "rain falls"}\n'.encode(encoding)
    assert f"(iconv -f {encoding} -t UTF-8)" in refused(save(tmp_path, name, data), skip_bad=True)


@pytest.mark.parametrize(
    ("text", "encoding", "remedy"),
    [
        ("Das Café in Zürich ist groß.", "latin-1", "iconv -f WINDOWS-1252 -t UTF-8"),
        ("It costs 5 € – “cheap”.", "cp1252", "iconv -f WINDOWS-1252 -t UTF-8"),
        ("Снег идёт зимой.", "cp1251", "WINDOWS-1251"),
        ("雪が降る。", "shift-jis", "SHIFT_JIS"),
        ("下雪了。", "gb18030", "GB18030"),
    ],
)
@pytest.mark.parametrize("name", ["docs.txt", "docs.csv", "docs.jsonl", "docs.json"])
def test_the_remedy_for_other_encodings_is_as_the_bytes_suggest(tmp_path, text, encoding, remedy, name):
    data = f'text\n"{text}"\n' if name == "docs.csv" else text
    message = refused(save(tmp_path, name, data.encode(encoding)))
    assert "not UTF-8" in message
    assert remedy in message


def test_damaged_utf16_is_named(tmp_path):
    assert "damaged UTF-16" in refused(save(tmp_path, "docs.txt", "rain".encode("utf-16")[:-1]))
    assert "damaged UTF-16" in refused(save(tmp_path, "docs.txt", b"\xff\xfe\x00\xd8a\x00\n\x00"))


# Kinds of file that hold no text


def archive(member):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as zipped:
        zipped.writestr(member, "rain")
    return stream.getvalue()


KINDS = [
    (".pdf", b"%PDF-1.7\n%\xe2\xe3", "is a PDF: extract its text"),
    (".zip", archive("docs.jsonl"), "is a ZIP archive: unpack it"),
    (".docx", archive("word/document.xml"), "is a Word document: convert it to text"),
    (".xlsx", archive("xl/workbook.xml"), "is an Excel workbook: save the sheet as CSV"),
    (".bz2", bz2.compress(b"rain"), "is compressed with bzip2: unpack it"),
    (".xz", lzma.compress(b"rain"), "is compressed with xz: unpack it"),
    (".zst", b"\x28\xb5\x2f\xfd\x24\x04\x21\x00\x00rain", "is compressed with Zstandard: unpack it"),
    (".sqlite", b"SQLite format 3\x00" + bytes(84), "is an SQLite database: export the table"),
]


@pytest.mark.parametrize(("ending", "data", "words"), KINDS)
def test_a_kind_of_file_is_known_by_its_ending(tmp_path, ending, data, words):
    with pytest.raises(UsageError) as caught:
        read_documents(str(save(tmp_path, "docs" + ending, data)))
    assert words in str(caught.value)


@pytest.mark.parametrize(("ending", "data", "words"), KINDS)
@pytest.mark.parametrize("form", ["jsonl", "txt", "csv"])
def test_a_kind_of_file_is_known_by_its_bytes(tmp_path, ending, data, words, form):
    assert words in refused(save(tmp_path, "docs" + ending, data), format=form, skip_bad=True)
    if ending not in (".docx", ".xlsx"):
        assert words in refused(save(tmp_path, "docs." + form, data), skip_bad=True)


@pytest.mark.parametrize(("name", "words"), [("notes.md", "is Markdown"), ("page.html", "is a web page")])
def test_texts_of_another_form_are_named(tmp_path, name, words):
    with pytest.raises(UsageError, match=words):
        read_documents(str(save(tmp_path, name, b"rain\n")))


# Line ends


@pytest.mark.parametrize("name", FILES)
def test_carriage_returns_alone_end_lines(tmp_path, name):
    for last in ("\r", "", "\r\n"):
        data = FILES[name].rstrip("\n").replace("\n", "\r") + last
        file = read_documents(str(save(tmp_path, name, data.encode())))
        assert [document.text for document in file.documents] == TEXTS, last


def test_carriage_returns_among_newlines_are_text(tmp_path):
    file = read_documents(str(save(tmp_path, "docs.txt", b"10%\r20%\ndone\n")))
    assert [document.text for document in file.documents] == ["10%\r20%", "done"]


# A format that the ending does not tell


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("docs.txt", b'{"id": 1, "text": "rain"}\n', "docs.txt:1 looks like JSONL: pass --docs-format jsonl"),
        ("docs.txt", "id\ttext\n1\train\n".encode("utf-16"), "docs.txt:1 looks like TSV: pass --docs-format tsv"),
        ("docs.txt", b"ID,Text\n1,rain\n", "docs.txt:1 looks like CSV: pass --docs-format csv"),
        ("docs.csv", b'{"id": 1, "text": "rain"}\n', "docs.csv:1 is JSON, not a header"),
        ("docs.jsonl", b"id,text\n1,rain\n", "for another format: --docs-format"),
        ("docs.jsonl", b"PAR1\x15\x04\x15\x80\xff\n", "it is Parquet: name the file .parquet"),
        ("docs.pdf.gz", b"", "is a PDF"),
        ("docs.feather", b"", "is an Arrow file: write it as Parquet"),
    ],
)
def test_a_file_of_another_format_is_named(tmp_path, name, data, words):
    with pytest.raises((InvalidInput, UsageError)) as caught:
        read_documents(str(save(tmp_path, name, data)))
    assert words in str(caught.value)


def test_texts_that_look_like_records_are_texts_if_the_caller_says_so(tmp_path):
    path = str(save(tmp_path, "docs.txt", b'{"text": "rain"}\n'))
    assert [document.text for document in read_documents(path, format="txt").documents] == ['{"text": "rain"}']


def test_an_address_is_no_file():
    with pytest.raises(UsageError, match="download it first"):
        read_documents("https://example.org/docs.jsonl")
