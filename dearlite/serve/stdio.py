"""The server on standard input and output, for a program that starts it as a part of itself: JSON-RPC 2.0 in lines.

A message is one line. Requests are `rerank`, `score`, `models` and `cancel`; the parameters of the first two are the
bodies of the HTTP endpoints. Notifications to the program are `ready`, `progress` and `text`. The end of the input,
which comes with the program's own end, stops all work. Needs neither starlette nor uvicorn.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import TIMEOUT_MAX, Lock, Timer
from typing import Any, BinaryIO

from dearlite.errors import Cancelled, DearliteError, InvalidInput
from dearlite.files.json_text import json_text
from dearlite.serve.body import parse_json
from dearlite.serve.limits import Limits
from dearlite.serve.models import Models
from dearlite.serve.refusals import refusal_of
from dearlite.serve.requests import read_pairs, read_rerank
from dearlite.serve.shapes import models_answer, rerank_answer, score_answer
from dearlite.serve.turns import Turn

log = logging.getLogger("dearlite")
_PARSE, _REQUEST, _METHOD, _PARAMS, _FAILED, _BUSY, _TIMEOUT, _CANCELLED = (
    *(-32700, -32600, -32601, -32602),  # of JSON-RPC
    *(-32000, -32001, -32002, -32800),  # of this server; the last is that of the Language Server Protocol
)
_CODES = {413: _PARAMS, 422: _PARAMS, 400: _PARAMS, 429: _BUSY, 504: _TIMEOUT}  # status of HTTP -> code; else _FAILED
_PROGRESS_S = 0.1  # least time between two notifications of progress

Id = str | int | float


class RpcError(Exception):
    """An error of a request: its code and a sentence."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class _Running:
    """A request that runs or waits; `cancelled` by its client, `late` by the time limit."""

    turn: Turn
    cancelled: bool = False
    late: bool = False

    def stop_late(self) -> None:
        """Stops the work at the end of its time."""
        self.late = True
        self.turn.stop()


class StdioServer:
    """Answers the messages of `source` on `sink`. One thread reads, each request has a thread."""

    def __init__(self, models: Models, limits: Limits, source: BinaryIO, sink: BinaryIO) -> None:
        self._models, self._limits, self._source, self._sink = models, limits, source, sink
        self._running: dict[Id, _Running] = {}
        self._lock, self._output, self._started = Lock(), Lock(), int(time.time())
        self._closed = False

    def run(self) -> None:
        """Answers until the input ends, or the output is closed. Work that is left is stopped."""
        self._notify("ready", {"models": [model.name for model in self._models.served]})
        pool = ThreadPoolExecutor(self._limits.queue, thread_name_prefix="dearlite-request")
        try:
            while not self._closed and (line := self._line()) is not None:
                if line.strip():
                    self._take(line, pool)
        finally:
            with self._lock:
                self._closed = True
                for running in self._running.values():
                    running.turn.stop()
            pool.shutdown(wait=True, cancel_futures=True)

    def _line(self) -> bytes | None:
        """The next line; None at the end. One that is too long is skipped and refused."""
        most = self._limits.body_bytes
        line = self._source.readline(most + 1)
        if not line:
            return None
        if len(line) <= most:
            return line
        while line and not line.endswith(b"\n"):
            line = self._source.readline(most)
        self._refuse(None, RpcError(_REQUEST, f"a line is longer than {most} bytes: send fewer documents"))
        return b"\n"

    def _take(self, line: bytes, pool: ThreadPoolExecutor) -> None:
        """Reads a message and starts its work. Every error is answered."""
        message_id: Id | None = None
        try:
            try:
                message = parse_json(line, "the line")
            except InvalidInput as err:
                raise RpcError(_PARSE, str(err)) from None
            if not isinstance(message, Mapping):
                raise RpcError(
                    _REQUEST, "a message is an object with jsonrpc, id, method and params, alone on its line"
                )
            given_id = message.get("id")
            if _is_id(given_id):
                message_id = given_id
            elif "id" in message:  # null too: a request with it would wait for ever for its answer
                raise RpcError(_REQUEST, "the id of a message must be a string or a number; a notification has none")
            if message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
                raise RpcError(_REQUEST, 'a message needs "jsonrpc": "2.0" and a method')
            params = message.get("params", {})
            if not isinstance(params, Mapping):
                raise RpcError(_PARAMS, "params must be an object")
            self._call(message["method"], message_id, params, pool)
        except RpcError as err:
            self._refuse(message_id, err)

    def _call(self, method: str, message_id: Id | None, params: Mapping[str, Any], pool: ThreadPoolExecutor) -> None:
        if method == "cancel":
            if not _is_id(params.get("id")):
                raise RpcError(_PARAMS, "cancel needs the id of a request, a string or a number")
            self._cancel(params["id"])
            if message_id is not None:
                self._answer(message_id, None)
        elif method == "models":
            if message_id is not None:
                self._answer(message_id, models_answer(self._models, self._started))
        elif method in ("rerank", "score"):
            if message_id is not None:  # a notification has no answer, and so nothing to do
                prepare = self._prepare_rerank if method == "rerank" else self._prepare_score
                self._start(message_id, prepare, params, pool)
        elif message_id is not None:
            raise RpcError(_METHOD, f"no method {method[:40]!a}: there are rerank, score, models and cancel")

    def _start(
        self,
        message_id: Id,
        prepare: Callable[[Id, Mapping[str, Any]], tuple[Turn, Callable[[], Any]]],
        params: Mapping[str, Any],
        pool: ThreadPoolExecutor,
    ) -> None:
        """Runs a request in a thread. Raises RpcError for what cannot be run."""
        if message_id in self._running:
            raise RpcError(_REQUEST, "a request with this id is running: give each an id of its own")
        if len(self._running) >= self._limits.queue:
            raise RpcError(_BUSY, f"{len(self._running)} requests are running or waiting: try again soon")
        try:
            turn, work = prepare(message_id, params)
        except Exception as err:
            raise self._error_of(err) from None
        running = self._running[message_id] = _Running(turn)
        pool.submit(self._run, message_id, running, work)

    def _run(self, message_id: Id, running: _Running, work: Callable[[], Any]) -> None:
        timer = Timer(min(self._limits.seconds, TIMEOUT_MAX), running.stop_late)
        timer.daemon = True
        timer.start()
        error, line = None, b""
        try:
            line = _encoded({"jsonrpc": "2.0", "id": message_id, "result": work()})
        except Exception as err:
            error = self._error_of(err, running)
        timer.cancel()
        with self._lock:
            del self._running[message_id]
            closed = self._closed
        if closed:
            return
        if error is None:
            self._send(line)
        else:
            self._refuse(message_id, error)

    def _prepare_rerank(self, message_id: Id, params: Mapping[str, Any]) -> tuple[Turn, Callable[[], Any]]:
        request = read_rerank(params, self._limits)
        model = self._models.find(request.options.model)
        turn, last = Turn(model.turns), 0.0

        def progress(done: int, total: int) -> None:
            nonlocal last
            if done >= total or time.monotonic() - last >= _PROGRESS_S:
                last = time.monotonic()
                self._notify("progress", {"id": message_id, "done": done, "total": total})

        def on_text(text: str) -> None:
            self._notify("text", {"id": message_id, "text": text})

        return turn, lambda: rerank_answer("/rerank", request, model, model.rank(request, turn, progress, on_text))[0]

    def _prepare_score(self, message_id: Id, params: Mapping[str, Any]) -> tuple[Turn, Callable[[], Any]]:
        request = read_pairs(params, self._limits)
        model = self._models.find(request.options.model)
        turn = Turn(model.turns)
        return turn, lambda: score_answer(model, request, model.score(request, turn, lambda done, total: None))[0]

    def _cancel(self, message_id: Id) -> None:
        with self._lock:
            running = self._running.get(message_id)
            if running is not None:
                running.cancelled = True
                running.turn.stop()

    def _error_of(self, err: Exception, running: _Running | None = None) -> RpcError:
        if isinstance(err, Cancelled) and running is not None:
            if running.late:
                return RpcError(_TIMEOUT, f"the work took longer than {self._limits.seconds:g} s: send fewer documents")
            if running.cancelled:
                return RpcError(_CANCELLED, "the request was cancelled")
        refusal = refusal_of(err)
        if not isinstance(err, DearliteError):
            log.error("%s", refusal, exc_info=err)
        return RpcError(_CODES.get(refusal.status, _FAILED), str(refusal))

    def _answer(self, message_id: Id, result: Any) -> None:
        self._write({"jsonrpc": "2.0", "id": message_id, "result": result})

    def _refuse(self, message_id: Id | None, error: RpcError) -> None:
        log.warning("request %s: %s", ascii(message_id)[:40], error)
        self._write({"jsonrpc": "2.0", "id": message_id, "error": {"code": error.code, "message": str(error)}})

    def _notify(self, method: str, params: Any) -> None:
        self._write({"jsonrpc": "2.0", "method": method, "params": params})

    def _write(self, message: Any) -> None:
        self._send(_encoded(message))

    def _send(self, line: bytes) -> None:
        """Writes a line. A reader that has gone ends the server."""
        try:
            with self._output:
                self._sink.write(line)
                self._sink.flush()
        except (OSError, ValueError):
            self._closed = True


def _is_id(value: object) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _encoded(message: Any) -> bytes:
    return json_text(message).encode() + b"\n"
