"""How long dearlite takes before it does anything: the import, --help, and a whole command. Fresh processes only."""

from __future__ import annotations

import statistics
import sys
import sysconfig
from pathlib import Path
from typing import Any

from measure import CommandFailed, time_command

_IMPORT = "import time; start = time.perf_counter(); import dearlite; print(time.perf_counter() - start)"
_EXAMPLES = ("examples/query.txt", "examples/docs.jsonl")


def measure_start_up(repository: Path, rounds: int) -> dict[str, Any]:
    """Medians in seconds by what was run, or a string that says why there is none."""
    found: dict[str, Any] = {}
    scripts = Path(sysconfig.get_path("scripts"))
    command = next((str(path) for path in (scripts / "dearlite", scripts / "dearlite.exe") if path.is_file()), None)
    absent = [name for name in _EXAMPLES if not (repository / name).is_file()]
    found["python -c pass, whole process"] = _median([sys.executable, "-c", "pass"], repository, rounds)
    found["import dearlite, the statement"] = _median([sys.executable, "-c", _IMPORT], repository, rounds, printed=True)
    reruns = {
        "dearlite --help, whole process": ["--help"],
        f"dearlite rerank {' '.join(_EXAMPLES)}, whole process": ["rerank", *_EXAMPLES],
    }
    for name, arguments in reruns.items():
        if command is None:
            found[name] = f"skipped: no dearlite command in {scripts.name}/ of this interpreter"
        elif absent and arguments[0] == "rerank":
            found[name] = f"skipped: no {' and no '.join(absent)} yet"
        else:
            found[name] = _median([command, *arguments], repository, rounds)
    return found


def _median(command: list[str], cwd: Path, rounds: int, *, printed: bool = False) -> float | str:
    """The median of `rounds` runs after one that fills the file cache; `printed`: the command prints its seconds."""
    seconds = []
    try:
        for _ in range(rounds + 1):
            elapsed_s, stdout = time_command(command, cwd=cwd)
            seconds.append(float(stdout) if printed else elapsed_s)
    except CommandFailed as err:
        return f"failed: {err}"
    return statistics.median(seconds[1:])
