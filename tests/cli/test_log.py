"""The log of a server: its lines never wait for a reader, and lost ones are counted."""

import logging
import os
import time

from dearlite.cli.log import StderrLog


def test_lines_that_nobody_reads_are_counted():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "w") as writer:
        handler = StderrLog(writer)
        start = time.perf_counter()
        for number in range(3000):
            handler.emit(logging.makeLogRecord({"msg": f"line {number} " + "x" * 1000}))
        assert time.perf_counter() - start < 5
        text = b""
        while b"further lines were lost" not in text:
            text += reader.read1(1 << 16)
        assert text.startswith(b"line 0 xxx")
        lost = int(text.split(b" further lines")[0].split()[-1])
        while handler._lines.unfinished_tasks:
            text += reader.read1(1 << 16)
        handler.emit(logging.makeLogRecord({"msg": "last \ud800"}))
        handler.flush()
        while not text.endswith(b"last \\ud800\n"):
            text += reader.read1(1 << 16)
        assert text.count(b"line ") + lost == 3000
