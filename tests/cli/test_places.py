"""`rerank` over files and folders: results that say where, and options of their own."""

import csv
import io
import json
import os
import re
from pathlib import Path

import pytest
from posix_only import need_posix
from rich.console import Console

from dearlite.documents import Document
from dearlite.folders import Passage, group_by_file, read_folder
from dearlite.folders.context import lines_around
from dearlite.render.table import RankingView

QUERY = "What does the home office cost?"
TAX = "# Taxes\n\nKeep all bills.\n\n## Office\n\nThe home office costs 1,260 euros a year.\n\n## End\n\nNo more.\n"
CAKE = "Mix flour and sugar.\nBake for an hour.\n"


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes/sub").mkdir(parents=True)
    Path("notes/tax.md").write_text(TAX)
    Path("notes/sub/cake.txt").write_text(CAKE)
    Path("notes/.hidden").write_text("x")
    Path("notes/a.png").write_bytes(b"x")
    return Path("notes")


def rows(out):
    return [json.loads(line) for line in out.splitlines()]


def refused(result, code=2):
    assert result[:2] == (code, "")
    (line,) = result[2].splitlines()
    return line


def test_a_folder_is_ranked_and_results_say_where(cli, notes):
    code, out, err = cli("rerank", "-q", QUERY, "notes")
    assert code == 0
    assert err == "dearlite: 4 passages of 2 files; left out: 1 hidden, 1 binary\n"
    best = rows(out)[0]
    place = {name: best[name] for name in ("id", "path", "first_line", "last_line", "page", "start", "end")}
    assert place == {
        "id": "notes/tax.md:5-7",
        "path": "notes/tax.md",
        "first_line": 5,
        "last_line": 7,
        "page": None,
        "start": TAX.index("## Office"),
        "end": TAX.index("\n\n## End"),
    }
    assert cli("rerank", "-q", QUERY, "notes", "--quiet")[2] == ""


def test_an_output_that_is_read_as_part_of_a_folder_is_refused(cli, notes):
    need_posix()
    Path("link.jsonl").symlink_to("notes/tax.md")
    for output in ("notes/tax.md", "link.jsonl"):
        line = refused(cli("rerank", "-q", QUERY, "notes", "-o", output, "--format", "jsonl"))
        assert line == (
            f"dearlite: --output {output} would overwrite the input DOCS, notes/tax.md: name another file, "
            "or leave this one out of DOCS with --exclude"
        )
        assert Path("notes/tax.md").read_text() == TAX
    Path("notes/best.csv").write_text("of an earlier call\n")
    assert cli("rerank", "-q", QUERY, "notes", "-o", "notes/best.csv", "--exclude", "*.csv")[0] == 0
    assert "tax.md" in Path("notes/best.csv").read_text()


def test_several_paths_and_a_query_file(cli, notes):
    Path("query.txt").write_text(QUERY)
    code, out, _ = cli("rerank", "query.txt", "notes", "-k", 1)
    assert (code, rows(out)[0]["id"]) == (0, "notes/tax.md:5-7")
    code, out, _ = cli("rerank", "-q", QUERY, "notes/sub", "notes/tax.md", "-k", 1)
    assert (code, rows(out)[0]["id"]) == (0, "notes/tax.md:5-7")
    code, out, _ = cli("rerank", "-q", QUERY, "notes/*.md", "-k", 1)
    assert (code, rows(out)[0]["id"]) == (0, "notes/tax.md:5-7")


def test_a_text_file_alone_is_a_document_per_line_as_before(cli, notes):
    code, out, _ = cli("rerank", "-q", QUERY, "notes/sub/cake.txt")
    assert (code, sorted(row["text"] for row in rows(out))) == (0, sorted(CAKE.splitlines()))


def test_files_are_grouped_and_named(cli, notes):
    code, out, _ = cli("rerank", "-q", QUERY, "notes", "--group", "file")
    first, second = rows(out)
    assert (code, first["id"], second["id"]) == (0, "notes/tax.md:5-7", "notes/sub/cake.txt:1-2")
    assert sorted(first["more"]) == ["notes/tax.md:1-3", "notes/tax.md:9-11"]
    assert [first["rank"], second["rank"]] == [1, 2] and "more" not in second
    assert len(rows(cli("rerank", "-q", QUERY, "notes", "--group", "file", "-k", 1)[1])) == 1


def test_names_alone_are_bytes_in_the_order_of_the_ranking(notes, capfdbinary):
    from dearlite.cli.main import run

    need_posix()
    try:
        Path(os.fsdecode(b"notes/caf\xe9.txt")).write_text("The home office costs 1,260 euros.")
    except OSError:
        pytest.skip("the file system takes only names in UTF-8")
    for options, end in (("-l",), b"\n"), (("-l", "-0"), b"\0"):
        with pytest.raises(SystemExit) as ended:
            run(["rerank", "-q", QUERY, "notes", *options, "-k", "2"])
        assert ended.value.code == 0
        names = capfdbinary.readouterr().out.split(end)
        assert sorted(names) == [b"", b"notes/caf\xe9.txt", b"notes/tax.md"]
        assert names[-1] == b""


def test_context_is_the_lines_around_a_passage(cli, notes):
    code, out, _ = cli("rerank", "-q", QUERY, "notes", "--context", 2, "--format", "table", "-k", 1)
    lines = [line.strip() for line in out.splitlines()]
    assert code == 0
    assert lines[-8:-1] == [
        "3- Keep all bills.",
        "4-",
        "5: ## Office",
        "6:",
        "7: The home office costs 1,260 euros a year.",
        "8-",
        "9- ## End",
    ]
    best = rows(cli("rerank", "-q", QUERY, "notes", "--context", 2, "-k", 1)[1])[0]
    assert (best["before"], best["after"]) == (["Keep all bills.", ""], ["", "## End"])


def test_a_long_line_that_was_cut_is_one_line_of_context(tmp_path):
    (tmp_path / "a.txt").write_text("word " * 300 + "\nlast\n")
    documents = read_folder(tmp_path)
    lines = lines_around(documents[-1].record, list(documents), 5)
    assert [line.number for line in lines] == [1, 2]
    assert lines[0].text == "word " * 300


def test_a_word_that_was_cut_is_one_word_of_context(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 2500 + " end")
    documents = read_folder(tmp_path)
    (line,) = lines_around(documents[1].record, list(documents), 0)
    assert (line.number, line.text) == (1, "x" * 2500 + " end")


def test_the_context_of_a_web_page_is_that_of_its_text_without_numbers(tmp_path):
    pytest.importorskip("lxml.etree", reason="lxml is not installed (extra files)")
    page = "".join(f"<h2>Part {number}</h2><p>Text of {number}.</p>" for number in range(5))
    (tmp_path / "a.html").write_text(page)  # all of it on one line of the source
    documents = read_folder(tmp_path)
    lines = lines_around(documents[2].record, list(documents), 1)
    assert [(line.number, line.text, line.inside) for line in lines] == [
        (None, "Text of 1.", False),
        (None, "Part 2", True),
        (None, "", True),
        (None, "Text of 2.", True),
        (None, "Part 3", False),
    ]


def test_the_title_of_a_table_by_files_counts_files(cli, notes):
    head = cli("rerank", "-q", QUERY, "notes", "--group", "file", "--format", "table")[1].splitlines()[0]
    assert head == f"{QUERY}  (best 2 files, of 4 passages)"


def test_globs_choose_the_files(cli, notes):
    assert {row["path"] for row in rows(cli("rerank", "-q", QUERY, "notes", "--include", "*.txt")[1])} == {
        "notes/sub/cake.txt"
    }
    assert {row["path"] for row in rows(cli("rerank", "-q", QUERY, "notes", "--exclude", "sub")[1])} == {"notes/tax.md"}


PLACE = ["path", "first_line", "last_line", "page", "heading"]


def test_tables_of_files_have_columns_of_their_places_and_of_the_best_query(cli, notes):
    queries = ("-q", QUERY, "-q", "How is a cake baked?")
    code, out, _ = cli("rerank", *queries, "notes", "--format", "csv", "-k", 2)
    best, second = csv.DictReader(io.StringIO(out))
    head = ["rank", "score", "index", "id", "title", "text", "relevance", "best_query", *PLACE]
    assert (code, list(best)) == (0, head)
    by_path = {row["path"]: row for row in (best, second)}
    tax, cake = by_path["notes/tax.md"], by_path["notes/sub/cake.txt"]
    assert [tax[name] for name in PLACE] == ["notes/tax.md", "5", "7", "", "Taxes > Office"]
    assert (tax["best_query"], cake["best_query"]) == (QUERY, "How is a cake baked?")
    assert 0 < float(tax["relevance"]) <= 1
    _, tsv, _ = cli("rerank", *queries, "notes", "--format", "tsv", "-k", 2)
    assert [line.split("\t")[-5:] for line in tsv.splitlines()[1:]] == [
        [row[name] for name in PLACE] for row in (best, second)
    ]


def test_parquet_of_files_has_their_lines_and_pages_as_numbers(cli, notes):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert cli("rerank", "-q", QUERY, "notes", "-k", 1, "-o", "best.parquet")[0] == 0
    table = parquet.read_table("best.parquet")
    kinds = ["string", "int64", "int64", "int64", "string"]
    assert [str(kind) for kind in table.select(PLACE).schema.types] == kinds
    assert table.select(PLACE).to_pylist() == [
        {"path": "notes/tax.md", "first_line": 5, "last_line": 7, "page": None, "heading": "Taxes > Office"}
    ]


def test_lines_and_pages_in_a_data_frame_are_whole_numbers(notes):
    pytest.importorskip("pandas")
    import dearlite

    paper = Document("The office is on page 7.", "p.pdf p. 7", "", Passage("p.pdf", None, None, 7, 0, 9))
    documents = [*read_folder(notes), paper, Document("no passage")]
    frame = dearlite.rerank(QUERY, documents).to_pandas()
    assert {str(frame[name].dtype) for name in ("first_line", "last_line", "page")} == {"Int64"}
    assert frame.set_index("id")["page"].dropna().to_dict() == {"p.pdf p. 7": 7}
    own = dearlite.rerank(QUERY, [{"text": "office", "page": 1.5}, {"text": "cake"}]).to_pandas()
    assert str(own["page"].dtype) == "float64"


def test_a_place_is_a_link_and_keeps_its_lines_where_it_is_cut(notes):
    import dearlite

    ranking = group_by_file(dearlite.rerank(QUERY, read_folder(notes.absolute())))
    texts = []
    for width in (80, 200):
        console = Console(width=width, force_terminal=True, legacy_windows=False)
        with console.capture() as capture:
            console.print(RankingView(ranking))
        texts.append(capture.get())
    assert all((notes / "tax.md").absolute().as_uri() + "#5\x1b" in text for text in texts)
    assert "x.md:5-7" in texts[0]
    assert "2 more: " in texts[1]


def test_a_notebook_shows_places_as_the_table_does(notes):
    import dearlite

    documents = read_folder(notes.absolute())
    html = group_by_file(dearlite.rerank(QUERY, documents))._repr_html_()
    uri = (notes / "tax.md").absolute().as_uri()
    (place,) = re.findall(f"<a href='{re.escape(uri)}#5'>([^<]*)</a>", html)
    assert place.endswith("x.md:5-7") and len(place) <= 40
    assert ">place</th>" in html and ">moved</th>" not in html and "[2 more: " in html
    plain = dearlite.rerank(QUERY, ["a <b>", "c"])._repr_html_()
    assert ">moved</th>" in plain and "<a " not in plain


@pytest.mark.parametrize(
    ("lines", "page", "fragment"), [((3, 9), None, "#3"), ((None, None), 7, "#page=7"), ((None, None), None, "")]
)
def test_the_link_of_a_place_has_its_line_or_page(tmp_path, lines, page, fragment):
    path = tmp_path / "a #1.x"
    assert Passage(str(path), *lines, page, 0, 1).uri == f"{path.as_uri()}{fragment}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["docs.jsonl", "--context", "2"], "--context is for files and folders of texts, and DOCS holds records"),
        (["docs.jsonl", "-l"], "-l is for files and folders of texts"),
        (["notes", "-0"], "-0 ends the names that -l writes: add -l"),
        (
            ["notes", "-l", "--format", "json"],
            "-l writes the names of files alone, to standard output: leave out --format",
        ),
        (
            ["notes", "-l", "--queries", "queries.txt"],
            "-l writes the files of one ranking, and --queries makes several: give -q, or leave out -l",
        ),
        (["notes", "--context", "2", "--format", "csv"], "the format csv has no place for --context"),
        (["notes", "--context", "-1"], "--context is -1: it must be a whole number from 0"),
        (["notes", "--text-field", "x"], "fields and --delimiter are for records"),
        (["notes", "--limit-mb", "0"], "--limit-mb is 0.0: it must be a number of megabytes above 0"),
        (["notes", "docs.jsonl"], "docs.jsonl holds a document per record, and several DOCS are files of text"),
        (["notes", "none"], "cannot read none: No such file or directory"),
        (["*.pdf"], "cannot read *.pdf: no file has such a name"),
    ],
)
def test_calls_that_do_not_fit_are_refused_in_one_line(cli, notes, arguments, message):
    Path("docs.jsonl").write_text('{"text": "x"}\n')
    Path("queries.txt").write_text(f"{QUERY}\n")
    query = () if "--queries" in arguments else ("-q", QUERY)
    assert message in refused(cli("rerank", *query, *arguments))


def test_files_that_cannot_be_read_are_a_line_each_and_the_others_are_ranked(cli, notes):
    Path("notes/old.docx").write_bytes(b"\xd0\xcf\x11\xe0")
    code, out, err = cli("rerank", "-q", QUERY, "notes", "-k", 1)
    assert (code, rows(out)[0]["path"]) == (0, "notes/tax.md")
    assert err.splitlines() == [
        "dearlite: notes/old.docx is encrypted, or an old .doc: save it as .docx without a password",
        "dearlite: 4 passages of 2 files; left out: 1 hidden, 1 binary, 1 unreadable",
    ]
    line = refused(cli("rerank", "-q", QUERY, "notes/old.docx"), code=1)
    assert "no file of notes/old.docx can be read: nothing to rank; left out: 1 unreadable" in line
