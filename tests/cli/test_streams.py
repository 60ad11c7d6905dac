"""Standard output and standard error of every command: of another encoding, full, closed, absent, with no reader."""

import csv
import errno
import gzip
import io
import json
import os
import select
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_tree import commands
from posix_only import need_posix
from waiting import eventually, join

from dearlite import Reranker
from dearlite.cli import streams
from dearlite.cli.main import run
from dearlite.pointwise.bench import measure

ROOT = Path(__file__).parents[2]
TEXT = "雨が降る ☔ rain"
COLLECTION = {
    "queries.jsonl": '{"_id": "q1", "text": "雨 rain?"}\n',
    "corpus.jsonl": f'{{"_id": "雨1", "text": "{TEXT}"}}\n{{"_id": "d2", "text": "snow"}}\n',
    "run.trec": "q1 Q0 雨1 1 2.0 x\nq1 Q0 d2 2 1.0 x\n",
    "qrels.tsv": "q1 0 雨1 1\n",
    "☔.trec": "q1 Q0 d2 1 2.0 x\nq1 Q0 雨1 2 1.0 x\n",
}
EVAL = ("eval", "COLLECTION", "--scored", "COLLECTION/run.trec", "--baseline", "COLLECTION/☔.trec")
# Every command -> calls of it that write to stdout. Of those that need a workshop only the help: the lines that they
# print go through the same guard.
CALLS = {
    "rerank": [("rerank", "-q", "rain", "DOCS", "--format", form) for form in ("jsonl", "json", "csv", "tsv", "trec")]
    + [("rerank", "-q", "rain", "DOCS", "--format", "table"), ("rerank", "-q", "rain", "DOCS", "-o", "-")],
    "batch": [
        ("batch", "COLLECTION", "--no-journal"),
        ("batch", "COLLECTION", "--no-journal", "--jsonl", "-", "-o", "OUT.trec"),
    ],
    "eval": [
        EVAL,
        *((*EVAL, option, "-") for option in ("--json", "--csv", "--latex", "--per-query", "--report")),
        *((*EVAL, option, "-") for option in ("--per-query-long", "--plot")),
    ],
    "models list": [("models",), ("models", "list")],
    "models show": [("models", "show", "minilm-l12")],
    "models get": [("models", "get", "minilm-l12")],
    "models path": [("models", "path", "minilm-l12")],
    "models remove": [("models", "remove", "-h")],  # the embedded model stays
    "models recommend": [("models", "recommend", "-h")],  # it measures the machine
    "serve": [("serve", "-h")],  # it runs until a signal (tests/serve)
    "mcp": [("mcp", "-h")],  # until its client ends
    "models verify": [("models", "verify", "minilm-l12")],
    "models calibrate": [("models", "calibrate", "-h")],
    "export": [("export", "-h")],
    "train pointwise": [("train", "pointwise", "-h")],
    "train listwise": [("train", "listwise", "-h")],
    "train mine": [("train", "mine", "-h")],
    "bench": [("bench", "--docs", "1", "--tokens", "16"), ("bench", "--docs", "1", "--tokens", "16", "--json")],
    "doctor": [("doctor",)],
    "help": [("help",), ("help", "rerank")],
    "version": [("version",)],
    "completion": [("completion", "bash")],
}
ALL = [call for calls in CALLS.values() for call in calls]
SOME = [calls[0] for calls in CALLS.values()] + [("--version",), ("-h",)]


def name_of(call):
    return " ".join(call).replace("COLLECTION/", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    (folder / "collection").mkdir()
    for name, text in COLLECTION.items():
        (folder / "collection" / name).write_text(text, encoding="utf-8")
    (folder / "docs.jsonl").write_bytes((ROOT / "tests/data/cases/p08-stdout-encoding/docs.jsonl").read_bytes())
    return folder


@pytest.fixture(scope="module")
def reranker():
    return Reranker.load()


@pytest.fixture(scope="module")
def measurement(tiny_bundle):
    return measure(tiny_bundle, documents=1, tokens=16)


@pytest.fixture
def call(folder, reranker, measurement, monkeypatch, tmp_path):
    """Runs a call with the given streams; gives its exit code."""
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Reranker, "load", lambda *_, **__: reranker)
    monkeypatch.setattr("dearlite.cli.bench.measure", lambda *_, **__: measurement)
    places = {
        "COLLECTION": str(folder / "collection"),
        "DOCS": str(folder / "docs.jsonl"),
        "OUT": str(tmp_path / "out"),
    }

    def run_call(words, stdout, stderr):
        arguments = list(words)
        for name, place in places.items():
            arguments = [word.replace(name, place) for word in arguments]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "stderr", stderr)
            with pytest.raises(SystemExit) as ended:
                run(arguments)
        return ended.value.code

    return run_call


class Stream(io.TextIOWrapper):
    """A stream into memory, in the encoding of Windows, say."""

    def __init__(self, encoding, errors="strict"):
        super().__init__(io.BytesIO(), encoding, errors=errors, newline="\n")

    def content(self):
        self.flush()
        return self.buffer.getvalue()


def one_line(stderr, *words):
    text = stderr.getvalue()
    assert text.startswith("dearlite: ") and text.count("\n") == 1 and "Traceback" not in text, text
    for word in words:
        assert word in text


def test_every_command_has_a_row():
    assert set(CALLS) == set(commands())


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("words", ALL, ids=name_of)
def test_a_stdout_that_is_not_utf8(call, words, encoding):
    stdout, stderr = Stream(encoding), Stream(encoding, "backslashreplace")
    assert call(words, stdout, stderr) == 0, stderr.content()
    written = stdout.content()
    assert written
    form = words[words.index("--format") + 1] if "--format" in words else ""
    if "json" in form or "--json" in words or "--jsonl" in words or "-o" in words[:5]:
        text = written.decode("ascii")  # whatever reads it, and in whatever encoding
        rows = [json.loads(text)] if "--json" in words or form == "json" else list(map(json.loads, text.splitlines()))
        assert rows
        assert words[0] != "rerank" or rows[0].get("hits", rows)[0]["text"] == TEXT
    elif (
        words[0] == "batch"
        or form in ("csv", "tsv", "trec")
        or {"--csv", "--latex", "--per-query", "--per-query-long", "--plot", "--report"} & set(words)
    ):
        assert TEXT.encode() in written or "雨1".encode() in written or "☔".encode() in written or form == "trec"
        written.decode("utf-8")
    else:
        assert stdout.errors == "strict"  # as it was before
        written.decode(encoding)


def test_the_same_bytes_reach_a_pipe_whatever_its_encoding(call):
    for form in ("csv", "tsv", "trec"):
        contents = set()
        for encoding in ("utf-8", "cp1252", "latin-1", "ascii"):
            stdout = Stream(encoding)
            call(("rerank", "-q", "rain", "DOCS", "--format", form), stdout, io.StringIO())
            contents.add(stdout.content())
        assert len(contents) == 1


@pytest.mark.parametrize("words", [*SOME, EVAL], ids=name_of)
def test_a_full_stdout_is_one_line_and_a_failure(call, words):
    need_posix()
    stderr = io.StringIO()
    with suppress(OSError), open("/dev/full", "w", encoding="utf-8") as full:
        assert call(words, full, stderr) == 1
    one_line(stderr, "cannot write to standard output: No space left on device")


@pytest.mark.parametrize("words", SOME, ids=name_of)
def test_a_stdout_that_is_absent_or_closed_is_one_line(call, words):
    stderr = io.StringIO()
    assert call(words, None, stderr) == 1
    one_line(stderr, "standard output")
    closed, stderr = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    closed.close()
    assert call(words, closed, stderr) == 1
    one_line(stderr, "standard output", "closed")


@pytest.mark.parametrize("words", SOME, ids=name_of)
def test_a_reader_that_has_gone_is_no_error(call, words):
    reading, writing = os.pipe()
    os.close(reading)
    stderr = io.StringIO()
    with open(writing, "w", encoding="utf-8") as pipe:
        assert call(words, pipe, stderr) == 0
    assert "Error" not in stderr.getvalue() and "Broken" not in stderr.getvalue()


class GonePipe(io.RawIOBase):
    """A pipe whose reader has gone, as Windows reports it."""

    def writable(self):
        return True

    def write(self, data):
        raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.parametrize("words", [*SOME, EVAL], ids=name_of)
def test_a_reader_that_has_gone_on_windows_is_no_error(call, words, monkeypatch):
    windows = SimpleNamespace(**{name: getattr(os, name) for name in dir(os)} | {"name": "nt"})
    for system, code in ((os, 1), (windows, 0)):
        monkeypatch.setattr(streams, "os", system)
        stderr, pipe = io.StringIO(), io.TextIOWrapper(io.BufferedWriter(GonePipe()), "utf-8")
        assert call(words, pipe, stderr) == code
        assert ("Invalid argument" in stderr.getvalue()) == bool(code)
        assert "Traceback" not in stderr.getvalue()
        with suppress(OSError):
            pipe.close()


@pytest.mark.parametrize("stderr", ["absent", "closed", "full"])
@pytest.mark.parametrize("words", [*SOME, ("rerank", "-q", "", "DOCS"), ("--colour",)], ids=name_of)
def test_messages_that_cannot_be_written_change_nothing(call, words, stderr):
    need_posix()
    stream = open("/dev/full", "w", encoding="utf-8") if stderr == "full" else io.StringIO()
    if stderr == "closed":
        stream.close()
    expected = call(words, Stream("utf-8"), io.StringIO())
    stdout = Stream("utf-8")
    assert call(words, stdout, None if stderr == "absent" else stream) == expected
    assert bool(stdout.content()) == (expected == 0)
    stream.close()


@pytest.mark.parametrize("option", ["-o", "--format"])
def test_a_result_in_a_file_needs_no_stdout(call, option, tmp_path):
    if option == "-o":
        assert call(("rerank", "-q", "rain", "DOCS", "-o", "OUT.jsonl"), None, None) == 0
        assert json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))["text"] == TEXT
        assert call((*EVAL, "--csv", "OUT.csv"), None, None) == 0
        assert "☔" in (tmp_path / "out.csv").read_text(encoding="utf-8")


def test_a_missing_stdout_is_told_before_the_work(call, monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr("dearlite.cli.rerank.rank_all", None)  # a call of it fails
    monkeypatch.setattr("dearlite.cli.batch.rerank", None)
    for words in (("rerank", "-q", "rain", "DOCS"), ("batch", "COLLECTION", "--no-journal")):
        assert call(words, None, stderr) == 1
    assert stderr.getvalue().count("there is no standard output to write to: name a file with -o\n") == 2


def test_numbers_that_json_cannot_hold_are_null_and_counted(call, folder, tmp_path):
    docs = ROOT / "tests/data/cases/c05-nan-json/docs.jsonl"

    def refuse(constant):
        raise AssertionError(constant)

    for form in ("jsonl", "json"):
        stdout, stderr = Stream("utf-8"), io.StringIO()
        assert call(("rerank", "-q", "rain", str(docs), "--format", form), stdout, stderr) == 0
        text = stdout.content().decode()
        rows = [json.loads(line, parse_constant=refuse) for line in (text.splitlines() if form == "jsonl" else [text])]
        assert [row["bm25"] for row in rows[0].get("hits", rows)] == [None, None]
        one_line(stderr, "2 numbers are NaN or infinite, which JSON cannot hold: written as null")
    stderr = io.StringIO()
    assert call(("rerank", "-q", "rain", str(docs), "--quiet"), Stream("utf-8"), stderr) == 0
    assert stderr.getvalue() == ""


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "trec"])
@pytest.mark.parametrize("compressed", [False, True])
def test_the_ending_of_the_output_is_its_format(call, tmp_path, ending, compressed):
    name = f"best.{ending}" + (".gz" if compressed else "")
    assert call(("rerank", "-q", "rain", "DOCS", "-o", str(tmp_path / name)), None, None) == 0
    data = (tmp_path / name).read_bytes()
    text = (gzip.decompress(data) if compressed else data).decode()
    rows = {
        "jsonl": lambda: [json.loads(line)["text"] for line in text.splitlines()],
        "json": lambda: [hit["text"] for hit in json.loads(text)["hits"]],
        "csv": lambda: [row["text"] for row in csv.DictReader(io.StringIO(text))],
        "tsv": lambda: [line.split("\t")[5] for line in text.splitlines()[1:]],
        "trec": lambda: [TEXT for line in text.splitlines() if line.split()[2] == "a"],
    }
    assert rows[ending]() == [TEXT]


def test_a_csv_keeps_every_text(call, tmp_path):
    texts = ['a, "b"\r\nc\td', "plain", "cr\ralone", "tab\tand\nline"]
    (tmp_path / "d.json").write_text(json.dumps([{"text": text, "id": str(n)} for n, text in enumerate(texts)]))
    assert call(("rerank", "-q", "rain", str(tmp_path / "d.json"), "-o", str(tmp_path / "o.csv")), None, None) == 0
    with open(tmp_path / "o.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["id"]: row["text"] for row in rows} == {str(n): text for n, text in enumerate(texts)}
    assert all(float(row["score"]) and row["rank"].isdecimal() for row in rows)


@pytest.mark.parametrize("name", ["best.arrow", "best.txt", "best.weird.gz"])
def test_an_unknown_ending_lists_the_known_ones(call, tmp_path, name):
    stderr = io.StringIO()
    assert call(("rerank", "-q", "rain", "DOCS", "-o", str(tmp_path / name)), None, stderr) == 2
    one_line(stderr, ".jsonl, .json, .csv, .tsv, .parquet, .trec", "--format", name)
    assert not list(tmp_path.iterdir())
    assert call(("rerank", "-q", "rain", "DOCS", "--format", "jsonl", "-o", str(tmp_path / name)), None, None) == 0


SHELL = {
    ">&-": (1, "there is no standard output"),
    "2>&-": (0, None),
    ">&- 2>&-": (1, None),
    "> /dev/full": (1, "No space left on device"),
    "2> /dev/full": (0, None),
    "| true": (0, ""),
    "| head -c 1": (0, ""),
    "<&- >&-": (1, "there is no standard output"),
}


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_everything(call, tmp_path):
    docs = tmp_path / "d.jsonl"
    docs.write_text("".join(json.dumps({"text": f"rain {n} " + "x" * 9000}) + "\n" for n in range(40)))
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    received = []

    def read():
        eventually(lambda: not select.select([], [writing], [], 0)[1])  # the pipe is full
        with open(reading, encoding="utf-8") as stream:
            received.extend(stream)

    reader = threading.Thread(target=read)
    reader.start()
    with open(writing, "w", encoding="utf-8") as pipe:
        assert call(("rerank", "-q", "rain", str(docs)), pipe, io.StringIO()) == 0
        assert not os.get_blocking(writing)
    join(reader)
    assert [json.loads(line)["rank"] for line in received] == list(range(1, 41))


def test_what_tsv_cannot_hold_is_counted(call, tmp_path):
    docs, stderr = tmp_path / "d.json", io.StringIO()
    docs.write_text(json.dumps([{"text": "a\tb", "title": "c\nd", "id": "1"}, {"text": "a\u00a0b\u3000c", "id": "2"}]))
    stdout = Stream("utf-8")
    assert call(("rerank", "-q", "rain", str(docs), "--format", "tsv"), stdout, stderr) == 0
    rows = sorted(line.split("\t")[3:6] for line in stdout.content().decode().splitlines()[1:])
    assert rows == [["1", "c d", "a b"], ["2", "", "a\u00a0b\u3000c"]]
    one_line(stderr, "2 cells have tabs or line ends, which TSV cannot hold: written as spaces")


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("redirection", ["> /dev/full", "| true", ">&-"])
def test_the_help_of_a_process_is_output_too(redirection, unbuffered):
    need_posix()
    code, message = SHELL[redirection]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"PYTHONUNBUFFERED": "1"} if unbuffered else {}
    shell = f"{sys.executable} -m dearlite --help {redirection}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == code and done.stderr.count("\n") == bool(message), done.stderr
    assert message.removeprefix("there is no ") in done.stderr


@pytest.mark.parametrize("redirection", SHELL)
def test_a_process_ends_quietly(redirection, tmp_path):
    code, message = SHELL[redirection]
    docs = tmp_path / "d.jsonl"
    docs.write_text("".join(json.dumps({"text": f"rain {n} " + "x" * 3000}) + "\n" for n in range(60)))
    shell = f"{sys.executable} -m dearlite rerank -q rain {docs} {redirection}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Exception ignored" not in done.stderr and "Traceback" not in done.stderr
    if message is not None:
        assert message in done.stderr and done.stderr.count("\n") == bool(message)


def test_a_library_that_prints_finds_no_file_behind_a_closed_stdout(tmp_path):
    out = tmp_path / "out.jsonl"
    docs = tmp_path / "d.jsonl"
    docs.write_text('{"text": "rain"}\n')
    code = (
        "import os, sys; from dearlite.cli.main import run; import dearlite.cli.rerank as r; rank = r.rank_all\n"
        "def printing(*a, **k):\n"
        "    try: os.write(1, b'noise')\n"
        "    except OSError as err: assert err.errno == 9\n"
        "    return rank(*a, **k)\n"
        f"r.rank_all = printing; run(['rerank', '-q', 'x', {str(docs)!r}, '-o', {str(out)!r}])"
    )
    shell = f'{sys.executable} -c "$CODE" >&-'
    done = subprocess.run(
        ["bash", "-c", shell], env={**os.environ, "CODE": code}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["text"] == "rain"
