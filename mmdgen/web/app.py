"""The web application of the annotators: pages, the state, and the socket on which everything else happens.

`GET /` and `GET /static/NAME` serve the files of `static/` that were there at the start, `GET /api/state` who annotates
and all rows (`session.Session.state`), `/ws` the messages of `protocol` (answers: see `connection`). `security.Guard`
stands before all of it. `server.serve` runs the application; `create_app` makes it for tests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from mmdgen.web.connection import Connection
from mmdgen.web.drawing import Studio
from mmdgen.web.pages import STATIC, Files, failed, file_response, http_error, static_files
from mmdgen.web.roster import Row
from mmdgen.web.security import Guard
from mmdgen.web.session import Session

MOST_SOCKETS = 8


class Site:
    """What the routes share: the session, the studio and the sockets that are open."""

    def __init__(self, session: Session, studio: Studio, files: Files) -> None:
        self.session, self.studio, self._files = session, studio, files
        self._connections: set[Connection] = set()
        # One thread: actions are done in the order in which they came.
        self.actions = ThreadPoolExecutor(1, thread_name_prefix="actions")
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        yield
        self._loop = None
        self.actions.shutdown(wait=False, cancel_futures=True)

    def tell(self, row: Row) -> None:
        """Send a row that has changed to all pages; may be called from any thread."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                loop.call_soon_threadsafe(self._tell, row)

    def _tell(self, row: Row) -> None:
        for connection in self._connections:
            connection.push_row(row)

    async def page(self, request: Request) -> Response:
        return await file_response(self._files, "index.html")

    async def static(self, request: Request) -> Response:
        return await file_response(self._files, request.path_params["name"])

    async def state(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self.session.state))

    async def socket(self, websocket: WebSocket) -> None:
        if len(self._connections) >= MOST_SOCKETS:
            await websocket.close(1013)
            return
        connection = Connection(websocket, self.session, self.studio, self.actions)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)


def create_app(
    session: Session, studio: Studio, *, token: str, hosts: frozenset[str], static: Path = STATIC
) -> Starlette:
    """Return the application; `hosts` is from `security.allowed_hosts` and `static` the folder of the page's files.

    The caller starts and closes the session's roster and the studio.
    """
    site = Site(session, studio, static_files(static))
    session.listen(site.tell)
    app = Starlette(
        routes=[
            Route("/", site.page),
            Route("/static/{name}", site.static),
            Route("/api/state", site.state),
            WebSocketRoute("/ws", site.socket),
        ],
        middleware=[Middleware(Guard, token=token, hosts=hosts)],
        exception_handlers={HTTPException: http_error, Exception: failed},
        lifespan=site.lifespan,
    )
    app.router.redirect_slashes = False  # an address is right or wrong
    return app
