"""One socket: messages in, answers and pictures out, nothing without a bound.

Answers are JSON objects with ``type`` and the ``request`` that they answer: ``model``, ``saved``, ``undone``,
``redone``, ``nothing``, ``superseded``, ``error``; a picture is one binary message (`drawing.picture_message`). Without
a request come ``row`` (a row has changed) and errors about messages that could not be read.

A page that does not take its answers is not read from any more: at most `MOST_OPEN` requests are under way, at most
`MOST_PICTURES` of them drawn and not sent. Of pictures for one slot only the newest waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from mmdgen.errors import MmdgenError
from mmdgen.web import protocol
from mmdgen.web.drawing import Job, Studio
from mmdgen.web.roster import Row
from mmdgen.web.session import Session, SessionError

MOST_OPEN = 64  # requests under way
MOST_PICTURES = 3  # drawn or being drawn, and not sent yet
MOST_WAITING = 32  # pictures to be drawn
RATE, BURST = 300.0, 600.0  # messages a second; the page sends about 100 while something is dragged
MOST_REFUSED = 200  # messages over that rate before the socket is closed
SEND_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 1.0


class Connection:
    """Serves one accepted socket; see the module's text."""

    def __init__(self, websocket: WebSocket, session: Session, studio: Studio, actions: Executor) -> None:
        self._socket, self._session, self._studio, self._actions = websocket, session, studio, actions
        self._out: deque[str | bytes] = deque()
        self._rows: OrderedDict[str, Row] = OrderedDict()  # one of each model at most, however slow the page is
        self._wake = asyncio.Event()
        self._room = asyncio.Condition()
        self._open = 0
        self._draws: OrderedDict[object, protocol.Draw] = OrderedDict()
        self._drawing = 0
        self._tasks: set[asyncio.Task] = set()
        self._allowance, self._refilled, self._refused = BURST, time.monotonic(), 0

    async def serve(self) -> None:
        """Answer until the socket closes."""
        await self._socket.accept()
        both = {asyncio.create_task(self._send_all()), asyncio.create_task(self._receive_all())}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                if task.done() and not task.cancelled() and isinstance(task.exception(), TimeoutError):
                    # It takes nothing, perhaps not even its end: then the server's pings end it, and nobody waits here.
                    with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                        async with asyncio.timeout(CLOSE_TIMEOUT_S):
                            await self._socket.close(1008)
        finally:
            self._draws.clear()
            left = both | self._tasks
            for task in left:
                task.cancel()
            await asyncio.wait(left)
            for task in left:
                if not task.cancelled():
                    task.exception()  # seen: the socket is gone, or it was told to the page

    def push_row(self, row: Row) -> None:
        """Tell the page of a row that has changed."""
        self._rows[row["id"]] = row
        self._wake.set()

    # In

    async def _receive_all(self) -> None:
        while True:
            async with self._room:
                await self._room.wait_for(lambda: self._open < MOST_OPEN and len(self._out) < MOST_OPEN)
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if not self._within_rate():
                self._refused += 1
                if self._refused > MOST_REFUSED:
                    await self._socket.close(1008)
                    return
                self._error(None, "too many messages at once")
                continue
            text = message.get("text")
            if text is None:
                if len(message.get("bytes") or b"") > protocol.MAX_MESSAGE_BYTES:
                    await self._socket.close(1009)
                    return
                self._error(None, "messages are texts")
                continue
            # No character takes more than four bytes, so short texts need not be encoded to be measured.
            if len(text) * 4 > protocol.MAX_MESSAGE_BYTES and len(text.encode("utf-8", "replace")) > (
                protocol.MAX_MESSAGE_BYTES
            ):
                await self._socket.close(1009)
                return
            try:
                parsed = protocol.parse(text)
            except protocol.ProtocolError as error:
                self._error(error.request, str(error))
                continue
            self._begin(parsed)

    def _within_rate(self) -> bool:
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._refilled) * RATE)
        self._refilled = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _begin(self, message: protocol.Message) -> None:
        if isinstance(message, protocol.Prefetch):
            self._studio.prefetch(tuple(model for model in message.models if self._session.knows(model)))
        elif isinstance(message, protocol.Draw):
            self._queue_draw(message)
        else:
            self._open += 1
            task = asyncio.create_task(self._act(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # Actions

    async def _act(self, message: protocol.Message) -> None:
        try:
            answer = await self._answer(message)
        except asyncio.CancelledError:
            raise
        except (SessionError, LookupError) as error:
            self._error(message.request, str(error))
        except Exception as error:  # a bug: the page is told, and goes on
            self._error(message.request, f"something went wrong ({type(error).__name__})")
        else:
            self._put(answer)
        finally:
            await self._finished()

    async def _answer(self, message: protocol.Message) -> dict[str, Any]:
        request, session = message.request, self._session
        if isinstance(message, protocol.Undo | protocol.Redo):
            undo = isinstance(message, protocol.Undo)
            step = await self._in_order(session.undo if undo else session.redo)
            if step is None:
                return {"type": "nothing", "request": request}
            return {"type": "undone" if undo else "redone", "request": request, **step}
        if isinstance(message, protocol.Reject):
            row = await self._in_order(lambda: session.reject(message.model, message.reason))
            return {"type": "saved", "request": request, "row": row}
        if isinstance(message, protocol.Unreject):
            row = await self._in_order(lambda: session.unreject(message.model))
            return {"type": "saved", "request": request, "row": row}
        if not session.knows(message.model):  # type: ignore[union-attr]
            raise SessionError("there is no such model")
        subject = await asyncio.wrap_future(self._studio.subject(message.model))  # type: ignore[union-attr]
        if isinstance(message, protocol.Save):
            row = await self._in_order(lambda: session.save(subject, message))
        elif isinstance(message, protocol.Accept):
            row = await self._in_order(lambda: session.accept(subject, message.kind))
        else:
            return {"type": "model", "request": request, **await self._in_order(lambda: session.describe(subject))}
        return {"type": "saved", "request": request, "row": row}

    async def _in_order(self, action: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._actions, action)

    async def _finished(self) -> None:
        self._open -= 1
        async with self._room:
            self._room.notify_all()

    # Pictures

    def _queue_draw(self, draw: protocol.Draw) -> None:
        if not self._session.knows(draw.model):
            self._error(draw.request, "there is no such model")
            return
        key: object = draw.slot or draw  # without a slot, no other one supersedes it
        older = self._draws.get(key)
        if older is None and len(self._draws) >= MOST_WAITING:
            self._error(draw.request, "too many pictures wait")
            return
        self._draws[key] = draw  # in the older one's place in the queue: no slot starves
        if older is not None:
            self._put({"type": "superseded", "request": older.request})
        self._next_draw()

    def _next_draw(self) -> None:
        while self._draws and self._drawing < MOST_PICTURES:
            _, draw = self._draws.popitem(last=False)
            self._drawing += 1
            task = asyncio.create_task(self._draw(draw))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _draw(self, draw: protocol.Draw) -> None:
        sent = False
        try:
            subject = await asyncio.wrap_future(self._studio.subject(draw.model))
            job = Job(draw, self._session.center_x(subject))
            self._studio.draw(job)
            self._out.append(await asyncio.wrap_future(job.result))
            self._wake.set()
            sent = True
        except asyncio.CancelledError:
            raise
        except (MmdgenError, LookupError) as error:
            self._error(draw.request, self._session.plain(draw.model, error))
        except Exception as error:
            self._error(draw.request, f"something went wrong ({type(error).__name__})")
        finally:
            if not sent:
                self._drawing -= 1
                self._next_draw()

    # Out

    def _put(self, answer: dict[str, Any]) -> None:
        self._out.append(json.dumps(answer, ensure_ascii=False, allow_nan=False))
        self._wake.set()

    def _error(self, request: int | None, message: str) -> None:
        self._put({"type": "error", "request": request, "message": message})

    async def _send_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._out or self._rows:
                if self._out:
                    content = self._out.popleft()
                else:
                    _, row = self._rows.popitem(last=False)
                    content = json.dumps({"type": "row", "row": row}, ensure_ascii=False)
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    if isinstance(content, bytes):
                        await self._socket.send_bytes(content)
                    else:
                        await self._socket.send_text(content)
                if isinstance(content, bytes):
                    self._drawing -= 1
                    self._next_draw()
                async with self._room:
                    self._room.notify_all()
