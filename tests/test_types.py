"""mypy --strict reads both packages: an error in either is reported."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

from check_types import check_types

ROOT = Path(__file__).parents[1]
MISTAKE = '_proof: int = "a string"\n'


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    unwanted = shutil.ignore_patterns("__pycache__", "*.dear", "*.onnx", "data", "export")
    for package in ("dearlite", "export"):
        shutil.copytree(ROOT / package, folder / package, ignore=unwanted)
    return folder


def test_every_file_is_read(checkout):
    code, report = check_types(checkout)
    files = sum(1 for package in ("dearlite", "export") for _ in (checkout / package).rglob("*.py"))
    assert (code, report) == (0, f"Success: no issues found in {files} source files\n")


def test_a_type_error_is_reported(checkout):
    """In each package: all of them by one run of mypy."""
    files = ("dearlite/errors.py", "export/quality/card.py", "export/train/losses.py")
    texts = {file: (checkout / file).read_text(encoding="utf-8") for file in files}
    for file, text in texts.items():
        (checkout / file).write_text(text + MISTAKE, encoding="utf-8")
    code, report = check_types(checkout)
    for file, text in texts.items():
        (checkout / file).write_text(text, encoding="utf-8")
        assert f"{file}:{text.count(chr(10)) + 1}: error: Incompatible types in assignment" in report
    assert code == 1
    assert "Found 3 errors in 3 files" in report


def test_wrong_uses_of_an_app_are_errors_and_no_others():
    """The lines that an app must not write, each of them, and no other line."""
    path = ROOT / "tests" / "support" / "typed_app.py"
    cache = str(ROOT / ".mypy_cache" / "app")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", "--cache-dir", cache, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    lines = path.read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, start=1) if line.endswith("# WRONG")}
    errors = {int(number) for number in re.findall(r"typed_app\.py:(\d+): error", done.stdout)}
    assert errors == wrong, done.stdout
