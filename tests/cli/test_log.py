"""The log of a server: its lines never wait for a reader, and lost ones are counted."""

import logging
import os
import re
from threading import Event, Thread
from types import SimpleNamespace

from waiting import Clock, eventually, join

from dearlite.cli.log import StderrLog

LINES = 3000  # of 1 kB: more than a pipe and the queue hold


def test_lines_that_nobody_reads_are_counted():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "w") as writer:
        handler = StderrLog(writer)

        def log(message):
            handler.handle(logging.makeLogRecord({"msg": message}))  # with the handler's lock, as a logger does

        server = Thread(target=lambda: [log(f"line {number} " + "x" * 1000) for number in range(LINES)], daemon=True)
        server.start()
        join(server)  # it ends although nobody reads
        parts = []
        late_reader = Thread(target=lambda: parts.extend(iter(lambda: reader.read1(1 << 16), b"")), daemon=True)
        late_reader.start()
        eventually(lambda: not handler._lines.unfinished_tasks)
        log("last \ud800")
        handler.flush()
        eventually(lambda: not handler._lines.unfinished_tasks)  # `flush` itself waits for a second at most
        writer.close()
        join(late_reader)
        text = b"".join(parts)
    assert text.startswith(b"line 0 xxx")
    assert b"\nlast \\ud800\n" in text
    lost = [int(number) for number in re.findall(rb"dearlite: (\d+) further lines were lost", text)]
    assert sum(lost) > 0
    assert text.count(b"line ") + sum(lost) == LINES  # a notice counts those since the notice before it


def test_the_last_line_is_written_on_a_machine_that_stands_still(monkeypatch):
    """Its clock has jumped by a minute whenever it is asked, and the thread that writes comes late."""
    clock, naps, late, text = Clock(), [], Event(), []

    def monotonic():
        clock.now += 60
        return clock.now

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 5:
            late.set()
            eventually(lambda: text)

    monkeypatch.setattr("dearlite.cli.log.time", SimpleNamespace(monotonic=monotonic, sleep=sleep))
    handler = StderrLog(SimpleNamespace(write=lambda line: late.wait() and text.append(line)))
    handler.handle(logging.makeLogRecord({"msg": "last"}))
    handler.flush()
    assert text == ["last\n"]
