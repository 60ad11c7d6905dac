"""JSON by its content: lists in .jsonl, lines in .json, objects over several lines, and what is said of other files."""

from __future__ import annotations

import io

import pytest

from dearlite.errors import InvalidInput
from dearlite.files.readers import read_documents

ONE, TWO = '{"id": "a", "text": "rain"}', '{"id": "b", "text": "snow"}'
READ = {
    "lines": f"{ONE}\n{TWO}\n",
    "lines, blank lines": f"\n{ONE}\n \n{TWO}",
    "list on a line": f"[{ONE}, {TWO}]",
    "list": f"[\n {ONE},\n {TWO}\n]\n",
    "objects": f"{ONE}\n{TWO}\n".replace("{", "{\n ").replace(",", ",\n").replace("}", "\n}"),
    "objects on one line": f"{ONE} {TWO}",
    "list within an object": f'{{"documents": [{ONE}, {TWO}], "count": 2}}',
    "list within an object, over lines": f'{{\n"took": 5,\n"hits": [\n{ONE},\n{TWO}]\n}}',
}


def save(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(folder, name, text, **options):
    with pytest.raises(InvalidInput) as caught:
        read_documents(save(folder, name, text), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["json", "jsonl", "ndjson"])
@pytest.mark.parametrize("form", READ)
def test_the_content_decides_and_not_the_ending(tmp_path, form, ending):
    for skip_bad in (False, True):
        file = read_documents(save(tmp_path, f"docs.{ending}", READ[form]), skip_bad=skip_bad)
        assert [(document.id, document.text) for document in file.documents] == [("a", "rain"), ("b", "snow")]
        assert file.skipped == []


@pytest.mark.parametrize("form", READ)
def test_standard_input_may_have_each_form(monkeypatch, form):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(READ[form].encode())))
    assert [document.id for document in read_documents("-").documents] == ["a", "b"]


def test_locations_are_lines_of_the_file(tmp_path):
    file = read_documents(save(tmp_path, "d.jsonl", '{\n"text": "雪"\n}\n\n{\n"text": "b"\n}\n'))
    assert file.locations == ["d.jsonl:1", "d.jsonl:5"]


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_one_object_is_one_document(tmp_path, ending):
    for text in (ONE, ONE.replace(",", ",\n")):
        (document,) = read_documents(save(tmp_path, f"d.{ending}", text)).documents
        assert document.id == "a"


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"[\n{ONE},\n{TWO}\n", "is not JSON (Expecting ',' delimiter at line 4"),  # the end is missing
        (f"[\n{ONE}\n{TWO}\n]\n", "is not JSON (Expecting ',' delimiter at line 3"),
        ('{\n "text": "a",\n "text": "b"\n}\n', "has the field 'text' twice with different values"),
        ('{"id": ["a", "b"], "text": ["rain", "snow"]}', "holds whole columns ('id', 'text')"),  # df.to_dict("list")
        ('{"id": {"0": "a"}, "text": {"0": "rain"}}', "holds whole columns ('id', 'text')"),  # df.to_json()
        (f'{{"new": [{ONE}], "old": [{TWO}]}}', "holds an object with several lists ('new', 'old')"),
        (f'{{"query": "q", "hits": [{ONE}]}}', "rerank it with dearlite batch"),
    ],
)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_file_that_cannot_be_read_as_a_whole_is_never_skipped_by_lines(tmp_path, text, words, ending, skip_bad):
    assert words in refused(tmp_path, f"d.{ending}", text, skip_bad=skip_bad)


def test_lines_after_a_damaged_first_line_are_read(tmp_path):
    file = read_documents(save(tmp_path, "d.jsonl", f'{{"text":\n{ONE}\n{TWO}\n'), skip_bad=True)
    assert [document.id for document in file.documents] == ["a", "b"]
    assert [line.split()[0] for line in file.skipped] == ["d.jsonl:1"]


def test_a_single_damaged_line_is_named(tmp_path):
    assert refused(tmp_path, "d.jsonl", '\n{"text": "a\n').startswith("d.jsonl:2 is not JSON")


def test_one_damaged_line_is_named_as_a_line(tmp_path):
    assert refused(tmp_path, "d.jsonl", '{"text":\n').startswith("d.jsonl:1 is not JSON")


def test_two_damaged_lines_before_the_others_are_named_each(tmp_path):
    file = read_documents(save(tmp_path, "d.jsonl", f'{{"text":\n{{"te\n{ONE}\n'), skip_bad=True)
    assert [document.id for document in file.documents] == ["a"]
    assert [line.split()[0] for line in file.skipped] == ["d.jsonl:1", "d.jsonl:2"]


def test_bad_lines_of_json_lines_named_json_are_named(tmp_path):
    text = f"{ONE}\n{{x}}\n{TWO}\n"
    assert refused(tmp_path, "d.json", text).startswith("d.json:2 is not JSON")
    assert len(read_documents(save(tmp_path, "d.json", text), skip_bad=True).skipped) == 1


def test_nan_is_read_beside_a_text(tmp_path):
    file = read_documents(
        save(tmp_path, "d.jsonl", '{"text": "a", "bm25": NaN, "id": NaN}\n{"text": "b", "x": -Infinity}')
    )
    assert [document.id for document in file.documents] == [None, None]
    assert refused(tmp_path, "d.jsonl", '{"text": NaN}\n').startswith("d.jsonl:1 has no text")


@pytest.mark.parametrize("skip_bad", [False, True])
def test_lines_of_text_on_standard_input_name_the_option_that_helps(monkeypatch, skip_bad):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Rain falls.\nSnow melts.\n")))
    with pytest.raises(InvalidInput, match=r"<stdin>:1 is not JSON.*--docs-format.*txt") as caught:
        read_documents("-", skip_bad=skip_bad)
    assert "--skip-bad" not in str(caught.value)


def test_marks_of_joined_files_are_no_text(tmp_path):
    text = "".join(f"\ufeff{line}\n" for line in (ONE, TWO))
    assert [document.id for document in read_documents(save(tmp_path, "d.jsonl", text)).documents] == ["a", "b"]


def test_one_record_with_a_list_as_its_text_is_no_table(tmp_path):
    assert "has a list as its text" in refused(tmp_path, "d.jsonl", '{"id": 1, "text": ["rain", "falls"]}\n')
