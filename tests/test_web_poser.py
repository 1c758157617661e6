"""The live poser: its messages, its socket, attacks on it, and the page in a browser."""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

torch = pytest.importorskip("torch", reason="needs torch (tools/run brings it)")
for package in ("safetensors", "starlette", "uvicorn", "websockets"):
    pytest.importorskip(package, reason=f"needs {package} (tools/run brings it)")

from browser import SMALL, Tab, serving  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402
from starlette.websockets import WebSocketDisconnect  # noqa: E402
from web_site import HOST, TOKEN, cookie_of  # noqa: E402

from mmdgen.cli.draw import over  # noqa: E402
from mmdgen.errors import ConfigError, RenderError  # noqa: E402
from mmdgen.png import encode_png  # noqa: E402
from mmdgen.pose.vocabulary import THA1  # noqa: E402
from mmdgen.samples.library import write_characters  # noqa: E402
from mmdgen.train.networks import NETWORKS, Preset, build_network  # noqa: E402
from mmdgen.train.picture import prepare  # noqa: E402
from mmdgen.train.poser import Poser  # noqa: E402
from mmdgen.train.runs import save_network  # noqa: E402
from mmdgen.web import poser_connection, poser_protocol  # noqa: E402
from mmdgen.web.pages import static_files  # noqa: E402
from mmdgen.web.poser_app import MOST_SOCKETS, create_poser_app  # noqa: E402
from mmdgen.web.poser_connection import Desk  # noqa: E402
from mmdgen.web.poser_models import Gallery  # noqa: E402
from mmdgen.web.poser_protocol import (  # noqa: E402
    HEAD,
    Choose,
    Current,
    Pose,
    PoserProtocolError,
    parse,
    parse_upload,
    picture_size,
)
from mmdgen.web.security import allowed_hosts  # noqa: E402

pytestmark = pytest.mark.train

SIZE = 32
ORIGIN = f"http://{HOST}"
TINY = Preset("tiny", 4, 8, 1)


def head(size: int = SIZE) -> np.ndarray:
    """A round something with soft edges on nothing, u8 [S, S, 4]."""
    y, x = (np.indices((size, size)) + 0.5) / size - 0.5
    alpha = np.clip((0.35 - np.hypot(x, y)) * size / 3, 0, 1)
    image = np.stack([0.5 + x, 0.5 + y, 0.5 - x * y, alpha], axis=2)
    return np.rint(255 * np.where(alpha[..., None] > 0, image, 0)).astype(np.uint8)


def file_of(image: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small gain nothing from several threads, which wait for each other by spinning."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for name in NETWORKS:
        save_network(folder, name, build_network(name, TINY, seed=7), TINY, SIZE, 12, {})
    return folder


class Page:
    """One socket, as the page uses it."""

    def __init__(self, client: TestClient, **headers: str | None) -> None:
        given_ = {"origin": ORIGIN, "host": HOST, "cookie": cookie_of(client), **headers}
        known = {key: value for key, value in given_.items() if value is not None}
        self._context = client.websocket_connect("/ws", headers=known)
        self.socket = self._context.__enter__()
        self.request = 0

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.__exit__(None, None, None)

    def send(self, type: str, /, **fields: Any) -> int:
        self.request += 1
        self.socket.send_text(json.dumps({"type": type, "request": self.request, **fields}))
        return self.request

    def upload(self, data: bytes, cut: bool = False) -> Any:
        self.request += 1
        self.socket.send_bytes(HEAD.pack(self.request, cut) + data)
        return self.receive(self.request)

    def next(self) -> tuple[int | None, Any]:
        """The next answer: its request, and a dict or the pixels of a picture."""
        message = self.socket.receive()
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(message.get("code", 1000))
        if message.get("bytes"):
            number, width, height = struct.unpack_from("<IHH", message["bytes"])
            return number, np.frombuffer(message["bytes"], np.uint8, offset=8).reshape(height, width, 4)
        answer = json.loads(message["text"])
        return answer["request"], answer

    def receive(self, request: int | None) -> Any:
        while True:
            number, answer = self.next()
            if number == request:
                return answer

    def ask(self, type: str, /, **fields: Any) -> Any:
        return self.receive(self.send(type, **fields))


@contextlib.contextmanager
def site(run: Path, gallery: Gallery | None = None, **start: Any) -> Iterator[tuple[TestClient, Desk]]:
    with ThreadPoolExecutor(1) as networks, ThreadPoolExecutor(1) as decoding:
        desk = Desk(Poser(run), networks, decoding, gallery, title="a run", **start)
        app = create_poser_app(desk, token=TOKEN, hosts=allowed_hosts("127.0.0.1", 4321))
        with TestClient(app, base_url=f"http://{HOST}", follow_redirects=False) as client:
            client.get(f"/?token={TOKEN}")
            yield client, desk
    if gallery is not None:
        gallery.close()


@pytest.fixture(scope="module")
def shared_site(run):
    with site(run) as made:
        yield made


@pytest.fixture
def client(shared_site) -> TestClient:
    shared_site[1].image = None
    return shared_site[0]


# -- messages ----------------------------------------------------------------------------------------------------------


def test_messages():
    rest = tuple(THA1.rest.tolist())
    assert parse('{"type":"pose","request":3,"of":"network","values":{}}') == Pose(3, "network", rest)
    values = {"head_x": -1, "mouth": 0.5}
    found = parse(json.dumps({"type": "pose", "request": 0, "of": "model", "values": values}))
    assert found == Pose(0, "model", (-1, 0, 0, 0, 0, 0.5))
    assert parse('{"type":"choose","request":9,"model":4}') == Choose(9, 4)
    assert parse('{"type":"current","request":4294967295}') == Current(2**32 - 1)


POSE = {"type": "pose", "request": 1, "of": "network", "values": {}}


@pytest.mark.parametrize(
    "message",
    [
        [],
        "pose",
        {},
        {**POSE, "request": True},
        {**POSE, "request": -1},
        {**POSE, "request": 2**32},
        {**POSE, "request": "1"},
        {**POSE, "type": "eval"},
        {**POSE, "type": None},
        {**POSE, "of": "nothing"},
        {**POSE, "of": ["network"]},
        {**POSE, "path": "/etc/passwd"},
        {**POSE, "values": []},
        {**POSE, "values": {"nose": 1}},
        {**POSE, "values": {"mouth": "1"}},
        {**POSE, "values": {"mouth": True}},
        {**POSE, "values": {"mouth": None}},
        {**POSE, "values": {"mouth": 1.01}},
        {**POSE, "values": {"head_x": -1.5}},
        {**POSE, "values": {"head_x": 10**400}},
        {"type": "choose", "request": 1, "model": -1},
        {"type": "choose", "request": 1, "model": "../x.pmx"},
        {"type": "choose", "request": 1, "model": 1.0},
        {"type": "choose", "request": 1},
        {"type": "current", "request": 1, "model": 1},
    ],
    ids=str,
)
def test_messages_that_are_none(message):
    with pytest.raises(PoserProtocolError):
        parse(json.dumps(message))


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 2000, '{"type":"pose","request":1,"of":"network","values":{"mouth":NaN}}', " " * 5000]
)
def test_texts_that_are_no_messages(text):
    with pytest.raises(PoserProtocolError):
        parse(text)


@given(st.binary(max_size=60) | st.builds(lambda rest: b"\xff\xd8" + rest, st.binary(max_size=60)))
def test_any_bytes_are_an_upload_or_an_error(data):
    with contextlib.suppress(PoserProtocolError):
        parse_upload(HEAD.pack(1, 0) + data)
    with contextlib.suppress(PoserProtocolError):
        parse_upload(data)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": False}),
        ("WEBP", {"lossless": True, "exif": b"Exif\0\0" + bytes(8)}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
    ],
    ids=str,
)
def test_sizes_are_read_from_headers(kind, options):
    image = np.zeros((21, 37, 3), np.uint8)
    data = file_of(image, kind, **options)
    assert picture_size(data) == (37, 21)
    for cut in range(len(data)):  # a file that ends anywhere
        assert picture_size(data[:cut]) in (None, (37, 21))
    transparent = file_of(np.zeros((21, 37, 4), np.uint8) + 9, "PNG" if kind == "JPEG" else kind)
    assert picture_size(transparent) == (37, 21)
    assert parse_upload(HEAD.pack(7, 1) + data) == poser_protocol.Upload(7, True, data)


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with next to nothing in it."""
    data = bytearray(encode_png(np.zeros((1, 1, 4), np.uint8)))
    data[16:24] = struct.pack(">II", width, height)
    return bytes(data)


@pytest.mark.parametrize("size", [(5000, 5000), (8193, 1), (0, 5), (2**31, 2**31), (4096, 4097)], ids=str)
def test_large_pictures_are_refused_before_they_are_decoded(client, size, monkeypatch):
    monkeypatch.setattr(poser_connection, "decode_picture", lambda *_: pytest.fail("it was decoded"))
    with Page(client) as page:
        answer = page.upload(claiming(*size))
        assert answer["type"] == "error"
        assert f"{size[0]} x {size[1]} pixels" in answer["message"]


# -- the socket --------------------------------------------------------------------------------------------------------


def test_a_picture_is_uploaded_and_posed(client, run):
    with Page(client) as page:
        assert page.ask("current")["type"] == "nothing"
        assert page.ask("pose", of="network", values={})["message"] == "there is no picture yet"
        np.testing.assert_array_equal(page.upload(encode_png(head())), head())
        np.testing.assert_array_equal(page.ask("current"), head())
        values = {"head_y": 0.5, "left_eye": 1, "mouth": 0.25}
        expected = Poser(run).pose(head(), THA1.pose(**values))[0]
        found = page.ask("pose", of="network", values=values)
        assert np.abs(found.astype(int) - expected).max() <= 1
        assert "no 3D model" in page.ask("pose", of="model", values={})["message"]
        assert "no such model" in page.ask("choose", model=0)["message"]
    with Page(client) as page:  # opened again: it goes on with the same picture
        np.testing.assert_array_equal(page.ask("current"), head())
        state = client.get("/api/state").json()
        assert state["picture"] is True
        assert [item["name"] for item in state["networks"]] == list(NETWORKS)
        assert {item["examples"] for item in state["networks"]} == {12}


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_sizes_are_fitted(client, kind):
    image = head(90)[:, 10:80]
    with Page(client) as page:
        found = page.upload(file_of(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
        np.testing.assert_array_equal(found, prepare(image, SIZE, fit=True))


def test_opaque_pictures_are_refused_unless_cut(client):
    drawing = over(head(64), (250, 240, 230))
    with Page(client) as page:
        refused = page.upload(encode_png(drawing))
        assert "no transparent background" in refused["message"]
        cut = page.upload(file_of(drawing, "JPEG", quality=100, subsampling=0), cut=True)
        assert cut.shape == (SIZE, SIZE, 4)
        assert cut[0, 0, 3] == 0
        assert cut[SIZE // 2, SIZE // 2, 3] == 255


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 4, b"BM" + bytes(60), b"GIF89a" + bytes(60), b"<svg/>", b"/etc/passwd", encode_png(head())[:200]],
    ids=lambda data: data[:8].hex() or "empty",
)
def test_files_that_are_no_pictures(client, data):
    with Page(client) as page:
        answer = page.upload(data)
        assert answer["type"] == "error"
        assert str(Path(__file__).parent) not in answer["message"]
        assert page.ask("current")["type"] == "nothing"  # and it goes on
        page.socket.send_bytes(b"\0\0")
        assert page.next()[1]["type"] == "error"


def test_the_newest_pose_wins(run):
    """While one picture is computed, of all that are asked for meanwhile only the last is computed."""
    with site(run, image=head()) as (client, desk):
        begun, go = threading.Event(), threading.Event()
        computed: list[float] = []
        real = desk.poser.pose

        def slow(image, rows):
            computed.append(float(rows[0, 0]))
            begun.set()
            go.wait(20)
            return real(image, rows)

        desk.poser.pose = slow  # pyright: ignore[reportAttributeAccessIssue]
        with Page(client) as page:
            first = page.send("pose", of="network", values={"head_x": 0})
            assert begun.wait(20)
            later = [page.send("pose", of="network", values={"head_x": share / 100}) for share in range(1, 40)]
            superseded = [page.next() for _ in later[:-1]]
            assert [number for number, _ in superseded] == later[:-1]
            assert {answer["type"] for _, answer in superseded} == {"superseded"}
            go.set()
            assert [page.next()[0], page.next()[0]] == [first, later[-1]]
            assert computed == pytest.approx([0, 0.39])


def test_a_page_that_leaves_in_the_middle_stops_nothing(run):
    with site(run, image=head()) as (client, _):
        for _ in range(3):
            with Page(client) as page:
                page.send("pose", of="network", values={"head_x": 0.5})
        with Page(client) as page:
            assert page.ask("pose", of="network", values={}).shape == (SIZE, SIZE, 4)


# -- 3D models ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def characters(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("characters")
    write_characters(folder, 3)
    (folder / "zz broken.pmx").write_bytes(b"PMX but not really")
    return folder


@pytest.mark.gl
def test_models_are_posed_beside_the_networks(run, characters):
    with site(run, Gallery(characters, SIZE, None)) as (client, desk):
        names = client.get("/api/state").json()["models"]
        assert len(names) == 4
        assert not any(str(characters) in name for name in names)
        with Page(client) as page:
            rest = page.ask("choose", model=0)
            np.testing.assert_array_equal(page.ask("pose", of="model", values={}), rest)
            turned = page.ask("pose", of="model", values={"head_y": 1, "left_eye": 1})
            assert (turned != rest).any()
            posed = page.ask("pose", of="network", values={"head_y": 1})
            expected = Poser(run).pose(rest, THA1.pose(head_y=1))[0]
            assert np.abs(posed.astype(int) - expected).max() <= 1
            for other in (1, 2):  # more than are kept
                assert (page.ask("choose", model=other) != rest).any()
            np.testing.assert_array_equal(page.ask("choose", model=0), rest)
            broken = page.ask("choose", model=3)
            assert "cannot be posed" in broken["message"]
            assert str(characters) not in broken["message"]
            assert "no such model" in page.ask("choose", model=4)["message"]
            np.testing.assert_array_equal(page.ask("current"), rest)
            page.upload(encode_png(head()))
            assert "no 3D model" in page.ask("pose", of="model", values={})["message"]
        assert desk.model is None


def test_without_opengl_the_rest_goes_on(run, characters):
    def broken():
        raise RenderError("no device")

    with site(run, Gallery(characters, SIZE, None, make=broken), image=head()) as (client, _), Page(client) as page:
        assert "nothing can be drawn on this machine" in page.ask("choose", model=0)["message"]
        assert page.ask("pose", of="network", values={}).shape == (SIZE, SIZE, 4)


def test_a_folder_without_models_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no \.pmx or \.pmd"):
        Gallery(tmp_path, SIZE, None)


# -- attacks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stranger(client) -> TestClient:
    """A client without the cookie."""
    return TestClient(client.app, base_url=f"http://{HOST}", follow_redirects=False)


@pytest.mark.parametrize("query", ["token=", f"token={TOKEN}x", f"token={TOKEN[:-1]}", f"x=1&token={TOKEN}", "token"])
def test_wrong_tokens(stranger, query):
    answer = stranger.get(f"/?{query}")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/api/state", "/static/poser.js", "/static/../pages.py", "/nothing"])
def test_everything_needs_the_cookie(stranger, path):
    assert stranger.get(path).status_code == 401
    assert stranger.get(path, headers={"cookie": f"mmdgen={TOKEN}"}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": None},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:4321.evil.example"},
        {"host": "evil.example", "origin": "http://evil.example"},
        {"host": "127.0.0.1:80"},
        {"cookie": None},
        {"cookie": f"mmdgen={TOKEN}"},
    ],
    ids=str,
)
def test_foreign_sockets(client, headers):
    with pytest.raises(WebSocketDisconnect), Page(client, **headers):
        pass


@pytest.mark.parametrize("path", ["/", "/api/state", "/static/poser.js"])
def test_foreign_requests(client, path):
    assert client.get(path, headers={"host": "evil.example"}).status_code == 403
    assert client.get(path, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get(path, headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}).status_code == 403
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, path).status_code == 405


@pytest.mark.parametrize("path", ["/static/../pages.py", "/static/..%2fpages.py", "/static//etc/passwd", "/poser.html"])
def test_traversal(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "import" not in answer.text


def test_the_page_and_what_binds_it(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    for name in re.findall(r'(?:src|href)="/static/([^"]+)"', answer.text):
        assert client.get(f"/static/{name}").status_code == 200
    assert {name for name in static_files() if name.startswith("poser")} == {
        "poser.html", "poser.css", "poser.js", "poser_live.js", "poser_pose.js", "poser_socket.js",
    }  # fmt: skip


def test_malformed_messages_do_not_close_the_socket(client):
    with Page(client) as page:
        for text in ("", "{", "[]", "[" * 3000, '{"type":"eval","request":1}', "\x00"):
            page.socket.send_text(text)
            assert page.next()[1]["type"] == "error"
        assert page.ask("current")["type"] == "nothing"


def test_oversized_messages_close_it(client):
    with Page(client) as page:
        page.socket.send_text(" " * (poser_protocol.MAX_TEXT_BYTES + 1))
        with pytest.raises(WebSocketDisconnect) as caught:
            page.next()
        assert caught.value.code == 1009
    with Page(client) as page:
        page.socket.send_bytes(bytes(poser_protocol.MAX_UPLOAD_BYTES + HEAD.size + 1))
        with pytest.raises(WebSocketDisconnect) as caught:
            page.next()
        assert caught.value.code == 1009


def test_floods_are_refused_and_end(client, monkeypatch):
    monkeypatch.setattr(poser_connection, "RATE", 1.0)
    monkeypatch.setattr(poser_connection, "MOST_REFUSED", 5)
    with Page(client) as page:
        for _ in range(int(poser_connection.BURST) + 20):
            page.socket.send_text("{")
        said, message = [], page.socket.receive()
        while message["type"] == "websocket.send":
            said.append(json.loads(message["text"])["message"])
            message = page.socket.receive()
        assert message["code"] == 1008
        assert "too many messages at once" in said


def test_sockets_are_counted(client):
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_SOCKETS):
            stack.enter_context(Page(client))
        with pytest.raises(WebSocketDisconnect), Page(client):
            pass
    with Page(client) as page:
        assert page.ask("current")["type"] == "nothing"


# -- the page in a browser, served by the command ----------------------------------------------------------------------


def canvas(tab: Tab, name: str) -> bytes:
    """The pixels of a canvas."""
    return bytes(
        tab.page.evaluate(
            """(name) => {
              const c = document.getElementById(name);
              return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data];
            }""",
            name,
        )
    )


def drawn(tab: Tab, name: str = "network") -> int:
    return int(tab.page.locator(f"#{name}").get_attribute("data-drawn") or 0)


def wait_drawn(tab: Tab, before: int, name: str = "network") -> None:
    """Wait for a newer picture, and until none is on its way."""
    tab.page.wait_for_function(
        """([name, before]) => {
          const data = document.getElementById(name).dataset;
          return Number(data.drawn ?? 0) > before && data.settled === data.drawn;
        }""",
        arg=[name, before],
    )


def set_slider(tab: Tab, name: str, value: float) -> None:
    before = drawn(tab)
    tab.page.locator(f"#{name}").fill(str(value))
    wait_drawn(tab, before)


DROP = """([bytes, name, type]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
  for (const kind of ['dragenter', 'dragover', 'drop'])
    document.getElementById('stage').dispatchEvent(
      new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


@pytest.mark.browser
@pytest.mark.gl
def test_the_page(run, characters, browser, tmp_path):
    """Drop, move, reset, random, follow and blink, another picture, an opaque one, a 3D model beside it."""
    poser = Poser(run)
    face, drawing = tmp_path / "my face.png", tmp_path / "drawing.png"
    face.write_bytes(encode_png(head(80)))
    drawing.write_bytes(encode_png(over(head(64), (250, 240, 230))))
    command = ("pose", "--run", run, "--serve", "--device", "cpu", "--models", characters)
    with serving(*command, OMP_NUM_THREADS="1") as server:
        tab = Tab(browser, tmp_path, size=SMALL)
        tab.expected = ("willReadFrequently",)  # the browser's advice about what `canvas` does
        tab.page.goto(server.url)
        tab.page.wait_for_function("() => document.getElementById('run').textContent")
        assert tab.page.locator("#welcome").is_visible()
        assert "token" not in tab.page.url
        tab.shoot("welcome")

        tab.page.evaluate(DROP, [list(face.read_bytes()), face.name, "image/png"])
        wait_drawn(tab, 0)
        ready = prepare(head(80), SIZE, fit=True)
        assert tab.text("#source-name") == "my face.png"
        assert not tab.page.locator("#drop").is_visible()
        rest = canvas(tab, "network")
        assert _near(rest, poser.pose(ready, THA1.rest)[0])
        tab.shoot("posed")

        set_slider(tab, "head_y", 0.5)
        set_slider(tab, "left_eye", 1)
        assert canvas(tab, "network") != rest
        assert _near(canvas(tab, "network"), poser.pose(ready, THA1.pose(head_y=0.5, left_eye=1))[0])
        box = tab.page.locator("#head_y").bounding_box()
        assert box is not None
        before = drawn(tab)
        tab.page.mouse.click(box["x"] + box["width"] - 12, box["y"] + box["height"] / 2)
        wait_drawn(tab, before)
        assert float(tab.page.locator("#head_y").input_value()) < -0.8  # to the right: image right
        before = drawn(tab)
        tab.press("r")
        tab.page.wait_for_function("() => document.getElementById('head_y').value === '0'")
        wait_drawn(tab, before)
        assert canvas(tab, "network") == rest
        before = drawn(tab)
        tab.press(" ")
        wait_drawn(tab, before)
        tab.page.wait_for_function("() => Number(document.getElementById('neck_z').value) !== 0")

        tab.press("f")
        assert tab.page.locator("#follow").get_attribute("aria-pressed") == "true"
        box = tab.page.locator("#stage").bounding_box()
        assert box is not None
        tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.page.mouse.move(box["x"] + 4, box["y"] + 4)  # to the left and up: image left, and up
        tab.page.wait_for_function(
            "() => Number(head_x.value) > 0.9 && Number(head_y.value) > 0.9 && Number(neck_z.value) > 0.1"
        )
        before = drawn(tab)
        tab.page.mouse.click(box["x"] + 4, box["y"] + 4)
        wait_drawn(tab, before)
        tab.press("f")

        tab.page.locator("#file").set_input_files(drawing)
        tab.page.locator("#cut").wait_for()
        tab.shoot("refused")
        tab.page.locator("#cut").click()
        tab.page.wait_for_function("() => document.getElementById('source-name').textContent === 'drawing.png'")
        tab.page.locator("#cut").wait_for(state="hidden")

        before = drawn(tab, "model")
        tab.page.locator("#models").select_option("0")
        wait_drawn(tab, before, "model")
        assert tab.page.locator("#model-figure").is_visible()
        model = canvas(tab, "model")
        set_slider(tab, "head_x", -0.75)
        tab.page.wait_for_function("(old) => Number(model.dataset.drawn) > old", arg=before + 1)
        assert canvas(tab, "model") != model
        tab.shoot("side by side")
        shown = canvas(tab, "rest")
        tab.page.locator("#models").select_option("3")  # the broken one
        tab.page.locator("#message-close").click()
        assert tab.page.locator("#models").input_value() == "0"
        tab.page.locator("#models").select_option("")
        assert not tab.page.locator("#model-figure").is_visible()
        assert canvas(tab, "rest") == shown
        before = drawn(tab, "model")
        tab.page.locator("#models").select_option("0")
        wait_drawn(tab, before, "model")
        tab.page.locator("#theme").click()
        tab.page.locator("#theme").click()
        assert tab.page.evaluate("document.documentElement.dataset.theme") == "dark"
        tab.shoot("dark")
        assert _overflow(tab) == []

        tab.page.reload()
        tab.page.wait_for_function("() => document.getElementById('models').value === '0'")
        wait_drawn(tab, 0, "model")
        assert canvas(tab, "rest") == shown
        tab.close()
        assert tab.errors == []


def _near(pixels: bytes, expected: np.ndarray) -> bool:
    """Whether a canvas shows a picture. It keeps colours premultiplied, so faint pixels lose some of them."""
    found = np.frombuffer(pixels, np.uint8).reshape(expected.shape).astype(int)
    alpha = expected[..., 3:].astype(int)
    return bool((np.abs(found - expected) * np.maximum(alpha, 1) <= 255 * 2).all())


def _overflow(tab: Tab) -> list[str]:
    return tab.page.evaluate(
        """() => {
          const wrong = [];
          const root = document.documentElement;
          if (root.scrollWidth > innerWidth || root.scrollHeight > innerHeight) wrong.push('the page scrolls');
          for (const element of document.querySelectorAll('header > *, aside, aside > *, .stage, figure, button')) {
            const box = element.getBoundingClientRect();
            if (!box.width || !box.height) continue;
            if (box.left < 0 || box.right > innerWidth || box.top < 0 || box.bottom > innerHeight)
              wrong.push(`${element.id || element.className || element.tagName} lies outside`);
            if (element.tagName === 'BUTTON' && element.scrollWidth > element.clientWidth + 1)
              wrong.push(`the text of ${element.id} is cut off`);
          }
          return wrong;
        }"""
    )
