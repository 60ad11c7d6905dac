"""The command line as a person or a script meets it: output, formats, exit codes, one-line errors."""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from at_work import start_until
from posix_only import need_posix
from waiting import WITHIN_S

from dearlite.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
QUERY, DOCS = str(ROOT / "examples" / "query.txt"), str(ROOT / "examples" / "docs.jsonl")
DEARLITE = [sys.executable, "-m", "dearlite.cli.main"]


def fails(result, code, *words):
    """The call failed as it should: the exit code, nothing on stdout, and one line on stderr that holds `words`."""
    found, out, err = result
    assert (found, out) == (code, "")
    assert err.startswith("dearlite: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The example's documents, the first 30 words of each: the two best are the same."""
    path = tmp_path_factory.mktemp("short") / "docs.jsonl"
    with open(DOCS, encoding="utf-8") as lines, path.open("w", encoding="utf-8") as stream:
        for row in map(json.loads, lines):
            stream.write(json.dumps(row | {"text": " ".join(row["text"].split()[:30])}) + "\n")
    return str(path)


def test_example_ranks_the_right_document_first(cli):
    code, out, err = cli("rerank", QUERY, DOCS)
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert len(rows) == 20
    assert "Jason Momoa plays" in rows[0]["text"]
    assert [row["rank"] for row in rows] == list(range(1, 21))
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)


def test_jsonl_keeps_the_callers_fields_and_theirs_win_a_prefix(cli, tmp_path):
    docs = tmp_path / "d.jsonl"
    docs.write_text('{"text": "Edison", "id": "a", "score": 12.5, "tags": ["x"]}\n{"text": "tea ☕", "id": "b"}\n')
    code, out, _ = cli("rerank", "-q", "who is Edison?", docs)
    rows = {row["id"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0
    assert rows["a"]["tags"] == ["x"]
    assert rows["a"]["input_score"] == 12.5
    assert (rows["a"]["rank"], rows["a"]["index"], rows["b"]["index"]) == (1, 0, 1)
    assert "truncated" not in rows["a"]
    assert "tea ☕" in out


def test_formats(cli, short):
    _, table, _ = cli("rerank", QUERY, short, "--format", "table", "-k", "3")
    assert "best 3 of 20" in table
    assert "▲ 15" in table
    _, as_json, _ = cli("rerank", QUERY, short, "--format", "json", "-k", "2")
    parsed = json.loads(as_json)
    assert (parsed["model"], parsed["device"], len(parsed["hits"]), parsed["total"]) == ("minilm-l12", "cpu", 2, 20)
    _, tsv, _ = cli("rerank", QUERY, short, "--format", "tsv", "-k", "2")
    rows = list(csv.reader(io.StringIO(tsv), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[0] == ["rank", "score", "index", "id", "title", "text", "relevance"]
    assert [row[:1] + row[2:4] for row in rows[1:]] == [["1", "15", "13-2"], ["2", "4", "13-6"]]
    _, trec, _ = cli("rerank", QUERY, short, "--format", "trec", "-k", "2", "--query-id", "13")
    fields = [line.split() for line in trec.splitlines()]
    assert [f[:4] + f[5:] for f in fields] == [
        ["13", "Q0", "13-2", "1", "dearlite-minilm-l12"],
        ["13", "Q0", "13-6", "2", "dearlite-minilm-l12"],
    ]
    assert float(fields[0][4]) > float(fields[1][4])


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "txt", "parquet", "jsonl.gz", "csv.gz", "json"])
def test_input_formats_give_one_ranking(cli, tmp_path, ending):
    texts = ["Coffee is good for diet", "Edison invented the light bulb", "KEPCO fixes light problems"]
    file = tmp_path / f"docs.{ending}"
    rows = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    kind = ending.removesuffix(".gz")
    if kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        sep = "\t" if kind == "tsv" else ","
        table = f"id{sep}text\n" + "".join(f"{row['id']}{sep}{row['text']}\n" for row in rows)
        body = {
            "jsonl": "".join(json.dumps(row) + "\n" for row in rows),
            "json": json.dumps(rows),
            "csv": table,
            "tsv": table,
            "txt": "\n".join(texts),
        }[kind]
        (gzip.open if ending.endswith(".gz") else open)(file, "wb").write(body.encode())
    code, out, _ = cli("rerank", "-q", "who invented the bulb?", file)
    assert code == 0
    assert json.loads(out.splitlines()[0])["index"] == 1


def test_output_file_is_whole_and_named_by_its_ending(cli, tmp_path, short):
    target = tmp_path / "out.trec"
    target.write_text("old")
    code, out, _ = cli("rerank", QUERY, short, "-o", target, "-k", "5")
    assert (code, out) == (0, "")
    assert len(target.read_text().splitlines()) == 5
    assert os.listdir(tmp_path) == ["out.trec"]


def test_failure_leaves_the_old_output_alone(cli, tmp_path):
    target, docs = tmp_path / "out.trec", tmp_path / "d.jsonl"
    target.write_text("old")
    docs.write_text('{"text": "a", "id": "with space"}\n')
    fails(cli("rerank", "-q", "x", docs, "-o", target), 1, "with space", "--format jsonl")
    assert target.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["d.jsonl", "out.trec"]


def test_usage_errors_exit_2_in_one_line(cli, tmp_path):
    fails(cli("rerank"), 2, "QUERY DOCS", "0 given")
    fails(cli("rerank", "-q", "x"), 2, "-q TEXT DOCS")
    fails(cli("rerank", QUERY, DOCS, DOCS), 2, "3 given")
    fails(cli("rerank", "missing.txt", DOCS), 2, "missing.txt", "No such file", "-q TEXT")
    fails(cli("rerank", QUERY, "missing.jsonl"), 2, "missing.jsonl", "No such file")
    fails(cli("rerank", "-q", "  ", DOCS), 2, "query is empty")
    fails(cli("rerank", QUERY, DOCS, "-m", "minilm-l21"), 2, "minilm-l12", "dearlite models")
    fails(cli("rerank", QUERY, DOCS, "-m", "none.dear"), 2, "none.dear")
    fails(cli("rerank", QUERY, DOCS, "-k", "0"), 2, "--top-k is 0", "from 1", "--all")
    fails(cli("rerank", QUERY, DOCS, "-k", "3", "--all"), 2, "--all and -k 3 exclude each other")
    fails(cli("rerank", QUERY, DOCS, "--threads", "0"), 2, "threads")
    fails(cli("rerank", QUERY, DOCS, "--format", "xml"), 2, "xml", "dearlite rerank -h")
    fails(cli("rerank", QUERY, DOCS, "--colour"), 2, "--colour")
    fails(cli("rerank", QUERY, DOCS, "-o", tmp_path / "no" / "out.jsonl"), 2, "does not exist")
    fails(cli("rerank", QUERY, DOCS, "-o", tmp_path), 2, "folder")
    fails(cli("rerank", QUERY, tmp_path / "no.md"), 2, str(tmp_path / "no.md"))
    fails(cli("frobnicate"), 2, "frobnicate")
    (tmp_path / "empty.txt").write_text(" \n")
    fails(cli("rerank", tmp_path / "empty.txt", DOCS), 2, "query is empty")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["d.jsonl holds no documents"]),
        (b'{"text": "a"}\n{"text": \n', ["d.jsonl:2", "not JSON", "--skip-bad"]),
        (b'{"text": "a"}\n{"text": "b"\n{"text": "c"}\n', ["d.jsonl:2", "column 13, where it ends"]),
        (b'{"text": "a"}\n{"text: "b"}\n', ["d.jsonl:2", "column 10)"]),
        (b'{"text": "a"}\n{"id": 3}\n', ["d.jsonl:2", "has no text"]),
        (b'{"text": "a"}\nnull\n', ["d.jsonl:2", "null"]),
        (b'{"text": "a"}\n7\n', ["d.jsonl:2", "int"]),
        (b'{"text": "a"}\n{"text": "   "}\n', ["d.jsonl:2", "only spaces"]),
        (b'{"text": "a"}\n{"text": "caf\xe9"}\n', ["d.jsonl:2", "not UTF-8", "0xe9"]),
        (b'{"text": "a"}\n{"text": "b", "text": "c"}\n', ["d.jsonl:2", "'text' twice"]),
    ],
)
def test_bad_documents_exit_1_in_one_line(cli, tmp_path, body, words):
    docs = tmp_path / "d.jsonl"
    docs.write_bytes(body)
    fails(cli("rerank", "-q", "x", docs), 1, *words)


def test_skip_bad_goes_on_and_counts(cli, tmp_path):
    docs = tmp_path / "d.jsonl"
    docs.write_bytes(b'{"text": "a"}\n{"te\n\xff\n' + b"7\n" * 6 + b'{"text": "b"}\n')
    code, out, err = cli("rerank", "-q", "x", docs, "--skip-bad")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert "d.jsonl:2" in err
    assert "skipped 8 records in all" in err
    assert cli("rerank", "-q", "x", docs, "--skip-bad", "--quiet")[2] == ""


def test_cut_documents_are_told_and_marked(cli, tmp_path):
    docs = tmp_path / "d.txt"
    docs.write_text("light " * 10_000 + "\n" + "lamp " * 200_000 + "\nshort\n")  # 60 kB and 1 MB
    code, out, err = cli("rerank", "-q", "bulb", docs)
    rows = {row["index"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0
    assert (rows[0]["tokens_used"], rows[0]["tokens_total"]) == (512, 10_004)
    assert "tokens_total_is_bound" not in rows[0]
    assert rows[1]["tokens_total_is_bound"] is True  # only the beginning of a text above 100,000 characters is encoded
    assert rows[1]["tokens_used"] == 512 < rows[1]["tokens_total"] <= 200_004
    assert "truncated" not in rows[2]
    assert "2 of the 3 documents" in err


@pytest.mark.parametrize("damage", ["truncated", "edited", "foreign"])
def test_damaged_model_file_is_one_line(cli, tmp_path, damage):
    good = (ROOT / "dearlite" / "data" / "minilm-l12.dear").read_bytes()
    bad = {
        "truncated": good[:-1000],
        "edited": good[:5_000_000] + bytes([good[5_000_000] ^ 1]) + good[5_000_001:],
        "foreign": b"PK\x03\x04 no bundle",
    }
    file = tmp_path / "m.dear"
    file.write_bytes(bad[damage])
    fails(cli("rerank", QUERY, DOCS, "-m", file), 1, "m.dear", "again")
    fails(cli("models", "verify", file), 1, "m.dear")


def test_renamed_and_moved_model_file_works(cli, tmp_path, short):
    file = tmp_path / "my model.dear"
    file.write_bytes((ROOT / "dearlite" / "data" / "minilm-l12.dear").read_bytes())
    code, out, _ = cli("rerank", QUERY, short, "-m", file, "-k", "1")
    assert code == 0
    assert json.loads(out)["id"] == "13-2"


def test_models_and_doctor_tell_what_is_here(cli):
    assert "minilm-l12" in cli("models")[1]
    _, shown, _ = cli("models", "show", "minilm-l12")
    for word in ("Apache-2.0", "kendall_tau", "int8-per-row", "noveleval"):
        assert word in shown
    assert "members match" in cli("models", "verify", "minilm-l12")[1]
    code, told, _ = cli("doctor")
    assert code == 0
    for word in ("onnxruntime", "probe run", "minilm-l12 on cpu", "threads", "DEARLITE_HOME", "free disk"):
        assert word in told


def test_own_models_toml_adds_and_its_faults_are_told_together(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    own = tmp_path / "models.toml"
    fields = (
        'kind = "pointwise"\nrepository = "x/y"\narchitecture = "bert"\nprompt = "plain"\npooling = "first-token"\n'
    )
    own.write_text(f'[mine]\n{fields}max_tokens = 512\nlicence = "MIT"\nsize_mb = 1\nmemory_mb = 2\n')
    assert "mine" in cli("models")[1]
    fails(cli("rerank", QUERY, DOCS, "-m", "mine"), 2, "mine", str(tmp_path / "models" / "mine.dear"))
    own.write_text('[mine]\nkind = "magic"\ncolour = 3\n')
    fails(cli("models"), 2, "colour", "magic", "repository")


def test_stdin_and_closed_pipe():
    # More output than a pipe holds, and few tokens to read: a long word is one.
    body = "".join(json.dumps({"text": f"document {n} " + "x" * 1600}) + "\n" for n in range(300))
    shell = f"{' '.join(DEARLITE)} rerank -q filler - | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell], input=body, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr
    assert done.returncode == 0


def test_interrupt_ends_the_command_and_says_how_far(tmp_path):
    need_posix()
    docs = tmp_path / "d.txt"
    docs.write_text(("some words to read " * 60 + "\n") * 5000)
    target = tmp_path / "out.jsonl"
    process = start_until(
        ("dearlite.cli.estimate", "Estimate", "__call__"),
        ["rerank", "-q", "x", docs, "-o", target],
        cwd=ROOT,
        # As a terminal starts it: a test run in the background of a script would hand down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=2 * WITHIN_S)
    assert process.returncode == 130
    assert out == ""
    *remarks, last = err.splitlines()
    assert "of 5000 documents scored, none written" in last
    assert len(remarks) <= 1 and all("5,000 documents take about" in remark for remark in remarks)
    assert os.listdir(tmp_path) == ["d.txt"]


def test_terminal_gets_a_table_and_no_color_is_honoured(short):
    def on_terminal(**env):
        main, side = pytest.importorskip("pty").openpty()
        with subprocess.Popen(
            [*DEARLITE, "rerank", QUERY, short, "-k", "2"],
            stdout=side,
            stderr=side,
            stdin=side,
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm-256color", **env},
        ) as process:
            os.close(side)
            text = b""
            try:
                while block := os.read(main, 65536):
                    text += block
            except OSError:  # the terminal closes with its last process
                pass
            os.close(main)
        assert process.returncode == 0
        return text.decode()

    assert "\x1b[3" in on_terminal()
    plain = on_terminal(NO_COLOR="1")
    assert "best 2 of 20" in plain
    assert "\x1b[3" not in plain


def test_document_cannot_write_to_the_terminal(cli, tmp_path):
    docs = tmp_path / "d.jsonl"
    docs.write_text(json.dumps({"text": "light \x1b]0;title\x07 \u202e bulb", "id": "\x1b[2J"}) + "\n")
    _, out, _ = cli("rerank", "-q", "bulb", docs, "--format", "table")
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_every_command_has_help_and_stands_in_the_readme(cli):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        code, out, _ = cli(name, "-h")
        assert code == 0
        assert out.startswith("Usage: dearlite ")
        assert f"dearlite {name}" in readme
