"""The engine for clusters: shards are made by Ray actors on many machines, and the rules are those of the local engine.

Four kinds of process: the command, which plans, holds the folder's lock and decides about retries (`engine.supervise`);
a process of its own that is Ray's driver (`ray_driver`), because Ray prints, handles signals and ends the process that
uses it as it sees fit; an actor for each GPU or core (`ray_host`); and the workers, each the child of an actor. Each
kind ends when the one before it does. Pictures go from a worker to the output folder, which all machines see; what goes
through Ray are shard numbers and counts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import queue
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from mmdgen.errors import ConfigError, EngineError
from mmdgen.fsio import process_name
from mmdgen.generate.backend import CPU_BACKEND, DEFAULT_BACKEND
from mmdgen.generate.engine import (
    OnProgress,
    Tally,
    default_workers,
    supervise,
    worker_config,
)
from mmdgen.generate.plan import Plan
from mmdgen.generate.pool import Event, describe_exit, end_session, read_message, start_python, write_message
from mmdgen.generate.ray_host import code_digest
from mmdgen.generate.ray_sweeper import clear_up
from mmdgen.generate.shard import WORK_FOLDER, ShardResult, ShardTask
from mmdgen.render.devices import AUTO, Choice

LOCAL = "local"  # a cluster of this machine alone, for this run alone
ADDRESS_VARIABLE = "RAY_ADDRESS"
LONGEST_FOLDER = 20  # characters: a socket's whole name has 107 at most, and Ray needs most of them
ANSWER_SECONDS = 5.0  # for a machine to take a connection
JOIN_SECONDS, START_SECONDS = 60.0, 180.0  # for a cluster to be joined, or one of our own to start
LEAVE_SECONDS = 20.0  # for its processes to end


def render_shards(
    plan: Plan,
    indices: Sequence[int],
    models: Path,
    out: Path,
    *,
    workers: int | None = None,
    backend: str = DEFAULT_BACKEND,
    device: Choice = None,
    on_progress: OnProgress = lambda progress: None,
    address: str | None = None,
) -> list[ShardResult]:
    """Render the shards `indices` of the plan frozen in `out` on a Ray cluster; return their results in this order.

    `address` names the cluster (``host:port`` or ``auto``, as `ray start` prints it; ``local`` starts one on this
    machine); None takes RAY_ADDRESS, else ``local``. `workers` is how many actors there may be, None as many as the
    cluster has room for. An actor takes a GPU where the cluster has any, which several processes use then, else a
    core. Raises `ConfigError` for a missing package or a wrong address, and what the local engine
    raises. Everything is ended first, on a KeyboardInterrupt too.
    """
    address = check_address(address)
    if device not in (None, AUTO):
        raise ConfigError("with --engine ray it is Ray that gives out the GPUs; leave out --device")
    models, out = models.absolute(), out.absolute()
    config = {**worker_config(plan, models, out, backend), "device": device, "code": code_digest()}
    tally = Tally.of(plan, indices, on_progress)
    tally.tell("start")
    drawing: dict[str, str] = {}

    def ready(event: Event) -> None:
        """Tell, once for each other renderer, that the machines do not draw with the same one."""
        report, machine = event.value
        name = f"{report.get('renderer')}, {report.get('version')}"
        if drawing and name not in drawing:
            first, where = next(iter(drawing.items()))
            tally.tell(
                "device", f"{machine} draws with {name}, {where} with {first}: their pictures may differ a little"
            )
        drawing.setdefault(name, machine)

    with RayCrew(config, address, workers) as crew:
        return supervise(plan, indices, crew, tally, ready)


def check_address(address: str | None) -> str:
    """Return the cluster's address, found as `render_shards` says. Raises `ConfigError`, within seconds."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--engine ray needs ray: pip install 'mmdgen[ray]'")
    found = (address or os.environ.get(ADDRESS_VARIABLE) or LOCAL).strip()
    if found in (LOCAL, "auto"):
        return found
    name, _, port = found.rpartition(":")
    if "://" in found or not name or not port.isdigit():
        raise ConfigError(f"--ray-address {found}: give host:port as `ray start` printed it, auto, or {LOCAL}")
    try:
        with socket.create_connection((name.strip("[]"), int(port)), ANSWER_SECONDS) as connection:
            connection.settimeout(ANSWER_SECONDS)
            ours = _tls() or _speaks_http2(connection)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--ray-address {found}: no Ray cluster answers there ({error}); `ray status --address {found}` must work"
        ) from error
    if not ours:
        raise ConfigError(f"--ray-address {found}: what answers there is not a Ray cluster's head")
    return found


def _tls() -> bool:
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _speaks_http2(connection: socket.socket) -> bool:
    """Return whether the other end is an HTTP/2 server, as gRPC's are; Ray itself tries for minutes. Raises OSError.

    RFC 9113, 3.4: both sides begin with a SETTINGS frame (type 4), the client after a fixed text.
    """
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
    head = b""
    while len(head) < 9 and (more := connection.recv(9 - len(head))):
        head += more
    return len(head) == 9 and head[3] == 4


class RayCrew:
    """Workers of a Ray cluster, as `engine.supervise` needs them. A context manager: it ends all that it has started.

    `config` is that of `ray_host.Host` without `slots`, `address` from `check_address`.
    """

    def __init__(self, config: dict[str, Any], address: str, workers: int | None) -> None:
        self._config, self._address, self._workers = config, address, workers
        self._log = Path(config["out"]) / WORK_FOLDER / f"worker-{process_name()}-ray.log"
        self._inbox: queue.Queue[tuple[str, Any, Any]] = queue.Queue()
        self._process: subprocess.Popen | None = None
        self._folder: str | None = None

    def __enter__(self) -> RayCrew:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(self, tasks: deque[ShardTask]) -> Iterator[Event]:
        """Yield events until `tasks` is empty and nothing is under way. The caller may add tasks between events.

        A worker's ``ready`` has its report and the machine's name. Raises what makes the cluster of no use.
        """
        process = self._start()
        self._wait_until_connected()
        under_way = 0
        while tasks or under_way:
            while tasks:
                under_way += 1
                # a broken pipe: that it ended is on its way through the inbox
                with contextlib.suppress(OSError):
                    write_message(_stream(process.stdin), tasks.popleft())
            message = self._next(1.0)
            if message is None:
                continue
            kind, task, value = message
            under_way -= kind in ("done", "failed", "died")
            yield Event(kind, 0, task, value)

    def _start(self) -> subprocess.Popen:
        if self._process is not None:
            raise EngineError("a Ray crew works once")
        local = self._address == LOCAL
        self._folder = tempfile.mkdtemp(prefix="mmdgen-ray-", dir=_short_folder()) if local else None
        self._process = process = start_python("mmdgen.generate.ray_driver", self._log)
        threading.Thread(target=self._listen, args=(_stream(process.stdout),), daemon=True).start()
        job = {
            "host": self._config,
            "address": self._address,
            "folder": self._folder,
            "cores": max(self._workers or 0, default_workers()),
            "workers": self._workers,
            "gpus": self._config["backend"] != CPU_BACKEND,
        }
        with contextlib.suppress(OSError):
            write_message(_stream(process.stdin), job)
        return process

    def _wait_until_connected(self) -> None:
        seconds = START_SECONDS if self._address == LOCAL else JOIN_SECONDS
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._next(1.0) is not None:
                return
        raise EngineError(
            f"Ray ({self._address}) did not answer in {seconds:.0f} seconds. {self._last_words()}".strip()
        )

    def _next(self, seconds: float) -> tuple[str, Any, Any] | None:
        """Return the driver's next message, None when there is none in time. Raises what it gave up with."""
        try:  # a time limit keeps signals prompt on every system
            kind, task, value = self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None
        if kind == "unusable":
            raise value
        if kind == "ended":
            code = self._process.wait() if self._process else 0
            raise EngineError(f"Ray's driver is gone: {describe_exit(code)}. {self._last_words()}".strip())
        return kind, task, value

    def _listen(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                self._inbox.put(read_message(stream))
        self._inbox.put(("ended", None, None))

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text("utf-8", "backslashreplace").splitlines()
        except OSError:
            return ""
        lines = [line.strip() for line in lines if line.strip()]
        return f"Its last words: {' / '.join(lines[-3:])}" if lines else ""

    def close(self) -> None:
        """End everything and wait for it; the driver does it by itself when its input ends."""
        process, self._process = self._process, None
        try:
            if process is not None:
                with contextlib.suppress(OSError):
                    _stream(process.stdin).close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LEAVE_SECONDS)
        finally:
            if process is not None:
                end_session(process.pid)
                process.wait()
                with contextlib.suppress(OSError):
                    _stream(process.stdout).close()
            if self._folder is not None:
                clear_up(process.pid if process else None, self._folder)


def _short_folder() -> str:
    """Return a folder for temporary files in which the names of Ray's sockets are short enough for the system."""
    usual = tempfile.gettempdir()
    return "/tmp" if len(usual) > LONGEST_FOLDER and os.access("/tmp", os.W_OK) else usual


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise EngineError("a process was started without a pipe")
    return stream
