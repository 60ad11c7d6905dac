"""A stand-in for Windows, which replaces and deletes no file that a process has open or mapped."""

import os
from os import listdir, readlink  # other_system.py hides /proc from the functions of `os`
from pathlib import Path

import pytest

_open = open


def files_in_use():
    """Paths of the files that this process has open or mapped."""
    with _open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        paths = {line.rstrip("\n").split(maxsplit=5)[5] for line in lines if "/" in line}
    for descriptor in listdir("/proc/self/fd"):
        try:
            paths.add(readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:  # of the listing itself
            continue
    return paths


def refuse_files_in_use(monkeypatch):
    """`os.replace` onto a file in use, and its removal, fail as on Windows."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs /proc")

    def guard(name, target):
        act = getattr(os, name)

        def guarded(*paths, **options):
            path = os.path.realpath(paths[target])
            if path in files_in_use():
                err = PermissionError(13, "Access is denied", path)
                err.winerror = 5
                raise err
            return act(*paths, **options)

        monkeypatch.setattr(os, name, guarded)

    guard("replace", 1)
    guard("unlink", 0)
