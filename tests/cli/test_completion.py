"""Completion: its candidates, its scripts in real shells, and its installation."""

import os
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from posix_only import need_posix

from dearlite.cli.completion import install_script
from dearlite.cli.completion_scripts import MARK, SHELLS
from dearlite.cli.main import run


@pytest.fixture
def candidates(capsys, monkeypatch):
    """The candidates of a line of words, the last of which is being typed, by kind; nothing may be on stderr."""

    def call(*words, shell="bash"):
        monkeypatch.setenv("_DEARLITE_COMPLETE", f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["dearlite", *words]))
        monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words)))
        monkeypatch.setenv("COMP_INCOMPLETE", words[-1])
        with pytest.raises(SystemExit) as ended:
            run([])
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
        lines = [line.partition(",") for line in out.splitlines()]
        return [value for kind, _, value in lines if kind == "plain"], any(kind == "file" for kind, _, _ in lines)

    return call


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "names", "files"),
    [
        (["mod"], ["models"], False),
        (["models", "sh"], ["show"], False),
        (["rerank", "--top"], ["--top-k"], False),
        (["rerank", "--format", "js"], ["jsonl", "json"], False),
        (["rerank", "que"], [], True),
        (["rerank", "q.txt", "do"], [], True),
        (["rerank", "-o", "o"], [], True),
        (["rerank", "-m", "minilm-l12"], ["minilm-l12"], True),
        (["bench", "-m", "minilm-l12"], ["minilm-l12"], True),
        (["models", "show", "qwen3-reranker-4"], ["qwen3-reranker-4b"], True),
        (["export", "qwen3-reranker-4"], ["qwen3-reranker-4b"], True),
        (["eval", "--measures", "ndcg@10"], ["nDCG@10", "nDCG@100"], False),
        (["eval", "--qrels", "q"], [], True),
        (["help", "rer"], ["rerank"], False),
        (["completion", "ba"], ["bash"], False),
    ],
)
def test_candidates_are_names_or_files(candidates, shell, words, names, files):
    assert candidates(*words, shell=shell) == (names, files)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "names", "files"),
    [
        (["rerank", "--format=js"], ["jsonl", "json"], False),
        (["rerank", "--format="], None, False),
        (["rerank", "--model=minilm-l12"], ["minilm-l12"], True),
        (["rerank", "--output=o"], [], True),
        (["rerank", "--format=json", "--output=o", "--query-i"], ["--query-id"], False),
        (["rerank", "-m", "minilm-l12:10", "--query-i"], ["--query-id"], False),
        (["eval", "--qrels=q", "--measures=ndcg@10"], ["nDCG@10", "nDCG@100"], False),
    ],
)
def test_the_value_of_an_option_with_an_equals_sign_is_completed(candidates, shell, words, names, files):
    if shell == "bash":  # it ends words at `=` and `:`, and completes what follows
        option = ""
        words = [part for word in words for part in re.split(r"(?<=.)([=:])", word) if part or word.endswith("=")]
        words = words[:-1] if words[-2:] == ["=", ""] else words
    else:
        option = words[-1].partition("=")[0] + "=" if "=" in words[-1] else ""
    expected = ["table", "jsonl", "json", "csv", "tsv", "parquet", "trec"] if names is None else names
    assert candidates(*words, shell=shell) == ([f"{option}{name}" for name in expected], files)


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        (r"dearlite rerank C:\docs\que", r"C:\docs\que"),
        ('dearlite rerank "C:\\my docs\\que', '"C:\\my docs\\que'),
        ("dearlite rerank 'my docs\\que", "my docs\\que"),
    ],
)
def test_powershell_paths_have_backslashes(capsys, monkeypatch, line, typed):
    monkeypatch.setenv("_DEARLITE_COMPLETE", "powershell_complete")
    monkeypatch.setenv("COMP_WORDS", line.replace("rerank ", "rerank -q x --format json "))
    monkeypatch.setenv("COMP_INCOMPLETE", typed)
    with pytest.raises(SystemExit):
        run([])
    assert capsys.readouterr().out == f"file,{typed.strip(chr(34))}\n"
    monkeypatch.setenv("COMP_WORDS", line.replace("rerank ", "models show "))
    with pytest.raises(SystemExit):
        run([])
    assert capsys.readouterr().out == f"file,{typed.strip(chr(34))}\n"


def test_a_damaged_registry_and_a_missing_extra_leave_the_prompt_alone(capfd, monkeypatch, tmp_path):
    (tmp_path / "models.toml").write_text("not TOML")
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "dearlite.export.command", None)  # its import fails
    for words in ("rerank -m min", "export -"):
        monkeypatch.setenv("_DEARLITE_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", f"dearlite {words}")
        monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
        with pytest.raises(SystemExit):
            run([])
    assert capfd.readouterr() == ("", "")


def test_the_script_is_printed_for_the_named_or_the_current_shell(cli, monkeypatch):
    for name, shell in SHELLS.items():
        assert cli("completion", name) == (0, shell.script, "")
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert cli("completion") == (0, SHELLS["fish"].script, "")
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    code, out, err = cli("completion")
    assert (code, out) == (2, "")
    assert "no script for the shell 'tcsh': name one of bash, zsh, fish, powershell" in err


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", SHELLS)
def test_installing_twice_changes_nothing_and_keeps_the_startup_file(cli, home, name):
    if name == "bash":
        (home / ".bashrc").write_bytes(b"export A=1\n# \xff\n")
    code, out, err = cli("completion", name, "--install")
    assert (code, err) == (0, "")
    first = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    scripts = [path for path, data in first.items() if data.decode(errors="replace") == SHELLS[name].script]
    assert len(scripts) == 1 and str(scripts[0]) in out
    again = install_script(name)
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == first
    assert len(first) == 1 + bool(SHELLS[name].startup)
    if SHELLS[name].startup:
        assert any("already" in line for line in again)
        (startup,) = set(first) - set(scripts)
        assert str(startup) in out
        assert first[startup].decode(errors="replace").count(MARK) == 1
    if name == "bash":
        assert first[home / ".bashrc"].startswith(b"export A=1\n# \xff\n[ -f ")


def test_a_folder_that_cannot_be_written_is_one_line(cli, home):
    need_posix()
    (home / ".local").write_text("a file")
    code, out, err = cli("completion", "bash", "--install")
    assert (code, out) == (2, "")
    assert "cannot write" in err and err.count("\n") == 1


# Real shells

START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "-i"],
}
LOAD = {"bash": 'eval "$(dearlite completion bash)"', "zsh": 'eval "$(dearlite completion zsh)"', "fish": ""}


# escape codes of a terminal, and the bell
CODES = re.compile(r"\x1b(\[[\d;?>=]*[a-zA-Z]|[()][0-9A-Z]|[=>78]|[\]P][^\x07\x1b]*(\x07|\x1b\\))|\x07")


class Prompt:
    """A shell on a terminal, in which keys are typed."""

    def __init__(self, name, folder):
        need_posix()
        import fcntl
        import pty
        import termios

        main, side = pty.openpty()
        environment = os.environ | {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "TERM": "xterm",
            "PS1": "> ",
            "COLUMNS": "200",
        }
        self.process = subprocess.Popen(
            START[name],
            stdin=side,
            stdout=side,
            stderr=side,
            cwd=folder,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  (no other thread runs)
        )
        os.close(side)
        self.main, self.text = main, ""

    def type(self, keys):
        self.text = ""
        os.write(self.main, keys.encode())

    def wait_for(self, pattern, seconds=60):
        """Reads until `pattern` is in what came since the last keys; False after some seconds without."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.main], [], [], 0.2)[0]:
                try:
                    data = os.read(self.main, 65536).decode(errors="replace")
                except OSError:
                    return False
                if "\x1b[0c" in data or "\x1b[c" in data:  # fish asks the terminal what it is
                    os.write(self.main, b"\x1b[?62;c")
                if "\x1b[6n" in data:
                    os.write(self.main, b"\x1b[1;1R")
                self.text += CODES.sub("", data)
            if re.search(pattern, self.text):
                return True
        return False

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.main)


@pytest.fixture(params=START)
def prompt(request, tmp_path):
    """A shell with the completion, in a folder with the files query.txt and documents.jsonl."""
    need_posix()
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "dearlite"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dearlite "$@"\n')
    program.chmod(0o755)
    (tmp_path / "query.txt").write_text("rain\n")
    (tmp_path / "my notes.txt").write_text("rain\n")
    (tmp_path / "documents.jsonl").write_text('{"text": "rain"}\n')
    if request.param == "fish":
        folder = tmp_path / "config" / "fish" / "completions"
        folder.mkdir(parents=True)
        (folder / "dearlite.fish").write_text(SHELLS["fish"].script)
    shell = Prompt(request.param, tmp_path)
    shell.type(f"{LOAD[request.param]}\necho rea''dy\n" if request.param != "fish" else "echo rea''dy\n")
    assert shell.wait_for(r"ready"), shell.text
    yield shell
    shell.close()


def test_a_real_shell_completes_commands_options_models_and_files(prompt):
    for typed, expected in (
        ("dearlite mod\t", r"models"),
        ("dearlite rerank que\t", r"query\.txt"),
        ("dearlite rerank query.txt doc\t", r"documents\.jsonl"),
        ("dearlite rerank -m qwen3-reranker-4\t", r"qwen3-reranker-4b"),
        ("dearlite rerank --min-rel\t", r"--min-relevance"),
        ("dearlite rerank --format tre\t", r"trec"),
        ("dearlite rerank --format=tre\t", r"--format=trec"),
        ("dearlite rerank --model=qwen3-reranker-4\t", r"--model=qwen3-reranker-4b"),
        ("dearlite rerank --output=que\t", r"--output=query\.txt"),
        ("dearlite rerank --model=doc\t", r"--model=documents\.jsonl"),
        ("dearlite rerank --format=trec --dev\t", r"--device"),
        ("dearlite rerank my\t", r"my\\ notes\.txt"),
        ("dearlite rerank my\\ no\t", r"my\\ notes\.txt"),
        ("dearlite rerank 'my no\t", r"notes\.txt'"),
        ("dearlite rerank -m my\t", r"my\\ notes\.txt"),
    ):
        prompt.type(typed)
        assert prompt.wait_for(expected), (typed, prompt.text)
        prompt.type("\x15")  # the line is deleted
        time.sleep(0.2)
