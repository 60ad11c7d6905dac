"""What several test files share: the embedded model file and its tokenizer, read without dearlite's own reader."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

import dearlite

# Each pytest-xdist worker keeps to its share of the cores. Engines in several processes that each take all cores delay
# one another: llama.cpp's threads spin while they wait, and torch's and ONNX Runtime's compete for the same cores.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    share = cores[int(worker.removeprefix("gw")) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]
    os.sched_setaffinity(0, share or cores)

# The same examples on every run: a failure here is a failure there. No deadline: shared machines stall.
settings.register_profile("dearlite", deadline=None, derandomize=True)
settings.load_profile("dearlite")


@pytest.fixture(scope="session")
def embedded_path() -> Path:
    """The `.dear` file that comes with the package."""
    return Path(dearlite.__file__).parent / "data" / "minilm-l12.dear"


@pytest.fixture(scope="session")
def tokenizer_json(embedded_path: Path) -> bytes:
    """The embedded model's tokenizer.json, taken out by the standard library."""
    with zipfile.ZipFile(embedded_path) as archive:
        return archive.read("tokenizer.json")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small pointwise model called "tiny", for tests in which any model will do (tiny_bundle.py)."""
    pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
    from tiny_bundle import write_tiny_bundle

    path: Path = write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.dear")
    return path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str, str]]:
    """Runs the command line in this process; gives exit code, stdout, stderr."""
    from dearlite.cli.main import run

    def call(*args: object) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            run([str(arg) for arg in args])
        out = capsys.readouterr()
        return ended.value.code, out.out, out.err

    return call
