"""New processes for Python code that need no time to import: each is a fork of one that has imported the modules.

    with ForkServer("numpy", "dearlite") as server:
        done = server.run("print(len(sys.argv))")  # a subprocess.CompletedProcess

A process ends as any other does, with its exit handlers; the modules are imported, and nothing of them has been called.
Where the system cannot fork, each is a new Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SERVER = """
import importlib, json, os, signal, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
requests, answers = sys.stdin, os.fdopen(os.dup(1), "w")
for line in requests:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, path in ((0, os.devnull), (1, job["stdout"]), (2, job["stderr"])):
            file = os.open(path, os.O_RDWR | os.O_CREAT)
            os.dup2(file, number)
            os.close(file)
        answers.close()
        signal.alarm(240)
        os.environ.clear()
        os.environ.update(job["env"])
        sys.argv = ["-c", *job["arguments"]]
        break
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
else:
    sys.exit()
exec(compile(job["code"], "<forked>", "exec"), {"__name__": "__main__", "sys": sys})
"""


class ForkServer:
    """The process that has imported `modules`, with the variables `env`; it ends with the block."""

    def __init__(self, *modules: str, **env: str) -> None:
        self._command, self._env = [sys.executable, "-c", _SERVER, *modules], dict(os.environ) | env
        self._server: Any = None

    def __enter__(self) -> ForkServer:
        if hasattr(os, "fork"):
            pipe = subprocess.PIPE
            self._server = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True, env=self._env)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.communicate(timeout=60)

    def run(
        self, code: str, arguments: Sequence[str] = (), *, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The end of a new process that has run `code` as a script, with `env` as its environment (None: this one).

        It is killed after four minutes.
        """
        env = dict(os.environ) if env is None else env
        if self._server is None:
            return subprocess.run(
                [sys.executable, "-c", code, *arguments],
                capture_output=True, text=True, timeout=240, check=False, env=env,
            )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            streams = {name: f"{folder}/{name}" for name in ("stdout", "stderr")}
            job = {"code": code, "arguments": list(arguments), "env": env}
            self._server.stdin.write(json.dumps(job | streams) + "\n")
            self._server.stdin.flush()
            status = int(self._server.stdout.readline())
            out, err = (Path(path).read_text(encoding="utf-8") for path in streams.values())
        return subprocess.CompletedProcess(code, status, out, err)
