"""The desktop example as PyInstaller freezes it, on a screen without a Python; and the entry point of the hooks."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from waiting import WITHIN_S, eventually

ROOT = Path(__file__).parents[1]


def test_pyinstaller_finds_the_hooks_by_the_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    value = project["entry-points"]["pyinstaller40"]["hook-dirs"]
    (folder,) = EntryPoint("hook-dirs", value, "pyinstaller40").load()()
    hooks = sorted(path.name for path in Path(folder).glob("hook-*.py"))
    modules = ("dearlite.cli.main", "dearlite", "llama_cpp", "llama_cpp_py_sync")
    assert hooks == [f"hook-{module}.py" for module in modules]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """The folder of the frozen example; made without options but the hooks of this tree."""
    pytest.importorskip("PyInstaller", reason="PyInstaller is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `cpu` is not installed")
    pytest.importorskip("tkinter", reason="this Python has no Tk")
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on this machine")
    folder = tmp_path_factory.mktemp("frozen")
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--onedir", str(ROOT / "examples/desktop/app.py")]
    command += ["--additional-hooks-dir", str(ROOT / "dearlite" / "frozen"), "--log-level", "WARN"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=900)
    return folder / "dist" / "app"


def test_frozen_app_reranks_and_saves_without_python(frozen, tmp_path):
    app = shutil.copytree(frozen, tmp_path / "app")
    reading, writing = os.pipe()
    screen = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1000x700x24"],
        stderr=subprocess.DEVNULL,
        pass_fds=[writing],
    )
    os.close(writing)
    with open(reading, encoding="ascii") as number:
        display = f":{number.readline().strip()}"  # a free one; written when the screen is there
    xdotool = partial(run_xdotool, display)
    environment = {"HOME": str(tmp_path), "DISPLAY": display, "PATH": "/nonexistent", "LANG": "C.UTF-8"}
    command = [app / "app", ROOT / "examples" / "docs.jsonl", "--query", "Who plays Dante Reyes in Fast X?"]
    running = None
    try:
        running = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        window = eventually(lambda: xdotool("search", "--name", "^dearlite$").split(), every_s=0.2)[0]
        xdotool("windowfocus", "--sync", window)
        xdotool("key", "Return")
        ranking = tmp_path / "dearlite-ranking.json"

        def saved():
            xdotool("key", "ctrl+s")
            return ranking.is_file() and json.loads(ranking.read_text(encoding="utf-8") or "[]")

        hits = eventually(saved, every_s=0.2)
        xdotool("key", "ctrl+q")
        assert running.wait(WITHIN_S) == 0
    finally:
        if running is not None and running.poll() is None:
            running.kill()
        screen.kill()
    from dearlite import rerank

    documents = [
        json.loads(line)["text"] for line in (ROOT / "examples" / "docs.jsonl").read_text("utf-8").splitlines()
    ]
    expected = rerank("Who plays Dante Reyes in Fast X?", [" ".join(text.split()) for text in documents])
    assert [hit["index"] for hit in hits] == [hit.index for hit in expected]


def run_xdotool(display, *arguments):
    environment = os.environ | {"DISPLAY": display}
    command = ["xdotool", *arguments]
    return subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=WITHIN_S
    ).stdout
