"""Hostile texts, ids, titles and names of files in every output, at every endpoint, and as paths.

A terminal gets no command, a page no markup, a file the text as it was; nothing is opened that was not named.
"""

import csv
import io
import json
import logging
import os
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hostile import HOSTILE, PATHS
from opened import opened, others, recorded

import dearlite
from dearlite import Reranker
from dearlite.models.chain import resolve
from dearlite.render.writers import WRITERS, write_ranking

QUERY = "who invented the bulb"
# what a text may not bring to a terminal: commands, line ends, and marks that turn its direction
COMMANDS = set(map(chr, (*range(32), *range(127, 160))))
COMMANDS |= set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2028\u2029\u2066\u2067\u2068\u2069")


def as_text(text):
    """`text` with U+FFFD in place of half a surrogate pair, which is no text."""
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)


def documents():
    return [{"id": f"{n} {text}", "title": text, "text": f"bulb {text}"} for n, text in enumerate(HOSTILE.values())]


@pytest.fixture(scope="module")
def model(tiny_bundle):
    with Reranker.load(tiny_bundle, threads=1) as reranker:
        yield reranker


@pytest.fixture(scope="module")
def ranking(model):
    return model.rerank(f"{QUERY} \x1b[31m\u202e<script>", documents())


@pytest.fixture
def written(ranking, tmp_path):
    def write(form):
        if form == "parquet":
            pytest.importorskip("pyarrow")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dearlite.render.writers.warn", lambda note: None)
            write_ranking(ranking, form, str(tmp_path / f"out.{form}"))
        return (tmp_path / f"out.{form}").read_bytes()

    return write


def test_every_format_is_tested_here():
    assert set(WRITERS) == {"table", "jsonl", "json", "csv", "tsv", "parquet", "trec"}


def test_a_table_brings_no_command_to_a_terminal(written):
    lines = written("table").decode().split("\n")
    assert not COMMANDS & set("".join(lines))


def test_a_table_on_a_terminal_has_the_styles_of_the_table_alone(ranking, monkeypatch):
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return True

    from dearlite.render.table import print_ranking

    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    print_ranking(ranking, stream := Terminal())
    pieces = stream.getvalue().split("\x1b")
    assert all(piece.startswith("[") and piece.partition("m")[0][1:].replace(";", "").isdigit() for piece in pieces[1:])
    rest = "".join(piece.partition("m")[2] for piece in pieces[1:]) + pieces[0]
    assert not COMMANDS - {"\n"} & set(rest)


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json_has_the_texts_as_they_were_and_no_command_of_a_terminal(written, ranking, form):
    data = written(form).decode()
    rows = json.loads(data)["hits"] if form == "json" else [json.loads(line) for line in data.split("\n") if line]
    assert [as_text(row["text"]) for row in rows] == [hit.text for hit in ranking]
    assert not {*map(chr, (*range(10), *range(11, 32), *range(127, 160)))} & set(data)


def test_csv_has_the_texts_as_they_were(written, ranking):
    rows = list(csv.DictReader(io.StringIO(written("csv").decode(), newline="")))
    assert [row["text"] for row in rows] == [hit.text for hit in ranking]


def test_tsv_has_a_line_per_document(written, ranking):
    lines = written("tsv").decode().splitlines()
    assert {line.count("\t") for line in lines} == {lines[0].count("\t")}
    assert len(lines) == len(ranking) + 1


def test_parquet_has_the_texts_as_they_were(written, ranking):
    data = written("parquet")
    from pyarrow import parquet

    assert parquet.read_table(io.BytesIO(data))["text"].to_pylist() == [hit.text for hit in ranking]


def test_a_run_refuses_ids_that_would_be_columns_or_lines(model, cli, tmp_path, tiny_bundle):
    for name, text in HOSTILE.items():
        (tmp_path / "docs.jsonl").write_text(json.dumps({"id": text, "text": "bulb"}) + "\n")
        arguments = ("-q", QUERY, tmp_path / "docs.jsonl", "-m", tiny_bundle, "-o", tmp_path / "run.trec")
        code, _, err = cli("rerank", *arguments)
        if code == 0:
            (line,) = (tmp_path / "run.trec").read_text().splitlines()
            assert len(line.split()) == 6, name
        assert err.count("\n") <= 1 + err.count("dearlite: ") and not COMMANDS - {"\n"} & set(err), name


def test_what_stderr_says_brings_no_command(cli, tmp_path, tiny_bundle):
    for name, text in list(HOSTILE.items())[::2]:
        records = [{"id": text, text: 1, "text": "bulb"}, {"id": text, "text": "a"}, {text: "b"}]
        (tmp_path / "docs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        for extra in ((), ("--skip-bad",), ("--text-field", text), ("--query-id", text)):
            if any("\0" in argument for argument in extra):
                continue
            code, _, err = cli("rerank", "-q", QUERY, tmp_path / "docs.jsonl", "-m", tiny_bundle, *extra)
            assert code in (0, 1, 2)
            assert not COMMANDS - {"\n"} & set(err), (name, extra, err)
            assert all(line.startswith("dearlite: ") for line in err.splitlines()), (name, err)


class Tags(HTMLParser):
    """Tags and the names of their attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.names = set(), set()
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.names |= {name for name, _ in attributes}


def test_a_notebook_shows_texts_as_texts(ranking, model):
    page = ranking._repr_html_()
    plain = model.rerank("a", [{"id": "1", "title": "t", "text": "b"}])._repr_html_()
    shown, expected = Tags(page), Tags(plain)
    assert shown.tags - expected.tags <= {"mark", "b"}
    assert shown.names - expected.names <= {"class", "style", "title"}
    assert not COMMANDS - {"\n"} & set(page)


def test_a_report_shows_texts_as_texts(ranking):
    pytest.importorskip("ir_measures")
    from dearlite.offline.evaluation.evaluation import System, compare
    from dearlite.render.evaluation import evaluation_csv, evaluation_json, evaluation_latex, per_query_csv
    from dearlite.render.report import report_html

    def evaluated(texts):
        names = [f"q{number} {as_text(text)}" for number, text in enumerate(texts)]
        good, bad = {"a": 2.0, "b": 1.0}, {"b": 2.0, "a": 1.0}
        systems = [
            System("first stage", "first stage", dict.fromkeys(names, good)),
            System(f"ours {as_text(''.join(texts))[:300]}", "reranked", dict.fromkeys(names, bad)),
        ]
        return compare(
            systems,
            {name: {"a": 1, "b": 0} for name in names},
            name=names[0],
            queries={name: name for name in names},
            documents=dict.fromkeys("ab", (names[-1], " ".join(names))),
        )

    hostile, harmless = evaluated(HOSTILE.values()), evaluated(["bulb"] * len(HOSTILE))
    page = report_html(hostile)
    assert Tags(page).tags <= Tags(report_html(harmless)).tags | {"mark"}
    assert not {name for name in Tags(page).names if name.startswith("on")}
    assert not COMMANDS - {"\n"} & set(page)
    json.loads(evaluation_json(hostile))
    rows = list(csv.reader(io.StringIO(per_query_csv(hostile), newline="")))
    assert len({len(row) for row in rows}) == 1
    assert "\x1b" not in repr(hostile) and evaluation_csv(hostile) and evaluation_latex(hostile)


# the server


@pytest.fixture(scope="module")
def client(tiny_bundle):
    pytest.importorskip("starlette")
    pytest.importorskip("httpx2")
    from starlette.testclient import TestClient

    from dearlite.serve.app import create_app
    from dearlite.serve.models import Models, serve_model

    app = create_app(Models((serve_model(resolve(tiny_bundle), {"threads": 1}),)))
    with TestClient(app, base_url="http://localhost") as client:
        yield client


def bodies(text):
    good = {"query": QUERY, "documents": [text or "x", "Edison"], "return_documents": True}
    yield good
    yield good | {"query": text}
    yield good | {"model": text, "instruction": text, text: text}
    yield good | {"documents": [{"id": text, "title": text, "text": "a", text: text}, "b"], "rank_fields": [text]}
    yield good | {"mode": text, "long": text}


def test_every_endpoint_answers_or_refuses_on_one_line(client, caplog):
    from dearlite.serve.shapes import FORMS

    caplog.set_level(logging.INFO, logger="dearlite")
    paths = list(FORMS)
    client.post("/rerank", json={"query": "a", "documents": ["b"]})
    for number, (name, text) in enumerate(HOSTILE.items()):
        for body in bodies(text):
            data = json.dumps(body).encode()
            with recorded() as events:
                response = client.post(paths[number % len(paths)], content=data)
            assert response.status_code in (200, 400, 413, 422), (name, response.text)
            answer = json.loads(response.text)
            if response.status_code != 200:
                assert answer["message"].isprintable(), name
            elif isinstance(answer, dict) and "results" in answer and answer["results"][0].get("document"):
                texts = {json.dumps(row["document"]) for row in answer["results"]}
                assert len(texts) == len(answer["results"]), name
            for key, value in response.headers.items():
                assert value.isascii() and value.isprintable(), (name, key)
            assert opened(events) == set() and others(events) == [], name
    for text in HOSTILE.values():
        pair = {"text_1": as_text(text), "text_2": [text, "x"]}
        assert client.post("/score", content=json.dumps(pair).encode()).status_code in (200, 400)
    assert not COMMANDS & set("".join(record.getMessage() for record in caplog.records))


@pytest.mark.parametrize("name", PATHS)
def test_a_path_of_a_request_opens_nothing(client, name):
    from urllib.parse import quote

    text = as_text(PATHS[name])
    for path in (
        f"/page/{quote(text, safe='')}",
        f"/page/{quote(text)}",
        f"/{quote(text)}",
        f"/v1/models/{quote(text)}",
    ):
        with recorded() as events:
            response = client.get(path)
        assert response.status_code in (404, 405, 400), path
        assert opened(events) == set()


# names of files


def names_of_files():
    """The hostile texts that Linux has as names of files, some of them cut."""
    for name, text in list(HOSTILE.items())[::3]:  # each loads the model
        cut = as_text(text).replace("/", "_").replace("\0", "_").encode()[:200].decode("utf-8", "ignore")
        if cut.strip(". "):
            yield pytest.param(f"{cut}.jsonl", id=name)
    yield pytest.param(os.fsdecode(b"\xff\xfe\x80.jsonl"), id="not utf-8")


def roots():
    """Folders of this program and its environment, whose files any command may read."""
    package = Path(dearlite.__file__).parents[1]
    own = os.path.join(tempfile.gettempdir(), "dearlite-")
    return [
        str(package),
        own,
        sys.prefix,
        sys.base_prefix,
        "/proc",
        "/sys",
        "/dev",
        "/etc/ld.so",
        "/usr/lib",
        "/usr/share",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="names that other systems do not have")
@pytest.mark.parametrize("name", names_of_files())
def test_a_file_of_a_hostile_name_is_read_and_no_other(cli, tmp_path, tiny_bundle, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path / "home"))
    file = tmp_path / name
    file.write_text('{"text": "bulb"}\n{"text": "tea"}\n')
    with recorded() as events:
        code, out, err = cli("rerank", "-q", QUERY, "-m", tiny_bundle, "--format", "jsonl", "--", f"./{name}")
    assert code == 0, err
    assert len(out.splitlines()) == 2
    assert not COMMANDS - {"\n"} & set(err)
    allowed = (str(tmp_path), str(tiny_bundle), *roots())
    assert {path for path in opened(events) if not path.startswith(allowed)} == set()
    assert str(file) in opened(events)
    assert others(events) == []


@pytest.mark.skipif(sys.platform != "linux", reason="names that other systems do not have")
@pytest.mark.parametrize("name", [name for name, text in PATHS.items() if "\0" not in text])
@pytest.mark.parametrize("place", ["query", "documents", "model", "output"])
def test_a_name_is_used_as_it_is_written(cli, tmp_path, tiny_bundle, name, place, monkeypatch):
    """No part of a name is a command, a variable or an address. A leading ~ of documents is the user's folder."""
    text = PATHS[name]
    if place in ("documents", "output") and text in ("-", "/etc/passwd", "/etc/*", "../../../../etc/passwd"):
        pytest.skip("the user's own choice")
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "docs.jsonl").write_text('{"text": "bulb"}\n')
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path / "home"))
    arguments = {
        "query": ("-q", text, "-m", tiny_bundle, "docs.jsonl"),
        "documents": ("-q", QUERY, "-m", tiny_bundle, "--", text),
        "model": ("-q", QUERY, "-m", text, "docs.jsonl"),
        "output": ("-q", QUERY, "-m", tiny_bundle, "--format", "jsonl", "-o", text, "docs.jsonl"),
    }[place]
    with recorded() as events:
        code, _, err = cli("rerank", *arguments)
    assert code in (0, 1, 2)
    assert not COMMANDS - {"\n"} & set(err)
    allowed = (str(tmp_path), str(tiny_bundle), *roots())
    outside = {path for path in opened(events) if not path.startswith(allowed)}
    named = {os.path.abspath(text)} if place == "model" else set()
    assert outside <= named, (code, err)
    assert others(events) == []
    if place == "output" and code == 0:
        assert (folder / text).is_file()
