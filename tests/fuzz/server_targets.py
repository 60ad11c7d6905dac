"""Every input of the servers: bodies and heads of HTTP, lines of JSON-RPC and of MCP; and texts through models."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import tempfile
import threading
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

from fuzzing import Fault, Target, by_bytes, by_json, by_json_lines
from hostile import HOSTILE
from mutations import mutated

from dearlite.errors import InvalidInput
from dearlite.models.chain import resolve
from dearlite.options import Listwise
from dearlite.reranker import Reranker

GOOD = {"query": "bulb", "documents": ["Coffee", {"text": "Edison", "title": "t"}], "top_n": 2}
BODIES = (
    GOOD,
    {"query": "bulb", "texts": ["a", "b"], "raw_scores": True, "truncate": False, "return_text": True},
    {"query": "bulb", "documents": [{"a": "x", "b": "y"}], "rank_fields": ["a", "b"], "return_documents": True},
    {
        "query": "q",
        "documents": ["a", "b"],
        "long": {"mode": "chunk", "passage_tokens": 16, "keep": 1},
        "budget_ms": 1e6,
    },
    {"query": "q", "documents": ["a"], "instruction": "find", "model": "tiny", "explain": False},
)
PAIRS = (
    {"text_1": "q", "text_2": ["a", "b"]},
    {"queries": ["a", "b"], "documents": ["c", "d"], "use_activation": False},
)
_FIELDS = tuple(f'"{name}"'.encode() for body in (*BODIES, *PAIRS) for name in body)


def _seeds(*values):
    return lambda folder: [json.dumps(value).encode() for value in values]


@cache
def _lasting() -> Path:
    """A folder for models, which lasts as long as the process."""
    keep = tempfile.TemporaryDirectory()
    _kept.append(keep)
    return Path(keep.name)


_kept: list[object] = []


@cache
def _served():
    from tiny_bundle import write_tiny_bundle

    from dearlite.serve.models import Models, serve_model

    return Models((serve_model(resolve(write_tiny_bundle(_lasting() / "tiny.dear")), {"threads": 1}),))


def _limits():
    from dearlite.serve.limits import Limits

    return Limits(documents=200, body_bytes=100_000, seconds=20.0, body_seconds=5.0)


@cache
def _app():
    from dearlite.serve.app import create_app

    return create_app(_served(), limits=_limits()), asyncio.new_event_loop()


async def _asked(app, method, path, headers, body):
    """Status and body of the answer to a request, by ASGI."""
    sent, messages = [], [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        return await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "query_string": b""},
        **{"method": method, "path": path, "raw_path": path.encode(), "headers": [(b"host", b"localhost"), *headers]},
        **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "root_path": "", "state": {}},
    }
    await app(scope, receive, send)
    data = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    return sent[0]["status"], data


def _no_constant(name):
    raise Fault(f"{name} in an answer")


def _answered(status, data, body):
    """Raises Fault for an answer that is none, InvalidInput for a refusal."""
    if status in (500, 501, 502) or status < 200:
        raise Fault(f"status {status}: {data[:300]!r}")
    answer = json.loads(data, parse_constant=_no_constant)
    if status != 200:
        if "\n" in answer["message"]:
            raise Fault(f"a message of several lines: {answer['message']!r}")
        raise InvalidInput(answer["message"])
    rows = answer if isinstance(answer, list) else answer.get("results", answer.get("data"))
    request = json.loads(body)
    documents = next((request[name] for name in ("documents", "texts", "passages", "docs") if request.get(name)), None)
    if isinstance(documents, list) and rows and "index" in rows[0]:
        indices = [row["index"] for row in rows]
        if len({*indices}) != len(indices) or not {*indices} <= {*range(max(len(documents), len(rows)))}:
            raise Fault(f"indices {indices}")
        if not request.keys() & {"top_n", "top_k", "k"} and len(rows) != len(documents):
            raise Fault(f"{len(rows)} of {len(documents)} documents")


def _post(paths, data, folder):
    app, loop = _app()
    key = zlib.crc32(data)
    status, answer = loop.run_until_complete(
        _asked(app, "POST", paths[key % len(paths)], [(b"content-type", b"application/json")], data)
    )
    _answered(status, answer, data)


def _rerank_paths():
    from dearlite.serve.shapes import FORMS

    return list(FORMS)


def _events(data, folder):
    app, loop = _app()
    headers = [(b"accept", b"text/event-stream"), (b"content-type", b"application/json")]
    status, answer = loop.run_until_complete(_asked(app, "POST", "/rerank", headers, data))
    if status != 200:
        _answered(status, answer, data)
    event = answer.strip().rpartition(b"\n\n")[2].split(b"\n")
    name, value = event[0], json.loads(event[-1].removeprefix(b"data: "), parse_constant=_no_constant)
    if name == b"event: error":
        _answered(value["error"]["code"], json.dumps(value).encode(), data)
    elif name != b"event: result":
        raise Fault(f"the last event is {name!r}")


# heads of requests, through the real socket and protocol


@cache
def _address():
    from dearlite.serve.server import open_socket, run_server

    bound, started = open_socket("127.0.0.1", 0), threading.Event()
    from dearlite.serve.app import create_app

    app = create_app(_served(), limits=_limits())
    threading.Thread(target=run_server, args=(app, bound, _limits(), started.set), daemon=True).start()
    started.wait()
    return bound.getsockname()


_HEADS = (
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 47\r\n"
    b'Connection: close\r\n\r\n{"query": "bulb", "documents": ["a", "Edison"]}',
    b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
    b'X-Timeout-Ms: 5000\r\n\r\n2b\r\n{"query": "bulb", "documents": ["a", "b" ]}\r\n0\r\n\r\n',
    b"HEAD /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n",
    b"GET /page/page.js?x=%2e%2e%2f HTTP/1.1\r\nHost: [::1]:80\r\nAccept: text/event-stream;q=0.5\r\n"
    b"Connection: close\r\n\r\n",
)
_HEAD_WORDS = (
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"Content-Length: -1",
        b"Content-Length: 1",
        b"Host: evil",
    ),
    *(
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Upgrade: websocket\r\nConnection: upgrade",
        b"%00",
        b"%2e%2e/",
    ),
    *(
        b"http://localhost/health",
        b"//",
        b"Authorization: Bearer x",
        b"X-Timeout-Ms: nan",
        b"Content-Encoding: gzip",
        b"?a=%ff",
    ),
    *(
        b"CONNECT",
        b"TRACE",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"Origin: null",
        b"Accept: ;q=;,",
        b"Host: localhost:",
        b"\x16\x03\x01",
    ),
)


_WAITS_S = 0.2  # for an answer, after which no more of the request is sent


def _head(random, seeds):
    """A head with changed bytes, mostly before its body."""
    data = mutated(random, random.choice(seeds), seeds, _HEAD_WORDS)
    return data[:20_000]


def _received(connection, seconds):
    """The next bytes; none at the end, and after `seconds`."""
    connection.settimeout(seconds)
    try:
        return connection.recv(65536)
    except TimeoutError:
        return b""


def _send(data, folder):
    with socket.create_connection(_address(), timeout=30) as connection:
        answer = b""
        with suppress(ConnectionError):  # the server ends a connection whose request it does not read to its end
            connection.sendall(data)
            while part := _received(connection, _WAITS_S):
                answer += part
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)  # it may wait for the rest of a request
            while part := _received(connection, 30.0):
                answer += part
    if not answer:
        raise InvalidInput("no answer")
    lines = answer.split(b"\r\n")
    if not lines[0].startswith(b"HTTP/1.1 ") or lines[0][9:12] in (b"500", b"502"):
        raise Fault(f"the answer begins with {answer[:200]!r}")
    if lines[0][9:12] not in (b"200", b"100", b"204"):
        raise InvalidInput(lines[0].decode())


# JSON-RPC


def _rpc(method, params, number):
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()


_LINES = (
    b"\n".join(
        (_rpc("rerank", GOOD, 1), _rpc("score", PAIRS[0], "b"), _rpc("models", {}, 3), _rpc("cancel", {"id": 1}, 4))
    ),
    _rpc("rerank", BODIES[3], 1.5),
)


class _Sink(io.BytesIO):
    """Output whose lines are checked."""

    def write(self, data):
        json.loads(data, parse_constant=_no_constant)
        return super().write(data)


def _stdio(data, folder):
    from dearlite.serve.stdio import StdioServer

    sink = _Sink()
    good = _rpc("models", {}, "the last one")
    StdioServer(_served(), _limits(), io.BytesIO(data + b"\n" + good + b"\n"), sink).run()
    messages = [json.loads(line) for line in sink.getvalue().splitlines()]
    if not any(message.get("id") == "the last one" and "result" in message for message in messages):
        raise Fault("a good request after it is not answered")
    errors = [message["error"]["message"] for message in messages if "error" in message]
    if any("fault of the server" in error or "\n" in error for error in errors):
        raise Fault(errors[-1])
    if errors:
        raise InvalidInput(errors[0] or "none")


_INITIALIZE = _rpc(
    "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "f", "version": "1"}}, 0
)
_READY = b'{"jsonrpc": "2.0", "method": "notifications/initialized"}'
_TOOL = _rpc("tools/call", {"name": "rerank", "arguments": {"query": "q", "documents": ["a", "b"], "top_k": 1}}, 5)


def _requests(data):
    """The number of lines that are requests, which are answered."""
    count = 0
    for line in data.split(b"\n"):
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(message, dict) and message.get("jsonrpc") == "2.0" and isinstance(message.get("method"), str):
            count += type(message.get("id")) in (int, str) and isinstance(message.get("params", {}), dict)
    return count


def _mcp(data, folder):
    import anyio
    import mcp.server.mcpserver.server as module

    from dearlite.serve.mcp import run_mcp

    text = b"\n".join((_INITIALIZE, _READY, data, _rpc("ping", {}, "last"), b"")).decode("utf-8", "replace")
    output, before = io.StringIO(), module.stdio_server

    async def lines():
        for line in io.StringIO(text):
            yield line
        # The end of the input ends what runs, and a ping may be answered before a call that came earlier.
        with anyio.move_on_after(20):
            while '"last"' not in output.getvalue():
                await anyio.sleep(0.002)
        with anyio.move_on_after(10):
            while output.getvalue().count("\n") < 2 + _requests(data):
                await anyio.sleep(0.002)

    module.stdio_server = lambda: before(lines(), anyio.wrap_file(output))
    try:
        run_mcp(_served(), _limits())
    finally:
        module.stdio_server = before
    lines_out = output.getvalue().split("\n")  # str.splitlines also ends lines at U+2028 and the like, in texts
    messages = [json.loads(line, parse_constant=_no_constant) for line in lines_out if line]
    if not any(message.get("id") == "last" for message in messages):
        raise Fault("a ping after it is not answered")
    if any("error" in message for message in messages):
        raise InvalidInput(str(messages)[:500].replace("\n", " "))


# texts through models


def _texts(data):
    text = data.decode(
        "utf-8", "surrogateescape" if len(data) % 2 else "surrogatepass" if data.isascii() else "replace"
    )
    query, *documents = text.split("\n")
    return query, documents[:6] or [text]


@cache
def _pointwise():
    return _served().served[0].reranker


@cache
def _listwise():
    from tiny_gguf import write_tiny

    return Reranker.load(write_tiny(_lasting() / "tiny.gguf"), threads=1)


_MODES = ("permute", "first", "setwise", "pairwise")


def _rank_texts(data, folder):
    query, documents = _texts(data)
    ranking = _pointwise().rerank(query, documents)
    if sorted(hit.index for hit in ranking) != list(range(len(documents))):
        raise Fault("a document is lost")


def _rank_list(data, folder):
    query, documents = _texts(data[:1500])
    listwise = Listwise(mode=_MODES[zlib.crc32(data) % len(_MODES)], passage_tokens=40)
    ranking = _listwise().rerank(query, documents, listwise=listwise)
    if sorted(hit.index for hit in ranking) != list(range(len(documents))):
        raise Fault("a document is lost")


def _hostile_seeds(folder):
    return [b"who invented the bulb?\nEdison\nCoffee"]


def _hostile(random, seeds):
    """Lines of good and hostile texts, with changed bytes."""
    texts = [random.choice(list(HOSTILE.values()))[:600].encode("utf-8", "surrogatepass") for _ in range(3)]
    return by_bytes(random, [b"\n".join((seeds[0], *texts)), texts[0] + b"\n" + texts[1]], texts)


def _objects(data, folder):
    """A query, documents and options of any type, given from Python."""
    try:
        value = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        raise InvalidInput("no JSON") from None
    if not isinstance(value, dict):
        raise InvalidInput("no object")
    ranking = _pointwise().rerank(value.get("query"), value.get("documents"), top_k=value.get("top_n"))
    repr(ranking), ranking.to_dicts()


_NEEDS = ("onnx", "onnxruntime", "starlette", "uvicorn")
TARGETS = (
    Target(
        name="http.rerank",
        read=lambda data, folder: _post(_rerank_paths(), data, folder),
        seeds=_seeds(*BODIES),
        make=lambda random, seeds: by_json(random, seeds, _FIELDS),
        needs=_NEEDS,
        share=1.0,
        short=150,
    ),
    Target(
        name="http.score",
        read=lambda data, folder: _post(["/score", "/v1/score"], data, folder),
        seeds=_seeds(*PAIRS),
        make=lambda random, seeds: by_json(random, seeds, _FIELDS),
        needs=_NEEDS,
        share=0.5,
        short=100,
    ),
    Target(
        name="http.events",
        read=_events,
        seeds=_seeds(*BODIES),
        make=lambda random, seeds: by_json(random, seeds, _FIELDS),
        needs=_NEEDS,
        share=0.2,
        short=40,
    ),
    Target(name="http.head", read=_send, seeds=lambda _: _HEADS, make=_head, needs=_NEEDS, share=0.3, short=60),
    Target(
        name="serve --stdio",
        read=_stdio,
        seeds=lambda _: _LINES,
        make=lambda random, seeds: by_json_lines(random, seeds, (*_FIELDS, b'"jsonrpc"', b'"method"', b'"id"', b"\n")),
        needs=("onnx", "onnxruntime"),
        share=0.4,
        short=60,
    ),
    Target(
        name="mcp",
        read=_mcp,
        seeds=lambda _: [_TOOL, _rpc("tools/list", {}, 1), _rpc("resources/read", {"uri": "dearlite://models"}, 2)],
        make=lambda random, seeds: by_json_lines(random, seeds, (*_FIELDS, b'"jsonrpc"', b'"method"', b"tools/call")),
        needs=("onnx", "onnxruntime", "mcp"),
        share=0.05,
        short=20,
    ),
    Target(
        name="texts.pointwise",
        read=_rank_texts,
        seeds=_hostile_seeds,
        make=_hostile,
        needs=("onnx", "onnxruntime"),
        share=0.3,
        short=60,
    ),
    Target(
        name="texts.listwise",
        read=_rank_list,
        seeds=_hostile_seeds,
        make=_hostile,
        needs=("llama_cpp", "gguf"),
        share=0.02,
        short=12,
    ),
    Target(
        name="objects.rerank",
        read=_objects,
        seeds=_seeds(GOOD),
        make=by_json,
        needs=("onnx", "onnxruntime"),
        share=0.5,
        short=100,
    ),
)
