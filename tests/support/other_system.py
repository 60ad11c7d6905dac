"""A stand-in for Windows and macOS on Linux, for a process of its own: `python other_system.py SYSTEM REPORT COMMANDS`.

It takes away what these systems lack: modules (fcntl, resource, pwd, ...), functions of `os` and `mmap`, the folders
/proc and /sys. As Windows it also translates line feeds of files opened without O_BINARY, replaces no open file, and
knows no path of more than 260 characters. COMMANDS is JSON, a list of argument lists; REPORT receives their exit codes.
"""

import builtins
import importlib
import io
import json
import mmap
import os
import pkgutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

ABSENT_MODULES = ("fcntl", "resource", "pwd", "grp", "pty", "tty", "termios")
ABSENT_CALLS = ("fork", "forkpty", "sched_getaffinity", "sched_setaffinity", "getuid", "chown", "fchmod", "mkfifo")
ON_MACOS = {"fork", "forkpty", "getuid", "chown", "fchmod", "mkfifo"}
LONGEST_PATH = 260
# rooms that need packages of other projects, and are imported by none of the commands below
OF_OTHER_PACKAGES = ("dearlite.frozen.", "dearlite.integrations.", "dearlite.serve.")
BINARY = 0x8000


class System:
    """The module `name` as dearlite's modules see it, with `changes`."""

    def __init__(self, module, absent=(), **changes):
        self._module, self._absent, self.__dict__["_own"] = module, absent, changes

    def __getattr__(self, name):
        if name in self._absent:
            raise AttributeError(name)
        return self._own[name] if name in self._own else getattr(self._module, name)


def hide_folders():
    """Files of /proc and /sys do not exist, for any module."""

    def hidden(path):
        return isinstance(path, (str, os.PathLike)) and str(path).startswith(("/proc/", "/sys/"))

    def guard(function):
        def guarded(path, *arguments, **options):
            if hidden(path):
                raise FileNotFoundError(2, "No such file or directory", str(path))
            return function(path, *arguments, **options)

        return guarded

    builtins.open = io.open = guard(io.open)
    for name in ("open", "stat", "listdir", "scandir", "readlink"):
        setattr(os, name, guard(getattr(os, name)))


def msvcrt():
    """The module of Windows, whose locks are those of fcntl here."""
    fcntl = importlib.import_module("fcntl")

    def locking(file, mode, size):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    module = ModuleType("msvcrt")
    module.locking, module.LK_NBLCK = locking, 2
    return module


def windows_os():
    """The module `os` of Windows: text and binary files, and files in use."""
    text, binary = set(), BINARY
    real_open, real_write, real_replace, real_dup = os.open, os.write, os.replace, os.dup

    def check(path):
        if isinstance(path, (str, os.PathLike)) and len(os.path.abspath(path)) > LONGEST_PATH:
            raise FileNotFoundError(2, "No such file or directory", str(path))

    def open_file(path, flags, *arguments, **options):
        check(path)
        file = real_open(path, flags & ~binary, *arguments, **options)
        (text.discard if flags & binary else text.add)(file)
        return file

    def write(file, data):
        real_write(file, data.replace(b"\n", b"\r\n") if file in text else data)
        return len(data)

    def dup(file):
        copy = real_dup(file)
        (text.add if file in text else text.discard)(copy)
        return copy

    def replace(source, target):
        from open_files import files_in_use

        check(target)
        if os.path.realpath(target) in files_in_use():
            raise PermissionError(13, "Access is denied", str(target))
        real_replace(source, target)

    return {"name": "nt", "O_BINARY": binary, "open": open_file, "write": write, "replace": replace, "dup": dup}


def become(system):
    """Turns this process into one of `system`, "win32" or "darwin"."""
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=123_000_000))
    memory = SimpleNamespace(available=8_000_000_000)
    sys.modules["psutil"] = SimpleNamespace(
        cpu_count=lambda logical: 2, Process=lambda: process, virtual_memory=lambda: memory
    )
    for name in (
        "subprocess",
        "ctypes",
        "sqlite3",
        "multiprocessing.pool",
        "rich.console",
        "rich.table",
        "onnxruntime",
    ):
        importlib.import_module(name)
    if system == "win32":
        os.O_BINARY = BINARY  # read by dearlite's modules when they are imported
    import dearlite

    for module in pkgutil.walk_packages(dearlite.__path__, "dearlite."):
        if not module.name.startswith(
            ("dearlite.export", "dearlite.__main__", "dearlite.offline.cluster", *OF_OTHER_PACKAGES)
        ):
            importlib.import_module(module.name)
    absent = [name for name in ABSENT_CALLS if system == "win32" or name not in ON_MACOS]
    changes = windows_os() if system == "win32" else {}
    from open_files import files_in_use  # noqa: F401  # before /proc is hidden

    if system == "win32":  # not before subprocess is imported, which asks for it
        sys.modules["msvcrt"] = msvcrt()
    hidden = set(ABSENT_MODULES if system == "win32" else ())
    for name in hidden:
        sys.modules[name] = None
    for name in [name for name in vars(mmap) if name.startswith("MADV_")]:
        delattr(mmap, name)
    hide_folders()
    for name, module in list(sys.modules.items()):
        if name.startswith("dearlite") and module is not None:
            if getattr(module, "os", None) is os:
                module.os = System(os, absent, **changes)
            if getattr(module, "sys", None) is sys:
                module.sys = System(sys, platform=system)


def main():
    system, report, commands = sys.argv[1:4]
    become(system)
    from dearlite.cli.main import run

    codes = []
    for command in json.loads(commands):
        try:
            run(command)
        except SystemExit as end:
            codes.append(end.code)
        except Exception as err:
            codes.append(f"{type(err).__name__}: {err}")
        Path(report).write_text(json.dumps(codes), encoding="utf-8")


if __name__ == "__main__":
    main()
