"""Runs the live poser: one server, one address, one person. Prints nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmdgen.web.poser_app import create_poser_app
from mmdgen.web.poser_connection import Desk
from mmdgen.web.poser_models import Gallery
from mmdgen.web.poser_protocol import HEAD, MAX_UPLOAD_BYTES
from mmdgen.web.running import listen, run_app

if TYPE_CHECKING:
    from mmdgen.train.poser import Poser


def serve_poser(
    poser: Poser,
    *,
    title: str,
    image: np.ndarray | None = None,
    models: Path | None = None,
    annotations: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    allowed: Iterable[str] = (),
    on_ready: Callable[[str], None],
) -> None:
    """Serve the page on which the networks of `poser` pose pictures, until Ctrl-C or a signal to end; blocks.

    `image` u8 [S, S, 4] is the first picture, `title` what the page calls the run, `models` a folder of 3D models to
    compare with (their annotations in `annotations`). `on_ready` gets the address to open, with its key, once the
    server listens. Raises `ConfigError` for options that do not fit.
    """
    allowed = tuple(allowed)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(listen(host, port, allowed))
        os.environ.setdefault("LP_NUM_THREADS", str(os.cpu_count() or 1))
        networks = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="networks"))
        decoding = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="decoding"))
        gallery = None if models is None else Gallery(models, poser.size, annotations)
        if gallery is not None:
            stack.callback(gallery.close)
        desk = Desk(poser, networks, decoding, gallery, image, title=title)
        run_app(
            lambda token, hosts: create_poser_app(desk, token=token, hosts=hosts),
            listening,
            host=host,
            allowed=allowed,
            most_bytes=MAX_UPLOAD_BYTES + HEAD.size,
            most_waiting=2,
            on_ready=on_ready,
        )
