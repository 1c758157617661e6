"""What the tests of the server share: a folder of models that nobody has to look at, and a page's client."""

from __future__ import annotations

import contextlib
import json
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from mmdgen.annotate.auto import annotate
from mmdgen.errors import RenderError
from mmdgen.render.renderer import Renderer
from mmdgen.samples.character import build_character
from mmdgen.samples.library import write_character
from mmdgen.web.app import create_app
from mmdgen.web.drawing import Studio
from mmdgen.web.finding import Cache, Finding, find
from mmdgen.web.roster import Roster
from mmdgen.web.security import allowed_hosts
from mmdgen.web.session import Session

TOKEN = "t" * 43
HOST = "127.0.0.1:4321"


def make_models(folder: Path, count: int = 2) -> Path:
    """Write procedural characters, and one file that is no model."""
    for seed in range(count):
        write_character(folder, build_character(seed))
    (folder / "broken").mkdir()
    (folder / "broken" / "no_model.pmx").write_bytes(b"PMX but not really")
    return folder


def fill_cache(models: Path, cache: Path) -> list[Finding]:
    """Put the findings of all models into a cache, so that no process has to be started; return the usable ones."""
    kept = Cache(cache)
    found = {path: find(path, annotate) for path in sorted(models.rglob("*.pmx"))}
    for path, finding in found.items():
        kept.put(path, finding)
    kept.flush()
    return [finding for finding in found.values() if finding.usable]


def cookie_of(client: TestClient) -> str:
    """The client's cookie as a header: it sends none to sockets by itself."""
    return "; ".join(f"{name}={value}" for name, value in client.cookies.items())


@dataclass
class Site:
    """A running application without a network."""

    session: Session
    roster: Roster
    studio: Studio
    client: TestClient
    findings: list[Finding]
    annotations: Path

    def page(self) -> Page:
        return Page(self.client)


class Page:
    """One socket, as the page uses it."""

    def __init__(self, client: TestClient) -> None:
        headers = {"origin": f"http://{HOST}", "host": HOST, "cookie": cookie_of(client)}
        self._context = client.websocket_connect("/ws", headers=headers)
        self.socket = self._context.__enter__()
        self.request = 0
        self.pushed: list[dict[str, Any]] = []

    def close(self) -> None:
        self._context.__exit__(None, None, None)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, type: str, /, **fields: Any) -> int:
        self.request += 1
        self.socket.send_text(json.dumps({"type": type, "request": self.request, **fields}))
        return self.request

    def receive(self, request: int | None) -> Any:
        """Return the answer to `request`: a dict, or the pixels of a picture."""
        while True:
            message = self.socket.receive()
            if message["type"] == "websocket.close":
                raise ConnectionError(message.get("code"))
            if message.get("bytes"):
                number, width, height = struct.unpack_from("<IHH", message["bytes"])
                pixels = np.frombuffer(message["bytes"], np.uint8, offset=8).reshape(height, width, 4)
                if number == request:
                    return pixels
                continue
            answer = json.loads(message["text"])
            if answer.get("request") == request:
                return answer
            self.pushed.append(answer)

    def ask(self, type: str, /, **fields: Any) -> Any:
        return self.receive(self.send(type, **fields))


def no_renderer() -> Renderer:
    raise RenderError("this test draws nothing")


@contextlib.contextmanager
def running(models: Path, cache: Path, annotations: Path, make: Callable[[], Renderer] = no_renderer) -> Iterator[Site]:
    """Run the application; its models come from `cache`. Only where `make` makes a renderer, pictures are drawn."""
    roster = Roster(models, Cache(cache))
    session = Session(roster, annotations, "Aoi")
    made = Studio(roster.subject, make=make)
    app = create_app(session, made, token=TOKEN, hosts=allowed_hosts("127.0.0.1", 4321))
    roster.start()
    client = TestClient(app, base_url=f"http://{HOST}", follow_redirects=False)
    findings = [item.finding for item in map(roster.get, roster.ids()) if item and item.finding and item.finding.usable]
    try:
        with client:
            client.get(f"/?token={TOKEN}")
            yield Site(session, roster, made, client, findings, annotations)
    finally:
        roster.close()
        made.close()
    assert not [thread for thread in threading.enumerate() if thread.name in ("drawing", "roster")]
