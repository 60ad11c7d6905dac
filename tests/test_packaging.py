"""The wheel holds every module, also those of a folder that was added a minute ago."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("setuptools", minversion="77")


def wheel_of(root, folder):
    """Names of the files in the wheel that `root` builds."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def modules_of(root):
    """Names that the modules of `root` have in a wheel."""
    inside = {
        f"dearlite/{file.relative_to(root / 'dearlite').as_posix()}" for file in (root / "dearlite").rglob("*.py")
    }
    return inside | {
        f"dearlite/export/{file.relative_to(root / 'export').as_posix()}" for file in (root / "export").rglob("*.py")
    }


def test_every_module_is_in_the_wheel(tmp_path):
    root = tmp_path / "checkout"
    root.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "*.dear", "export")
    for part in ("dearlite", "export"):
        shutil.copytree(ROOT / part, root / part, ignore=unwanted)
    for file in ("pyproject.toml", "setup.py", "MANIFEST.in", "models.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / file, root)
    for new in ("dearlite/newroom", "export/newroom/deeper"):
        (root / new).mkdir(parents=True)
        (root / new / "__init__.py").touch()
        (root / new / "module.py").touch()
    (root / "export/newroom/__init__.py").touch()
    names = wheel_of(root, tmp_path)
    assert {name for name in names if name.endswith(".py")} == modules_of(root)
    data = {
        "dearlite/models.toml",
        "dearlite/py.typed",
        "dearlite/data/u8s8_probe.onnx",
        "dearlite/render/report.css",
        "dearlite/offline/evaluation/suites.toml",
        "dearlite/export/data/calibration.jsonl",
        "dearlite/export/data/noveleval/qrels.tsv",
    }
    assert data <= names
