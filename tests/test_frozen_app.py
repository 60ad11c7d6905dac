"""The desktop example as PyInstaller freezes it, on a screen without a Python; and the entry point of the hooks."""

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DISPLAY = ":87"


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
    environment = {"HOME": str(tmp_path), "DISPLAY": DISPLAY, "PATH": "/nonexistent", "LANG": "C.UTF-8"}
    command = [app / "app", ROOT / "examples" / "docs.jsonl", "--query", "Who plays Dante Reyes in Fast X?"]
    screen = subprocess.Popen(["Xvfb", DISPLAY, "-screen", "0", "1000x700x24"], stderr=subprocess.DEVNULL)
    running = None
    try:
        time.sleep(1)
        running = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        window = wait_for(lambda: xdotool("search", "--name", "^dearlite$").split(), 60)[0]
        xdotool("windowfocus", "--sync", window)
        xdotool("key", "Return")
        ranking = tmp_path / "dearlite-ranking.json"

        def saved():
            xdotool("key", "ctrl+s")
            return ranking.is_file() and json.loads(ranking.read_text(encoding="utf-8") or "[]")

        hits = wait_for(saved, 120)
        xdotool("key", "ctrl+q")
        assert running.wait(20) == 0
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


def xdotool(*arguments):
    environment = os.environ | {"DISPLAY": DISPLAY}
    command = ["xdotool", *arguments]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=30).stdout


def wait_for(value, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := value():
            return result
        time.sleep(0.2)
    raise AssertionError(f"nothing within {seconds} s")
