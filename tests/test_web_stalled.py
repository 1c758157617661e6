"""A page that asks and reads no answers: it costs a bounded amount of memory, and nobody else waits for it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest
import uvicorn
from processes import until
from web_site import HOST, cookie_of, fill_cache, make_models, running

from mmdgen.web import app, connection
from mmdgen.web.drawing import Studio
from mmdgen.web.protocol import MAX_SIZE

ASKED = 300
TIMEOUT_S = 12.0
VIEW = {"from": "front", "center": [0, 0], "height": 1}


class Blank:
    """A renderer for a studio that needs none."""

    def report(self) -> dict[str, str]:
        return {}

    def __enter__(self) -> Blank:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Watched(connection.Connection):
    """Keeps all connections, and which of them have ended."""

    made: list[Watched]

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.ended = threading.Event()
        self.made.append(self)

    async def serve(self) -> None:
        try:
            await super().serve()
        finally:
            self.ended.set()

    @property
    def kept(self) -> int:
        """Bytes that wait to be sent."""
        return sum(len(content) for content in list(self._out))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The application behind a real network, with pictures as large as they get that cost nothing to draw."""
    drawn: list[int] = []

    def picture(self, renderer, ready, draw, center_x) -> np.ndarray:
        drawn.append(draw.request)
        return np.zeros((draw.size, draw.size, 4), np.uint8)

    monkeypatch.setattr(Studio, "_picture", picture)
    monkeypatch.setattr(Studio, "_next_warming", lambda self, renderer: None)
    monkeypatch.setattr(Watched, "made", [], raising=False)
    monkeypatch.setattr(app, "Connection", Watched)
    monkeypatch.setattr(connection, "SEND_TIMEOUT_S", TIMEOUT_S)
    models = make_models(tmp_path / "models", 1)
    fill_cache(models, tmp_path / "cache")
    with running(models, tmp_path / "cache", tmp_path / "annotations", make=Blank) as made:  # pyright: ignore
        yield made, drawn


@contextlib.contextmanager
def served(application) -> Iterator[int]:
    """Serve an application whose lifespan has begun already as `server.serve` does; yields the port."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application, log_config=None, ws="websockets-sansio", ws_per_message_deflate=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="uvicorn")
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)
        listening.close()
    assert not thread.is_alive()


def open_raw(port: int, cookie: str, buffer: int | None = None) -> socket.socket:
    """Return a socket after the handshake; with `buffer`, the network holds about so many bytes for it."""
    raw = socket.socket()
    if buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.settimeout(5)
    raw.connect(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    lines = ("GET /ws HTTP/1.1", f"Host: {HOST}", f"Origin: http://{HOST}", f"Cookie: {cookie}", "Upgrade: websocket")
    lines += ("Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", "")
    raw.sendall("\r\n".join(lines).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += raw.recv(1)
    assert answer.startswith(b"HTTP/1.1 101")
    return raw


def frame(text: str) -> bytes:
    """A masked text frame; the mask is zeros."""
    content = text.encode()
    assert 125 < len(content) < 1 << 16
    return struct.pack("!BBH4x", 0x81, 0x80 | 126, len(content)) + content


def read_frame(raw: socket.socket) -> bytes:
    """Return the content of the next short frame from the server."""
    with raw.makefile("rb", buffering=0) as stream:

        def exactly(count: int) -> bytes:
            content = b""
            while len(content) < count:
                part = stream.read(count - len(content))
                assert part
                content += part
            return content

        _, length = exactly(2)
        assert length < 127
        return exactly(struct.unpack("!H", exactly(2))[0] if length == 126 else length)


def draw(request: int, model: str, size: int, slot: str) -> str:
    fields = {"type": "draw", "request": request, "model": model, "view": VIEW, "size": size, "slot": slot}
    return json.dumps(fields, indent=1).ljust(160)


def settled(drawn: list[int]) -> None:
    """Wait until pictures have been drawn, and no more are for some seconds."""
    seen = deque([-1] * 50, 50)

    def quiet() -> bool:
        seen.append(len(drawn))
        return bool(drawn) and len(set(seen)) == 1

    until(quiet, 30)


@pytest.mark.parametrize("slots", [1, ASKED])
def test_pages_that_do_not_read(site, slots):
    made, drawn = site
    model, cookie = made.findings[0].id, cookie_of(made.client)
    made.studio.prepared(model).result(60)
    with served(made.client.app) as port, contextlib.closing(open_raw(port, cookie, 4096)) as raw:
        with contextlib.suppress(TimeoutError):  # it is not read from for ever
            raw.settimeout(0.5)
            for request in range(ASKED):
                raw.sendall(frame(draw(request, model, MAX_SIZE, str(request % slots))))
        settled(drawn)
        (stalled,) = Watched.made
        least = 4 * MAX_SIZE**2
        # What the network itself holds comes on top of what is drawn and waits.
        assert 1 <= len(drawn) <= connection.MOST_PICTURES + 4 < ASKED
        assert stalled.kept <= connection.MOST_PICTURES * (least + 8) + 2 * connection.MOST_OPEN * 200
        assert len(stalled._draws) <= connection.MOST_WAITING
        assert not stalled.ended.is_set()
        before = len(drawn)
        with contextlib.closing(open_raw(port, cookie)) as page:
            took = []
            for request in range(10):
                began = time.monotonic()
                page.sendall(frame(draw(request, model, 64, "other")))
                assert int.from_bytes(read_frame(page)[:4], "little") == request
                took.append(time.monotonic() - began)
            assert sorted(took)[len(took) // 2] < 1  # less than 10 ms where nothing else runs
        assert len(drawn) == before + 10  # and none for the one that does not read
        assert stalled.ended.wait(TIMEOUT_S + 10)  # it is given up
        assert stalled not in {each for each in Watched.made if not each.ended.is_set()}
