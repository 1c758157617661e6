"""Ray's driver, in a process of its own: keeps actors wherever the cluster has room, hands out shards, passes news on.

Speaks with the command over the standard streams (`pool`): in come a job and then tasks, out go (kind, task, value).
When the input ends, however the command ended, it ends the actors, leaves the cluster and goes. Ray itself restarts
and repeats nothing here: the command decides about that.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import secrets
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, NoReturn

from mmdgen.errors import EngineError, MmdgenError, one_line
from mmdgen.generate import ray_sweeper
from mmdgen.generate.engine import CORES_PER_HARDWARE_WORKER, HARDWARE_WORKERS
from mmdgen.generate.pool import Death, read_message, write_message
from mmdgen.generate.shard import ShardTask
from mmdgen.generate.worker import portable, private_streams

POLL = 0.25  # seconds
RESIZE_SECONDS = 1.0  # between two looks at what the cluster has
IDLE_SECONDS = 5.0  # for which an actor without work is kept: a shard may have to be made again
WAIT_SECONDS = 60.0  # without any actor before people are told; one may take long to start on a busy machine
STOP_SECONDS = 4.0
LEAVE_SECONDS = 15.0
STILLBORN = 5  # so many actors in a row that died before they could work are no accident
OBJECT_STORE = 80 << 20  # bytes, about the least that Ray takes; nothing of ours lies there

# Ray's own settings, where the user has none: no reports to its makers, no colours or events in the log, and machines
# have what is installed on them also where the command was started with `uv run`.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}

Send = Callable[[str, ShardTask | None, Any], None]


def main() -> None:
    """Serve the command on the standard streams until it closes them."""
    inbox, outbox = private_streams()
    faulthandler.enable(sys.stderr)
    with contextlib.suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update({**SETTINGS, **{key: os.environ[key] for key in SETTINGS if key in os.environ}})
    letters: queue.SimpleQueue[tuple[str, ShardTask | None, Any] | None] = queue.SimpleQueue()
    postman = threading.Thread(target=_write, args=(outbox, letters), daemon=True)
    postman.start()

    def send(kind: str, task: ShardTask | None, value: Any) -> None:
        letters.put((kind, task, value))

    job = read_message(inbox)
    _sweeper = ray_sweeper.start(os.getpid(), job["folder"]) if job["folder"] else None  # open until we end
    driver = Driver(job, send)
    threading.Thread(target=_read, args=(inbox, driver, job), daemon=True).start()
    try:
        driver.connect()
        driver.run()
    except Exception as error:
        send("unusable", None, portable(error))
    finally:
        driver.leave()
        letters.put(None)
        postman.join(timeout=STOP_SECONDS)
        _go(job, 0)


def _write(outbox: IO[bytes], letters: queue.SimpleQueue) -> None:
    """Pass news on. In a thread, because actors must be spoken to even while the command does not listen."""
    with contextlib.suppress(OSError):
        while (letter := letters.get()) is not None:
            write_message(outbox, letter)


def _read(inbox: IO[bytes], driver: Driver, job: Mapping[str, Any]) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            driver.mail.put(read_message(inbox))
    driver.closing.set()
    time.sleep(LEAVE_SECONDS if driver.connected.is_set() else POLL)
    _go(job, 1)  # Ray is still starting, or something of it hangs


def _go(job: Mapping[str, Any], code: int) -> NoReturn:
    """End this process, and all that is left of a cluster of its own, which it has started in its session."""
    sys.stderr.flush()
    if job["folder"]:
        ray_sweeper.clear_up(os.getpid(), job["folder"], spare=os.getpid())
    os._exit(code)  # not through Ray's and its libraries' own farewells, which may wait for others


def _lock_out_others() -> None:
    """Give a cluster of our own a password, because Ray listens on all of the machine's addresses.

    By itself it would leave one in the user's home, and from then on ask others for it. It is read on import.
    """
    if not any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)


def _host_class() -> type:
    """Return the class of the actors: `ray_host.Host`, with modules found as this process finds them.

    It is defined in a function so that it is sent to the machines whole: nothing of ours is imported there before it.
    """

    class HostActor:
        def __init__(self, paths: list[str], config: dict[str, Any]) -> None:
            import os
            import sys

            there = [path for path in paths if os.path.exists(path)]
            sys.path[:] = there + [path for path in sys.path if path not in there]
            from mmdgen.generate.ray_host import Host

            self.host = Host(config)

        def talk(self, tasks: Any) -> Any:
            return self.host.talk(tasks)

        def stop(self) -> None:
            self.host.stop()

    return HostActor


@dataclass(slots=True)
class _Actor:
    """An actor, what it is working on, and since when (monotonic) it has had nothing to do."""

    handle: Any
    tasks: list[ShardTask] = field(default_factory=list)
    machine: str = ""
    idle: float = field(default_factory=time.monotonic)

    @property
    def ready(self) -> bool:
        return bool(self.machine)


class Driver:
    """Keeps up to `job["workers"]` actors busy with the tasks in `mail`, until `closing` is set."""

    def __init__(self, job: Mapping[str, Any], send: Send) -> None:
        self.job, self.send = job, send
        self.mail: queue.SimpleQueue[ShardTask] = queue.SimpleQueue()
        self.connected = threading.Event()
        self.closing = threading.Event()
        self._waiting: deque[ShardTask] = deque()
        self._known: set[int] = set()
        self._calls: dict[Any, _Actor] = {}  # each actor's call of `Host.talk` that is under way
        self._slots = 1
        self._needs: dict[str, int] = {"num_cpus": 1}
        self._resized = -RESIZE_SECONDS
        self._room = 0
        self._stillborn = 0
        self._alone = time.monotonic()  # since when no actor could work
        self._told = False

    def connect(self) -> None:
        """Start a cluster or join one. Raises `EngineError`."""
        address, local = self.job["address"], self.job["folder"] is not None
        if local:
            _lock_out_others()
        import ray

        options: dict[str, Any] = {}
        if local:
            options = {
                "num_cpus": self.job["cores"],
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE,
                "_temp_dir": self.job["folder"],
            }
        try:
            ray.init(address=address, log_to_driver=False, **options)
        except Exception as error:
            what = "Ray does not start" if local else f"the Ray cluster {address} cannot be joined"
            hint = "" if local else ". This machine must be one of its machines: `ray start --address=...`"
            raise EngineError(f"{what}: {type(error).__name__}: {one_line(str(error), 500)}{hint}") from error
        self._alone = time.monotonic()
        self.connected.set()
        self.send("connected", None, None)

    def run(self) -> None:
        """Serve until `closing` is set. Raises what ends the whole run."""
        import ray

        while not self.closing.is_set():
            while not self.mail.empty():
                task = self.mail.get()
                # one that is made again comes first: nobody shall wait for it at the end
                (self._waiting.appendleft if task.index in self._known else self._waiting.append)(task)
                self._known.add(task.index)
            self._resize()
            if not self._calls:
                self.closing.wait(POLL)
                continue
            finished, _ = ray.wait(list(self._calls), num_returns=1, timeout=POLL)
            if finished:
                finished, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
            for call in finished:
                self._hear(call)

    def leave(self) -> None:
        """End all actors and leave the cluster, or end it where it is our own."""
        ray: Any = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        with contextlib.suppress(Exception):
            stops = [actor.handle.stop.remote() for actor in self._calls.values() if actor.ready]
            if stops:
                ray.wait(stops, num_returns=len(stops), timeout=STOP_SECONDS)
        for actor in self._calls.values():
            with contextlib.suppress(Exception):
                ray.kill(actor.handle)
        with contextlib.suppress(Exception):
            ray.shutdown()

    def _resize(self) -> None:
        """Make actors as long as there is work for more and the cluster, or the user, has room for them."""
        import ray
        from ray.exceptions import RayError

        now = time.monotonic()
        if now - self._resized < RESIZE_SECONDS:
            return
        self._resized = now
        with contextlib.suppress(RayError, OSError, RuntimeError):  # Ray's head may be away for a while
            self._measure(ray.nodes())
        work = len(self._waiting) + sum(len(actor.tasks) for actor in self._calls.values())
        wanted = min(self.job["workers"] or max(self._room, 1), -(-work // self._slots))
        while len(self._calls) < wanted:
            host = ray.remote(_host_class()).options(max_concurrency=2, max_restarts=0, **self._needs)
            self._talk(_Actor(host.remote(sys.path, {**self.job["host"], "slots": self._slots})))
        if any(actor.ready for actor in self._calls.values()) or not work:
            self._alone, self._told = now, False
        elif now - self._alone > WAIT_SECONDS and not self._told:
            self._told = True
            kind = "GPU" if "num_gpus" in self._needs else "core"
            line = f"waiting for a free {kind}: others seem to use all of the cluster (room for {self._room} actors)"
            if not self._room:
                line = f"waiting: no machine of the cluster has a {kind} for us"
            self.send("told", None, ("wait", line))

    def _measure(self, nodes: list[dict[str, Any]]) -> None:
        """Find out what an actor needs and for how many the cluster has room, busy or not."""
        machines = [node["Resources"] for node in nodes if node["Alive"]]
        gpus = [machine for machine in machines if machine.get("GPU", 0) >= 1] if self.job["gpus"] else []
        if gpus and not self._calls:  # as `engine.hardware_workers`, where there are the fewest cores for a GPU
            share = min(machine.get("CPU", 0) / machine["GPU"] for machine in gpus)
            self._slots = max(2, min(int(share // CORES_PER_HARDWARE_WORKER), HARDWARE_WORKERS))
            self._needs = {"num_gpus": 1, "num_cpus": int(min(share, self._slots * CORES_PER_HARDWARE_WORKER))}
        elif not self._calls:
            self._slots, self._needs = 1, {"num_cpus": 1}
        cpus = self._needs["num_cpus"]
        self._room = 0
        for machine in machines:
            by_cpu = int(machine.get("CPU", 0) // cpus) if cpus else sys.maxsize
            by_gpu = int(machine.get("GPU", 0)) if "num_gpus" in self._needs else sys.maxsize
            self._room += min(by_cpu, by_gpu)

    def _talk(self, actor: _Actor) -> None:
        """Speak with an actor: give it work if it has a slot free, and ask what is new."""
        given = []
        while actor.ready and self._waiting and len(actor.tasks) < self._slots:
            given.append(self._waiting.popleft())
            actor.tasks.append(given[-1])
        self._calls[actor.handle.talk.remote(given)] = actor

    def _hear(self, call: Any) -> None:
        """Take what an actor says, or that it is no longer there, and speak with it again."""
        import ray
        from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError

        actor = self._calls.pop(call)
        try:
            news = ray.get(call)
        except (RayActorError, OutOfMemoryError, ObjectLostError) as error:
            self._lost(actor, error)
            return
        except RayError as error:
            raise EngineError(f"Ray fails: {one_line(str(error), 500)}") from error
        for kind, task, value in news:
            if kind == "unusable":
                raise value if isinstance(value, MmdgenError) else EngineError(str(value))
            if kind == "host":
                actor.machine, self._stillborn = value, 0
                continue
            if kind in ("done", "failed", "died"):
                actor.tasks = [other for other in actor.tasks if other.index != task.index]
            self.send(kind, task, (value, actor.machine) if kind == "ready" else value)
        now = time.monotonic()
        if actor.tasks or self._waiting:
            actor.idle = now
        if actor.ready and now - actor.idle > IDLE_SECONDS:
            ray.kill(actor.handle)  # others may have use for its place
        else:
            self._talk(actor)

    def _lost(self, actor: _Actor, error: Exception) -> None:
        """Give back the tasks of an actor that died, or that cannot be reached any more."""
        import ray

        with contextlib.suppress(Exception):
            ray.kill(actor.handle)  # should it still live: it would be of no use
        death = death_of(error, actor.machine)
        if not actor.ready:
            self._stillborn += 1
            failed = getattr(error, "actor_init_failed", False)
            if failed or self._stillborn >= STILLBORN:
                lines = [line for line in str(error).splitlines() if line.strip()]
                why = one_line(" ".join(lines[-1:] if failed else lines), 500)
                if "Error: No module named" in why:
                    why = f"the same mmdgen must be installed on all of them ({why})"
                raise EngineError(f"the machines of the cluster cannot start an actor: {why}")
        for task in actor.tasks:
            self.send("died", task, death)


def death_of(error: Exception, machine: str) -> Death:
    """Return in what way an actor's workers were lost, from the error that Ray raises for it.

    Ray tells of a process that ended only where its daemon on that machine has lived to see it.
    """
    from ray.exceptions import OutOfMemoryError

    if isinstance(error, OutOfMemoryError) or "worker process has died" in str(error):
        why = "the system may have run out of memory"
        return Death(-signal.SIGKILL, f"its Ray actor on {machine} was ended: {why}", "", "keeper")
    return Death(-signal.SIGKILL, f"{machine} was lost, or the way there", "", "machine")
