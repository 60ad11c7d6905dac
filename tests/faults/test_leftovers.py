"""What a kill leaves is removed by the next call; a clock that jumps, and a lack of memory, change nothing."""

import ast
import os
import tempfile
from pathlib import Path

import pytest
from posix_only import need_posix

import dearlite
from dearlite import Reranker
from dearlite.files.outputs import check_outputs
from dearlite.pointwise.onnxruntime import onnxruntime

ROOT = Path(dearlite.__file__).parent
# (file, function): the time of day is printed or stored here, and nothing depends on it.
DATES = {
    ("dearlite/offline/evaluation/assess.py", "_machine_facts"),
    ("dearlite/serve/app.py", "__init__"),
    ("dearlite/serve/shapes.py", "rerank_answer"),
    ("dearlite/serve/shapes.py", "score_answer"),
    ("dearlite/serve/stdio.py", "__init__"),
}
DAYTIME = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


@pytest.mark.parametrize("name", ["out.trec", "out.trec.journal"])
def test_the_trial_file_of_a_killed_check_is_removed_by_the_next(tmp_path, name):
    need_posix()
    left = tmp_path / f".{name}.0123456789abcdef.draft"
    left.touch()
    check_outputs({"--journal": tmp_path / name})
    assert list(tmp_path.iterdir()) == []


def test_a_model_loads_without_a_folder_for_temporary_files(monkeypatch):
    """A folder in it would be left by a kill, and a full disk would refuse it."""
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    with Reranker.load(device="cpu") as reranker:
        assert len(reranker.rerank("a", ["b", "c"])) == 2


def test_onnx_runtime_is_told_to_send_no_usage_events(monkeypatch):
    """Its official builds record events of each session, and send them to the maker."""
    for before, after in ((None, "1"), ("0", "0")):  # the user's own choice stays
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
        if before is not None:
            monkeypatch.setenv("ORT_DISABLE_TELEMETRY", before)
        onnxruntime()
        assert os.environ["ORT_DISABLE_TELEMETRY"] == after


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory ran out: close other programs"),
        (RuntimeError("can't start new thread"), "no further thread can be started"),
        (ImportError("x.so: failed to map segment from shared object"), "too little memory"),
    ],
)
def test_the_limits_of_a_machine_are_one_line(cli, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("dearlite.reranker.Reranker.load", fail)
    code, out, err = cli("rerank", "-q", "a", __file__, "--docs-format", "txt")
    assert (code, out) == (1, "")
    assert err.startswith("dearlite: ") and words in err and err.count("\n") == 1


def times_of_day(path):
    """(file, function) of each call that asks for the time of day."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in DAYTIME:
                    yield path.relative_to(ROOT.parent).as_posix(), function.name


def test_nothing_depends_on_the_time_of_day():
    """Budgets, journals, progress and locks use clocks that no one can set."""
    sources = [*ROOT.rglob("*.py"), *(ROOT.parent / "export").rglob("*.py")]
    assert len(sources) > 200
    assert {place for path in sources for place in times_of_day(path)} == DATES
