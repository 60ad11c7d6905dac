"""Names of fields and kinds of records: every known name in every spelling, in every kind of record."""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from dataclasses import make_dataclass
from itertools import cycle, product
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dearlite.documents import as_document, as_documents
from dearlite.errors import InvalidInput
from dearlite.fields import (
    CANDIDATE_ID_FIELDS,
    CANDIDATE_TEXT_FIELDS,
    ID_FIELDS,
    QUERY_FIELDS,
    QUERY_ID_FIELDS,
    TEXT_FIELDS,
    TITLE_FIELDS,
    Fields,
    first_field,
)

SPELLINGS = {
    "as it is": str,
    "upper": str.upper,
    "title case": str.title,
    "spaces around": lambda name: f" {name}  ",
    "hyphens": lambda name: name[0] + name[1:].replace("_", "-"),
    "blanks": lambda name: name[0] + name[1:].replace("_", " ").title(),
    "one word": lambda name: name[0] + name[1:].replace("_", ""),
}


def attrs_record(fields):
    attrs = pytest.importorskip("attrs")
    names = {name: f"field_{number}" if name.startswith("_") else name for number, name in enumerate(fields)}
    if any(name != alias for name, alias in names.items()):
        return SimpleNamespace(**fields)  # attrs takes the underscore off
    return attrs.make_class("Page", list(fields))(**fields)


def database_row(fields):
    base = sqlite3.connect(":memory:")
    base.row_factory = sqlite3.Row
    columns = ", ".join(f'? AS "{name}"' for name in fields)
    return base.execute(f"SELECT {columns}", tuple(fields.values())).fetchone()


def pandas_row(fields):
    return pytest.importorskip("pandas").Series(fields)


def array_row(fields):
    numpy = pytest.importorskip("numpy")
    return numpy.array([tuple(fields.values())], dtype=[(name, "U20") for name in fields])[0]


def slots_record(fields):
    page = type("Page", (), {"__slots__": tuple(fields)})()
    for name, value in fields.items():
        setattr(page, name, value)
    return page


# kinds of records whose fields may have any name, and kinds whose names are identifiers
MAPPINGS = {"dict": dict, "pandas row": pandas_row, "database row": database_row, "array row": array_row}
OBJECTS = {
    "namespace": lambda fields: SimpleNamespace(**fields),
    "dataclass": lambda fields: make_dataclass("Page", list(fields))(**fields),
    "slots": slots_record,
    "named tuple": lambda fields: namedtuple("Page", list(fields))(*fields.values()),
    "attrs": attrs_record,
}


def accepts(kind, name):
    return kind in MAPPINGS or (name.isidentifier() and not (kind == "named tuple" and name.startswith("_")))


@pytest.mark.parametrize("kind", [*MAPPINGS, *OBJECTS])
def test_every_name_in_every_spelling_is_read_from_every_kind_of_record(kind):
    make = (MAPPINGS | OBJECTS)[kind]
    read = 0
    pairs = zip(TEXT_FIELDS, cycle(ID_FIELDS), strict=False)  # 14 and 13 names: each of both
    for (text, doc_id), respell in product(list(pairs), SPELLINGS.values()):
        names = respell(text), respell(doc_id), respell("title")
        if all(accepts(kind, name) for name in names):
            document = as_document(make(dict(zip(names, ("Snow", "d1", "Weather"), strict=True))), "document 0")
            assert (document.text, document.id, document.title) == ("Snow", "d1", "Weather"), names
            read += 1
    assert read >= 2 * len(TEXT_FIELDS)
    assert len(TEXT_FIELDS) > len(ID_FIELDS)


@pytest.mark.parametrize(
    "names", [TEXT_FIELDS, ID_FIELDS, TITLE_FIELDS, QUERY_FIELDS, QUERY_ID_FIELDS, CANDIDATE_ID_FIELDS]
)
def test_the_first_name_of_the_table_that_has_a_value_counts(names):
    record = {name: f"value of {name}" for name in names}
    for name in names:
        assert first_field(record, names) == f"value of {name}"
        record[name] = None


def test_candidates_know_the_names_that_documents_know():
    assert set(CANDIDATE_TEXT_FIELDS) == set(TEXT_FIELDS)
    assert set(CANDIDATE_ID_FIELDS) == set(ID_FIELDS)


def test_a_name_as_in_the_table_comes_before_other_spellings():
    assert as_document({"Text": "Rain", "contents": "Snow"}, "document 0").text == "Snow"
    assert as_document({"_ID": "a", "docno": "b", "text": "Snow"}, "document 0").id == "b"


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"text": "Snow", "Text": "Rain"}, ("'text'", "'Text'")),
        ({" text": "Snow", "TEXT": "Rain"}, ("' text'", "'TEXT'")),
        ({"text": "Snow", "id": "1", "ID ": "2"}, ("'id'", "'ID '")),
        ({"text": "Snow", "Title": "1", "TITLE": "2"}, ("'Title'", "'TITLE'")),
        ({"page content": "Snow", "page-content": "Rain"}, ("'page content'", "'page-content'")),
    ],
)
def test_two_spellings_of_one_name_with_different_values_are_refused(record, names):
    with pytest.raises(InvalidInput) as caught:
        as_documents(["good", record])
    assert str(caught.value).startswith("document 1 has the fields ")
    assert all(name in str(caught.value) for name in names)


def test_two_spellings_of_one_name_with_one_value_are_no_contradiction():
    assert as_document({"text": "Snow", "Text": "Snow", "ID": 1, "Id": None}, "document 0").id == "1"


# Frameworks: small records with the fields of their documents


class NodeWithScore:
    """LlamaIndex: the node's text is computed, and an image has none."""

    def __init__(self, node):
        self.node, self.score = node, 0.5

    def get_content(self):
        return self.node.get_content()

    @property
    def text(self):
        raise ValueError("Node must be a TextNode to get text.")


FRAMEWORKS = {
    "LangChain": SimpleNamespace(page_content="Snow", metadata={"source": "x.pdf", "title": "Weather"}, id="d1"),
    "LangChain, id in metadata": SimpleNamespace(
        page_content="Snow", metadata={"id": "d1", "title": "Weather"}, id=None
    ),
    "LangChain as JSON": {"page_content": "Snow", "metadata": {"doc_id": "d1", "title": "Weather"}, "type": "Document"},
    "LangChain of JavaScript": {"pageContent": "Snow", "id": "d1", "title": "Weather"},
    "LlamaIndex node": SimpleNamespace(text="Snow", node_id="d1", title="Weather", metadata={}),
    "LlamaIndex node as JSON": {"node": {"text": "Snow", "id_": "d1", "title": "Weather"}, "score": 0.5},
    "LlamaIndex": NodeWithScore(SimpleNamespace(get_content=lambda: "Snow", node_id="d1", title="Weather")),
    "Haystack": SimpleNamespace(content="Snow", id="d1", meta={"title": "Weather"}, score=None, embedding=None),
    "Qdrant": SimpleNamespace(id="d1", score=0.5, version=1, payload={"text": "Snow", "title": "Weather"}),
    "Elasticsearch": {"_id": "d1", "_score": 2.0, "_source": {"body": "Snow", "title": "Weather"}},
    "Pinecone": {"id": "d1", "score": 0.5, "metadata": {"text": "Snow", "title": "Weather"}},
    "Milvus": {"id": "d1", "distance": 0.5, "entity": {"text": "Snow", "title": "Weather"}},
    "rank_llm": {"docid": "d1", "score": 0.5, "doc": {"contents": "Snow", "title": "Weather"}},
    "Cohere": {"id": "d1", "document": {"text": "Snow", "title": "Weather"}},
    "ir_datasets": namedtuple("BeirTitleDoc", "doc_id text title")("d1", "Snow", "Weather"),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_documents_of_frameworks_are_documents(name):
    (document,) = as_documents([FRAMEWORKS[name]])
    assert (document.text, document.id, document.title) == ("Snow", "d1", "Weather")
    assert document.record is FRAMEWORKS[name]


def test_documents_of_pydantic_are_documents():
    pydantic = pytest.importorskip("pydantic")
    page = pydantic.create_model("Page", body=(str, ...), docId=(int, ...), Title=(str | None, None))
    (document,) = as_documents([page(body="Snow", docId=7)])
    assert (document.text, document.id, document.title) == ("Snow", "7", "")


# A title of `metadata` beside `text` was never read: the scores of such files stay as they are.
def test_metadata_beside_text_is_not_read():
    (document,) = as_documents([{"text": "Snow", "metadata": {"title": "Weather", "id": "d1"}}])
    assert (document.id, document.title) == (None, "")


# Tables


def frame(**columns):
    return pytest.importorskip("pandas").DataFrame(columns)


def test_rows_of_a_frame_are_documents_in_all_ways_of_giving_them():
    table = frame(doc_id=[3, 4], text=["Snow", "Rain"], title=["a", None])
    expected = [("3", "Snow", "a"), ("4", "Rain", "")]
    ways = [table, table.to_dict("records"), list(table.itertuples()), [row for _, row in table.iterrows()]]
    for rows in ways:
        assert [(d.id, d.text, d.title) for d in as_documents(rows)] == expected


def test_a_frame_with_two_columns_of_one_name_is_refused():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame([["Snow", "Rain"]], columns=["text", "text"])
    with pytest.raises(InvalidInput, match="two columns of the name 'text'"):
        as_documents(table)


def test_tables_of_polars_and_arrow_are_known_by_their_methods():
    rows = [{"id": 1, "text": "Snow"}]
    polars = SimpleNamespace(columns=["id", "text"], to_dicts=lambda: rows, __iter__=None)
    table = type("DataFrame", (), {**vars(polars), "__iter__": lambda self: iter(())})()
    table.to_dicts = lambda: rows
    assert [d.id for d in as_documents(table)] == ["1"]
    arrow = pytest.importorskip("pyarrow")
    assert [d.id for d in as_documents(arrow.table({"id": [1], "text": ["Snow"]}))] == ["1"]


def test_series_and_arrays_of_strings_are_documents():
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    for items in (pandas.Series(["Snow", "Rain"], index=[5, 9]), numpy.array(["Snow", "Rain"])):
        assert [d.text for d in as_documents(items)] == ["Snow", "Rain"]


# Missing values and ids


def missing_values():
    pandas, numpy = pytest.importorskip("pandas"), pytest.importorskip("numpy")
    return [None, float("nan"), numpy.float32("nan"), pandas.NA, pandas.NaT, numpy.datetime64("NaT")]


def test_missing_ids_and_titles_are_none():
    for value in missing_values():
        (document,) = as_documents([{"text": "Snow", "id": value, "title": value}])
        assert (document.id, document.title) == (None, ""), value


def test_a_missing_text_is_refused_with_its_position():
    for value in missing_values():
        for item in (value, {"id": 1, "text": value}):
            with pytest.raises(InvalidInput, match=r"^document 1 "):
                as_documents(["good", item])


def test_a_missing_text_gives_way_to_the_next_name():
    assert as_document({"text": float("nan"), "body": "Snow"}, "document 0").text == "Snow"


def test_ids_that_are_numbers_are_their_digits():
    numpy = pytest.importorskip("numpy")
    values = {1.0: "1", 2.5: "2.5", -0.0: "0", "1.0": "1.0", "007": "007", " ": None, "": None}
    assert {value: as_document({"text": "a", "id": value}, "").id for value in values} == values
    for value in (
        7,
        7.0,
        numpy.int64(7),
        numpy.uint8(7),
        numpy.float32(7),
        numpy.float64(7),
        numpy.str_("7"),
        numpy.array(7),
    ):
        assert as_document({"text": "a", "id": value}, "").id == "7"


@given(st.integers())
def test_whole_numbers_are_never_another_number(number):
    assert as_document({"text": "a", "id": number}, "").id == str(number)


@pytest.mark.parametrize("value", [float(2**53), 1e20, float("inf"), [1], (1,), {"a": 1}, b"1", {1}])
def test_an_id_that_may_name_another_document_is_refused(value):
    with pytest.raises(InvalidInput, match=r"^document 0 has "):
        as_documents([{"text": "a", "id": value}])


@pytest.mark.parametrize("part", ["text", "title"])
@pytest.mark.parametrize("value", [["a", "b"], {"en": "a"}, 5, b"a", ("a",)])
def test_a_value_that_is_no_string_is_refused_with_the_option_that_helps(part, value):
    with pytest.raises(InvalidInput) as caught:
        as_documents([{"text": "Snow", part: value}])
    assert f"as its {part}" in str(caught.value)
    assert f"--{part}-field" in str(caught.value)


# Fields that the caller names


PAGE = {"headline": "Weather", "prose": "Snow", "uuid": 7, "text": "not this", "more": {"Name": "inner"}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (Fields(text="prose", id="uuid", title="headline"), ("Snow", "7", "Weather")),
        (Fields(text="PROSE ", id="more.name"), ("Snow", "inner", "")),
        (Fields(text=lambda page: page["prose"] * 2, id=lambda page: None), ("SnowSnow", None, "")),
        (Fields(title="subtitle"), ("not this", None, "")),
    ],
)
@pytest.mark.parametrize("as_object", [False, True])
def test_named_fields_are_read(fields, expected, as_object):
    if as_object and callable(fields.text):
        return
    document = as_document(SimpleNamespace(**PAGE) if as_object else PAGE, "document 0", fields)
    assert (document.text, document.id, document.title) == expected


def test_an_empty_name_reads_no_id_and_no_title():
    record = {"text": "Snow", "id": ["a", "b"], "title": ["a", "b"]}
    document = as_document(record, "document 0", Fields(id="", title=""))
    assert (document.id, document.title) == (None, "")


@pytest.mark.parametrize("fields", [Fields(text="prse"), Fields(id="more.nome"), Fields(id="prose.x")])
def test_a_named_field_that_is_not_there_is_refused(fields):
    with pytest.raises(InvalidInput, match=r"^document 0 has no field '[a-z.]+' for its"):
        as_document(PAGE, "document 0", fields)


# Lists that are none


def test_mappings_of_texts_and_of_columns_are_refused_with_the_form_that_helps():
    with pytest.raises(InvalidInput, match=r"\{'id': key, 'text': value\} for key, value"):
        as_documents({"d1": "Snow", "d2": "Rain"})
    for columns in ({"text": ["Snow", "Rain"]}, {"text": {"0": "Snow"}}):
        with pytest.raises(InvalidInput, match="a record per document"):
            as_documents(columns)
    with pytest.raises(InvalidInput, match="put it in brackets"):
        as_documents({"text": "Snow"})


def test_an_index_of_ids_is_read_as_ids():
    table = frame(docno=["a", "b"], text=["Snow", "Rain"])
    assert [d.id for d in as_documents(table.set_index("docno"))] == ["a", "b"]
