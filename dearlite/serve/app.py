"""The ASGI application: the endpoints of a rerank server."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from dearlite.errors import DearliteError, InvalidInput
from dearlite.files.json_text import json_text
from dearlite.ranking import Ranking
from dearlite.serve.access import Access
from dearlite.serve.body import parse_json
from dearlite.serve.desk import ClientGone, Desk
from dearlite.serve.events import Events, asks_for_events
from dearlite.serve.gate import Gate, Json, log, log_refusal, refused
from dearlite.serve.limits import Limits
from dearlite.serve.metrics import CONTENT_TYPE, Metrics
from dearlite.serve.models import Models
from dearlite.serve.openapi import openapi
from dearlite.serve.pages import page_routes
from dearlite.serve.refusals import Refused, error_body, refusal_of
from dearlite.serve.requests import read_pairs, read_rerank
from dearlite.serve.shapes import FORMS, info_answer, models_answer, rerank_answer, score_answer

Endpoint = Callable[[Request], Awaitable[Response]]
_CLIENT_GONE = 499  # nginx's status for a client that closed the connection; it is only logged and counted


class Server:
    """The endpoints, with the models, the limits and the counters that they share."""

    def __init__(self, models: Models, limits: Limits, *, keyed: bool = False) -> None:
        self.models, self.limits, self.keyed = models, limits, keyed
        self.desk, self.metrics = Desk(limits), Metrics()
        self.started = int(time.time())
        self.ending = False

    def routes(self) -> list[Route]:
        """All endpoints."""
        posts: dict[str, Endpoint] = {
            **dict.fromkeys(FORMS, self.rerank),
            **dict.fromkeys(("/score", "/v1/score"), self.score),
        }
        gets: dict[str, Endpoint] = {
            **dict.fromkeys(("/v1/models", "/models"), self.list_models),
            **dict.fromkeys(("/health", "/ping"), self.health),
            "/info": self.info,
            "/ready": self.ready,
            "/metrics": self.show_metrics,
            "/openapi.json": self.show_openapi,
        }
        return [
            *(Route(path, _answering(endpoint), methods=["POST"]) for path, endpoint in posts.items()),
            *(Route(path, _answering(endpoint), methods=["GET"]) for path, endpoint in gets.items()),
            *page_routes(),
        ]

    async def rerank(self, http: Request) -> Response:
        """Ranks the documents of a request; as events where the client accepts them."""
        start = time.perf_counter()
        request = read_rerank(parse_json(await self._body(http)), self.limits, timeout_ms=_timeout_ms(http))
        model = self.models.find(request.options.model)
        turn = self.desk.admit(model)
        events = Events() if asks_for_events(",".join(http.headers.getlist("accept"))) else None

        def work() -> tuple[bytes, dict[str, str], Ranking]:
            if events is None:
                scored = model.rank(request, turn, lambda done, total: None)
            else:
                scored = model.rank(request, turn, events.progress, events.text)
            answer, headers = rerank_answer(http.url.path, request, model, scored)
            return json_text(answer).encode(), headers, scored.ranking

        async def run(gone: Callable[[], Awaitable[object]]) -> tuple[bytes, dict[str, str]]:
            body, headers, ranking = await self.desk.run(turn, work, gone)
            cut = sum(hit.truncated for hit in ranking)
            self.metrics.count_ranking(time.perf_counter() - start, ranking.total, cut)
            return body, headers

        if events is not None:
            return StreamingResponse(self._streamed(http, events, run), media_type="text/event-stream")
        body, headers = await run(lambda: _gone(http))
        return Json(body, headers=headers)

    async def score(self, http: Request) -> Response:
        """Scores pairs of a query and a document."""
        start = time.perf_counter()
        request = read_pairs(parse_json(await self._body(http)), self.limits, timeout_ms=_timeout_ms(http))
        model = self.models.find(request.options.model)
        turn = self.desk.admit(model)

        def work() -> tuple[dict[str, Any], dict[str, str]]:
            return score_answer(model, request, model.score(request, turn, lambda done, total: None))

        answer, headers = await self.desk.run(turn, work, lambda: _gone(http))
        cut = int(headers["X-Dearlite-Truncated"])
        self.metrics.count_ranking(time.perf_counter() - start, len(request.pairs), cut)
        return Json(answer, headers=headers)

    async def list_models(self, http: Request) -> Response:
        """The models that a request can name."""
        return Json(models_answer(self.models, self.started))

    async def info(self, http: Request) -> Response:
        """The facts of the default model."""
        return Json(info_answer(self.models, self.limits.queue, self.limits.documents))

    async def health(self, http: Request) -> Response:
        """Empty: the server answers."""
        return Response()

    async def ready(self, http: Request) -> Response:
        """Empty if a request would be taken now. Raises Refused if not."""
        if self.ending or self.desk.size >= self.limits.queue:
            raise Refused(503, "the server takes no more requests now", retry_after_s=1)
        return Response()

    async def show_metrics(self, http: Request) -> Response:
        """The counters."""
        return PlainTextResponse(self.metrics.text(self.desk.size), media_type=CONTENT_TYPE)

    async def show_openapi(self, http: Request) -> Response:
        """The description of the endpoints."""
        return Json(openapi(self.limits, keyed=self.keyed))

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """The time in which requests are answered; work that is left at its end is stopped."""
        yield
        self.ending = True
        self.desk.close()

    async def _body(self, http: Request) -> bytes:
        """The body of a request. Raises Refused if it is too large, or comes too slowly."""
        most = self.limits.body_bytes
        large = Refused(413, f"the body is larger than the {most} bytes that this server takes: send fewer documents")
        coding = http.headers.get("content-encoding", "identity").lower()
        if coding != "identity":
            raise Refused(415, f"the body is compressed ({coding[:20]!a}): send it as it is")
        stated = http.headers.get("content-length", "0")
        if not stated.isdecimal() or int(stated) > most:
            raise large
        data = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in http.stream():
                    data += chunk
                    if len(data) > most:
                        raise large
        except TimeoutError:
            raise Refused(408, f"the body did not come within {self.limits.body_seconds:g} s: send it again") from None
        return bytes(data)

    async def _streamed(
        self,
        http: Request,
        events: Events,
        run: Callable[[Callable[[], Awaitable[object]]], Awaitable[tuple[bytes, dict[str, str]]]],
    ) -> AsyncIterator[bytes]:
        """The events of a request. Its work ends when the client closes the connection, which closes this generator."""

        async def answer() -> None:
            try:
                body, _ = await run(asyncio.Event().wait)
            except Exception as err:
                refusal = _logged(http, err)
                events.end("error", error_body(refusal.status, str(refusal)))
            else:
                events.end_with(body)

        task = asyncio.create_task(answer())
        try:
            async for chunk in events.stream():
                yield chunk
        finally:
            if task.cancel():
                self.metrics.count_cancelled()


def create_app(models: Models, *, limits: Limits | None = None, access: Access | None = None) -> Starlette:
    """The application that serves `models`."""
    access = access or Access()
    server = Server(models, limits or Limits(), keyed=bool(access.keys))
    routes = server.routes()
    paths = {route.path for route in routes}
    gate = Middleware(Gate, access=access, metrics=server.metrics, paths=paths)
    app = Starlette(
        routes=routes,
        middleware=[gate],
        exception_handlers={HTTPException: _http_error},
        lifespan=server.lifespan,
    )
    app.state.server = server
    return app


def _answering(endpoint: Endpoint) -> Endpoint:
    """`endpoint` with every error as a response, and in the log."""

    async def answer(http: Request) -> Response:
        try:
            return await endpoint(http)
        except (ClientGone, ClientDisconnect):
            http.app.state.server.metrics.count_cancelled()
            log.info("%s %s: the client left", http.method, http.url.path)
            return Response(status_code=_CLIENT_GONE)
        except Exception as err:
            return refused(_logged(http, err))

    return answer


def _logged(http: Request, err: Exception) -> Refused:
    refusal = refusal_of(err)
    log_refusal(http.method, http.url.path, refusal, None if isinstance(err, DearliteError) else err)
    return refusal


async def _http_error(http: Request, err: Exception) -> Response:
    """The response to a path or method that does not exist."""
    assert isinstance(err, HTTPException)
    method = (err.headers or {}).get("Allow", "another method")
    reasons = {404: "no such endpoint: /openapi.json lists them", 405: f"this endpoint takes {method}: send it so"}
    refusal = Refused(err.status_code, reasons.get(err.status_code, err.detail))
    log_refusal(http.method, http.url.path, refusal)
    response = refused(refusal)
    response.headers.update(err.headers or {})
    return response


async def _gone(http: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _timeout_ms(http: Request) -> float | None:
    """The budget in the header X-Timeout-Ms. Raises InvalidInput for what is no time above 0."""
    text = http.headers.get("x-timeout-ms")
    if text is None:
        return None
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = math.nan
    if not 0 < milliseconds < math.inf:
        raise InvalidInput(f"X-Timeout-Ms is {text[:40]!a}: it must be a number of milliseconds above 0")
    return milliseconds
