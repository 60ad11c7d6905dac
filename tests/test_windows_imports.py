"""The tests themselves run on Windows: every module imports there, and what needs POSIX is skipped."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from other_system import ABSENT_CALLS, ABSENT_MODULES

TESTS = Path(__file__).parent
# These take seconds to import, and are absent here: a test module skips itself without them.
HEAVY = ("torch", "transformers", "ray", "datasets", "peft", "trl", "accelerate", "pandas", "pyarrow")
POSIX = re.compile(
    r"SIGKILL|SIGXFSZ|SIGSTOP|preexec_fn|mkfifo|setrlimit|RLIMIT_|/dev/(null|full|stdout|stderr|fd|tty|zero)|os\.fork\(|"
    r"openpty|symlink_to|os\.link\(|os\.symlink\("
)
SKIPS = re.compile(r"need_posix\(\)|skipif|importorskip|pytest\.skip\(|hasattr\(|refuse_files_in_use")
IMPORT_ALL = """
import importlib, json, os, signal, sys
import numpy, onnxruntime, click.testing, subprocess, multiprocessing.pool, hypothesis, pytest
for name in {modules}:
    sys.modules[name] = None
for name in {calls}:
    delattr(os, name)
for name in ("SIGKILL", "SIGALRM", "SIGXFSZ", "alarm"):
    delattr(signal, name)
faults = []
sys.path[:0] = sorted(set(map(os.path.dirname, sys.argv[1:])))
for path in sys.argv[1:]:
    try:
        importlib.import_module(os.path.basename(path)[:-3])
    except pytest.skip.Exception:
        continue
    except BaseException as err:
        faults.append(f"{{os.path.basename(path)}}: {{type(err).__name__}}: {{err}}")
print(json.dumps(faults))
"""


def test_every_test_module_imports_without_the_modules_and_calls_of_posix():
    code = IMPORT_ALL.format(modules=(*ABSENT_MODULES, *HEAVY), calls=ABSENT_CALLS)
    files = sorted(map(str, TESTS.rglob("test_*.py")))
    assert len(files) > 80
    path = os.pathsep.join([str(TESTS / "support"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, *files], env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert "\n".join(json.loads(done.stdout.splitlines()[-1])) == ""


def functions_with_posix(source):
    """Names of the functions in `source` that use something of POSIX and skip nothing."""
    tree = ast.parse(source)
    outer = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return [
        node.name
        for node in outer
        for text in [source_of(source, node)]
        if POSIX.search(text) and not SKIPS.search(text)
    ]


def source_of(source, node):
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


def test_what_needs_posix_is_skipped_without_it():
    faults = {path.name: functions_with_posix(path.read_text(encoding="utf-8")) for path in TESTS.rglob("test_*.py")}
    assert {name: names for name, names in faults.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def test_a():\n    os.mkfifo('x')\n", ["test_a"]),
        ("def test_a():\n    need_posix()\n    os.mkfifo('x')\n", []),
        ("@pytest.mark.skipif(True, reason='')\ndef test_a():\n    os.link('x', 'y')\n", []),
    ],
)
def test_a_use_without_a_skip_is_seen(source, names):
    assert functions_with_posix(source) == names
