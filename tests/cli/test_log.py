"""The log of a server: its lines never wait for a reader, and lost ones are counted."""

import logging
import os
import re
import time
from threading import Thread

from dearlite.cli.log import StderrLog

LINES = 3000  # of 1 kB: more than a pipe and the queue hold


def test_lines_that_nobody_reads_are_counted():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "w") as writer:
        handler = StderrLog(writer)
        start = time.perf_counter()
        for number in range(LINES):
            handler.emit(logging.makeLogRecord({"msg": f"line {number} " + "x" * 1000}))
        assert time.perf_counter() - start < 5
        parts = []
        late_reader = Thread(target=lambda: parts.extend(iter(lambda: reader.read1(1 << 16), b"")), daemon=True)
        late_reader.start()
        while handler._lines.unfinished_tasks:
            time.sleep(0.01)
        handler.emit(logging.makeLogRecord({"msg": "last \ud800"}))
        handler.flush()
        writer.close()
        late_reader.join(30)
        text = b"".join(parts)
    assert text.startswith(b"line 0 xxx")
    assert b"\nlast \\ud800\n" in text
    lost = [int(number) for number in re.findall(rb"dearlite: (\d+) further lines were lost", text)]
    assert sum(lost) > 0
    assert text.count(b"line ") + sum(lost) == LINES  # a notice counts those since the notice before it
