"""Locks on open files, which the operating system releases when the process ends, however it ends."""

from __future__ import annotations

import sys


def lock_alone(file: int) -> None:
    """Locks an open file for this process until it is closed. Raises OSError if another process holds the lock."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
