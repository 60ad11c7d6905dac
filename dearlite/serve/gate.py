"""The gate before every endpoint: it checks the access, answers preflights, counts and logs each request."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

from dearlite.files.json_text import json_text
from dearlite.serve.access import Access
from dearlite.serve.metrics import Metrics
from dearlite.serve.refusals import Refused, error_body

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("dearlite")
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ABSOLUTE = re.compile(rb"http://([^/?#]*)(.*)", re.IGNORECASE)
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-API-Key, X-Timeout-Ms",
    "Access-Control-Max-Age": "600",
}


class Gate:
    """An ASGI application around `app`. `paths` are the endpoints; requests of other paths are counted together."""

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics, paths: Collection[str]) -> None:
        self._app, self._access, self._metrics, self._paths = app, access, metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = with_path(scope)
        start, status = time.perf_counter(), 0
        headers, path = Headers(scope=scope), scope["path"]
        origin = headers.get("origin")
        allowed = {} if origin is None or not self._access.allows_origin(origin) else _allowed(origin)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = MutableHeaders(scope=message)
                present.update({name: value for name, value in _ALWAYS.items() if name not in present} | allowed)
            await send(message)

        try:
            self._access.check(path, headers)
        except Refused as refusal:
            log_refusal(scope["method"], path, refusal)
            await refused(refusal)(scope, receive, noted)
        else:
            if allowed and scope["method"] == "OPTIONS":
                await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, noted)
            else:
                await self._app(scope, receive, noted)
        self._metrics.count_request(path if path in self._paths else "other", status)
        milliseconds = (time.perf_counter() - start) * 1000
        log.debug("%s %s: %d in %.1f ms", scope["method"], ascii(path[:80]), status, milliseconds)


def with_path(scope: Scope) -> Scope:
    """The request with a path as its target, and as `Host` the host that an absolute target names (RFC 9112, 3.2.2).

    Example: GET http://localhost:8787/health -> GET /health with Host localhost:8787.
    """
    match = _ABSOLUTE.fullmatch(scope.get("raw_path") or b"")
    if match is None:
        return scope
    host, raw_path = match[1], match[2] or b"/"
    headers = [(b"host", host), *(header for header in scope["headers"] if header[0] != b"host")]
    return {**scope, "path": unquote(raw_path.decode("ascii")), "raw_path": raw_path, "headers": headers}


class Json(Response):
    """A JSON response of a value."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        body = content if isinstance(content, bytes) else json_text(content).encode()
        return body + b"\n"  # curl leaves the prompt of a shell on a line of its own


def refused(refusal: Refused) -> Json:
    """The response to a request that is refused."""
    return Json(error_body(refusal.status, str(refusal)), refusal.status, refusal.headers)


def log_refusal(method: str, path: str, refusal: Refused, cause: BaseException | None = None) -> None:
    """Logs a refusal, loudly: many clients swallow it and go on with the order before. `cause` is a fault of ours."""
    level = logging.ERROR if refusal.status >= 500 else logging.WARNING
    log.log(level, "%s %s: %d: %s", method, ascii(path[:80]), refusal.status, refusal, exc_info=cause)


def _allowed(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": origin,
        "Vary": "Origin",
        "Access-Control-Expose-Headers": "X-Dearlite-Model, X-Dearlite-Truncated, X-Dearlite-Warnings, Retry-After",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
