"""The main commands where Linux's modules, calls and folders are missing (support/other_system.py), and names and line
ends of Windows. Each child process stands for one system and one encoding of its pipes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dearlite.files import outputs

ROOT = Path(__file__).parents[1]
SUPPORT = Path(__file__).parent / "support"
COLLECTION = {
    "queries.jsonl": '{"_id": "q1", "text": "rain"}\n{"_id": "q2", "text": "snow"}\n',
    "corpus.jsonl": '{"_id": "d1", "text": "rain \u2614 caf\u00e9"}\n{"_id": "d2", "text": "snow falls"}\n',
    "run.trec": "q1 Q0 d1 1 2 x\nq1 Q0 d2 2 1 x\nq2 Q0 d1 1 2 x\nq2 Q0 d2 2 1 x\n",
    "qrels.tsv": "q1 0 d1 1\nq2 0 d2 1\n",
}
C_LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
CP1252 = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}


def write_collection(folder, newline="\n", **more):
    folder.mkdir(exist_ok=True)
    for name, text in (COLLECTION | more).items():
        (folder / name).write_bytes(text.replace("\n", newline).encode())
    return folder


@pytest.fixture(scope="module", params=[("win32", CP1252), ("darwin", C_LOCALE)], ids=["windows-cp1252", "macos-C"])
def system(request, tmp_path_factory, tiny_bundle):
    """The main commands on another system: the exit codes by name, the outputs, and the folder."""
    name, env = request.param
    folder = write_collection(tmp_path_factory.mktemp("system") / "coll")
    out, home = folder.parent / "out", folder.parent / "home"
    out.mkdir()
    deep = out / ("deep" * 40)
    deep.mkdir()
    common = ("-m", tiny_bundle)
    commands = {
        "rerank": ("rerank", "-q", "rain", folder / "corpus.jsonl", *common, "--format", "jsonl"),
        "table": ("rerank", "-q", "caf\u00e9", folder / "corpus.jsonl", *common, "--format", "table"),
        "batch": ("batch", folder, *common, "-o", out / "out.trec", "--cache", out / "scores.sqlite"),
        "again": ("batch", folder, *common, "-o", out / "out.trec"),
        "eval": ("eval", folder, *common, "--measures", "AP", "--csv", out / "table.csv"),
        "eval again": ("eval", folder, *common, "--measures", "AP", "--report", out / "report.html"),
        "models": ("models",),
        "show": ("models", "show", tiny_bundle),
        "doctor": ("doctor",),
        "bench": ("bench", *common, "--docs", "1", "--tokens", "16"),
        "long": ("rerank", "-q", "rain", folder / "corpus.jsonl", *common, "-o", deep / f"{'long' * 30}.jsonl"),
    }
    words = json.dumps([[str(word) for word in command] for command in commands.values()])
    done = subprocess.run(
        [sys.executable, SUPPORT / "other_system.py", name, out / "codes.json", words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "DEARLITE_HOME": str(home)} | env,
        capture_output=True,
        check=False,
    )
    codes = json.loads((out / "codes.json").read_text(encoding="utf-8")) if done.returncode == 0 else []
    assert len(codes) == len(commands), done.stderr.decode("utf-8", "replace")
    codes = dict(zip(commands, codes, strict=True))
    return SimpleNamespace(name=name, codes=codes, out=out, folder=folder, done=done)


def test_every_command_runs_on_another_system(system):
    long = 2 if system.name == "win32" else 0  # the path is too long for Windows alone
    assert system.codes == dict.fromkeys(system.codes, 0) | {"long": long}
    assert b"Traceback" not in system.done.stderr


def test_a_path_of_more_than_260_characters_is_one_line(system):
    lines = [line for line in system.done.stderr.decode("utf-8", "replace").splitlines() if "longlong" in line]
    assert len(lines) == (system.name == "win32")
    assert all(line.startswith("dearlite: cannot write ") and "No such file" in line for line in lines)


def test_json_lines_in_a_pipe_are_those_of_linux(system, cli, tiny_bundle):
    rows = [json.loads(line) for line in system.done.stdout.splitlines() if line.startswith(b"{")]
    _, out, _ = cli("rerank", "-q", "rain", system.folder / "corpus.jsonl", "-m", tiny_bundle, "--format", "jsonl")
    assert rows == [json.loads(line) for line in out.splitlines()] and len(rows) == 2


def test_a_second_batch_resumes_on_another_system(system, cli, tiny_bundle, tmp_path):
    """On Windows the journal is a binary file, locked by msvcrt."""
    assert b"dearlite: resuming: 4 of 4 pairs are already scored" in system.done.stderr
    assert b"damaged" not in system.done.stderr
    journal = (system.out / "out.trec.journal").read_bytes()
    assert b"\r" not in journal and journal.count(b"\n") == 4  # the header, the identity, two queries
    code, _, err = cli("batch", system.folder, "-m", tiny_bundle, "-o", tmp_path / "linux.trec")
    assert code == 0, err
    assert (system.out / "out.trec").read_bytes() == (tmp_path / "linux.trec").read_bytes()


def test_outputs_on_another_system_are_whole(system):
    assert (system.out / "table.csv").read_bytes().count(b"\n") >= 3
    assert (system.out / "report.html").read_bytes().endswith(b"</html>\n")
    assert not [path for path in system.out.rglob("*") if path.name.endswith(".draft")]


def test_peak_memory_and_cores_come_from_psutil(system):
    text = system.done.stdout.decode("utf-8", "replace")
    assert len(re.findall(r"^  threads +2$", text, re.MULTILINE)) == 2  # one a library
    assert re.search("^peak memory +117 MB$", text, re.MULTILINE) or system.name == "darwin"


DOCUMENTS = {
    "docs.jsonl": '{"id": "a", "text": "rain falls"}\n{"id": "b", "text": "snow"}\n',
    "docs.json": '[\n{"id": "a", "text": "rain falls"},\n{"id": "b", "text": "snow"}\n]\n',
    "docs.csv": "id,text\na,rain falls\nb,snow\n",
    "docs.tsv": "id\ttext\na\train falls\nb\tsnow\n",
    "docs.txt": "rain falls\nsnow\n",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_with_line_ends_of_windows(cli, tmp_path, tiny_bundle, name):
    rows = []
    for newline in ("\n", "\r\n"):
        folder = tmp_path / str(len(newline))
        folder.mkdir()
        (folder / name).write_bytes(DOCUMENTS[name].replace("\n", newline).encode())
        (folder / "query.txt").write_bytes(f"rain{newline}".encode())
        code, out, err = cli("rerank", folder / "query.txt", folder / name, "-m", tiny_bundle, "--format", "jsonl")
        assert code == 0, err
        rows.append(out)
    assert rows[0] == rows[1] and rows[0].count("\n") == 2


@pytest.mark.parametrize("kind", ["jsonl", "tsv"])
def test_collections_and_models_with_line_ends_of_windows(cli, tmp_path, monkeypatch, tiny_bundle, kind):
    tables = {"queries.tsv": "q1\train\nq2\tsnow\n", "corpus.tsv": "d1\train\nd2\tsnow falls\n"}
    results = []
    for newline in ("\n", "\r\n"):
        folder = write_collection(tmp_path / f"coll{len(newline)}", newline, **(tables if kind == "tsv" else {}))
        options = ["--queries", folder / f"queries.{kind}", "--corpus", folder / f"corpus.{kind}"]
        home = tmp_path / f"home{len(newline)}"
        home.mkdir()
        shutil.copyfile(tiny_bundle, home / "tiny.dear")
        table = f'[mine]\nkind = "cascade"\nabout = "x"\nstages = [{str(home / "tiny.dear")!r}]\n'
        (home / "models.toml").write_bytes(table.replace("\n", newline).encode())
        monkeypatch.setenv("DEARLITE_HOME", str(home))
        out = folder / "per.csv"
        arguments = ["eval", folder, *options, "-m", "mine", "--measures", "AP", "--no-journal", "--per-query", out]
        code, _, err = cli(*arguments)
        assert code == 0, err
        results.append(out.read_bytes())
    assert results[0] == results[1] and results[0].count(b"\n") > 2


@pytest.mark.parametrize("depth", ["", ":1"])
def test_a_path_with_a_drive_is_a_stage(cli, tmp_path, monkeypatch, tiny_bundle, depth):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(tiny_bundle, "C:\\models\\x.dear")
    Path("d.txt").write_text("rain\nsnow\n", encoding="utf-8")
    stages = ["-m", "C:\\models\\x.dear", "-m", f"C:\\models\\x.dear{depth}"]
    code, out, err = cli("rerank", "-q", "rain", "d.txt", *stages, "--format", "json")
    assert code == 0, err
    reached = [len(hit["stages"]) for hit in json.loads(out)["hits"]]
    assert sorted(reached) == ([1, 2] if depth else [2, 2])


def test_outputs_that_differ_in_letter_case_alone_are_one_file(cli, tmp_path, monkeypatch, tiny_bundle):
    """Where names ignore case, the second output would replace the first."""
    folder = write_collection(tmp_path / "coll")
    arguments = ["eval", folder, "-m", tiny_bundle, "--measures", "AP", "--no-journal", "--csv", tmp_path / "a.csv"]
    arguments += ["--per-query", tmp_path / "A.csv"]
    assert not outputs._ignores_case(tmp_path)
    exists = os.path.exists
    lower = lambda path: exists(path) or exists(Path(path).with_name(Path(path).name.lower()))  # noqa: E731
    monkeypatch.setattr(os.path, "exists", lower)
    code, _, err = cli(*arguments)
    assert code == 2 and "are both written to" in err and os.listdir(tmp_path) == ["coll"]
    monkeypatch.setattr(os.path, "exists", exists)
    assert cli(*arguments)[0] == 0
    assert {"a.csv", "A.csv"} <= set(os.listdir(tmp_path))
