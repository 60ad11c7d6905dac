"""Behaviour of Windows, macOS and old machines, on any system, through stand-ins for what differs there."""

import os
import subprocess
import sys
from pathlib import Path

import click
import platformdirs
import pytest

import dearlite
from dearlite.cli import doctor
from dearlite.cli.main import run
from dearlite.errors import DearliteError
from dearlite.export.quality.worker import call_worker
from dearlite.export.train.config import PointwiseConfig, read_config
from dearlite.installing import pip_install
from dearlite.llama.bindings import gpu_build_command
from dearlite.models import registry

ROOT = Path(__file__).parents[1]


class OsOfWindows:
    """The module `os`, with the name that it has on Windows."""

    name = "nt"

    def __getattr__(self, name):
        return getattr(os, name)


@pytest.mark.parametrize("text", ["$HOME", "%PATH%", "~", "*.py", "a?[b]"])
def test_windows_leaves_the_query_as_it_was_typed(monkeypatch, capsys, tmp_path, text):
    (tmp_path / "d.txt").write_text("Edison\n")
    monkeypatch.setattr(click.core, "os", OsOfWindows())
    monkeypatch.setattr(
        sys, "argv", ["dearlite", "rerank", "-q", text, str(tmp_path / "d.txt"), "--format", "json", "--quiet"]
    )
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 0
    assert f'"query": "{text}"' in capsys.readouterr().out


@pytest.mark.parametrize("command", [["doctor"], ["rerank", "-q", "x", "-", "--docs-format", "txt"]])
def test_a_cpu_too_old_for_numpy_is_one_line(tmp_path, command):
    (tmp_path / "numpy.py").write_text(
        "raise RuntimeError('NumPy was built with baseline optimizations: \\n(X86_V2) but your machine doesn\\'t "
        "support:\\n(X86_V2).')\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(dearlite.__file__).parents[1])])
    result = subprocess.run(
        [sys.executable, "-m", "dearlite.cli.main", *command],
        input="Edison",
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("dearlite: this CPU is too old for numpy: dearlite needs one with SSE4.2")


def test_toml_files_with_a_byte_order_mark_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    table = '[mine]\nkind = "cascade"\nabout = "x"\nstages = ["minilm-l12"]\n'
    (tmp_path / "models.toml").write_text(table, encoding="utf-8-sig")
    assert "mine" in registry.load_cascades()
    (tmp_path / "c.toml").write_text('base = "b"\ndata = "d"\noutput = "o"\n', encoding="utf-8-sig")
    assert read_config(tmp_path / "c.toml", PointwiseConfig).base == "b"


def test_models_on_macos_are_application_data_and_old_ones_stay_in_use(tmp_path, monkeypatch):
    monkeypatch.delenv("DEARLITE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "Caches" / name))
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda name: str(tmp_path / "Application Support" / name))
    assert registry.home() == tmp_path / "Application Support" / "dearlite"
    (tmp_path / "Caches" / "dearlite").mkdir(parents=True)
    assert registry.home() == tmp_path / "Caches" / "dearlite"


def test_a_worker_reports_names_beyond_the_code_page(tmp_path, monkeypatch):
    (tmp_path / "worker_of_the_test.py").write_text("import sys\nsys.exit('no model file modèle ☕')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("PYTHONUTF8", raising=False)
    monkeypatch.setenv("PYTHONIOENCODING", "")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONCOERCECLOCALE", "0")
    with pytest.raises(DearliteError, match="no model file modèle ☕"):
        call_worker("worker_of_the_test", "x", {}, name="the worker")


def test_python_below_3_11_is_refused_in_one_line():
    script = (
        "import sys; sys.version_info = (3, 10); sys.argv = ['setup.py', 'egg_info']; exec(open('setup.py').read())"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "dearlite needs Python 3.11 or later, and this is Python 3.10\n"


@pytest.mark.parametrize("extra", ["cpu", "listwise", "listwise-prebuilt"])
def test_hints_can_be_pasted_into_every_shell(extra):
    assert pip_install(extra).endswith(f'[{extra}]"') and "'" not in pip_install(
        extra
    )  # cmd.exe takes ' as of the name


@pytest.mark.parametrize(
    ("platform", "start"),
    [
        ("win32", '$env:CMAKE_ARGS="-DGGML_CUDA=on"; pip install'),
        ("linux", "CMAKE_ARGS=-DGGML_CUDA=on pip install"),
        ("darwin", "CMAKE_ARGS=-DGGML_METAL=on pip install"),
    ],
)
def test_the_command_that_builds_for_a_gpu_is_that_of_the_systems_shell(monkeypatch, platform, start):
    monkeypatch.setattr(sys, "platform", platform)
    assert gpu_build_command().startswith(start)


def test_doctor_asks_visual_studios_finder_for_a_compiler(tmp_path, monkeypatch):
    finder = tmp_path / "Microsoft Visual Studio" / "Installer" / "vswhere.exe"
    finder.parent.mkdir(parents=True)
    finder.write_text("#!/bin/sh\necho 'C:\\Program Files\\VS 2022'\n")
    finder.chmod(0o755)
    monkeypatch.setattr("platform.system", lambda: "Windows")
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("ProgramFiles(x86)", str(tmp_path))
    assert doctor._compiler() == "C:\\Program Files\\VS 2022"
    finder.unlink()
    assert doctor._compiler().startswith("none: winget install Microsoft.VisualStudio.2022.BuildTools --override")


def test_doctor_does_not_take_the_stub_of_macos_for_a_compiler(tmp_path, monkeypatch):
    stub = tmp_path / "xcode-select"
    stub.write_text("#!/bin/sh\nexit 2\n")
    stub.chmod(0o755)
    (tmp_path / "c++").write_text("")
    (tmp_path / "c++").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert doctor._compiler() == "none: xcode-select --install"
    stub.write_text("#!/bin/sh\nexit 0\n")
    assert doctor._compiler() == str(tmp_path / "c++")


def test_no_message_has_a_hint_in_single_quotes():
    files = [*ROOT.glob("dearlite/**/*.py"), *ROOT.glob("export/**/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]
    assert len(files) > 100
    assert [file.name for file in files if "pip install 'dearlite[" in file.read_text(encoding="utf-8")] == []
