"""The static files of the server's page, which lie in the package; a path of a request is looked up in a table only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from dearlite.serve.access import PAGE_PATHS

if TYPE_CHECKING:
    from starlette.requests import Request

_FOLDER = "page"
_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",  # a browser asks with the ETag at each use, so that no file outlives its release
}


def page_routes() -> list[Route]:
    """The routes of the page's files."""
    return [Route(path, _page(name), methods=["GET"]) for path, name in PAGE_PATHS.items()]


def _page(name: str) -> Callable[[Request], Awaitable[Response]]:
    data = files("dearlite.serve").joinpath(_FOLDER, name).read_bytes()
    headers = HEADERS | {"ETag": f'"{sha256(data).hexdigest()[:32]}"'}
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]

    async def page(http: Request) -> Response:
        if headers["ETag"] in http.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=media_type, headers=headers)

    return page
