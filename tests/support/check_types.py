"""Type-checks `dearlite` and `dearlite.export` together, as one package.

    python tests/support/check_types.py [CHECKOUT]

`export/` lies beside `dearlite/` and is installed below it, so mypy started in the checkout finds only one of the two.
Both are copied into a temporary folder under their installed names, and checked there with pyproject.toml's settings.
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
    unwanted = shutil.ignore_patterns("__pycache__", "*.dear", "*.onnx")
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "dearlite"
        shutil.copytree(root / "dearlite", package, ignore=unwanted)
        shutil.copytree(root / "export", package / "export", ignore=unwanted)
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
        command += ["--cache-dir", str(cache or ROOT / ".mypy_cache")]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    report = (done.stdout + done.stderr).replace("\\", "/")
    return done.returncode, report.replace("dearlite/export/", "export/")


if __name__ == "__main__":
    code, report = check_types(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
    print(report, end="")
    sys.exit(code)
