"""Runs the annotators: one server, one address, one person. Prints nothing."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import uvicorn

from mmdgen.errors import ConfigError
from mmdgen.web import protocol
from mmdgen.web.app import create_app
from mmdgen.web.drawing import Studio
from mmdgen.web.finding import Cache
from mmdgen.web.roster import Roster
from mmdgen.web.security import allowed_hosts, is_loopback, new_token
from mmdgen.web.session import Session


def cache_folder() -> Path:
    """Return where findings are kept: below the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "mmdgen" / "annotate"


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


def serve(
    models: Path,
    annotations: Path,
    *,
    annotator: str,
    kind: str = "head_bounds",
    host: str = "127.0.0.1",
    port: int = 0,
    allowed: Iterable[str] = (),
    on_ready: Callable[[str], None],
    cache: Path | None = None,
    workers: int | None = None,
) -> None:
    """Serve the annotators of the models below `models` until Ctrl-C or a signal to end; blocks.

    `on_ready` gets the address to open, with its key, once the server listens; port 0 takes a free one. `allowed` are
    further names that the page may be opened under (see `security.allowed_hosts`). `cache` is the folder of findings
    and `workers` the number of processes that make them. Raises `ConfigError` for options that do not fit.
    """
    if kind not in protocol.KINDS:
        raise ConfigError(f"unknown kind {kind!r}; there is {', '.join(protocol.KINDS)}")
    if not annotator.strip():
        raise ConfigError("the annotator's name is empty")
    allowed = tuple(allowed)
    roster = Roster(models, Cache(cache or cache_folder()), workers=workers or max(1, (os.cpu_count() or 2) - 1))
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(listen(host, port, allowed))
        port = listening.getsockname()[1]
        hosts, token = allowed_hosts(host, port, allowed), new_token()
        # Other than in worker processes, one picture at a time is drawn, and soon.
        os.environ.setdefault("LP_NUM_THREADS", str(os.cpu_count() or 1))
        session = Session(roster, annotations, annotator.strip())
        studio = Studio(roster.subject)
        stack.callback(studio.close)
        app = create_app(session, studio, token=token, hosts=hosts)
        roster.found = studio.forget  # what was shown until now was only a start
        roster.start()
        stack.callback(roster.close)
        session.start()
        stack.callback(session.close)
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
            ws_max_size=protocol.MAX_MESSAGE_BYTES,
            ws_max_queue=16,
            ws_per_message_deflate=False,  # pictures do not shrink, and small messages must not grow into large ones
            limit_concurrency=128,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=3,
            lifespan="on",
        )
        server = _Server(config, lambda: on_ready(f"http://{address}/?token={token}#{kind}"))
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
