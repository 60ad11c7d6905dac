from __future__ import annotations

import csv
import gc
import gzip
import io
import json
import os
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dearlite.errors import InvalidInput, UsageError
from dearlite.fields import Fields
from dearlite.files.readers import FORMATS, read_documents

BOM = b"\xef\xbb\xbf"

# One collection, written by hand in each text format: two documents, and what they must be read as.
TWO = [("d1", "Paris", "The capital of France."), ("d2", "", "Zürich is larger than Bern, says “who”?")]
TEXT_FILES = {
    "docs.jsonl": """{"id": "d1", "title": "Paris", "text": "The capital of France."}

{"text": "Zürich is larger than Bern, says “who”?", "_id": "d2"}
""",
    "docs.ndjson": """{"docid": "d1", "title": "Paris", "passage": "The capital of France."}
{"contents": "Z\\u00fcrich is larger than Bern, says \\u201cwho\\u201d?", "id": "d2"}""",
    "docs.json": """[
  {"id": "d1", "title": "Paris", "text": "The capital of France."},
  {"id": "d2", "text": "Zürich is larger than Bern, says “who”?"}
]
""",
    "docs.csv": """id,title,text
d1,Paris,The capital of France.
d2,,"Zürich is larger than Bern, says “who”?"
""",
    "docs.tsv": """id\ttitle\ttext
d1\tParis\tThe capital of France.
d2\t\tZürich is larger than Bern, says “who”?
""",
}
TXT = "The capital of France.\n\n  Zürich is larger than Bern, says “who”?  \n"
TWO_TXT = [(None, "", "The capital of France."), (None, "", "Zürich is larger than Bern, says “who”?")]
ALL = [(name, text.encode(), TWO) for name, text in TEXT_FILES.items()] + [("docs.txt", TXT.encode(), TWO_TXT)]
ALL_NAMES = [name for name, _, _ in ALL]


def save(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def fields(file):
    return [(document.id, document.title, document.text) for document in file.documents]


def parquet_bytes(columns: dict[str, object]) -> bytes:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    sink = io.BytesIO()
    parquet.write_table(arrow.table(columns), sink)
    return sink.getvalue()


def two_as_parquet() -> bytes:
    ids, titles, texts = zip(*TWO, strict=True)
    return parquet_bytes({"id": list(ids), "title": list(titles), "text": list(texts)})


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Puts `data` on standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))


def refused(path: str, **options: object) -> str:
    """The message of the error that reading `path` raises; it is one line."""
    with pytest.raises(InvalidInput) as caught:
        read_documents(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Formats


def test_every_format_is_tested_here():
    assert set(FORMATS) == {Path(name).suffix[1:] for name in ALL_NAMES} | {"parquet"}


@pytest.mark.parametrize(("name", "data", "expected"), ALL, ids=ALL_NAMES)
def test_each_format_gives_the_same_documents(tmp_path, name, data, expected):
    file = read_documents(save(tmp_path, name, data))
    assert fields(file) == expected
    assert file.skipped == []


@pytest.mark.parametrize(("name", "data", "expected"), ALL, ids=ALL_NAMES)
@pytest.mark.parametrize("ending", [".gz", ".GZ"])
def test_each_format_may_be_gzipped(tmp_path, name, data, expected, ending):
    assert fields(read_documents(save(tmp_path, name + ending, gzip.compress(data, mtime=0)))) == expected


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
def test_parquet_is_read(tmp_path, compress):
    ending = ".gz" if compress is gzip.compress else ""
    file = read_documents(save(tmp_path, "docs.parquet" + ending, compress(two_as_parquet())))
    assert fields(file) == TWO


def test_parquet_keeps_other_columns_and_numbers_as_ids(tmp_path):
    data = parquet_bytes({"docid": [3, 4], "contents": ["a", "b"], "stars": [[1, 2], None]})
    file = read_documents(save(tmp_path, "docs.parquet", data))
    assert fields(file) == [("3", "", "a"), ("4", "", "b")]
    assert file.documents[0].record == {"docid": 3, "contents": "a", "stars": [1, 2]}


@pytest.mark.parametrize(("name", "data", "expected"), ALL, ids=ALL_NAMES)
@pytest.mark.parametrize("change", ["BOM", "CRLF", "both", "no last newline"])
def test_windows_ways_of_writing_text_change_nothing(tmp_path, name, data, expected, change):
    if change == "no last newline":
        data = data.rstrip(b"\n")
    if change in ("CRLF", "both"):
        data = data.replace(b"\n", b"\r\n")
    if change in ("BOM", "both"):
        data = BOM + data
    assert fields(read_documents(save(tmp_path, name, data))) == expected


def test_gzip_is_known_by_its_bytes_not_by_its_name(tmp_path):
    data = TEXT_FILES["docs.jsonl"].encode()
    assert fields(read_documents(save(tmp_path, "docs.jsonl", gzip.compress(data, mtime=0)))) == TWO
    assert fields(read_documents(save(tmp_path, "docs.jsonl.gz", data))) == TWO


def test_a_gzip_file_of_several_parts_is_read_to_its_end(tmp_path):
    parts = [gzip.compress(line.encode(), mtime=0) for line in ("one\n", "two\n", "three")]
    file = read_documents(save(tmp_path, "docs.txt.gz", b"".join(parts)))
    assert [document.text for document in file.documents] == ["one", "two", "three"]


def test_a_format_that_is_named_overrides_the_ending(tmp_path):
    path = save(tmp_path, "docs.csv", b"one, two\nthree\n")
    file = read_documents(path, format="txt")
    assert [document.text for document in file.documents] == ["one, two", "three"]


def test_the_last_ending_decides(tmp_path):
    assert fields(read_documents(save(tmp_path, "docs.json.v2.CSV", TEXT_FILES["docs.csv"].encode()))) == TWO


def test_the_record_is_what_the_file_held(tmp_path):
    file = read_documents(save(tmp_path, "docs.jsonl", b'{"text": "a", "tags": {"x": [1, null]}, "n": 2.5}'))
    assert file.documents[0].record == {"text": "a", "tags": {"x": [1, None]}, "n": 2.5}


def test_a_second_text_is_told(tmp_path):
    """Of two fields that may hold the text, the one that is left out is named: once a file."""
    rows = [
        {"text": "rain", "document": "a.pdf"},
        {"text": "rain", "body": "rain"},
        {"contents": "snow", "passage": "hail", "id": "c"},
        {"text": "sleet", "body": "hail"},
    ]
    path = save(tmp_path, "docs.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    file = read_documents(path)
    assert [document.text for document in file.documents] == ["rain", "rain", "snow", "sleet"]
    remark = "docs.jsonl:3 has the fields 'contents' and 'passage': 'contents' is ranked (--text-field for another)"
    assert [note for note in file.notes if "--text-field" in note] == [remark]
    assert read_documents(path, skip_bad=True, fields=Fields(text="body")).notes == []


def test_a_json_line_may_be_a_bare_string(tmp_path):
    file = read_documents(save(tmp_path, "docs.jsonl", b'"just text"\n'))
    assert fields(file) == [(None, "", "just text")]


def test_only_a_newline_ends_a_line(tmp_path):
    text = "one\u2028still one\u0085still one\x0b\x0c"  # all of them line ends to str.splitlines
    file = read_documents(save(tmp_path, "docs.jsonl", json.dumps({"text": text}, ensure_ascii=False).encode()))
    assert [document.text for document in file.documents] == [text]


def test_lines_may_be_as_long_as_a_megabyte(tmp_path):
    text = "snow " * 220_000  # 1.1 MB
    files = {
        "docs.jsonl": json.dumps({"text": text}),
        "docs.json": json.dumps([{"text": text}]),
        "docs.csv": f'text\n"{text}"\n',
        "docs.tsv": f"text\n{text}\n",
    }
    for name, data in files.items():
        assert [d.text for d in read_documents(save(tmp_path, name, data.encode())).documents] == [text], name
    assert read_documents(save(tmp_path, "docs.txt", text.encode())).documents[0].text == text.strip()


def test_quotes_in_tsv_are_text(tmp_path):
    data = 'id\ttext\n1\t"quoted" and then\n2\t"never closed\n3\ta "" b\n'
    file = read_documents(save(tmp_path, "docs.tsv", data.encode()))
    assert fields(file) == [("1", "", '"quoted" and then'), ("2", "", '"never closed'), ("3", "", 'a "" b')]


def test_a_quoted_csv_field_may_hold_commas_quotes_and_lines(tmp_path):
    data = 'id,text\n1,"a, ""b""\nsecond line"\n2,c\n'
    assert fields(read_documents(save(tmp_path, "docs.csv", data.encode()))) == [
        ("1", "", 'a, "b"\nsecond line'),
        ("2", "", "c"),
    ]


def test_columns_without_a_name_keep_their_cells(tmp_path):
    file = read_documents(save(tmp_path, "docs.csv", b",text,,id,\n0,a,x,1,\n"))
    assert file.documents[0].record == {"Unnamed: 0": "0", "text": "a", "Unnamed: 2": "x", "id": "1"}
    assert "('x,y' is beyond the last)" in refused(save(tmp_path, "docs.csv", b"id,text,\n1,a,x,y\n"))


# Standard input


def test_standard_input_is_json_lines(monkeypatch):
    feed(monkeypatch, TEXT_FILES["docs.jsonl"].encode())
    assert fields(read_documents("-")) == TWO


@pytest.mark.parametrize(("name", "data", "expected"), ALL, ids=ALL_NAMES)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
def test_standard_input_may_be_any_format(monkeypatch, name, data, expected, compress):
    feed(monkeypatch, compress(data))
    assert fields(read_documents("-", format=Path(name).suffix[1:])) == expected


def test_standard_input_may_be_parquet(monkeypatch):
    feed(monkeypatch, two_as_parquet())
    assert fields(read_documents("-", format="parquet")) == TWO


def test_a_bad_line_of_standard_input_is_named(monkeypatch):
    feed(monkeypatch, b'{"text": "a"}\nnonsense\n')
    assert refused("-").startswith("<stdin>:2 is not JSON")


# Bad records, and going on without them


# name, data, location of the bad record, words of its reason, texts of the good records
BAD_RECORDS = [
    ("docs.jsonl", b'{"text": "a"}\n\n{"text": \n{"text": "b"}\n', "docs.jsonl:3", "not JSON", ["a", "b"]),
    ("docs.jsonl", b'{"text": "a"}\n{"text": "b"} x\n', "docs.jsonl:2", "not JSON", ["a"]),
    ("docs.jsonl", b'{"text": "a"}\nnull\n', "docs.jsonl:2", "null", ["a"]),
    ("docs.jsonl", b'{"text": "a"}\n7\n', "docs.jsonl:2", "int", ["a"]),
    ("docs.jsonl", b'{"text": "a"}\nNaN\n', "docs.jsonl:2", "float", ["a"]),
    ("docs.jsonl", b'[{"text": "a"}]\n{"text": "b"}\n', "docs.jsonl:1", "list", ["b"]),
    ("docs.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "docs.jsonl:2", "'txt'", ["a"]),
    ("docs.jsonl", b'{"text": "a"}\n{"text": "  "}\n', "docs.jsonl:2", "only spaces", ["a"]),
    ("docs.jsonl", b'{"text": "a"}\n{"text": 5}\n', "docs.jsonl:2", "int as its text", ["a"]),
    ("docs.jsonl", b'{"text": "a"}\n' + b"[" * 100_000 + b"\n", "docs.jsonl:2", "not JSON", ["a"]),
    (  # Python refuses to read an integer of more than 4300 digits
        "docs.jsonl",
        b'{"text": "a"}\n{"text": "b", "n": ' + b"1" * 5000 + b"}\n",
        "docs.jsonl:2",
        "not JSON",
        ["a"],
    ),
    ("docs.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n', "docs.jsonl:2", "not UTF-8", ["a"]),
    ("docs.jsonl", b'{"text": "a"}\n' + b'{"text": "\xed\xa0\xbd"}\n', "docs.jsonl:2", "not UTF-8", ["a"]),
    ("docs.txt", b"a\n\ncaf\xe9\nb\n", "docs.txt:3", "not UTF-8", ["a", "b"]),
    ("docs.csv", b"id,text\n1,a\n2,caf\xe9\n3,b\n", "docs.csv:3", "not UTF-8", ["a", "b"]),
    ("docs.tsv", b"id\ttext\n1\ta\n2\tcaf\xe9\n3\tb\n", "docs.tsv:3", "not UTF-8", ["a", "b"]),
    ("docs.csv", b"id,text\n1,a\n2\n3,b\n", "docs.csv:3", "no text", ["a", "b"]),
    ("docs.csv", b"id,text\n1,a\n2,\n3,b\n", "docs.csv:3", "only spaces", ["a", "b"]),
    ("docs.csv", b'id,text\n1,"a\nstill a"\n2, \n3,b\n', "docs.csv:4", "only spaces", ["a\nstill a", "b"]),
    ("docs.json", b'["a", {"text": "b"}, null, "c"]', "docs.json item 3", "null", ["a", "b", "c"]),
    (
        "docs.jsonl",
        b'{"text": "a", "id": 1, "id": 1}\n{"text": "b", "text": "c"}\n',
        "docs.jsonl:2",
        "'text' twice",
        ["a"],
    ),
    ("docs.csv", b"id,text\n1,a\n2,b, c\n3,d\n", "docs.csv:3", "' c' is beyond", ["a", "d"]),
    ("docs.tsv", b"id\ttext\n1\ta\n2\tb\tc\n3\td\n", "docs.tsv:3", "'c' is beyond", ["a", "d"]),
    ("docs.csv", b'id,text\n1,"say "a" now"\n2,b\n', "docs.csv:2", "quotation mark", ["b"]),
    ("docs.csv", b'id,text\n1,a\n2,"never\n3,b\n4,c\n', "docs.csv:3", "never closed", ["a", "b", "c"]),
]
BAD_IDS = [f"{name} {reason}" for name, _, _, reason, _ in BAD_RECORDS]


@pytest.mark.parametrize(("name", "data", "where", "reason", "_good"), BAD_RECORDS, ids=BAD_IDS)
def test_a_bad_record_is_named_by_file_and_line(tmp_path, name, data, where, reason, _good):
    message = refused(save(tmp_path, name, data))
    assert message.startswith(where)
    assert reason in message
    assert "--skip-bad" in message


@pytest.mark.parametrize(("name", "data", "where", "reason", "good"), BAD_RECORDS, ids=BAD_IDS)
def test_skip_bad_goes_on_and_reports(tmp_path, name, data, where, reason, good):
    file = read_documents(save(tmp_path, name, data), skip_bad=True)
    assert [document.text for document in file.documents] == good
    (line,) = file.skipped
    assert line.startswith(where)
    assert reason in line
    assert "--skip-bad" not in line


def test_each_skipped_record_is_counted(tmp_path):
    data = b'{"text": "a"}\nx\nnull\n{"text": "b"}\n{"id": 1}\n'
    file = read_documents(save(tmp_path, "docs.jsonl", data), skip_bad=True)
    assert [line.split()[0] for line in file.skipped] == ["docs.jsonl:2", "docs.jsonl:3", "docs.jsonl:5"]


def test_parquet_rows_that_cannot_be_used_are_named_and_skipped(tmp_path):
    path = save(tmp_path, "docs.parquet", parquet_bytes({"id": ["1", "2", "1"], "text": ["a", None, " "]}))
    assert refused(path).startswith("docs.parquet row 2 has no text")
    file = read_documents(path, skip_bad=True)
    assert [document.text for document in file.documents] == ["a"]
    assert [line.split(" ")[2].rstrip(":") for line in file.skipped] == ["2", "3"]


def test_documents_without_an_id_are_never_duplicates(tmp_path):
    assert len(read_documents(save(tmp_path, "docs.txt", b"same\nsame\n")).documents) == 2


def test_documents_with_one_id_are_all_kept_and_reported_and_no_run(tmp_path):
    data = b'{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n{"id": "1", "text": "a"}\n'
    file = read_documents(save(tmp_path, "docs.jsonl", data))
    assert [document.text for document in file.documents] == ["a", "b", "a"]
    file.note_ids(positions=False)
    assert file.notes == ["1 document id occurs more than once (first '1'): all their documents are ranked"]
    with pytest.raises(InvalidInput, match=r"docs\.jsonl:3: id '1' is already at docs\.jsonl:1, .*--id-field"):
        file.check_run_ids()


def test_the_position_of_a_document_without_an_id_is_an_id_in_a_run(tmp_path):
    file = read_documents(save(tmp_path, "docs.jsonl", b'{"id": "1", "text": "a"}\n{"text": "b"}\n'))
    with pytest.raises(InvalidInput, match="id '1' is already at"):
        file.check_run_ids()


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_file_of_bad_records_only_is_an_error(tmp_path, skip_bad):
    refused(save(tmp_path, "docs.jsonl", b"x\ny\n"), skip_bad=skip_bad)


# Files that are bad as a whole: skip_bad does not help


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("name", [*ALL_NAMES, "docs.jsonl.gz", "docs.parquet"])
def test_an_empty_file_is_an_error_that_names_it(tmp_path, name, skip_bad):
    assert refused(save(tmp_path, name, b""), skip_bad=skip_bad).startswith(name)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("docs.jsonl", b"\n \n\r\n"),
        ("docs.jsonl", BOM),
        ("docs.txt", b" \n\t\n"),
        ("docs.csv", b"id,text\n"),
        ("docs.json", b"[]"),
        ("docs.txt.gz", gzip.compress(b"", mtime=0)),
    ],
)
def test_a_file_without_documents_is_an_error(tmp_path, name, data):
    assert refused(save(tmp_path, name, data)) == f"{name} holds no documents: nothing to rank"


def test_a_parquet_file_without_rows_is_an_error(tmp_path):
    assert "holds no documents" in refused(save(tmp_path, "docs.parquet", parquet_bytes({"text": []})))


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("data", [b'"a"', b"3", b"null"])
def test_a_json_file_must_be_a_list(tmp_path, data, skip_bad):
    assert "must be a list" in refused(save(tmp_path, "docs.json", data), skip_bad=skip_bad)


@pytest.mark.parametrize(
    "data",
    [b'[{"text": "a"},\n{"text": ]', b'{"text":\n"a"}\n{"text":\n"b"\n', b"[" * 100_000, b"[" + b"1" * 5000 + b"]"],
)
def test_a_json_file_that_is_not_json_is_named(tmp_path, data):
    assert refused(save(tmp_path, "docs.json", data)).startswith("docs.json is not JSON")


def test_a_json_file_that_is_not_utf8_is_named_with_the_line(tmp_path):
    message = refused(save(tmp_path, "docs.json", b'[\n {"text": "a"},\n {"text": "caf\xe9"}\n]\n'))
    assert message.startswith("docs.json:3 is not UTF-8")


def test_a_csv_header_that_is_not_utf8_is_named(tmp_path):
    assert refused(save(tmp_path, "docs.csv", b"text,pr\xe9nom\na,b\n")).startswith("docs.csv:1 is not UTF-8")


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(("name", "data", "_expected"), ALL, ids=ALL_NAMES)
def test_a_gzip_file_cut_anywhere_is_an_error(tmp_path, name, data, _expected, skip_bad):
    whole = gzip.compress(data, mtime=0)
    for size in range(2, len(whole)):
        message = refused(save(tmp_path, name + ".gz", whole[:size]), skip_bad=skip_bad)
        assert message.startswith(f"{name}.gz is damaged gzip"), size


def test_a_gzipped_parquet_file_that_is_cut_is_an_error(tmp_path):
    whole = gzip.compress(two_as_parquet(), mtime=0)
    assert "damaged gzip" in refused(save(tmp_path, "docs.parquet.gz", whole[: len(whole) // 2]))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(min_value=0), flip=st.integers(1, 255))
def test_a_damaged_gzip_file_is_an_error_or_reads_the_same(tmp_path, position, flip):
    data = bytearray(gzip.compress(TEXT_FILES["docs.jsonl"].encode(), mtime=0))
    data[position % len(data)] ^= flip
    try:
        file = read_documents(save(tmp_path, "docs.jsonl.gz", bytes(data)))
    except InvalidInput:
        return
    assert fields(file) == TWO  # the byte was in the header, for example in the time stamp


def test_a_damaged_parquet_file_is_an_error(tmp_path):
    whole = two_as_parquet()
    footer = int.from_bytes(whole[-8:-4], "little")
    without_its_footer = whole[: -8 - footer] + b"\xff" * footer + whole[-8:]
    for data in (b"no parquet", whole[:-1], whole[: len(whole) // 2], whole[4:], without_its_footer):
        assert "docs.parquet" in refused(save(tmp_path, "docs.parquet", data))


def test_parquet_strings_that_are_not_utf8_are_an_error(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    forged = arrow.array([b"good", b"caf\xe9"]).view(arrow.string())
    assert "docs.parquet" in refused(save(tmp_path, "docs.parquet", parquet_bytes({"text": forged})))


def test_a_parquet_text_column_of_bytes_is_an_error(tmp_path):
    message = refused(save(tmp_path, "docs.parquet", parquet_bytes({"text": [b"caf\xe9"]})))
    assert message.startswith("docs.parquet row 1 has a bytes as its text")


# Paths that cannot be meant


def usage_error(path: str) -> str:
    with pytest.raises(UsageError) as caught:
        read_documents(path)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_missing_file_is_a_usage_error(tmp_path):
    path = str(tmp_path / "none.jsonl")
    assert path in usage_error(path)


def test_a_folder_is_a_usage_error(tmp_path):
    folder = tmp_path / "docs.jsonl"
    folder.mkdir()
    assert str(folder) in usage_error(str(folder))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read_is_a_usage_error(tmp_path):
    path = save(tmp_path, "docs.jsonl", b"{}")
    os.chmod(path, 0)
    assert "Permission denied" in usage_error(path)


@pytest.mark.parametrize("name", ["docs", "docs.xlsx", "docs.gz", "docs.jsonl.bz2", ".jsonl"])
def test_an_unknown_ending_is_a_usage_error_that_lists_the_formats(tmp_path, name):
    message = usage_error(save(tmp_path, name, b'{"text": "a"}\n'))
    assert "--docs-format" in message
    assert all(form in message for form in FORMATS)


# Manners


@pytest.mark.parametrize("data", [TXT.encode(), gzip.compress(TXT.encode(), mtime=0)], ids=["plain", "gz"])
def test_a_file_is_closed_after_reading(tmp_path, data):
    path = save(tmp_path, "docs.txt", data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_documents(path)
        gc.collect()
    assert [str(warning.message) for warning in caught if path in str(warning.message)] == []


def test_no_dialect_of_the_csv_module_is_changed(tmp_path):
    read_documents(save(tmp_path, "docs.tsv", TEXT_FILES["docs.tsv"].encode()))
    assert next(csv.reader(['"a\tb"\tc'], dialect="excel-tab")) == ["a\tb", "c"]


def test_unclosed_quote_in_csv_is_told_and_not_swallowed(tmp_path):
    file = tmp_path / "d.csv"
    file.write_text('id,text\n1,"never closed\n2,b\n3,c\n')
    with pytest.raises(InvalidInput, match=r"d\.csv"):
        read_documents(str(file))


def test_unknown_format_name_is_a_usage_error():
    with pytest.raises(UsageError, match="jsonl"):
        read_documents("x", format="nope")
