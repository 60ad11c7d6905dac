"""`rerank` on a terminal: what fits, the pager, Ctrl-C, standard input without a pipe. A pipe has all as before."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from posix_only import need_posix

ROOT = Path(__file__).parents[2]
DEARLITE = [sys.executable, "-m", "dearlite"]


@pytest.fixture
def docs(tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"id": f"d{n}", "text": f"Rain falls on hill {n}."}) + "\n" for n in range(30)))
    return path


@pytest.fixture
def terminal(cli, monkeypatch):
    """Runs the command line as on a terminal of 80 columns and some lines; gives exit code, stdout, stderr."""

    def call(lines, *args, columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(lines))
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        code, out, err = cli(*args)
        return code, without_styles(out), err

    return call


def without_styles(text):
    """`text` without the codes of colours and of bold, which NO_COLOR keeps."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def ranks(text):
    return [int(rank) for rank in re.findall(r"^ +(\d+) ", text, re.MULTILINE)]


@pytest.mark.parametrize(("lines", "count"), [(60, 10), (17, 9), (12, 4), (5, 3)])
def test_a_terminal_gets_the_best_that_fit_and_the_way_to_more(terminal, docs, lines, count, monkeypatch):
    monkeypatch.setenv("PAGER", "")  # of a terminal that is too low for one document
    code, out, err = terminal(lines, "rerank", "-q", "rain", docs)
    assert (code, err) == (0, "")
    assert ranks(out) == list(range(1, count + 1))
    assert f"(best {count} of 30)" in out
    assert out.rstrip().endswith(f"{30 - count} more: -k 20, or --all")
    assert out.count("\n") + 2 <= lines or count == 3


@pytest.fixture
def notes(tmp_path):
    """A folder of passages that need several lines each in a narrow column."""
    folder = tmp_path / "notes"
    folder.mkdir()
    texts = [f"# Day {n}\n\nWe walked along the river for hours in the rain, and saw hill {n}.\n" for n in range(9)]
    (folder / "diary.md").write_text("\n".join(texts))
    return folder


@pytest.mark.parametrize(("columns", "lines", "count"), [(40, 12, 3), (40, 30, 4), (30, 10, 1), (80, 12, 3)])
def test_what_a_narrow_terminal_shows_fits(terminal, notes, columns, lines, count):
    code, out, _ = terminal(lines, "rerank", "-q", "rain on the river", notes, columns=columns)
    assert code == 0
    assert ranks(out)[:count] == list(range(1, len(ranks(out)) + 1))[:count]
    assert len(ranks(out)) >= count
    assert out.count("\n") + 2 <= lines
    assert "rain on the river" in out


def test_remarks_before_the_table_take_their_lines(terminal, docs, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with docs.open("a") as stream:
        stream.write("".join(json.dumps({"id": f"x{n}", "text": ""}) + "\n" for n in range(3)))
    _, out, err = terminal(20, "rerank", "-q", "rain", docs, "--skip-bad")
    above = sum(-(-len(line) // 80) for line in err.splitlines())
    assert above >= 3
    assert out.count("\n") + above + 1 in (19, 20)


def test_a_terminal_that_is_too_low_for_one_document_gets_the_pager(terminal, docs, pager):
    assert terminal(5, "rerank", "-q", "rain", docs)[:2] == (0, "")
    assert ranks(without_styles(pager.read_text())) == [1, 2, 3]


def test_a_named_number_and_all_are_shown_whole(terminal, docs, monkeypatch):
    monkeypatch.setenv("PAGER", "")
    assert ranks(terminal(12, "rerank", "-q", "rain", docs, "-k", "12")[1]) == list(range(1, 13))
    out = terminal(12, "rerank", "-q", "rain", docs, "--all")[1]
    assert ranks(out) == list(range(1, 31))
    assert "more:" not in out and "best" not in out


def test_other_outputs_have_all_documents(terminal, cli, docs, tmp_path):
    assert len(terminal(12, "rerank", "-q", "rain", docs, "--format", "jsonl")[1].splitlines()) == 30
    assert terminal(12, "rerank", "-q", "rain", docs, "-o", tmp_path / "o.trec")[1] == ""
    assert len((tmp_path / "o.trec").read_text().splitlines()) == 30


def test_a_pipe_has_all_documents(cli, docs):
    assert len(cli("rerank", "-q", "rain", docs)[1].splitlines()) == 30
    table = cli("rerank", "-q", "rain", docs, "--format", "table")[1]
    assert ranks(table) == list(range(1, 31))
    assert "more:" not in table


@pytest.fixture
def pager(tmp_path, monkeypatch):
    """A pager that keeps its input and its options in a file."""
    need_posix()
    script = tmp_path / "pager"
    script.write_text(f'#!/bin/sh\necho "$LESS" "$@" > {tmp_path}/paged\ncat >> {tmp_path}/paged\n')
    script.chmod(0o755)
    monkeypatch.setenv("PAGER", f"{script} -x")
    monkeypatch.delenv("LESS", raising=False)
    return tmp_path / "paged"


def test_a_long_result_goes_to_the_pager_and_a_short_one_does_not(terminal, docs, pager):
    code, out, _ = terminal(24, "rerank", "-q", "rain", docs, "--all")
    assert (code, out) == (0, "")
    options, _, text = pager.read_text().partition("\n")
    assert options == "FRX -x"
    assert ranks(without_styles(text)) == list(range(1, 31))
    pager.unlink()
    assert ranks(terminal(60, "rerank", "-q", "rain", docs, "--all")[1]) == list(range(1, 31))
    assert ranks(terminal(24, "rerank", "-q", "rain", docs, "--all", "--no-pager")[1]) == list(range(1, 31))
    terminal(24, "rerank", "-q", "rain", docs)
    assert not pager.exists()


def test_the_list_of_models_goes_to_the_pager_from_its_first_line(terminal, pager):
    code, out, _ = terminal(24, "models")
    assert (code, out) == (0, "")
    text = without_styles(pager.read_text().partition("\n")[2])
    assert text.index("licence") < text.index("embedded") < text.index("cascade") < text.index("bm25")
    pager.unlink()
    code, out, _ = terminal(200, "models")
    assert code == 0 and without_styles(out) == text and not pager.exists()


@pytest.mark.parametrize("command", ["no-such-pager", "cat", "", "sh -c 'exit 127'"])
def test_without_a_pager_the_result_is_printed(terminal, docs, monkeypatch, command):
    monkeypatch.setenv("PAGER", command)
    assert ranks(terminal(24, "rerank", "-q", "rain", docs, "--all")[1]) == list(range(1, 31))


def test_a_pager_that_is_left_early_is_no_failure(terminal, docs, monkeypatch):
    need_posix()
    monkeypatch.setenv("PAGER", "head -n 1")
    assert terminal(24, "rerank", "-q", "rain", docs, "--all")[::2] == (0, "")


def test_one_document_is_no_plural(terminal, docs, tmp_path, monkeypatch):
    (tmp_path / "one.txt").write_text("Rain falls. " * 400 + "\n")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _, _, err = terminal(24, "rerank", "-q", "rain", tmp_path / "one.txt", "--min-relevance", "0")
    assert "1 document in " in err
    assert "1 of the 1 document is longer than the model's input and was truncated" in err
    assert not re.search(r"(?<![\d.])1 documents", err)  # "3.1 documents/s" is a rate


def test_standard_input_without_a_pipe_is_told(cli, monkeypatch, tmp_path):

    typed = io.TextIOWrapper(io.BytesIO(b'{"text": "rain"}\n'))
    typed.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", typed)
    code, out, err = cli("rerank", "-q", "x", "-")
    assert (code, len(out.splitlines())) == (0, 1)
    assert err.startswith("dearlite: reading documents from the terminal; Ctrl-")
    piped = io.TextIOWrapper(io.BytesIO(b'{"text": "rain"}\n'))
    monkeypatch.setattr("sys.stdin", piped)
    assert cli("rerank", "-q", "x", "-")[2] == ""


def on_terminal(arguments, interrupt_at):
    """Exit code and output of a process on a terminal, which gets SIGINT once `interrupt_at` is in its output."""
    main, side = pytest.importorskip("pty").openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": "1", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen(
        [*DEARLITE, *arguments],
        stdin=side,
        stdout=side,
        stderr=side,
        cwd=ROOT,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (no other thread runs)
    ) as process:
        os.close(side)
        text, sent = b"", False
        try:
            while block := os.read(main, 65536):
                text += block
                if not sent and interrupt_at in text:
                    process.send_signal(signal.SIGINT)
                    sent = True
        except OSError:  # the terminal closes with its last process
            pass
        os.close(main)
    assert sent, text
    return process.returncode, without_styles(text.decode().replace("\r", ""))


def test_ctrl_c_on_a_terminal_prints_the_ranking_so_far(tmp_path):
    need_posix()
    (tmp_path / "d.txt").write_text(("rain falls on hills " * 60 + "\n") * 5000)
    code, text = on_terminal(["rerank", "-q", "rain", str(tmp_path / "d.txt")], b"documents/s")
    assert code == 130
    done, total = re.search(r"interrupted: minilm-l12 scored (\d+) of (\d+) documents", text).groups()
    assert 0 < int(done) < int(total) == 5000
    shown = ranks(text.partition("rain  (best")[2].partition("\n")[2])
    assert shown == list(range(1, len(shown) + 1))
    assert 3 <= len(shown) <= 10
    assert "Traceback" not in text


def test_doctor_breaks_its_lines_between_words(terminal, monkeypatch):
    from dearlite.render.facts import print_facts

    words = "none: apt install g++ (Debian, Ubuntu), dnf install gcc-c++ (Fedora), pacman -S gcc (Arch)"
    facts = {"compiler": words, "path": "/a" * 60}
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    print_facts(facts, title="listwise")
    lines = [line.rstrip() for line in without_styles(sys.stdout.getvalue()).splitlines()]
    assert lines[0] == "listwise"
    assert lines[1].startswith("  compiler  none: apt")
    assert all(len(line) <= 50 for line in lines[:-1])
    assert [line[:12] for line in lines[2:4]] == [" " * 12] * 2
    assert " ".join(" ".join(lines[1:-1]).split()[1:]) == words
    assert lines[-1] == f"  path      {'/a' * 60}"  # a path stays whole, to be copied
