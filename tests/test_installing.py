"""Hints that install packages: in a checkout, an installed package, and the environments of pipx, uv and uvx."""

import sys
from pathlib import Path

import pytest

from dearlite import installing
from dearlite.installing import pip, pip_install

ROOT = Path(__file__).parents[1]


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """A Python environment that is empty, with dearlite in its packages."""
    folder = tmp_path / "cache" / "environment"
    (folder / "lib" / "pip").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    monkeypatch.setattr(sys, "prefix", str(folder))
    monkeypatch.setattr(sys, "path", [str(folder / "lib")])
    monkeypatch.setattr(installing, "_ROOT", folder / "lib")
    return folder


def test_an_installed_package_names_itself(prefix):
    assert pip_install("eval") == 'pip install "dearlite[eval]"'
    assert pip_install(None) == "pip install dearlite"
    assert pip_install("cpu", options="--no-cache-dir") == 'pip install --no-cache-dir "dearlite[cpu]"'
    assert pip("uninstall onnxruntime") == "pip uninstall onnxruntime"


def test_a_checkout_names_its_folder(prefix, monkeypatch, tmp_path):
    monkeypatch.setattr(installing, "_ROOT", ROOT)
    monkeypatch.chdir(ROOT)
    assert pip_install("eval") == 'pip install -e ".[eval]"'
    monkeypatch.chdir(tmp_path)
    assert pip_install("eval") == f'pip install -e "{ROOT}[eval]"'


def test_pipx_reaches_its_own_environment(prefix):
    (prefix / "pipx_metadata.json").write_text("{}")
    assert pip_install("eval") == 'pipx runpip environment install "dearlite[eval]"'


def test_uv_reaches_the_environment_of_a_tool_and_one_without_pip(prefix):
    expected = f'uv pip install --python "{prefix}" "dearlite[eval]"'
    (prefix / "uv-receipt.toml").write_text("")
    assert pip_install("eval") == expected
    (prefix / "uv-receipt.toml").unlink()
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\nuv = 0.9.1\n")
    assert pip_install("eval") == 'pip install "dearlite[eval]"'  # `uv venv --seed`
    (prefix / "lib" / "pip").rmdir()
    assert pip_install("eval") == expected
    assert (
        pip("install --force-reinstall --no-cache-dir x")
        == f'uv pip install --python "{prefix}" --reinstall --no-cache x'
    )


def test_a_run_of_uvx_is_started_again_with_the_extra(prefix):
    (prefix / "lib" / "pip").rmdir()
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\nuv = 0.9.1\n")
    (prefix.parent / "CACHEDIR.TAG").write_text("")
    assert pip_install("eval") == 'uvx --with "dearlite[eval]" ..., with the rest of the command as it was'
