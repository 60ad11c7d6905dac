"""Work in a process of its own: a JSON job on its standard input, a JSON result on its standard output.

The memory of the worker is not counted as the export's, Ctrl-C ends its native code at once, and a worker that is
killed for its memory leaves an error here instead of ending the export.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from dearlite.errors import DearliteError


def call_worker(module: str, argument: str, job: dict[str, Any], *, name: str) -> Any:
    """The result of `python -m MODULE ARGUMENT` for `job`, both JSON objects.

    Raises DearliteError with the worker's last line of stderr, or with `name` and the exit code without one.
    """
    done = subprocess.run(  # -X utf8: on Windows a message that names C:\\Users\\José would come in its code page
        [sys.executable, "-X", "utf8", "-m", module, argument],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise DearliteError(lines[-1] if lines else f"{name} ended with {done.returncode}: too little memory or disk?")
    return json.loads(done.stdout)


def run_job(task: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Writes the result of `task` for the job on standard input; the main function of a worker.

    Exits with a line on stderr if the task fails for a known reason or for its memory.
    """
    try:
        json.dump(task(json.load(sys.stdin)), sys.stdout)
    except (DearliteError, MemoryError) as err:
        sys.exit(str(err) or "too little memory")
