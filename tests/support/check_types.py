"""Type-checks `dearlite` and `dearlite.export` together, as one package.

    python tests/support/check_types.py [CHECKOUT]

`export/` lies beside `dearlite/` and is installed below it; the link dearlite/export is a plain file where a
Windows makes no links. Both folders are copied into a temporary one under their installed names, and checked there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def check_types(root: Path, *, cache: Path | None = None) -> tuple[int, str]:
    """mypy's exit code and its report over both packages of the checkout `root`; paths are those of the checkout."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.dear", "*.onnx", "export")
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "dearlite"
        shutil.copytree(root / "dearlite", package, ignore=unwanted)
        shutil.copytree(root / "export", package / "export", ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
        command += ["--cache-dir", str(cache or ROOT / ".mypy_cache")]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    report = (done.stdout + done.stderr).replace("\\", "/")
    return done.returncode, report.replace("dearlite/export/", "export/")


if __name__ == "__main__":
    code, report = check_types(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
    print(report, end="")
    sys.exit(code)
