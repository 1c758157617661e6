"""Attacks on the annotators' server: each one is tried, and must fail without telling anything."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from web_site import HOST, TOKEN, Page, Site, cookie_of, fill_cache, make_models, running

from mmdgen.errors import ConfigError
from mmdgen.web import connection, protocol, security
from mmdgen.web.app import MOST_SOCKETS, create_app, static_files
from mmdgen.web.security import allowed_hosts, new_token
from mmdgen.web.server import listen

ORIGIN = f"http://{HOST}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    models = make_models(folder / "models", 1)
    fill_cache(models, folder / "cache")
    with running(models, folder / "cache", folder / "annotations") as made:
        yield made


@pytest.fixture
def stranger(site: Site):
    """A client without the cookie."""
    return TestClient(site.client.app, base_url=f"http://{HOST}", follow_redirects=False)


def socket_of(client: TestClient, **headers: str | None):
    given = {"host": HOST, "origin": ORIGIN, "cookie": cookie_of(client), **headers}
    return client.websocket_connect("/ws", headers={key: value for key, value in given.items() if value is not None})


def test_token_becomes_a_cookie_that_scripts_cannot_read(stranger):
    answer = stranger.get(f"/?token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Domain" not in cookie
    assert stranger.get("/api/state").status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "token=",
        "token",
        f"token={TOKEN[:-1]}",
        f"token={TOKEN}t",
        f"token={TOKEN.upper()}",
        f"token={'T' + TOKEN[1:]}",
        f"token={TOKEN}&token=x",
        f"x=1&token={TOKEN}",
        f"token={TOKEN}&x=1",
        f"token=%74{TOKEN[1:]}",
        f"token={TOKEN}%00",
        f"Token={TOKEN}",
        f"token[]={TOKEN}",
        "token=" + "t" * 5000,
    ],
    ids=lambda query: query[:50],
)
def test_wrong_tokens(stranger, query):
    answer = stranger.get(f"/?{query}")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert TOKEN not in answer.text


@pytest.mark.parametrize("path", ["/api/state", "/static/main.js", "/ws", "/nothing", "/index.html"])
def test_token_counts_at_one_address_only(stranger, path):
    assert stranger.get(f"{path}?token={TOKEN}").status_code == 401


@pytest.mark.parametrize("path", ["/", "/api/state", "/static/main.js", "/static/../app.py", "/nothing"])
def test_everything_needs_the_cookie(stranger, path):
    assert stranger.get(path).status_code == 401
    name = next(iter(stranger_cookie(stranger)))
    for value in ("", "x", TOKEN[:-1], TOKEN.upper(), f'"{TOKEN}"', TOKEN + " x"):
        assert stranger.get(path, headers={"cookie": f"{name}={value}"}).status_code == 401
    assert stranger.get(path, headers={"cookie": f"mmdgen={TOKEN}; token={TOKEN}"}).status_code == 401


def stranger_cookie(client: TestClient) -> dict[str, str]:
    other = TestClient(client.app, base_url=f"http://{HOST}", follow_redirects=False)
    other.get(f"/?token={TOKEN}")
    return dict(other.cookies)


HOSTS = [
    "evil.example",
    "evil.example:4321",
    "127.0.0.1",
    "127.0.0.1:80",
    "127.0.0.1:43210",
    "127.0.0.1:4321.evil.example",
    "127.0.0.1.evil.example:4321",
    "localhost.:4321",
    "localhost:4321@evil.example",
    "0.0.0.0:4321",
    "127.1:4321",
    "2130706433:4321",
    "[::]:4321",
    "::1:4321",
    "",
    " ",
]


@pytest.mark.parametrize("host", HOSTS)
def test_foreign_hosts(site, host):
    """A name that somebody points at this machine (DNS rebinding) is not ours, with the cookie or without."""
    assert site.client.get("/api/state", headers={"host": host}).status_code in (400, 403)
    assert site.client.get(f"/?token={TOKEN}", headers={"host": host}).status_code in (400, 403)
    with pytest.raises(WebSocketDisconnect), socket_of(site.client, host=host, origin=f"http://{host}"):
        pass


@pytest.mark.parametrize("host", [HOST, "localhost:4321", "LOCALHOST:4321", "[::1]:4321"])
def test_own_hosts(site, host):
    assert site.client.get("/api/state", headers={"host": host}).status_code in (200, 401)  # cookies are by host


ORIGINS = [
    "null",
    "",
    "http://evil.example",
    "http://127.0.0.1",
    "http://127.0.0.1:80",
    "http://127.0.0.1:43210",
    "http://localhost:4321",
    "http://127.0.0.1:4321.evil.example",
    "http://127.0.0.1:4321/",
    "http://evil.example#http://127.0.0.1:4321",
    "ftp://127.0.0.1:4321",
    "file://",
    "127.0.0.1:4321",
    "http://x@127.0.0.1:4321",
]


@pytest.mark.parametrize("origin", ORIGINS)
def test_foreign_origins(site, origin):
    for path in ("/", "/api/state", "/static/main.js"):
        assert site.client.get(path, headers={"origin": origin}).status_code == 403
    with pytest.raises(WebSocketDisconnect), socket_of(site.client, origin=origin):
        pass


def test_socket_needs_origin_and_cookie(site, stranger):
    with pytest.raises(WebSocketDisconnect), socket_of(site.client, origin=None):
        pass
    with pytest.raises(WebSocketDisconnect), socket_of(stranger):
        pass
    with socket_of(site.client):
        pass


def raw(app, headers, method="GET", path="/api/state", query=b""):
    """Send a request as no well-behaved client would; return its status."""
    import anyio

    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": headers,
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 4321),
    }
    anyio.run(app, scope, receive, send)
    return sent[0]["status"]


def test_doubled_headers(site):
    app = site.client.app
    cookie = (b"cookie", "; ".join(f"{k}={v}" for k, v in stranger_cookie(site.client).items()).encode())
    own, origin = (b"host", HOST.encode()), (b"origin", ORIGIN.encode())
    assert raw(app, [own, cookie]) == 200
    assert raw(app, [own, origin, cookie]) == 200
    assert raw(app, [cookie]) == 400  # no host at all
    assert raw(app, [own, own, cookie]) == 400
    assert raw(app, [own, (b"Host", b"evil.example"), cookie]) == 400
    assert raw(app, [own, origin, (b"origin", b"http://evil.example"), cookie]) == 403
    assert raw(app, [(b"host", b"\xff\xfe"), cookie]) == 403


@pytest.mark.parametrize("site_header", ["cross-site", "same-site", "Cross-Site", "x"])
def test_requests_from_other_sites(site, site_header):
    headers = {"sec-fetch-site": site_header, "sec-fetch-mode": "no-cors"}
    assert site.client.get("/static/main.js", headers=headers).status_code == 403
    assert site.client.get("/", headers={**headers, "sec-fetch-mode": "navigate"}).status_code == 200
    assert site.client.get("/", headers={"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods(site, method):
    for path in ("/", "/api/state", "/static/main.js", f"/?token={TOKEN}"):
        assert site.client.request(method, path).status_code == 405


def test_headers_bind_the_page(site, stranger):
    for answer in (site.client.get("/"), site.client.get("/api/state"), site.client.get("/static/nothing.js")):
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["img-src"] == "'self' blob: data:"
        assert policy["connect-src"] == f"'self' ws://{HOST} wss://{HOST}"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers.get("access-control-allow-origin") is None
    refused = stranger.get("/")
    assert refused.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in refused.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/..%5capp.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/main.js/",
        "/static/main.js%00.css",
        "/static/MAIN.JS",
        "/static/",
        "/static",
        "/static/.",
        "/app.py",
        "/..%2f..%2fetc%2fpasswd",
        "/api/state/../../etc/passwd",
    ],
)
def test_traversal(site, path):
    answer = site.client.get(path)
    assert answer.status_code in (404, 405)
    assert "root:" not in answer.text
    assert "import" not in answer.text
    assert "/work" not in answer.text


def test_only_plain_files_that_were_there_at_the_start(tmp_path, site):
    static = tmp_path / "static"
    (static / "deeper").mkdir(parents=True)
    secret = tmp_path / "secret.js"
    secret.write_text("secret")
    (static / "index.html").write_text("page")
    (static / "main.js").write_text("script")
    (static / ".hidden.js").symlink_to(secret)
    (static / "link.js").symlink_to(secret)
    (static / "notes.txt").write_text("notes")
    (static / "deeper" / "inner.js").write_text("inner")
    assert set(static_files(static)) == {"index.html", "main.js"}
    app = create_app(site.session, site.studio, token=TOKEN, hosts=allowed_hosts("127.0.0.1", 4321), static=static)
    client = TestClient(app, base_url=f"http://{HOST}", follow_redirects=False)
    client.get(f"/?token={TOKEN}")
    assert client.get("/static/main.js").text == "script"
    (static / "main.js").unlink()
    (static / "main.js").symlink_to(secret)  # put in its place later
    (static / "later.js").write_text("later")
    for name in ("main.js", "later.js", "link.js", ".hidden.js", "notes.txt", "inner.js", "deeper/inner.js"):
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 404
        assert "secret" not in answer.text


def test_the_page_itself(site):
    for name in static_files():
        assert site.client.get(f"/static/{name}").status_code == 200
    assert site.client.get("/").headers["content-type"] == "text/html; charset=utf-8"


# -- sockets -------------------------------------------------------------------------------------------------------


def test_malformed_messages_do_not_close_the_socket(site):
    with site.page() as page:
        for text in ("", "{", "[]", "[" * 60000, '{"type":"undo"}', '{"type":"eval","request":1}', "\x00"):
            page.socket.send_text(text)
            answer = json.loads(page.socket.receive_text())
            assert answer["type"] == "error"
        page.socket.send_bytes(b"\x00" * 100)
        assert json.loads(page.socket.receive_text())["message"] == "messages are texts"
        assert page.ask("undo")["type"] == "nothing"


@pytest.mark.parametrize("size", [protocol.MAX_MESSAGE_BYTES + 1, 5_000_000])
def test_oversized_messages_close_it(site, size):
    with site.page() as page:
        page.socket.send_text(" " * size)
        with pytest.raises(WebSocketDisconnect) as caught:
            page.socket.receive_text()
        assert caught.value.code == 1009
    with site.page() as page:
        page.socket.send_text("頭" * (protocol.MAX_MESSAGE_BYTES // 3 + 1))  # fewer characters than bytes
        with pytest.raises(WebSocketDisconnect) as caught:
            page.socket.receive_text()
        assert caught.value.code == 1009
    with site.page() as page:
        page.socket.send_bytes(bytes(size))
        with pytest.raises(WebSocketDisconnect):
            page.socket.receive_text()


def test_unknown_models(site):
    view = {"from": "front", "center": [0, 0], "height": 1}
    with site.page() as page:
        for kind, fields in {
            "open": {},
            "draw": {"view": view, "size": 64},
            "accept": {"kind": "head_bounds"},
            "reject": {"reason": "x"},
            "unreject": {},
        }.items():
            answer = page.ask(kind, model="0" * 16, **fields)
            assert answer["type"] == "error"
            assert "no such model" in answer["message"]
        page.send("prefetch", models=["0" * 16])
        assert page.ask("undo")["type"] == "nothing"


def test_errors_tell_no_paths(site, tmp_path_factory):
    """Every text that comes out, for a file that is no model: its name, never its folder."""
    root = str(tmp_path_factory.getbasetemp())
    site.roster.complete.wait(60)
    broken = next(row for row in site.roster.rows() if not row["usable"])
    with site.page() as page:
        answer = page.ask("open", model=broken["id"])
        assert answer["type"] == "error"
        assert "no_model" in answer["message"]
        assert root not in answer["message"]
        page.ask("save", model=broken["id"], kind="head_bounds", value={"chin_y": 0, "top_y": 1, "center_x": 0})
        assert root not in json.dumps(page.pushed)
    assert root not in site.client.get("/api/state").text


def test_floods_are_refused_and_end(site, monkeypatch):
    monkeypatch.setattr(connection, "RATE", 1.0)
    monkeypatch.setattr(connection, "MOST_REFUSED", 5)
    with site.page() as page:
        for _ in range(int(connection.BURST) + 20):
            page.socket.send_text("{")
        texts, message = [], page.socket.receive()
        while message["type"] == "websocket.send":
            texts.append(json.loads(message["text"])["message"])
            message = page.socket.receive()
        assert message["code"] == 1008
        assert "too many messages at once" in texts


def test_sockets_are_counted(site):
    pages: list[Page] = []
    try:
        pages += [site.page() for _ in range(MOST_SOCKETS)]
        with pytest.raises(WebSocketDisconnect):
            site.page()
    finally:
        for page in pages:
            page.close()
    with site.page() as page:
        assert page.ask("redo")["type"] == "nothing"


# -- addresses -----------------------------------------------------------------------------------------------------


def test_tokens():
    tokens = {new_token() for _ in range(50)}
    assert len(tokens) == 50
    assert all(len(token) == 43 for token in tokens)  # 256 bits


def test_allowed_hosts():
    assert allowed_hosts("127.0.0.1", 9) == {"127.0.0.1:9", "localhost:9", "[::1]:9"}
    assert "localhost" in allowed_hosts("127.0.0.1", 80)
    assert allowed_hosts("0.0.0.0", 9, ["Studio.local"]) == {"studio.local:9", "studio.local"}
    assert allowed_hosts("0.0.0.0", 9, ["studio:81", "[fe80::1]:9"]) == {"studio:81", "[fe80::1]:9"}
    assert "localhost:8080" in allowed_hosts("127.0.0.1", 9, ["localhost:8080"])
    for name in ("", "*", "*.example", "a b", "http://a", "a/b", "a@b", "a:b", "-a", "a\n", "a:123456"):
        with pytest.raises(ConfigError):
            allowed_hosts("127.0.0.1", 9, [name])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com", "127.0.0.1.nip.io", ""])
def test_other_addresses_need_the_option(host):
    with pytest.raises(ConfigError, match="allow-host"):
        listen(host, 0, ())


def test_bad_ports():
    for port in (-1, 65536):
        with pytest.raises(ConfigError):
            listen("127.0.0.1", port, ())
    with listen("127.0.0.1", 0, ()) as taken, pytest.raises(ConfigError):
        listen("127.0.0.1", taken.getsockname()[1], ())


def test_comparisons_take_constant_time():
    """The token is compared in one place, by the function that is made for it."""
    source = Path(security.__file__).read_text("utf-8")
    assert source.count("compare_digest(") == 2
    assert "== self._token" not in source


def test_no_thread_is_left(site):
    assert sum(thread.name == "drawing" for thread in threading.enumerate()) == 1
