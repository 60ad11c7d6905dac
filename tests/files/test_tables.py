"""Tables of documents: every way of writing CSV and TSV is read back exactly, or refused, or told of; never changed."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dearlite.errors import DearliteError, InvalidInput
from dearlite.fields import Fields
from dearlite.files.readers import read_documents


def save(folder, name, data):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


def read(folder, name, data, **options):
    file = read_documents(save(folder, name, data), **options)
    return [(document.id, document.title, document.text) for document in file.documents], file


QUICK = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
# texts of words, and of all that has a meaning to some reader of tables
TEXTS = st.lists(
    st.sampled_from(
        [
            *"ab,;|\t\"'\n\r\\#= ",
            '""',
            "\r\n",
            "é",
            "雪",
            "\u2028",
            "\x0b",
            "\x1c",
            "text",
            "id",
            "sep=;",
            "\ufeff",
            "1",
        ]
    ),
    max_size=6,
).map(lambda parts: "Snow" + "".join(parts) + "fell")
QUOTED = st.lists(st.sampled_from(["a", '"', '""', ",", "\t", " "]), max_size=6).map("".join).filter(lambda t: "a" in t)
ROWS = st.lists(st.tuples(TEXTS | QUOTED, TEXTS | st.just("")), min_size=1, max_size=4)


def check(folder, name, data, rows, **options):
    """The documents of `data` are `rows` of (text, title), or an error or a remark says why not."""
    try:
        documents, file = read(folder, name, data, **options)
    except DearliteError:
        return
    expected = [(str(number), title, text) for number, (text, title) in enumerate(rows)]
    assert documents == expected or file.notes, (data, documents)


@QUICK
@given(
    rows=ROWS,
    delimiter=st.sampled_from(",;|\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    ending=st.sampled_from([".csv", ".tsv"]),
    named=st.booleans(),
)
def test_what_the_csv_module_writes_is_read_back(tmp_path, rows, delimiter, quoting, end, encoding, ending, named):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow(["id", "title", "text"])
    writer.writerows([number, title, text] for number, (text, title) in enumerate(rows))
    data = stream.getvalue().encode(encoding)
    check(tmp_path, "docs" + ending, data, rows, delimiter=delimiter if named else None)


@QUICK
@given(rows=ROWS, delimiter=st.sampled_from(",\t"), end=st.sampled_from(["\n", "\r\n"]))
def test_what_is_written_without_quotation_marks_is_read_back_or_refused(tmp_path, rows, delimiter, end):
    lines = [delimiter.join(("id", "title", "text"))]
    lines += [delimiter.join((str(number), title, text)) for number, (text, title) in enumerate(rows)]
    data = end.join(lines) + end
    if delimiter == "," and '"' in data:
        return  # CSV without quotation marks around cells cannot hold any
    check(tmp_path, "docs.csv" if delimiter == "," else "docs.tsv", data, rows)


@QUICK
@given(rows=ROWS)
def test_what_pandas_writes_is_read_back(tmp_path, rows):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": list(map(str, range(len(rows)))), "text": [text for text, _ in rows]})
    plain = [(text, "") for text, _ in rows]
    for name, separator in (("docs.csv", ","), ("docs.tsv", "\t")):
        for index in (True, False):
            check(tmp_path, name, frame.to_csv(sep=separator, index=index).encode(), plain)
    check(tmp_path, "docs.jsonl", frame.to_json(orient="records", lines=True), plain)
    check(tmp_path, "docs.json", frame.to_json(orient="records"), plain)


@QUICK
@given(
    rows=ROWS,
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    indent=st.sampled_from([None, 0, 1]),
    ascii_only=st.booleans(),
    form=st.sampled_from(["lines", "list", "objects", "inside"]),
    ending=st.sampled_from([".json", ".jsonl", ".ndjson"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_the_json_module_writes_is_read_back(tmp_path, rows, encoding, indent, ascii_only, form, ending, end):
    records = [{"id": number, "title": title, "text": text} for number, (text, title) in enumerate(rows)]

    def dump(value, **options):
        return json.dumps(value, ensure_ascii=ascii_only, **options)

    text = {
        "lines": "\n".join(map(dump, records)),
        "list": dump(records, indent=indent),
        "objects": "\n".join(dump(record, indent=indent) for record in records),
        "inside": dump({"documents": records}, indent=indent),
    }[form]
    data = text.replace("\n", end).encode(encoding)
    documents, file = read(tmp_path, "docs" + ending, data)
    assert documents == [(str(number), title, text) for number, (text, title) in enumerate(rows)]
    assert file.notes == file.skipped == []


# Rows that do not fit


def test_a_row_with_too_many_cells_is_refused_by_line_with_what_is_lost(tmp_path):
    data = "id,text\n1,Rain falls in spring, and the river floods\n2,Granite is hard\n"
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, "d.csv", data)
    assert str(caught.value).startswith("d.csv:2 has 3 cells instead of 2 (' and the river floods' is beyond the last)")
    assert "quotation marks" in str(caught.value)
    documents, file = read(tmp_path, "d.csv", data, skip_bad=True)
    assert [text for _, _, text in documents] == ["Granite is hard"]
    assert len(file.skipped) == 1


def test_empty_cells_beyond_the_last_column_are_nothing(tmp_path):
    documents, file = read(tmp_path, "d.csv", "id,text,,\n1,rain,,\n2,snow\n")
    assert documents == [("1", "", "rain"), ("2", "", "snow")]
    assert file.notes == []
    with pytest.raises(InvalidInput, match="3 cells instead of 2"):  # a text that ends with a comma
        read(tmp_path, "d.csv", "id,text\n1,rain,\n")


def test_a_row_without_its_last_cells_is_read_and_told(tmp_path):
    documents, file = read(tmp_path, "d.csv", "id,text,title\n1,rain,T\n2,snow\n3,hail\n")
    assert documents == [("1", "T", "rain"), ("2", "", "snow"), ("3", "", "hail")]
    (note,) = file.notes
    assert note.startswith("d.csv: 2 rows have fewer cells than the header (d.csv:3 first)")


def test_a_row_that_ends_before_its_text_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"^d\.csv:3 has 1 cell instead of 2: it has no text"):
        read(tmp_path, "d.csv", "id,text\n1,Rain falls\nin spring\n")


@pytest.mark.parametrize(("header", "name"), [("id,text,text", "text"), ("note,text, note", "note")])
def test_two_columns_of_one_name_are_refused_by_name(tmp_path, header, name):
    with pytest.raises(InvalidInput, match=f"^d.csv:1 has two columns of the name '{name}'"):
        read(tmp_path, "d.csv", f"{header}\n1,a,b\n", skip_bad=True)


def test_a_space_before_a_quoted_cell_does_not_make_its_marks_text(tmp_path):
    documents, _ = read(tmp_path, "d.csv", 'id, text\n1, "rain, snow"\n2, hail\n')
    assert documents == [("1", "", "rain, snow"), ("2", "", " hail")]
    with pytest.raises(InvalidInput, match=r"^d\.csv:2 has a space before a quotation mark"):
        read(tmp_path, "d.csv", 'id, text\n1, "rain\nsnow"\n')


def test_rows_after_a_damaged_row_are_read(tmp_path):
    data = 'id,text\n1,"He said "hi" to me"\n2,plain\n3,"never closed\n4,a\n5,"b\nc"\n6,d'
    documents, file = read(tmp_path, "d.csv", data, skip_bad=True)
    assert [doc_id for doc_id, _, _ in documents] == ["2", "4", "5", "6"]
    assert [line.split()[0] for line in file.skipped] == ["d.csv:2", "d.csv:4"]


# Headers and delimiters


@pytest.mark.parametrize("header", ["id;text", "ID ; Text", '"id";"text"', "id|text", "id\ttext"])
@pytest.mark.parametrize("name", ["d.csv", "d.tsv"])
def test_another_delimiter_is_taken_where_only_it_gives_a_text(tmp_path, header, name):
    delimiter = next(char for char in ";|\t" if char in header)
    data = f"{header}\n1{delimiter}Rain falls in spring, and in autumn.\n2{delimiter}Granite is hard\n"
    expected = [("1", "", "Rain falls in spring, and in autumn."), ("2", "", "Granite is hard")]
    assert read(tmp_path, name, data)[0] == expected


def test_the_line_of_excel_names_the_delimiter(tmp_path):
    for line in ("sep=;\n", '"sep=;"\r\n', "SEP=;\n", "\ufeffsep=;\n"):
        assert read(tmp_path, "d.csv", f"{line}id;text\n1;a,b\n")[0] == [("1", "", "a,b")]


def test_a_delimiter_may_be_named(tmp_path):
    assert read(tmp_path, "d.csv", "id:text\n1:a,b\n", delimiter=":")[0] == [("1", "", "a,b")]
    with pytest.raises(InvalidInput, match=r"^d\.csv:1 has no text among its columns \(it has 'id:text'\)"):
        read(tmp_path, "d.csv", "id:text\n1:a,b\n")
    with pytest.raises(DearliteError, match="--delimiter is for CSV and TSV, not for jsonl"):
        read(tmp_path, "d.jsonl", '{"text": "a"}\n', delimiter=";")


def test_a_header_that_names_no_text_is_refused_with_the_option_that_helps(tmp_path):
    with pytest.raises(InvalidInput, match=r"^d\.csv:1 has no text .*'id;prose'.*--delimiter ';'"):
        read(tmp_path, "d.csv", "id;prose\n1;a\n")
    with pytest.raises(InvalidInput, match=r"^d\.csv:1 has no text .*--text-field"):
        read(tmp_path, "d.csv", "id,prose\n1,a\n")
    with pytest.raises(InvalidInput, match=r"^d\.csv:1 has no text .*--docs-format txt"):
        read(tmp_path, "d.csv", "Rain falls.\nSnow melts.\n")
    assert read(tmp_path, "d.csv", "id;prose\n1;a\n", fields=Fields(text="prose"))[0] == [("1", "", "a")]
    with pytest.raises(InvalidInput, match=r"^d\.csv:1 has no column 'prse'"):
        read(tmp_path, "d.csv", "id,prose\n1,a\n", fields=Fields(text="prse"))


def test_a_collection_of_ms_marco_has_no_header_and_this_is_told(tmp_path):
    documents, file = read(tmp_path, "collection.tsv", "101\tRain falls.\n102\tSnow melts.\n")
    assert documents == [("101", "", "Rain falls."), ("102", "", "Snow melts.")]
    assert file.notes == ["collection.tsv has no header: its two columns are read as id and text"]
    for data in ("101\turl\tRain falls.\n", "id\tprose\n1\tRain\n"):
        with pytest.raises(InvalidInput, match="has no text among its columns"):
            read(tmp_path, "d.tsv", data)


def test_an_index_of_pandas_keeps_its_cells(tmp_path):
    _, file = read(tmp_path, "d.csv", ",id,text\n0,x,rain\n1,y,snow\n")
    assert file.documents[0].record == {"Unnamed: 0": "0", "id": "x", "text": "rain"}


# Quotation marks in TSV


@pytest.mark.parametrize(
    ("rows", "texts", "told"),
    [
        ('1\t"a ""b"""\n2\tc\n', ['a "b"', "c"], True),  # pandas and Excel
        ('1\t"a\tb"\n2\tc\n', ["a\tb", "c"], False),  # cannot be read in another way
        ('1\t"a\nb"\n2\tc\n', ["a\nb", "c"], False),
        ('1\t"a"\n2\t"c"\n', ["a", "c"], True),  # every cell of the column
        ('1\t"a, b"\n2\tc\n', ['"a, b"', "c"], True),  # no sign of a writer of CSV
        ('1\t"a ""b"""\n2\tc "d"\n', ['"a ""b"""', 'c "d"'], False),  # a mark elsewhere: they are text
        ('1\t"never closed\n2\tc\n', ['"never closed', "c"], False),
        ('1\ta 5" screen\n2\tc\n', ['a 5" screen', "c"], False),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotation_marks_around_cells_of_tsv(tmp_path, rows, texts, told, end):
    data = ("id\ttext\n" + rows).replace("\n", end)
    documents, file = read(tmp_path, "d.tsv", data)
    assert [text for _, _, text in documents] == [text.replace("\n", end) for text in texts]
    assert bool(file.notes) is told


def test_a_quoted_header_of_tsv_shows_that_all_cells_are_quoted(tmp_path):
    documents, _ = read(tmp_path, "d.tsv", '"id"\t"text"\n"1"\t"a"\n')
    assert documents == [("1", "", "a")]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_the_header_of_a_joined_file_is_no_document(tmp_path, ending, mark):
    path = tmp_path / f"d.{ending}"
    text = f"id,text\n1,rain\n{mark}id,text\n2,snow\n"
    path.write_text(text.replace(",", "\t") if ending == "tsv" else text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=rf"d\.{ending}:3 repeats the header.*remove it"):
        read_documents(str(path))
    assert [document.id for document in read_documents(str(path), skip_bad=True).documents] == ["1", "2"]


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = [arrow.array([text]) for text in ("a", "rain", "snow")]
    parquet.write_table(arrow.Table.from_arrays(columns, names=["id", "text", "text"]), tmp_path / "d.parquet")
    with pytest.raises(InvalidInput, match=r"^d\.parquet has two columns of the name 'text'"):
        read_documents(str(tmp_path / "d.parquet"), skip_bad=True)
