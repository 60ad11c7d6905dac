"""A stand-in for Windows, which replaces and deletes no file that a process has open or mapped."""

import os
from pathlib import Path

import pytest


def files_in_use():
    """Paths of the files that this process has open or mapped."""
    mapped = {line.split(maxsplit=5)[5] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    opened = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            opened.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:  # of the listing itself
            continue
    return mapped | opened


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
