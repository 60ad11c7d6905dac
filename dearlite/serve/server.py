"""The running server: its socket, the protocol with its time limits, and its end on a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http import HTTPStatus
from types import FrameType
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dearlite.errors import UsageError, counted
from dearlite.files.json_text import json_text
from dearlite.serve.gate import log, log_refusal, refused
from dearlite.serve.refusals import Refused, error_body

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from dearlite.serve.desk import Desk
    from dearlite.serve.limits import Limits

_KEEP_ALIVE_S = 30
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with limits on the time in which headers must have come, and an answer must be read.

    Without them a client that sends or reads a byte now and then holds a connection for ever, and with it the end of
    the server. What is no HTTP is refused in the body that all refusals have, and so is a request on a connection too
    many.
    """

    headers_s = 30.0
    most_connections = 512
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self.app = self._refuse_crowded
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self._forget_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Starts the clock when the client does not read what was sent."""
        super().pause_writing()
        self._forget_unread()
        self._unread = self.loop.call_later(self.headers_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._forget_unread()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuses bytes that are no HTTP request; the error of the parser, which is being handled, has the reason."""
        err = sys.exc_info()[1]
        status = getattr(err, "error_status_hint", 400)
        self._refuse(status, f"no HTTP request that can be read ({err or msg}): send HTTP/1.1")

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: such a request is answered as if it asked for no other protocol."""

    def _refuse(self, status: int, message: str) -> None:
        """Ends the connection, with an answer unless one has begun."""
        log.warning("a client: %d: %s", status, message)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json_text(error_body(status, message)).encode()
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
            lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *map(": ".join, headers.items()), "", ""]
            self.transport.write("\r\n".join(lines).encode() + body)
        self.transport.close()

    async def _refuse_crowded(self, scope: Any, receive: Any, send: Any) -> None:
        """The application of a connection too many: it refuses the request, and the connection ends."""
        reason = f"{self.most_connections} connections are open, more than which this server does not take"
        refusal = Refused(503, f"{reason}: close some, or send the request again", retry_after_s=1)
        log_refusal(scope["method"], scope["path"], refusal)
        response = refused(refusal)
        response.headers["Connection"] = "close"
        await response(scope, receive, send)

    def _watch(self) -> None:
        """Starts the clock when the headers of a request are awaited or have begun, stops it when they are there."""
        awaited = self.cycle is None or self.cycle.response_complete
        started = self.cycle is None or self.timeout_keep_alive_task is None
        if not awaited or not started:
            self._forget()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.headers_s, self._close)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._timer = None
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(408, f"the headers did not come within {self.headers_s:g} s: send the request again")
        else:
            self.transport.close()

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


class _Server(uvicorn.Server):
    """uvicorn's server, which reports its start, and ends with code 0 on a signal."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None], desk: Desk) -> None:
        super().__init__(config)
        self._report, self._desk = started, desk
        self._signals = 0
        self.failure: Exception | None = None  # of the report: no program knows of the server then

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        try:
            self._report()
        except Exception as err:
            self.failure, self.should_exit = err, True

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """The first signal ends the server when the running requests are answered; a second one stops their work.

        A third one does not wait for clients to read their answers.
        """
        if self._signals > 1:
            self.force_exit = True
        elif self._signals:
            self._desk.stop()
        elif count := self._desk.size:
            log.warning(
                "%s %s finishing; Ctrl-C again stops it", counted(count, "request"), "is" if count == 1 else "are"
            )
        self._signals += 1
        self.should_exit = True


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound to `host` and `port`; 0 is a free port. Raises UsageError if that is not possible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as err:
        raise UsageError(
            f"--host {host}: no address of this machine ({_reason(err)}): give one, such as 127.0.0.1"
        ) from None
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows: SO_REUSEADDR would let a second server take the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)  # a second server on the port fails here, before it loads a model
    except OSError as err:
        bound.close()
        raise UsageError(f"cannot listen on {host} port {port} ({_reason(err)}): take another, or --port 0") from None
    return bound


def run_server(app: Starlette, bound: socket.socket, limits: Limits, started: Callable[[], None]) -> None:
    """Serves `app` until SIGINT or SIGTERM, then answers the requests that run. `started` is called when it listens."""

    class Protocol(TimedProtocol):
        headers_s = limits.body_seconds

    desk: Desk = app.state.server.desk
    settings: dict[str, Any] = {
        "http": Protocol,
        "ws": "none",
        "loop": "asyncio",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": _KEEP_ALIVE_S,
        "timeout_graceful_shutdown": int(limits.seconds) + 1,
    }
    server = _Server(uvicorn.Config(app, **settings), started, desk)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    try:
        server.run(sockets=[bound])
    finally:
        desk.close()
    if server.failure is not None:
        raise server.failure


def _is_news(record: logging.LogRecord) -> bool:
    """False for a line of uvicorn that says less than that of `TimedProtocol`."""
    return record.msg != "Invalid HTTP request received."


def _reason(err: Exception) -> str:
    return getattr(err, "strerror", None) or str(err)
