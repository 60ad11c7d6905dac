"""`dearlite serve` as a process: its port, its end, its sockets, and clients that leave or are slow."""

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from waiting import WITHIN_S, eventually, join

pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra serve)")

BODY = {"query": "bulb", "documents": ["Edison", "Coffee"]}
LARGE = {"query": "bulb", "documents": ["bulb " * 400] * 400}


CROWDED = (
    "import sys\n"
    "from dearlite.cli.main import run\n"
    "from dearlite.serve.server import TimedProtocol\n"
    "TimedProtocol.most_connections = 20\n"
    "run(sys.argv[1:])\n"
)
HURRIED = (
    "import sys\n"
    "from dearlite.cli.main import run\n"
    "from dearlite.serve.limits import Limits\n"
    "Limits.__init__.__kwdefaults__['body_seconds'] = 1.0\n"
    "run(sys.argv[1:])\n"
)


@contextmanager
def serving(model, folder, *start):
    """A running server of its own, its port, and the file of its stderr; `start` begins its command."""
    command = [sys.executable, *(start or ("-m", "dearlite")), "serve", "-m", str(model), "--port", "0"]
    with (
        open(folder / "stderr", "w+") as errors,
        subprocess.Popen([*command, "--max-queue", "4"], stdout=subprocess.PIPE, stderr=errors, text=True) as running,
    ):
        try:
            yield running, json.loads(running.stdout.readline())["port"], errors
        finally:
            running.kill()


@pytest.fixture(scope="module")
def process(tiny_bundle, tmp_path_factory):
    """A running server of the small model that takes 20 connections, its port and the file of its stderr."""
    with serving(tiny_bundle, tmp_path_factory.mktemp("serve"), "-c", CROWDED) as server:
        yield server


@pytest.fixture(scope="module")
def hurried(tiny_bundle, tmp_path_factory):
    """A server that waits for a second for the headers and the body of a request, and for a client that reads."""
    with serving(tiny_bundle, tmp_path_factory.mktemp("hurried"), "-c", HURRIED) as server:
        yield server


def log_of(server):
    """What the server has written to stderr so far. A thread of it writes: await a line with `eventually`."""
    server[2].seek(0)
    return server[2].read()


def post(port, body):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/rerank", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=WITHIN_S) as response:
        return json.load(response)


def metric(port, name):
    """The value of a counter, 0 for one that is not there yet."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WITHIN_S) as response:
        lines = response.read().decode().splitlines()
    return next((int(line.split()[-1]) for line in lines if line.startswith(name + " ")), 0)


def exchange(port, data):
    """The bytes that the server answers to `data`, up to the end of the connection."""
    with closing(socket.create_connection(("127.0.0.1", port), WITHIN_S)) as client:
        client.sendall(data)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
        return answer


def test_a_request_is_answered(process):
    assert {row["index"] for row in post(process[1], BODY)["results"]} == {0, 1}


PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", re.findall(r"^    (curl .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
def test_the_commands_of_the_page(process, line):
    command = shlex.split(line.replace("8787", str(process[1])))
    done = subprocess.run([*command, "--fail", "-sS"], capture_output=True, text=True, check=True)
    assert any(word in done.stdout for word in ("index", "tiny", "dearlite_documents_total"))


def test_a_client_that_leaves_frees_its_place(process):
    _, port, _ = process
    text = json.dumps(LARGE).encode()
    head = f"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n".encode()
    before = metric(port, "dearlite_cancelled_total")
    for accept in (b"", b"Accept: text/event-stream\r\n"):
        with closing(socket.create_connection(("127.0.0.1", port))) as client:
            client.sendall(head.replace(b"\r\n\r\n", b"\r\n" + accept + b"\r\n") + text)
            eventually(lambda: metric(port, "dearlite_queue_size"))
        eventually(lambda: not metric(port, "dearlite_queue_size"))
    eventually(lambda: metric(port, "dearlite_cancelled_total") == before + 2)


def test_slow_headers_are_cut_off(hurried):
    start = time.perf_counter()
    assert exchange(hurried[1], b"POST /rerank HTTP/1.1\r\nHost: local").startswith(b"HTTP/1.1 408")
    assert time.perf_counter() - start > 0.5  # not at once


@pytest.mark.parametrize(
    "head",
    [
        b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: +2\r\n\r\n{}",
        b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"POST /rerank HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"POST /rerank HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
)
def test_requests_that_smuggle_another_are_refused(hurried, head):
    """The second request on the connection must not be answered as one of its own."""
    answer = exchange(
        hurried[1], head + b"Connection: close\r\n\r\n" + b"GET /info HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    statuses = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1")]
    assert len(statuses) <= 1
    assert b" 200 " not in answer[:30]
    assert b"model_id" not in answer


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"POST /rerank HTTP/1.1\r\n\r\n", 400, "Missing mandatory Host: header"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "illegal request line"),
        (b"GET /info HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000, 431, "Receive buffer too long"),
        (b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, "chunk header"),
        (b"POST /rerank HTTP/1.1\r\nHost: local", 408, "the headers did not come within 1 s"),
    ],
)
def test_what_is_no_request_has_the_body_of_all_refusals(process, hurried, data, status, reason):
    server = hurried if status == 408 else process
    head, _, body = exchange(server[1], data).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    error = json.loads(body)
    assert error["message"] == error["detail"] == error["error"]["message"]
    assert reason in error["message"]
    eventually(lambda: f"{status}: {error['message']}" in log_of(server))
    assert "Invalid HTTP request received" not in log_of(server)


def test_bytes_that_are_no_chunk_after_the_answer_end_the_connection_only(process):
    head = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with closing(socket.create_connection(("127.0.0.1", process[1]), WITHIN_S)) as client:
        client.sendall(head)
        answer = b""
        while not answer.endswith(b"}\n"):
            answer += client.recv(65536)
        client.sendall(b"xyz\r\n")
        assert client.recv(65536) == b""
    assert answer.startswith(b"HTTP/1.1 404")
    assert "Traceback" not in log_of(process)


def test_a_request_for_another_protocol_is_answered_without_a_word(process):
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    assert exchange(process[1], head).startswith(b"HTTP/1.1 200")
    assert "uvicorn" not in log_of(process)


@pytest.fixture
def read_late(hurried):
    """Call: the number of bytes of a large answer that a client gets which reads it after `pause_s`; None for none."""
    body = json.dumps({"query": "bulb", "documents": [{"text": "Edison", "more": "x" * 24_000_000}]}).encode()
    head = b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)

    def call(pause_s):
        size = None
        with (
            closing(socket.create_connection(("127.0.0.1", hurried[1]), WITHIN_S)) as client,
            suppress(ConnectionError),
        ):
            client.sendall(head + body)
            if client.recv(15) == b"HTTP/1.1 200 OK":
                size = 0
                time.sleep(pause_s)
                while chunk := client.recv(1 << 16):
                    size += len(chunk)
        return size

    return call


def test_a_client_that_does_not_read_its_answer_is_cut_off(read_late):
    """On a busy machine the body may come too late for this server, or the server wake too late: it is asked again."""
    sizes = (read_late(pause_s) for pause_s in (2.5, 2.5, 5, 10, 20, 40))
    assert any(size is not None and 0 < size < 24_000_000 for size in sizes)


def test_content_length_beside_chunks_counts_once(process):
    """h11 follows RFC 9112: chunks count, and the connection may not carry a hidden request."""
    body = json.dumps(BODY).encode()
    head = b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n"
    answer = exchange(process[1], head + b"Connection: close\r\n\r\n" + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("target", "host", "status", "word"),
    [
        ("http://127.0.0.1:8787/health", "localhost", 200, ""),
        ("HTTP://localhost/v1/models?x=1", "evil.example", 200, "tiny"),  # the target counts, not the header
        ("http://localhost", "localhost", 200, "<!doctype html>"),
        ("http://localhost/%69nfo", "localhost", 200, "model_id"),
        ("http://evil.example/info", "localhost", 403, "the host 'evil.example' is not this server's"),
        ("http://localhost@evil.example/info", "localhost", 403, "is not this server's"),
        ("http:///info", "localhost", 403, "the host '' is not this server's"),
        ("http%3A//localhost/info", "localhost", 404, "no such endpoint"),
        ("https://localhost/info", "localhost", 404, "no such endpoint"),
    ],
)
def test_a_whole_address_as_the_target_is_that_path_at_that_host(process, target, host, status, word):
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    answer = exchange(process[1], head.encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert word.encode() in answer


GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_a_connection_too_many_gets_the_body_of_all_refusals(process):
    address = ("127.0.0.1", process[1])
    idle = [socket.create_connection(address, WITHIN_S) for _ in range(20)]
    try:
        head, _, body = exchange(process[1], b"GET /info HTTP/1.1\r\nHost: localhost\r\n\r\n").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert {b"retry-after: 1", b"connection: close"} <= set(head.lower().split(b"\r\n"))
        error = json.loads(body)
        assert error["message"] == error["detail"] == error["error"]["message"]
        assert error["message"].startswith("20 connections are open")
        assert error["error_type"] == "Unhealthy"
        idle[0].sendall(b"GET /info HTTP/1.1\r\nHost: localhost\r\n\r\n")  # one of those that are within the limit
        assert idle.pop(0).recv(100).startswith(b"HTTP/1.1 200")
    finally:
        for connection in idle:
            connection.close()
    eventually(lambda: f"GET '/info': 503: {error['message']}" in log_of(process))
    eventually(lambda: b" 200 " in exchange(process[1], GET_HEALTH)[:20])  # the next test gets a connection


def test_a_slow_body_is_refused(hurried):
    answer = exchange(
        hurried[1], b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\nConnection: close\r\n\r\n{"
    )
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not come within" in answer
    eventually(lambda: "408: the body did not come" in log_of(hurried))


def test_a_port_in_use_is_one_line(process, cli, tiny_bundle):
    code, out, err = cli("serve", "-m", tiny_bundle, "--port", process[1])
    assert (code, out) == (2, "")
    assert f"cannot listen on 127.0.0.1 port {process[1]}" in err
    assert err.count("\n") == 1


def test_sigterm_finishes_the_request_that_runs(tiny_bundle, tmp_path):
    with serving(tiny_bundle, tmp_path) as server:
        running, port, _ = server
        answers = []
        thread = threading.Thread(target=lambda: answers.append(post(port, LARGE)))
        thread.start()
        eventually(lambda: metric(port, "dearlite_queue_size"))
        running.send_signal(signal.SIGTERM)
        join(thread)
        assert len(answers[0]["results"]) == 400
        assert running.wait(WITHIN_S) == 0
        assert running.stdout.read() == ""
        text = log_of(server)
    assert "Traceback" not in text
    assert f"dearlite: serving tiny on http://127.0.0.1:{port}" in text


def test_a_second_signal_ends_the_work_too(tiny_bundle, tmp_path):
    with serving(tiny_bundle, tmp_path) as server:
        running, port, _ = server
        text = json.dumps({**LARGE, "documents": LARGE["documents"] * 20}).encode()
        with closing(socket.create_connection(("127.0.0.1", port), WITHIN_S)) as client:
            head = f"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n"
            client.sendall(head.encode() + text)
            eventually(lambda: metric(port, "dearlite_queue_size"))
            running.send_signal(signal.SIGTERM)
            eventually(lambda: "1 request is finishing; Ctrl-C again stops it" in log_of(server))
            assert running.poll() is None
            running.send_signal(signal.SIGTERM)
            assert client.recv(100).startswith(b"HTTP/1.1 503")
        assert running.wait(WITHIN_S) == 0
        assert "503: the work was stopped before its end" in log_of(server)
        assert "Traceback" not in log_of(server)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_a_stdout_that_cannot_be_written_ends_the_server(tiny_bundle):
    """The program that started it never learns of its port."""
    command = [sys.executable, "-m", "dearlite", "serve", "-m", str(tiny_bundle), "--port", "0"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("dearlite: cannot write to standard output: ")
    assert done.stderr.count("\n") == 1


def test_another_address_needs_a_key(cli, tmp_path):
    for host in ("0.0.0.0", "::", "192.168.0.7", "box.lan"):
        code, _, err = cli("serve", "--host", host)
        assert code == 2
        assert "--api-key-file" in err
    (tmp_path / "keys").write_text("short")
    code, _, err = cli("serve", "--host", "0.0.0.0", "--api-key-file", tmp_path / "keys")
    assert code == 2
    assert "fewer than 16" in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--also", "no-such-model"], "no-such-model"),
        (["--also", "minilm-l12"], "two of the served models are called minilm-l12"),
        (["--host", "no such host"], "--host 'no such host' is no address"),
        (["--host", "a\nb"], "--host 'a\\nb' is no address"),
        (["--host", ""], "--host '' is no address"),
        (["--host", "box.lan"], "--api-key-file"),
        (["--allow-host", "box:80"], "--allow-host 'box:80' is no name of a host"),
        (["--allow-origin", "*"], "--allow-origin '*' is no site"),
        (["--stdio"], "--port does not go with --stdio"),
        (["--max-documents", "0"], "--max-documents is 0"),
        (["-m", "no-such-model"], "no-such-model"),
    ],
)
def test_wrong_options_are_one_line(cli, arguments, reason):
    code, out, err = cli("serve", "--port", "0", *arguments)
    assert (code, out) == (2, "")
    assert reason in err
    assert err.count("\n") == 1


def test_names_of_several_models(tiny_bundle):
    from dearlite.cli.options.model import Loading, ModelOptions
    from dearlite.cli.serve import load_models
    from dearlite.models.chain import resolve

    options = ModelOptions(chain=resolve([f"{tiny_bundle}:50", f"{tiny_bundle}:5"]), loading=Loading(threads=1))
    models = load_models(options, (str(tiny_bundle), f"{tiny_bundle}:9,minilm-l12:3"))
    assert [model.name for model in models.served] == ["tiny>tiny", "tiny", "tiny>minilm-l12"]
    names = ("tiny", "tiny>minilm-l12", None, "x")
    assert [models.find(name).name for name in names] == ["tiny", "tiny>minilm-l12", "tiny>tiny", "tiny>tiny"]
