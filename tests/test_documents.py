from __future__ import annotations

import copy
import json
from collections import UserDict
from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dearlite.documents import Document, as_document, as_documents, check_query
from dearlite.errors import DearliteError, InvalidInput
from dearlite.readable import readable


@dataclass(frozen=True)
class Page:
    text: str
    id: int | None = None
    title: str | None = None


class Passage:
    def __init__(self) -> None:
        self.docid = "p9"
        self.passage = "Snow is cold."


# what the caller gives -> (text, id, title)
ACCEPTED = [
    ("Snow is cold.", ("Snow is cold.", None, "")),
    ("  two  spaces stay ", ("  two  spaces stay ", None, "")),
    ({"text": "Snow"}, ("Snow", None, "")),
    ({"contents": "Snow"}, ("Snow", None, "")),
    ({"passage": "Snow"}, ("Snow", None, "")),
    ({"text": "Snow", "contents": "Rain", "passage": "Hail"}, ("Snow", None, "")),
    ({"text": None, "contents": "Rain"}, ("Rain", None, "")),
    ({"id": "d1", "text": "Snow"}, ("Snow", "d1", "")),
    ({"_id": "d1", "text": "Snow"}, ("Snow", "d1", "")),
    ({"docid": "d1", "text": "Snow"}, ("Snow", "d1", "")),
    ({"id": "a", "_id": "b", "docid": "c", "text": "Snow"}, ("Snow", "a", "")),
    ({"id": 7, "text": "Snow"}, ("Snow", "7", "")),
    ({"id": 0, "text": "Snow"}, ("Snow", "0", "")),
    ({"id": None, "text": "Snow"}, ("Snow", None, "")),
    ({"title": "Weather", "text": "Snow"}, ("Snow", None, "Weather")),
    ({"title": None, "text": "Snow"}, ("Snow", None, "")),
    ({"title": "Weather", "text": ""}, ("", None, "Weather")),  # BEIR holds documents that are a title only
    ({"text": "Snow", "url": "https://example.org", "stars": [1, 2]}, ("Snow", None, "")),
    (UserDict({"_id": "d1", "text": "Snow"}), ("Snow", "d1", "")),
    (Page("Snow", 3, "Weather"), ("Snow", "3", "Weather")),
    (Page("Snow"), ("Snow", None, "")),
    (SimpleNamespace(contents="Snow", _id="n1"), ("Snow", "n1", "")),
    (Document("Snow", "d1", "Weather", record="mine"), ("Snow", "d1", "Weather")),
]

# what the caller gives -> words of the reason
REFUSED = [
    (None, "null"),
    (3, "int"),
    (2.5, "float"),
    (True, "bool"),
    (b"Snow", "bytes"),
    (["Snow"], "list"),
    (("d1", "Snow"), "tuple"),
    ("", "empty"),
    (" \t\r\n\u00a0\u2003", "empty or only spaces"),
    ("\u200b", "has nothing to read, only characters that show nothing (U+200B): remove it"),
    ({"text": "\ufeff", "title": "\u00ad"}, "nothing to read, only characters that show nothing (U+00AD, U+FEFF)"),
    ({}, "no text"),
    ({"prose": "Snow"}, "'prose'"),
    ({"text": None}, "no text"),
    ({"title": "Weather"}, "no text"),
    ({"text": "  "}, "empty or only spaces"),
    ({"text": "", "title": " "}, "empty or only spaces"),
    ({"text": 5}, "int as its text"),
    ({"text": ["Snow"]}, "list as its text"),
    ({"text": b"Snow"}, "bytes as its text"),
    ({"text": "Snow", "title": 5}, "int as its title"),
    ({"text": "Snow", "id": {"$oid": "1"}}, "dict as its id"),
    ({"text": "Snow", "id": [1]}, "list as its id"),
    (object(), "no text"),
    ({"Snow", "Rain"}, "no text"),
    (Page(5), "int as its text"),  # type: ignore[arg-type]
    (Document("  "), "empty or only spaces"),
    (Document(5), "int"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("item", "expected"), ACCEPTED)
def test_every_usual_shape_is_a_document(item, expected):
    document = as_document(item, "document 0")
    assert (document.text, document.id, document.title) == expected


def test_an_object_with_attributes_is_a_document():
    document = as_document(Passage(), "document 0")
    assert (document.text, document.id, document.title) == ("Snow is cold.", "p9", "")


@pytest.mark.parametrize("item", [item for item, _ in ACCEPTED if not isinstance(item, Document)])
def test_the_record_is_the_callers_own_object_unchanged(item):
    before = copy.deepcopy(item)
    (document,) = as_documents([item])
    assert document.record is item
    assert item == before


def test_a_document_passed_again_keeps_its_record():
    record = {"text": "Snow", "stars": 5}
    (once,) = as_documents([record])
    (twice,) = as_documents([once])
    assert twice == once
    assert twice.record is record


def test_the_callers_list_is_not_changed():
    items = ["b", {"text": "a"}, "c"]
    before = copy.deepcopy(items)
    documents = as_documents(items)
    assert items == before
    assert [document.text for document in documents] == ["b", "a", "c"]


def test_any_iterable_of_documents_will_do():
    assert [d.text for d in as_documents(letter for letter in ("x", "y"))] == ["x", "y"]
    assert as_documents([]) == []


@pytest.mark.parametrize(("item", "reason"), REFUSED)
def test_what_cannot_be_ranked_is_refused_with_its_position(item, reason):
    with pytest.raises(InvalidInput) as caught:
        as_documents(["good", "good", item])
    message = str(caught.value)
    assert message.startswith("document 2")
    assert reason in message
    assert "\n" not in message


def test_invalid_input_is_a_value_error_and_a_dearlite_error():
    with pytest.raises(ValueError, match="document 0") as caught:
        as_documents([None])
    assert isinstance(caught.value, DearliteError)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("docs", ["one string", b"bytes", {"text": "one record"}, UserDict({"text": "one record"})])
def test_one_document_instead_of_a_list_is_refused_with_the_remedy(docs):
    with pytest.raises(InvalidInput, match=r"\[doc\]"):
        as_documents(docs)


# Legal JSON, no legal Unicode. U+FFFD stands for each half of a pair that has lost the other.
@pytest.mark.parametrize(
    ("escaped", "clean"),
    [
        (r'"cut here: \ud83d"', "cut here: \ufffd"),
        (r'"\ud83d then more"', "\ufffd then more"),
        (r'"b \ude00\ud83d"', "b \ufffd\ufffd"),
        (r'"a pair \ud83d\ude00 and a half \ud83d!"', "a pair \U0001f600 and a half \ufffd!"),
    ],
)
def test_half_a_surrogate_pair_is_replaced_in_text_title_and_query(escaped, clean):
    text = json.loads(escaped)
    (document,) = as_documents([{"text": text, "title": text}])
    assert (document.text, document.title) == (clean, clean)
    assert as_document(text, "document 0").text == clean
    assert as_document(Document(text), "document 0").text == clean
    assert check_query(text) == clean


@pytest.mark.parametrize("escaped", [r'"\ud83d"', r'"\ude00"', r'"\ude00\ud83d"'])
def test_nothing_but_half_a_surrogate_pair_is_no_text(escaped):
    text = json.loads(escaped)
    for item in (text, {"text": text}, {"text": text, "title": text}, Document(text)):
        with pytest.raises(InvalidInput, match=r"document 0 has nothing to read.*U\+FFFD"):
            as_document(item, "document 0")
    with pytest.raises(InvalidInput, match=r"the query has nothing to read.*U\+FFFD"):
        check_query(text)
    assert as_document({"text": text, "title": "Snow"}, "document 0").text == "\ufffd" * len(text)


def test_half_a_surrogate_pair_is_replaced_in_an_id():
    (document,) = as_documents([{"id": "page \ud83d", "text": "Snow"}])
    assert document.id == "page \ufffd"  # a TREC run holds ids, and is UTF-8


def test_two_halves_written_one_by_one_are_joined():
    assert as_document("\ud83d" + "\ude00", "document 0").text == "\U0001f600"


@given(st.text(min_size=1).filter(readable))
def test_text_that_can_be_written_stays_as_it_is(text):
    assert as_document(text, "document 0").text == text


@given(st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.characters(categories=["Cs"]))))
def test_any_text_that_is_accepted_can_be_written_as_utf8(text):
    try:
        document = as_document(text, "document 0")
    except InvalidInput:
        assert not readable(text)
    else:
        document.text.encode()


@pytest.mark.parametrize(
    ("query", "clean"),
    [("what is snow?", "what is snow?"), ("  what is snow?\n", "what is snow?"), ("\u4ec0\u4e48", "\u4ec0\u4e48")],
)
def test_a_query_loses_only_the_spaces_around_it(query, clean):
    assert check_query(query) == clean


@pytest.mark.parametrize("query", ["", "   ", "\n\t", "\u00a0"])
def test_a_query_of_spaces_is_refused(query):
    with pytest.raises(InvalidInput, match="query is empty"):
        check_query(query)


@pytest.mark.parametrize(
    ("query", "kind"), [(None, "NoneType"), (5, "int"), (b"snow", "bytes"), (["snow"], "list"), ({"text": "q"}, "dict")]
)
def test_a_query_that_is_no_string_is_refused_by_type(query, kind):
    with pytest.raises(InvalidInput, match=f"query is a {kind}"):
        check_query(query)


@pytest.mark.parametrize(
    ("docs", "remedy"),
    [(None, "give a list of documents"), (5, "put it in brackets"), (Document("one"), "put it in brackets")],
)
def test_docs_that_are_no_list_are_refused(docs, remedy):
    with pytest.raises(InvalidInput, match=remedy):
        as_documents(docs)


def test_rows_of_a_data_frame_are_documents_and_its_column_names_are_not():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": [1, 2], "text": ["Snow", "Rain"]}, index=["x", "y"])
    assert [(d.id, d.text) for d in as_documents(frame)] == [("1", "Snow"), ("2", "Rain")]
    with pytest.raises(InvalidInput, match=r"\[doc\]"):
        as_documents(frame.iloc[0])


@pytest.mark.parametrize(
    ("columns", "index", "ids"),
    [
        ({"text": ["rain"]}, ["q"], ["q"]),
        ({"docno": ["q"], "text": ["rain"]}, ["q"], ["q"]),  # set_index("docno", drop=False)
        ({"docno": ["z"], "text": ["rain"]}, ["q"], None),
    ],
)
def test_an_index_of_ids_beside_a_column(columns, index, ids):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(columns, index=pandas.Index(index, name="docno"))
    if ids is None:
        with pytest.raises(InvalidInput, match="two columns of the name 'docno'"):
            as_documents(frame)
    else:
        assert [document.id for document in as_documents(frame)] == ids


@pytest.mark.parametrize("value", [object(), float("inf")])
def test_an_id_that_names_nothing_is_refused(value):
    with pytest.raises(InvalidInput, match=r"document 0 has .*id.* a string or a"):
        as_documents([{"text": "rain", "id": value}])


def test_a_decimal_id_is_a_number_and_a_masked_cell_is_missing():
    assert as_documents([{"text": "rain", "id": Decimal("5.0")}])[0].id == "5"
    with pytest.raises(InvalidInput, match="missing value"):
        as_documents(np.ma.array(["rain", "snow"], mask=[False, True]))
