"""The web application of the live poser: its page, what it starts with, and the socket for everything else.

`GET /` and `GET /static/NAME` serve the files of `static/` that were there at the start, `GET /api/state` what the page
starts with (`poser_connection.Desk.state`), `/ws` the messages of `poser_protocol`. `security.Guard` stands before all.
"""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from mmdgen.web import pages
from mmdgen.web.poser_connection import Desk, PoserConnection
from mmdgen.web.security import Guard

PAGE = "poser.html"
MOST_SOCKETS = 4


class PoserSite:
    """What the routes share."""

    def __init__(self, desk: Desk, files: pages.Files) -> None:
        self._desk, self._files = desk, files
        self._open = 0

    async def page(self, request: Request) -> Response:
        return await pages.file_response(self._files, PAGE)

    async def static(self, request: Request) -> Response:
        return await pages.file_response(self._files, request.path_params["name"])

    async def state(self, request: Request) -> Response:
        return JSONResponse(self._desk.state())

    async def socket(self, websocket: WebSocket) -> None:
        if self._open >= MOST_SOCKETS:
            await websocket.close(1013)
            return
        self._open += 1
        try:
            await PoserConnection(websocket, self._desk).serve()
        finally:
            self._open -= 1


def create_poser_app(desk: Desk, *, token: str, hosts: frozenset[str], static: Path = pages.STATIC) -> Starlette:
    """Return the application; `hosts` is from `security.allowed_hosts`. The caller closes what the desk holds."""
    site = PoserSite(desk, pages.static_files(static))
    app = Starlette(
        routes=[
            Route("/", site.page),
            Route("/static/{name}", site.static),
            Route("/api/state", site.state),
            WebSocketRoute("/ws", site.socket),
        ],
        middleware=[Middleware(Guard, token=token, hosts=hosts)],
        exception_handlers={HTTPException: pages.http_error, Exception: pages.failed},
    )
    app.router.redirect_slashes = False
    return app
