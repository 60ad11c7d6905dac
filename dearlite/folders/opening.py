"""Bytes of one regular file: links are not followed where that is said, devices and pipes are never read."""

from __future__ import annotations

import os
import stat

from dearlite.folders.content import Unreadable

# A pipe must not hold the call until somebody writes to it. Windows has neither flag, and needs the third.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def read_bytes(path: str, limit: int, *, follow: bool) -> bytes:
    """The bytes of the file `path`, `limit` at most. Raises Unreadable with the reason.

    The file is checked once it is open, as another may have its name since the folder was listed. A link at the end of
    `path` is followed only with `follow`.
    """
    try:
        descriptor = os.open(path, _FLAGS | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable("is no file any more")
            # not the limit at once, for which the memory would be reserved; a file may have grown
            data = file.read(min(limit, status.st_size) + 1)
            if len(data) > status.st_size:
                data += file.read(max(0, limit + 1 - len(data)))
    except FileNotFoundError:
        raise Unreadable("is there no more: it was removed, moved or renamed since the folder was listed") from None
    except OSError as err:
        raise Unreadable(f"cannot be read: {err.strerror or err}") from None
    if len(data) > limit:
        raise Unreadable("has grown over the limit since the folder was listed")
    return data
