"""The files that this process opens, and the addresses that it connects to, within a block."""

import os
import sys
from contextlib import contextmanager

_recorders = []
_EVENTS = {"open", "os.listdir", "os.scandir", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system"}
_hooked = []


def _hook(event, arguments):
    if _recorders and event in _EVENTS:
        for recorder in _recorders:
            recorder.append((event, arguments))


@contextmanager
def recorded():
    """A list of (event, arguments) that grows while the block runs."""
    if not _hooked:  # an audit hook stays to the end of the process
        sys.addaudithook(_hook)
        _hooked.append(True)
    events = []
    _recorders.append(events)
    try:
        yield events
    finally:
        _recorders.remove(events)


def opened(events):
    """The absolute paths among the events of files and folders."""
    paths = [arguments[0] for event, arguments in events if event in ("open", "os.listdir", "os.scandir")]
    return {os.path.abspath(os.fsdecode(path)) for path in paths if isinstance(path, (str, bytes, os.PathLike))}


def others(events):
    """The events that are no files: connections and programs."""
    return [event for event in events if event[0] not in ("open", "os.listdir", "os.scandir")]
