"""Commands that start without the time of their imports: each is a fork of a process that has imported the modules.

    with Starter(modules) as starter:
        process = starter.start(["rerank", ...], folder, environment)
        process.send_signal(signal.SIGKILL)
        process.wait(), process.err()

Nothing of the modules has been called before the fork. One command runs at a time.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_SERVER = """
import importlib, json, os, resource, sys, tempfile
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except BaseException:
        pass
from dearlite.cli.main import run
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(os.open(job["err"], os.O_WRONLY), 2)
        os.chdir(job["folder"])
        os.environ.update(job["environment"])
        tempfile.tempdir = None
        for kind, value in job["limits"]:
            resource.setrlimit(kind, (value, value))
        run(job["arguments"])
        os._exit(99)
    print(child, flush=True)
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    print(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status, flush=True)
    sys.stdin.readline()
    os.waitpid(child, 0)  # until now its number is its own: a late signal reaches no other process
"""
# What a command has imported when it ends, in that order.
_RECORDING = """
import atexit, json, sys
from dearlite.cli.main import run
atexit.register(lambda: open(sys.argv[1], "w").write(json.dumps(list(sys.modules))))
run(sys.argv[2:])
"""


# ONNX Runtime starts a thread when it is imported, and huggingface_hub reads its variables.
_NOT_FORKED = ("__main__", "onnxruntime", "huggingface_hub")


class Started:
    """A running command."""

    def __init__(self, server: subprocess.Popen[str], pid: int, err: int) -> None:
        self._server, self.pid, self._err, self._read = server, pid, err, b""
        self.returncode: int | None = None

    def wait(self, timeout_s: float | None = None) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        assert self._server.stdout is not None and self._server.stdin is not None
        if self.returncode is None and select.select([self._server.stdout], [], [], timeout_s)[0]:
            self.returncode = int(self._server.stdout.readline())
            self._server.stdin.write("\n")
            self._server.stdin.flush()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends the signal, unless the command was seen to end."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def err(self) -> str:
        """Its stderr so far."""
        with suppress(BlockingIOError):
            while block := os.read(self._err, 2**16):
                self._read += block
        return self._read.decode(errors="replace")


class Starter:
    """The process that has imported `modules`; it ends with the block."""

    def __init__(self, modules: Collection[str]) -> None:
        self._modules, self._folder, self._err = list(modules), tempfile.TemporaryDirectory(), -1

    def __enter__(self) -> Starter:
        command = [sys.executable, "-c", _SERVER, json.dumps(self._modules)]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()
        if self._err >= 0:
            os.close(self._err)
        self._folder.cleanup()

    def start(
        self,
        arguments: Collection[str],
        folder: Path,
        environment: Mapping[str, str],
        limits: Collection[tuple[int, int]] = (),
    ) -> Started:
        """`dearlite ARGUMENTS`, run in `folder`, with `limits` of `resource`."""
        assert self._server.stdin is not None and self._server.stdout is not None
        err = Path(self._folder.name) / "err"  # a pipe: a limit of the size of files is none of its
        if self._err >= 0:
            os.close(self._err)
            err.unlink()
        os.mkfifo(err)
        self._err = os.open(err, os.O_RDONLY | os.O_NONBLOCK)
        job: dict[str, Any] = {"arguments": list(arguments), "folder": str(folder), "environment": dict(environment)}
        self._server.stdin.write(json.dumps(job | {"err": str(err), "limits": list(limits)}) + "\n")
        self._server.stdin.flush()
        return Started(self._server, int(self._server.stdout.readline()), self._err)


def recorded_modules(
    arguments: Collection[str], folder: Path, environment: Mapping[str, str], names: Path
) -> list[str]:
    """The modules that `dearlite ARGUMENTS` imports; it is run for this. `names` is a file to make and remove."""
    command = [sys.executable, "-c", _RECORDING, str(names), *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    modules: list[str] = json.loads(names.read_text())
    names.unlink()
    return [name for name in modules if name.partition(".")[0] not in _NOT_FORKED]
