"""Start-up times of dearlite in fresh processes: the import, --help, and a whole command."""

from __future__ import annotations

import statistics
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measure import CommandFailed, time_command

_IMPORT = "import time; start = time.perf_counter(); import dearlite; print(time.perf_counter() - start)"
_COMPLETION = {
    "_DEARLITE_COMPLETE": "bash_complete",
    "COMP_WORDS": "dearlite rerank -m qwen3",
    "COMP_CWORD": "3",
}  # as a shell sets it for `dearlite rerank -m qwen3<TAB>`
_EXAMPLES = ("examples/query.txt", "examples/docs.jsonl")


def measure_start_up(repository: Path, rounds: int) -> dict[str, Any]:
    """Name of the command -> its median in seconds, or a string with the reason why it was not run."""
    results: dict[str, Any] = {}
    scripts = Path(sysconfig.get_path("scripts"))
    command = next((str(path) for path in (scripts / "dearlite", scripts / "dearlite.exe") if path.is_file()), None)
    missing = [name for name in _EXAMPLES if not (repository / name).is_file()]
    results["python -c pass, whole process"] = _median([sys.executable, "-c", "pass"], repository, rounds)
    results["import dearlite, the statement"] = _median(
        [sys.executable, "-c", _IMPORT], repository, rounds, printed=True
    )
    results["completion of a model's name, whole process"] = (
        _median([command], repository, rounds, environment=_COMPLETION) if command else "skipped: no dearlite command"
    )
    reruns = {
        "dearlite --help, whole process": ["--help"],
        f"dearlite rerank {' '.join(_EXAMPLES)}, whole process": ["rerank", *_EXAMPLES],
    }
    for name, arguments in reruns.items():
        if command is None:
            results[name] = f"skipped: no dearlite command in {scripts.name}/ of this interpreter"
        elif missing and arguments[0] == "rerank":
            results[name] = f"skipped: no {' and no '.join(missing)} yet"
        else:
            results[name] = _median([command, *arguments], repository, rounds)
    return results


def _median(
    command: list[str], cwd: Path, rounds: int, *, printed: bool = False, environment: Mapping[str, str] | None = None
) -> float | str:
    """The median of `rounds` runs, after one that fills the file cache. `printed`: take the seconds it prints."""
    seconds = []
    try:
        for _ in range(rounds + 1):
            elapsed_s, stdout = time_command(command, cwd=cwd, environment=environment)
            seconds.append(float(stdout) if printed else elapsed_s)
    except CommandFailed as err:
        return f"failed: {err}"
    return statistics.median(seconds[1:])
