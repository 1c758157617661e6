"""The live poser's socket where the page does not read its answers, or has left before they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

for package in ("starlette", "uvicorn"):
    pytest.importorskip(package, reason=f"needs {package} (tools/run brings it)")

from starlette.websockets import WebSocket  # noqa: E402

from mmdgen.png import encode_png  # noqa: E402
from mmdgen.web import poser_connection  # noqa: E402
from mmdgen.web.poser_connection import Desk, PoserConnection  # noqa: E402
from mmdgen.web.poser_protocol import HEAD  # noqa: E402

SIZE = 8
FACE = np.zeros((SIZE, SIZE, 4), np.uint8)
FACE[2:6, 2:6] = 255


def serve(send: Callable[[Any], Awaitable[None]], messages: list[dict], *, leaves: bool) -> list[str]:
    """Serve a socket that gets `messages` and then waits, or leaves; return what asyncio had to complain about."""
    complaints: list[str] = []

    async def body(desk: Desk) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        queue: asyncio.Queue[dict] = asyncio.Queue()
        for message in [{"type": "websocket.connect"}, *messages, *([{"type": "websocket.disconnect"}] * leaves)]:
            queue.put_nowait(message)
        socket = WebSocket({"type": "websocket", "headers": []}, queue.get, send)
        await asyncio.wait_for(PoserConnection(socket, desk).serve(), 10)

    poser: Any = SimpleNamespace(size=SIZE, pose=lambda image, rows: image[None])
    with ThreadPoolExecutor(1) as networks, ThreadPoolExecutor(1) as decoding:
        asyncio.run(body(Desk(poser, networks, decoding, image=FACE)))
    return complaints


def text(**fields: Any) -> dict[str, str]:
    return {"type": "websocket.receive", "text": json.dumps(fields)}


POSE = text(type="pose", of="network", values={}, request=1)
CURRENT = text(type="current", request=2)
UPLOAD = {"type": "websocket.receive", "bytes": HEAD.pack(3, 0) + encode_png(FACE)}


@pytest.mark.parametrize("messages", [[POSE], [CURRENT], [POSE, CURRENT, CURRENT], [UPLOAD, POSE]])
def test_a_page_that_does_not_read_is_given_up(monkeypatch, messages):
    """Whoever waits to send, and though it does not take the end of the socket either."""
    monkeypatch.setattr(poser_connection, "SEND_TIMEOUT_S", 0.05)
    monkeypatch.setattr(poser_connection, "CLOSE_TIMEOUT_S", 0.05)
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if len(sent) > 1:
            await asyncio.Event().wait()

    assert serve(send, messages, leaves=False) == []
    assert sent == ["websocket.accept", "websocket.send", "websocket.close"]


@pytest.mark.parametrize("messages", [[UPLOAD], [CURRENT] * 3, [POSE, UPLOAD, POSE, CURRENT]])
def test_a_page_that_has_left_is_no_error(messages):
    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            raise OSError  # as servers say it

    assert serve(send, messages, leaves=True) == []


def test_a_mistake_of_ours_is_not_hidden(monkeypatch):
    def broken(text: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(poser_connection.protocol, "parse", broken)

    async def send(message: Any) -> None:
        pass

    with pytest.raises(ZeroDivisionError):
        serve(send, [CURRENT], leaves=False)
