"""Runs dearlite under the official CPython for Windows and compares what it writes with this machine's.

    python benchmarks/portability/windows.py [--folder build/windows] [--gguf MODEL.gguf] [--only TEXT]
    python benchmarks/portability/windows.py -- tests/files -q    # pytest under Windows

The first run installs (windows_setup.py), later ones only check. DEARLITE_WINDOWS, or --folder, names the folder of the
installation. It needs Debian's wine and gcc-mingw-w64-x86-64, a Python 3.12, and the packages of `.[cpu,eval,export]`
on this side.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import windows_checks as check
from checks import ROOT, Checks, cpu_name
from windows_setup import drive, install, install_dearlite, wine_environment

QUERIES = 6  # of NovelEval's 21; 20 documents each


def copy_data(work: Path) -> None:
    """The example, and a collection of the first QUERIES queries of NovelEval."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(ROOT / "examples", work / "examples")
    source = ROOT / "export" / "data" / "noveleval"
    few = work / "few"
    few.mkdir()
    shutil.copy(source / "corpus.jsonl.gz", few)
    for name, new_name in (("run_bm25.trec", "run.trec"), ("qrels.tsv", "qrels.tsv")):
        lines = (source / name).read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not line.split()[0].isdecimal() or int(line.split()[0]) < QUERIES]
        (few / new_name).write_text("\n".join(kept) + "\n", encoding="utf-8")
    queries = (source / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    (few / "queries.jsonl").write_text("\n".join(queries[:QUERIES]) + "\n", encoding="utf-8")
    shutil.copy(ROOT / "dearlite" / "data" / "minilm-l12.dear", work / "own.dear")
    (work / "a1.txt").write_text("Edison\n", encoding="ascii")


CHECKS = {
    "the README's first command with its output in a file": check.first_command,
    "dearlite reads that file": check.read_again,
    "a table through a pipe": check.table,
    "queries as typed": check.typed_queries,
    "a closed pipe": check.closed_pipe,
    "names beyond ASCII": check.unicode_paths,
    "a stage with a drive letter": check.drive_letter,
    "an output that another program holds": check.held_output,
    "batch, killed and resumed": check.stopped_batch,
    "eval, twice": check.evaluation,
    "models calibrate onto its own file": check.calibration,
    "doctor": check.doctor,
}


def main() -> None:
    """Installs where needed, and runs the checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("DEARLITE_WINDOWS", str(ROOT / "build" / "windows"))
    parser.add_argument("--folder", type=Path, default=Path(default))
    parser.add_argument(
        "--python312", default="python3.12", help="a Python 3.12 of this machine, for its standard library"
    )
    parser.add_argument("--gguf", type=Path, help="a listwise model")
    parser.add_argument("--only", default="", help="run the checks with this text in their name")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest under Windows")
    options = parser.parse_args()
    folder = options.folder.resolve()
    install(folder, options.python312)
    install_dearlite(folder, ROOT)
    work = drive(folder) / "work"
    copy_data(work)
    windows = check.Windows(wine_environment(folder), work)
    if options.pytest:
        sys.exit(run_pytest(windows, options.pytest))
    code = "import sys, onnxruntime, numpy; print(sys.version, onnxruntime.__version__, numpy.__version__)"
    print(f"{cpu_name()}; {windows.script(code).out.strip()}")
    checks = Checks(only=options.only)
    for name, function in CHECKS.items():
        checks.run(name, lambda function=function: function(windows))
    if options.gguf is not None:
        checks.run("listwise by the prebuilt engine", lambda: check.listwise(windows, options.gguf))
    checks.finish()


def run_pytest(windows: check.Windows, arguments: list[str]) -> int:
    """Runs tests of the checkout under Windows; returns pytest's exit status."""
    shutil.copytree(ROOT / "tests", windows.work / "tests")
    shutil.copy(ROOT / "pyproject.toml", windows.work)
    command = ["wine", check.PYTHON, "-m", "pytest", "-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*command, *arguments], cwd=windows.work, env=windows.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    shutil.copyfileobj(process.stdout, sys.stdout.buffer)
    return process.wait()


if __name__ == "__main__":
    main()
