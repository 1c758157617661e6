"""One server on one address for one person: what the pages of mmdgen share in being served. Prints nothing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable

import uvicorn
from starlette.applications import Starlette

from mmdgen.errors import ConfigError
from mmdgen.web.security import allowed_hosts, is_loopback, new_token


def listen(host: str, port: int, named: Iterable[str]) -> socket.socket:
    """Return a listening socket. Raises `ConfigError` for an address that others can reach, unless a name was allowed
    for it, and for one that cannot be had."""
    if not is_loopback(host) and not tuple(named):
        raise ConfigError(
            f"{host} can be reached from other machines: name the host that the page will be opened under with "
            "--allow-host, if that is what you want"
        )
    if not 0 <= port < 1 << 16:
        raise ConfigError(f"a port is a number from 0 to 65535, found {port}")
    bare = host.strip("[]")
    try:
        (family, kind, _, _, address), *_ = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)
        made = socket.socket(family, kind)
    except OSError as error:
        raise ConfigError(f"{host}: {error.strerror or error}") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(64)
    except OSError as error:
        made.close()
        raise ConfigError(f"{host} port {port}: {error.strerror or error}") from error
    return made


def run_app(
    make: Callable[[str, frozenset[str]], Starlette],
    listening: socket.socket,
    *,
    host: str,
    allowed: tuple[str, ...],
    most_bytes: int,
    most_waiting: int = 16,
    fragment: str = "",
    on_ready: Callable[[str], None],
) -> None:
    """Serve an application until Ctrl-C or a signal to end; blocks.

    `make` gets the token and the host names that `security.Guard` is to accept; `listening` is from `listen`, with the
    same `host` and `allowed` names. A socket takes messages of `most_bytes` and keeps `most_waiting` of them.
    `on_ready` gets the address to open, with its key, and with `fragment` behind it.
    """
    port = listening.getsockname()[1]
    token = new_token()
    app = make(token, allowed_hosts(host, port, allowed))
    name = host if is_loopback(host) and ":" not in host else "[::1]" if is_loopback(host) else allowed[0]
    address = name if name.rpartition(":")[2].isdigit() and not is_loopback(host) else f"{name}:{port}"
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # addresses hold the key
        server_header=False,
        date_header=False,
        proxy_headers=False,
        ws="websockets-sansio",
        ws_max_size=most_bytes,
        ws_max_queue=most_waiting,
        ws_per_message_deflate=False,  # pictures do not shrink, and small messages must not grow into large ones
        limit_concurrency=128,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=3,
        lifespan="on",
    )
    behind = f"#{fragment}" if fragment else ""
    server = _Server(config, lambda: on_ready(f"http://{address}/?token={token}{behind}"))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """Says when it has started."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()
