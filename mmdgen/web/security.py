"""Who may talk to the annotator: one person's browser, from one page, through one address.

The address that is printed holds a random token; it is accepted at ``/`` only and becomes a cookie that no script can
read and no other site's request carries. Other pages in the same browser cannot reach the server under a name of their
own (``Host`` is checked, so DNS that points elsewhere does not help), nor as themselves (``Origin`` and
``Sec-Fetch-Site`` are checked, on sockets above all, which browsers open across origins without asking).
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from mmdgen.errors import ConfigError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

TOKEN_BYTES = 32
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_NAME = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_QUERY = re.compile(rb"token=([A-Za-z0-9_-]{1,200})")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), usb=(), serial=(), payment=()"),
    (b"cache-control", b"no-store"),
)


def new_token() -> str:
    """Return 256 random bits as text for an address, from the operating system."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to the address `host`."""
    return host in ("127.0.0.1", "localhost", "::1", "[::1]")


def allowed_hosts(host: str, port: int, named: Iterable[str] = ()) -> frozenset[str]:
    """Return the values that a ``Host`` header may have, in lower case.

    Those are the loopback names with the bound `port` where `host` is a loopback address, and every name in `named`:
    with a port exactly that one (a tunnel's end), without one the bound port and none (a proxy's usual ones). Raises
    `ConfigError` for what is no host name.
    """
    found = {f"{name}:{port}" for name in LOOPBACK} if is_loopback(host) else set()
    if port == 80:
        found |= {name.rpartition(":")[0] for name in found}
    for name in named:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no host name; expected NAME or NAME:PORT")
        has_port = re.search(r"[^:\]]:\d+$|\]:\d+$", name) is not None
        found |= {name.lower()} if has_port else {name.lower(), f"{name.lower()}:{port}"}
    return frozenset(found)


class Guard:
    """ASGI middleware that lets through what the module's text says, and adds the headers that bind the page.

    `hosts` is from `allowed_hosts`; `token` from `new_token`. Refusals are short plain texts: 400 (no or odd host), 403
    (host, origin), 401 (token), 405 (method). A refused socket is closed before it is accepted.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], *, token: str, hosts: frozenset[str]):
        self._app, self._token, self._hosts = app, token.encode("ascii"), hosts
        # Cookies do not tell ports apart: two annotators at once need two names.
        self._cookie = b"mmdgen_" + hmac.new(b"cookie", self._token, "sha256").hexdigest()[:12].encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] not in ("http", "websocket"):
            return
        refusal = self._refusal(scope)
        socket = scope["type"] == "websocket"
        if refusal is None and not socket and scope["path"] == "/" and b"token" in scope["query_string"]:
            given = _QUERY.fullmatch(scope["query_string"])
            if given and hmac.compare_digest(given[1], self._token):
                cookie = self._cookie + b"=" + self._token + b"; Path=/; HttpOnly; SameSite=Strict"
                await _answer(send, 303, b"", [(b"location", b"/"), (b"set-cookie", cookie)])
                return
            refusal = (401, b"This address is not (or no longer) valid: use the one that mmdgen printed last.\n")
        if refusal is None and not self._knows(scope):
            refusal = (401, b"Open the address that mmdgen printed: it holds the key to this page.\n")
        if refusal is not None:
            if socket:
                await receive()  # its connect message
                await send({"type": "websocket.close", "code": 1008})
            else:
                await _answer(send, *refusal)
            return
        if socket:
            await self._app(scope, receive, send)
            return
        policy = _policy(_headers(scope, b"host")[0])

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in _HEADERS} | {b"content-security-policy", b"server"}
                kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in own]
                message = {**message, "headers": [*kept, *_HEADERS, (b"content-security-policy", policy)]}
            await send(message)

        await self._app(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> tuple[int, bytes] | None:
        host = _headers(scope, b"host")
        if len(host) != 1:
            return 400, b"A request names its host once.\n"
        name = host[0].decode("latin-1").lower()
        if name not in self._hosts:
            return 403, b"This server does not go by that name.\n"
        origins = _headers(scope, b"origin")
        if len(origins) > 1 or (not origins and scope["type"] == "websocket"):
            return 403, b"A socket names its origin once.\n"
        if origins and origins[0].decode("latin-1").lower() not in (f"http://{name}", f"https://{name}"):
            return 403, b"Pages of other origins are not answered.\n"
        site, mode = _headers(scope, b"sec-fetch-site"), _headers(scope, b"sec-fetch-mode")
        if site and site != [b"same-origin"] and site != [b"none"] and mode != [b"navigate"]:
            return 403, b"Pages of other sites are not answered.\n"
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            return 405, b"Only GET is answered.\n"
        return None

    def _knows(self, scope: Scope) -> bool:
        """Whether the request carries the cookie."""
        known = False
        for header in _headers(scope, b"cookie"):
            for part in header.split(b";"):
                name, _, value = part.strip().partition(b"=")
                if name == self._cookie:
                    known |= hmac.compare_digest(value, self._token)
        return known


def _headers(scope: Scope, wanted: bytes) -> list[bytes]:
    return [value for name, value in scope["headers"] if name.lower() == wanted]


def _policy(host: bytes) -> bytes:
    """The content security policy; older browsers do not take a socket of the same origin for ``'self'``."""
    sockets = b"ws://" + host + b" wss://" + host
    return (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        b"connect-src 'self' " + sockets + b"; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


async def _answer(send: Send, status: int, text: bytes, more: Iterable[tuple[bytes, bytes]] = ()) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode("ascii")),
        *_HEADERS,
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
