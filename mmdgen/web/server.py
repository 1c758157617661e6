"""Runs the annotators: one server, one address, one person. Prints nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from mmdgen.errors import ConfigError
from mmdgen.web import protocol
from mmdgen.web.app import create_app
from mmdgen.web.drawing import Studio
from mmdgen.web.finding import Cache
from mmdgen.web.roster import Roster
from mmdgen.web.running import listen, run_app
from mmdgen.web.session import Session


def cache_folder() -> Path:
    """Return where findings are kept: below the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "mmdgen" / "annotate"


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
        # Other than in worker processes, one picture at a time is drawn, and soon.
        os.environ.setdefault("LP_NUM_THREADS", str(os.cpu_count() or 1))
        session = Session(roster, annotations, annotator.strip())
        studio = Studio(roster.subject)
        stack.callback(studio.close)
        roster.found = studio.forget  # what was shown until now was only a start
        roster.start()
        stack.callback(roster.close)
        session.start()
        stack.callback(session.close)
        run_app(
            lambda token, hosts: create_app(session, studio, token=token, hosts=hosts),
            listening,
            host=host,
            allowed=allowed,
            most_bytes=protocol.MAX_MESSAGE_BYTES,
            fragment=kind,
            on_ready=on_ready,
        )
