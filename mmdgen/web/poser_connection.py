"""One socket of the poser's page: uploads, choices and poses in, pictures out.

A picture is one binary message (`drawing.picture_message`); everything else is JSON with ``type`` and the ``request``
that it answers: ``superseded`` (a newer pose came first), ``nothing`` (no picture to pose yet), ``error``. Of each kind
of picture one is computed at a time and one waits: the newest, so that a dragged slider stays live however slow the
networks are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from mmdgen.errors import MmdgenError
from mmdgen.model.textures import decode_picture
from mmdgen.train.picture import prepare
from mmdgen.web import poser_protocol as protocol
from mmdgen.web.drawing import picture_message
from mmdgen.web.poser_models import Gallery

if TYPE_CHECKING:  # torch: the rest of this package is imported where it is missing
    from mmdgen.train.poser import Poser

RATE, BURST = 200.0, 400.0  # messages a second
MOST_REFUSED = 200  # messages over that rate before the socket is closed
SEND_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 1.0


@dataclass
class Desk:
    """What all sockets share: the networks and the one thread that runs them, the thread that decodes, the models.

    `image` u8 [S, S, 4] is the picture that was posed last (None: none yet), `model` the number of the 3D model that it
    shows, if it is one: a page that is opened again goes on with them.
    """

    poser: Poser
    networks: Executor
    decoding: Executor
    gallery: Gallery | None = None
    image: np.ndarray | None = None
    model: int | None = None
    title: str = ""

    def state(self) -> dict[str, Any]:
        """Return the page's first answer."""
        loaded = self.poser.loaded
        return {
            "size": self.poser.size,
            "run": self.title,
            "networks": [
                {"name": name, "preset": item.preset.name, "examples": item.examples} for name, item in loaded.items()
            ],
            "models": [] if self.gallery is None else self.gallery.names,
            "model": self.model,
            "picture": self.image is not None,
        }


@dataclass
class _Slot:
    """Pictures of one kind: the pose that waits, and whether one is computed."""

    waiting: protocol.Pose | None = None
    task: asyncio.Task | None = field(default=None)


class PoserConnection:
    """Serves one accepted socket; see the module's text."""

    def __init__(self, websocket: WebSocket, desk: Desk) -> None:
        self._socket, self._desk = websocket, desk
        self._image, self._model = desk.image, desk.model
        self._slots = {protocol.NETWORK: _Slot(), protocol.MODEL: _Slot()}
        self._sending = asyncio.Lock()
        self._stalled = asyncio.Event()  # the page takes nothing
        self._allowance, self._refilled, self._refused = BURST, time.monotonic(), 0

    async def serve(self) -> None:
        """Answer until the socket closes."""
        await self._socket.accept()
        receiving, stalled = asyncio.create_task(self._receive_all()), asyncio.create_task(self._stalled.wait())
        try:
            await asyncio.wait((receiving, stalled), return_when=asyncio.FIRST_COMPLETED)
            if self._stalled.is_set():
                # It may not take its end either: then the server's pings end it, and nobody waits here.
                with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT_S):
                        await self._socket.close(1008)
            else:
                receiving.result()
        finally:
            left = [receiving, stalled, *(slot.task for slot in self._slots.values() if slot.task is not None)]
            for task in left:
                task.cancel()
            await asyncio.wait(left)
            for task in left:
                if not task.cancelled():
                    task.exception()  # seen: raised above, or the page takes nothing

    # In. One message at a time: what a page sends while a file is decoded waits in its own buffers.

    async def _receive_all(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if not self._within_rate():
                self._refused += 1
                if self._refused > MOST_REFUSED:
                    await self._socket.close(1008)
                    return
                await self._error(None, "too many messages at once")
                continue
            text, data = message.get("text"), message.get("bytes")
            try:
                if text is None:
                    if len(data or b"") > protocol.MAX_UPLOAD_BYTES + protocol.HEAD.size:
                        await self._socket.close(1009)
                        return
                    await self._upload(protocol.parse_upload(data or b""))
                    continue
                if len(text) > protocol.MAX_TEXT_BYTES:
                    await self._socket.close(1009)
                    return
                await self._begin(protocol.parse(text))
            except protocol.PoserProtocolError as error:
                await self._error(error.request, str(error))

    def _within_rate(self) -> bool:
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._refilled) * RATE)
        self._refilled = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    async def _begin(self, message: protocol.Message) -> None:
        if isinstance(message, protocol.Pose):
            slot = self._slots[message.of]
            older, slot.waiting = slot.waiting, message
            if older is not None:
                await self._put({"type": "superseded", "request": older.request})
            if slot.task is None or slot.task.done():
                slot.task = asyncio.create_task(self._pose(slot))
        elif isinstance(message, protocol.Choose):
            await self._choose(message)
        elif self._image is None:
            await self._put({"type": "nothing", "request": message.request})
        else:
            await self._send(picture_message(message.request, self._image))

    async def _upload(self, upload: protocol.Upload) -> None:
        loop = asyncio.get_running_loop()
        try:
            image = await loop.run_in_executor(
                self._desk.decoding, read_upload, upload.data, self._desk.poser.size, upload.cut
            )
        except MmdgenError as error:
            await self._error(upload.request, str(error))
        except Exception as error:  # a bug: the page is told, and goes on
            await self._error(upload.request, f"something went wrong ({type(error).__name__})")
        else:
            await self._show(upload.request, image, None)

    async def _choose(self, message: protocol.Choose) -> None:
        try:
            if self._desk.gallery is None:
                raise LookupError("there is no such model")
            image = await asyncio.wrap_future(self._desk.gallery.picture(message.model))
        except (MmdgenError, LookupError) as error:
            await self._error(message.request, str(error))
        except Exception as error:
            await self._error(message.request, f"something went wrong ({type(error).__name__})")
        else:
            await self._show(message.request, image, message.model)

    async def _show(self, request: int, image: np.ndarray, model: int | None) -> None:
        self._image, self._model = image, model
        self._desk.image, self._desk.model = image, model
        await self._send(picture_message(request, image))

    # Poses

    async def _pose(self, slot: _Slot) -> None:
        while (message := slot.waiting) is not None:
            slot.waiting = None
            try:
                image = await self._posed(message)
            except (MmdgenError, LookupError) as error:
                await self._error(message.request, str(error))
            except Exception as error:
                await self._error(message.request, f"something went wrong ({type(error).__name__})")
            else:
                await self._send(picture_message(message.request, image))

    async def _posed(self, message: protocol.Pose) -> np.ndarray:
        desk = self._desk
        if message.of == protocol.MODEL:
            if desk.gallery is None or self._model is None:
                raise LookupError("no 3D model is chosen")
            return await asyncio.wrap_future(desk.gallery.picture(self._model, message.values))
        if self._image is None:
            raise LookupError("there is no picture yet")
        rows = np.array([message.values], np.float32)
        run = asyncio.get_running_loop().run_in_executor
        return (await run(desk.networks, desk.poser.pose, self._image, rows))[0]

    # Out

    async def _error(self, request: int | None, message: str) -> None:
        await self._put({"type": "error", "request": request, "message": message})

    async def _put(self, answer: dict[str, Any]) -> None:
        await self._send(json.dumps(answer, ensure_ascii=False, allow_nan=False))

    async def _send(self, content: str | bytes) -> None:
        """Send, unless the page has left: what is received says so next."""
        async with self._sending:
            if self._stalled.is_set() or self._socket.application_state is WebSocketState.DISCONNECTED:
                return
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    if isinstance(content, bytes):
                        await self._socket.send_bytes(content)
                    else:
                        await self._socket.send_text(content)
            except WebSocketDisconnect:
                pass
            except TimeoutError:
                self._stalled.set()


def read_upload(data: bytes, size: int, cut: bool) -> np.ndarray:
    """Return the picture in an uploaded file as the networks take it, u8 [size, size, 4].

    Its size was bounded by `poser_protocol.parse_upload`. With `cut`, what has the colour of the top left pixel and
    reaches the edge becomes transparent. Raises `MmdgenError`.
    """
    image = decode_picture(data, "the picture")
    if image.shape[0] * image.shape[1] > protocol.MAX_PIXELS:
        raise MmdgenError("the picture is larger than its file says")
    corner = image[0, 0, :3].tolist() if cut else None
    return prepare(image, size, fit=True, background=corner and (corner[0], corner[1], corner[2]))
