"""The static files of the server's page, which lie in the package; a path of a request is looked up in a table only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

_FOLDER = "page"
# path -> (file, media type)
PAGES = {"/": ("index.html", "text/html; charset=utf-8")}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


def page_routes() -> list[Route]:
    """The routes of the page's files."""
    return [Route(path, _page(*entry), methods=["GET"]) for path, entry in PAGES.items()]


def _page(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    data = files("dearlite.serve").joinpath(_FOLDER, name).read_bytes()

    async def page(http: Request) -> Response:
        return Response(data, media_type=media_type, headers=HEADERS)

    return page
