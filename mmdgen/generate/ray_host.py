"""What a Ray actor does on its machine: it looks after worker processes and tells the driver what happens to them.

The workers are those of the local engine (`pool`, `shard.ShardWorker`), so a model that ends one is found in the same
way and described in the same words, and neither GL nor a crash comes near Ray. The driver calls `Host.talk` again and
again; each call brings shard numbers and takes news. Nothing here imports Ray.

A machine may be cut off from the driver, or its Ray daemon be killed, without this process being ended. Its shards are
then made again elsewhere, so it ends itself; the workers go with it, as they always do with their parent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmdgen
from mmdgen.dataset.schema import PLAN_FILE
from mmdgen.errors import EngineError
from mmdgen.fsio import sha256_file
from mmdgen.generate.backend import devices_for
from mmdgen.generate.engine import WORKER
from mmdgen.generate.pool import WORKER_ENVIRONMENT, Event, Pool
from mmdgen.generate.remote import place_at
from mmdgen.generate.shard import WORK_FOLDER, ShardTask
from mmdgen.generate.worker import portable

TICK = 0.5  # seconds after which `talk` returns with what there is
LEASE = 15.0  # seconds without the driver after which nobody wants our shards any more; Ray gives a machine up later
PLAN_PATIENCE = 10.0  # seconds until a file that was just written must be seen through a network file system

# What happened on a host: its kind, the task, and a value; see `pool.Event`. ``host`` comes first, ``unusable`` last.
News = tuple[str, ShardTask | None, Any]


class Host:
    """Up to `config["slots"]` workers on this machine. All methods return at once or after `TICK`, from any thread.

    `config` is that of `ShardWorker`, with `slots`, `device` (a choice, see `render.devices`) and `code` (the driver's
    `code_digest`).
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._news: list[News] = []
        self._tasks: deque[ShardTask] = deque()
        self._change = threading.Condition()
        self._urgent = self._ending = False
        self._pool: Pool | None = None
        self._heard = time.monotonic()
        # The kernel ends workers with the thread that started them: it must last as long as this process.
        self._server = threading.Thread(target=self._serve, name="host", daemon=True)
        self._server.start()
        threading.Thread(target=self._watch, args=(os.getppid(),), name="lease", daemon=True).start()

    def talk(self, tasks: Sequence[ShardTask]) -> list[News]:
        """Take tasks, at most as many as there are slots free; return the news since the last call.

        It waits for some for `TICK` seconds. Counts of pictures are worth waiting for more, all else comes at once.
        """
        self._heard = time.monotonic()
        with self._change:
            self._tasks.extend(tasks)
            self._change.notify_all()
            if self._pool is not None:
                self._pool.wake()
            self._change.wait_for(lambda: self._urgent, TICK)
            news, self._news, self._urgent = self._news, [], False
        self._heard = time.monotonic()
        return news

    def stop(self) -> None:
        """End all workers and wait for that."""
        with self._change:
            self._ending = True
            self._tasks.clear()
            self._change.notify_all()
            pool = self._pool
        if pool is not None:
            pool.kill()
            pool.wake()
        self._server.join(timeout=5)

    def _tell(self, kind: str, task: ShardTask | None, value: Any) -> None:
        with self._change:
            self._news.append((kind, task, value))
            if not (kind == "note" and value[0] == "images"):
                self._urgent = True
                self._change.notify_all()

    def _serve(self) -> None:
        try:
            self._check()
            # Ray says how many processors this process may use; each worker takes one.
            os.environ["OMP_NUM_THREADS"] = WORKER_ENVIRONMENT["OMP_NUM_THREADS"]
            backend, choice = self._config["backend"], self._config["device"]
            where = platform.node()
            devices = devices_for(
                backend, choice, lambda line: self._tell("told", None, ("device", f"{where}: {line}"))
            )
            variants = [{} if index is None else {"device": index} for index in devices]
            logs = Path(self._config["out"]) / WORK_FOLDER
            logs.mkdir(parents=True, exist_ok=True)
            with Pool(WORKER, self._config, self._config["slots"], logs, variants) as pool:
                with self._change:
                    self._pool = pool
                self._tell("host", None, platform.node())
                self._work(pool)
        except Exception as error:
            self._tell("unusable", None, _on_this_machine(portable(error)))

    def _work(self, pool: Pool) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._tasks or self._ending)
                if self._ending:
                    return
            for event in pool.run(self._tasks):
                if self._ending:
                    return
                self._tell(event.kind, event.task, _shown(event))

    def _check(self) -> None:
        """Raise `EngineError` where this machine does not see what the driver sees."""
        out, models = Path(self._config["out"]), Path(self._config["models"])
        if self._config["code"] != code_digest():
            raise EngineError(
                f"its mmdgen {mmdgen.__version__} in {Path(mmdgen.__file__).parent} is not the driver's (the sources "
                "differ); install the same one on every machine"
            )
        shared = "every machine must see --out and --models at the same paths, on a shared file system"
        remote = self._config["remote"]
        if remote:  # `out` is a staging folder then, and this machine may have its own
            place_at(out, remote).worker_plan(self._config["plan"])
        deadline = time.monotonic() + (PLAN_PATIENCE if out.is_dir() else 0)
        while not remote and (digest := _digest(out / PLAN_FILE)) != self._config["plan"]:
            if time.monotonic() >= deadline:
                found = "is another one" if digest else "is not there"
                raise EngineError(f"{out / PLAN_FILE} {found}; {shared}")
            time.sleep(TICK)
        if not models.is_dir():
            raise EngineError(f"{models} is not there; {shared}")

    def _watch(self, parent: int) -> None:
        while not self._ending:
            time.sleep(TICK)
            if not self._ending and (os.getppid() != parent or time.monotonic() - self._heard > LEASE):
                os._exit(1)


def _shown(event: Event) -> Any:
    """Return an event's value, with a failure in words that say where it happened."""
    return _on_this_machine(event.value) if event.kind == "failed" else event.value


def _on_this_machine(error: Exception) -> Exception:
    try:
        return type(error)(f"{platform.node()}: {error}")
    except TypeError:  # an error with more to it than a message
        return error


def _digest(path: Path) -> str:
    with contextlib.suppress(OSError):
        return sha256_file(path)
    return ""


def code_digest() -> str:
    """Return a hash over the package's sources, which all machines must share: pictures depend on them."""
    root = Path(mmdgen.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for suffix in ("py", "glsl") for path in root.rglob(f"*.{suffix}")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()
