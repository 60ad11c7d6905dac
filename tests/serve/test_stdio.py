"""`dearlite serve --stdio`: JSON-RPC in lines, and an end with the program that started it."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue

import pytest
from waiting import WITHIN_S, eventually, join

from dearlite.models.chain import resolve
from dearlite.serve.limits import Limits
from dearlite.serve.models import Models, serve_model
from dearlite.serve.stdio import StdioServer

QUERY, DOCS = "bulb", ["Coffee", "Edison", "Tulip"]
LARGE = {"query": QUERY, "documents": ["bulb " * 400] * 2000}


@pytest.fixture(scope="module")
def tiny(tiny_bundle):
    return serve_model(resolve(tiny_bundle), {"threads": 1})


class Sidecar:
    """A server in a thread, with pipes in place of its streams."""

    def __init__(self, model, limits=None):
        read, write = os.pipe()
        self.source, self.input = os.fdopen(read, "rb"), os.fdopen(write, "wb", buffering=0)
        self.messages, sink = Queue(), self
        self.thread = threading.Thread(
            target=StdioServer(Models((model,)), limits or Limits(), self.source, sink).run, daemon=True
        )
        self.thread.start()

    def write(self, line):
        assert line.count(b"\n") == 1
        self.messages.put(json.loads(line))

    def flush(self):
        """The sink of the server."""

    def send(self, method, params=None, **fields):
        self.raw(json.dumps({"jsonrpc": "2.0", "method": method, "params": params or {}, **fields}).encode() + b"\n")

    def raw(self, data):
        self.input.write(data)

    def next(self, kind=None):
        while True:
            message = self.messages.get(timeout=WITHIN_S)
            assert message["jsonrpc"] == "2.0"
            if kind is None or kind in message or message.get("method") == kind:
                return message

    def end(self):
        self.input.close()
        join(self.thread)
        self.source.close()


@pytest.fixture
def sidecar(tiny):
    running = Sidecar(tiny)
    assert running.next() == {"jsonrpc": "2.0", "method": "ready", "params": {"models": ["tiny"]}}
    yield running
    if running.thread.is_alive():
        running.end()


def test_rerank_score_and_models(sidecar, tiny):
    ranking = tiny.reranker.rerank(QUERY, DOCS)
    sidecar.send("rerank", {"query": QUERY, "documents": DOCS, "raw_scores": True}, id="a")
    assert sidecar.next()["params"] == {"id": "a", "done": 1, "total": 3}
    message = sidecar.next("result")
    assert message["id"] == "a"
    rows = message["result"]["results"]
    assert [(row["index"], row["relevance_score"]) for row in rows] == [(hit.index, hit.score) for hit in ranking]
    sidecar.send("score", {"text_1": QUERY, "text_2": DOCS, "raw_scores": True}, id=2)
    scores = [row["score"] for row in sidecar.next("result")["result"]["data"]]
    assert scores == tiny.reranker.score([(QUERY, text) for text in DOCS])
    sidecar.send("models", id=3)
    assert sidecar.next("result")["result"]["data"][0]["id"] == "tiny"


@pytest.mark.parametrize(
    ("line", "code", "message_id", "reason"),
    [
        (b"{", -32700, None, "the line is not JSON"),
        (b"\x00\xff\xfe\x80", -32700, None, "the line is not UTF-8"),
        (b"[" * 100_000, -32700, None, "nested too deeply"),
        (b'{"a": NaN}', -32700, None, "the line holds NaN"),
        (b"[]", -32600, None, "a message is an object"),
        (b'[{"jsonrpc": "2.0", "id": 1, "method": "models"}]', -32600, None, "alone on its line"),
        (b'{"id": 1, "method": "models"}', -32600, 1, 'needs "jsonrpc": "2.0"'),
        (b'{"jsonrpc": "2.0", "id": [1], "method": "models"}', -32600, None, "must be a string or a number"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": 5}', -32600, 1, "a method"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "exec"}', -32601, 1, "no method 'exec'"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "rerank", "params": [1]}', -32602, 1, "params must be an object"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "rerank"}', -32602, 1, "query is missing"),
        (
            b'{"jsonrpc": "2.0", "id": 1, "method": "rerank", "params": {"query": "a", "texts": [5]}}',
            -32602,
            1,
            "document 0 is a number",
        ),
        (b'{"jsonrpc": "2.0", "id": null, "method": "models"}', -32600, None, "must be a string or a number"),
        (b'{"jsonrpc": "2.0", "id": 1e999, "method": "models"}', -32700, None, "out of range"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "cancel"}', -32602, 1, "cancel needs the id of a request"),
        (b'{"jsonrpc": "2.0", "id": 2, "method": "cancel", "params": {"id": true}}', -32602, 2, "cancel needs the id"),
    ],
)  # fmt: skip
def test_bad_lines_are_answered_and_the_next_one_too(sidecar, line, code, message_id, reason):
    sidecar.raw(line + b"\n")
    message = sidecar.next("error")
    assert (message["error"]["code"], message["id"]) == (code, message_id)
    assert reason in message["error"]["message"]
    sidecar.send("models", id=9)
    assert sidecar.next()["id"] == 9


def test_an_answer_that_cannot_be_written_is_an_error(sidecar, monkeypatch):
    nested = []
    for _ in range(100_000):
        nested = [nested]
    monkeypatch.setattr("dearlite.serve.shapes._result", lambda *_: {"document": nested})
    sidecar.send("rerank", {"query": QUERY, "documents": DOCS}, id=1)
    message = sidecar.next("error")
    assert (message["id"], message["error"]["code"]) == (1, -32602)
    assert "nested too deeply" in message["error"]["message"]


def test_a_time_limit_beyond_that_of_threads(tiny):
    sidecar = Sidecar(tiny, Limits(seconds=1e300))
    sidecar.send("rerank", {"query": QUERY, "documents": DOCS}, id=1)
    assert len(sidecar.next("result")["result"]["results"]) == len(DOCS)
    sidecar.end()


def test_half_a_line_ends_without_work(sidecar):
    sidecar.raw(b'{"jsonrpc": "2.0", "id": 1, "method": "rer')
    sidecar.end()
    assert sidecar.next()["error"]["code"] == -32700


def test_a_huge_line_is_skipped(tiny):
    sidecar = Sidecar(tiny, Limits(body_bytes=1000))
    for size in (1001, 5000):
        threading.Thread(target=sidecar.raw, args=(b"x" * size + b"\n",)).start()
        assert "longer than 1000 bytes" in sidecar.next("error")["error"]["message"]
    sidecar.send("models", id=1)
    assert sidecar.next()["id"] == 1
    sidecar.end()


def test_cancel_ends_a_request_and_notifications_are_not_answered(sidecar):
    sidecar.send("rerank", LARGE, id=1)
    sidecar.next("progress")
    sidecar.send("rerank", LARGE, id=1)
    assert "a request with this id is running" in sidecar.next("error")["error"]["message"]
    sidecar.send("rerank", {"query": QUERY, "documents": DOCS})  # no id
    sidecar.send("cancel", {"id": 1})
    message = sidecar.next("error")
    assert (message["id"], message["error"]["code"]) == (1, -32800)
    sidecar.send("cancel", {"id": "unknown"}, id=7)
    assert sidecar.next() == {"jsonrpc": "2.0", "id": 7, "result": None}


def test_limit_of_the_queue(tiny):
    sidecar = Sidecar(tiny, Limits(queue=1))
    sidecar.send("rerank", LARGE, id=1)
    sidecar.send("rerank", {"query": QUERY, "documents": DOCS}, id=2)
    message = sidecar.next("error")
    assert (message["id"], message["error"]["code"]) == (2, -32001)
    sidecar.send("cancel", {"id": 1})
    assert sidecar.next("error")["id"] == 1
    sidecar.end()


def test_limit_of_time(tiny):
    sidecar = Sidecar(tiny, Limits(seconds=0.2))
    sidecar.send("rerank", LARGE, id=1)
    message = sidecar.next("error")
    assert (message["id"], message["error"]["code"]) == (1, -32002)
    assert "took longer than 0.2 s" in message["error"]["message"]
    sidecar.end()


def test_the_end_of_the_input_stops_the_work(sidecar, tiny):
    sidecar.send("rerank", LARGE, id=1)
    sidecar.next("progress")
    sidecar.end()
    assert tiny.turns.running is None


def test_a_reader_that_has_gone_ends_the_server(tiny):
    class Gone(io.RawIOBase):
        def write(self, data):
            raise BrokenPipeError

    StdioServer(Models((tiny,)), Limits(), io.BytesIO(b"x\n" * 100), Gone()).run()


COMMAND = [sys.executable, "-m", "dearlite", "serve", "--stdio", "-m"]
PARENT = (
    "import subprocess, sys\n"
    "child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
    "child.stdout.readline()\n"
    "print(child.pid, flush=True)\n"
    "child.wait()\n"
)


def test_the_process_ends_with_its_input(tiny_bundle):
    with subprocess.Popen(
        [*COMMAND, str(tiny_bundle)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert b"ready" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(WITHIN_S) == 0
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_process_ends_with_its_parent(tiny_bundle):
    with subprocess.Popen([sys.executable, "-c", PARENT, *COMMAND, str(tiny_bundle)], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.send_signal(signal.SIGKILL)
        parent.wait(WITHIN_S)
    try:
        eventually(lambda: not _runs(child))
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        raise


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_example_for_electron_and_node(tmp_path):
    """It ends by itself: the server ends when the program closes its input."""
    starter = tmp_path / "dearlite"
    starter.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dearlite "$@"\n')
    starter.chmod(0o755)
    example = Path(__file__).parents[2] / "examples" / "sidecar" / "sidecar.mjs"
    environment = {**os.environ, "DEARLITE": str(starter)}
    done = subprocess.run(
        ["node", example], capture_output=True, text=True, timeout=WITHIN_S, env=environment, check=False
    )
    assert done.stderr == ""
    assert [line.partition(" ")[2] for line in done.stdout.splitlines()] == [
        "Edison's bulb, 1879",
        "Coffee is good for diet",
    ]


@pytest.mark.skipif(
    shutil.which("rustc") is None or sys.platform == "win32", reason="rustc or a POSIX shell is missing"
)
def test_the_example_for_rust(tmp_path):
    """It answers, ends with the server, and says why a server does not start."""
    example = Path(__file__).parents[2] / "examples" / "sidecar" / "sidecar.rs"
    program = tmp_path / "sidecar"
    compiler = ["rustc", "--edition", "2021", example, "-o", program]
    subprocess.run(compiler, check=True, timeout=300, cwd=tmp_path)
    starter = tmp_path / "dearlite"
    starter.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dearlite "$@"\n')
    starter.chmod(0o755)

    def run(command, *options):
        environment = {**os.environ, "DEARLITE": str(command)}
        return subprocess.run(
            [program, *options], capture_output=True, text=True, timeout=120, env=environment, check=False
        )

    done = run(starter)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["index"] for row in json.loads(done.stdout)["result"]["results"]] == [1, 0]
    ended = run(starter, "-m", "no-such-model")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "no model 'no-such-model'" in ended.stderr
    assert "dearlite ended" in ended.stderr
    assert "missing does not start: " in run(tmp_path / "missing").stderr


def test_a_parent_that_does_not_read_stderr_gets_its_answers(tiny_bundle):
    """A pipe holds some hundred lines: the next refusal would wait for ever to be logged."""
    command = [sys.executable, "-m", "dearlite", "serve", "--stdio", "-m", str(tiny_bundle)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        watch = threading.Timer(WITHIN_S, process.kill)
        watch.start()
        process.stdout.readline()
        for _ in range(3000):
            process.stdin.write(b"{\n")
            process.stdin.flush()
            if not process.stdout.readline():
                break
        process.stdin.close()
        code = process.wait()
        watch.cancel()
        assert code == 0


ENDS = """
import { startSidecar } from %s;
const settled = (promise) => promise.then(() => "resolved", (error) => `${error.name}: ${error.message}`);
const [killed, silent, missing] = process.argv.slice(2).map((command) => startSidecar(command));
const rerank = (sidecar, signal) => settled(sidecar.rerank("q", ["a"], {}, { signal }));
const show = async (...promises) => { for (const promise of promises) console.log(await promise); };
await show(rerank(killed), rerank(killed), rerank(missing));
await show(rerank(killed), rerank(missing));
const stopper = new AbortController();
const waiting = rerank(silent, stopper.signal);
stopper.abort();
await show(waiting, rerank(silent, stopper.signal));
const last = rerank(silent);
silent.close();
silent.close();
await show(last, rerank(silent));
"""


@pytest.mark.skipif(shutil.which("node") is None or sys.platform == "win32", reason="node or a POSIX shell is missing")
def test_the_example_rejects_requests_when_the_server_ends_or_they_are_aborted(tmp_path):
    """A request that waits, and one that is sent afterwards: neither stays open."""
    example = Path(__file__).parents[2] / "examples" / "sidecar" / "sidecar.mjs"
    for name, script in {"killed": "read line; kill -9 $$", "silent": "exec cat >/dev/null"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    program = tmp_path / "ends.mjs"
    program.write_text(ENDS % json.dumps(example.as_uri()))
    commands = [tmp_path / name for name in ("killed", "silent", "missing")]
    done = subprocess.run(["node", program, *commands], capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    killed, aborted, closed = (
        "Error: dearlite ended (SIGKILL)",
        "AbortError: the request was aborted",
        "Error: the sidecar was closed",
    )
    missing = f"Error: {tmp_path}/missing does not start: spawn {tmp_path}/missing ENOENT"
    assert done.stdout.splitlines() == [
        *(killed, killed, missing, killed, missing),
        *(aborted, aborted, closed, closed),
    ]
