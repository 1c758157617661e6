"""The Ray engine on a real cluster: actors, machines and drivers are killed, and the dataset comes out the same.

The pure parts (who is to blame for what, what a machine refuses) are tested without Ray.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_backend as fake
import pytest
import ray_cluster
from click.testing import CliRunner
from processes import alive, children, command, session, stat, until
from test_generate import assert_no_debris, assert_same

from mmdgen.cli.main import cli
from mmdgen.dataset.verify import verify_dataset
from mmdgen.errors import ConfigError, EngineError
from mmdgen.generate import ray_engine, ray_sweeper
from mmdgen.generate.catalogue import Catalogue, scan
from mmdgen.generate.engine import MACHINES_LOST, Progress, Retries, worker_config
from mmdgen.generate.plan import Plan
from mmdgen.generate.pool import DEVICE_LOST, Death
from mmdgen.generate.ray_driver import Driver
from mmdgen.generate.ray_host import Host, code_digest
from mmdgen.generate.run import plan_for, run
from mmdgen.generate.shard import LOCK_FILE, WORK_FOLDER, ShardTask, ShardWorker
from mmdgen.samples.character import build_character

TESTS = Path(__file__).parent
MAIN = "import sys; sys.argv[0] = 'mmdgen'; from mmdgen.cli.main import main; main()"
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None and os.environ.get("MMDGEN_SCALE", "0") in ("", "0"),
    reason="Ray is not installed (MMDGEN_SCALE=1 tools/run pytest brings it)",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for index in range(6):
        fake.write_model(root / f"source{index % 3}" / f"m{index}" / "m.pmx", f"model {index}")
    return root


@pytest.fixture
def gated(models: Path, tmp_path: Path) -> Path:
    """The models with a gate: nothing gets further than a model's second posed picture until it is removed."""
    root = tmp_path / "models"
    shutil.copytree(models, root)
    (root / ray_cluster.GATE).touch()
    return root


@pytest.fixture(scope="module")
def reference(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the local engine makes of `models`."""
    out = tmp_path_factory.mktemp("reference") / "d"
    fake.go(models, out, 2)
    return out


@pytest.fixture(scope="module")
def catalogue(models: Path) -> Catalogue:
    return scan(models, workers=1, examiner=fake.EXAMINER)


@pytest.fixture
def plan(catalogue: Catalogue, tmp_path: Path) -> Plan:
    return plan_for(tmp_path / "d", fake.options(), lambda: catalogue)


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder for Ray, whose sockets lie in it: their names must be short."""
    folder = Path(tempfile.mkdtemp(prefix="mmr-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def short() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[ray_cluster.Cluster]:
    with pytest.MonkeyPatch.context() as patch, short_folder() as folder:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        running = ray_cluster.Cluster(folder)
        try:
            yield running
        finally:
            running.close()
        assert session(running.process.pid) == []


def go(
    cluster: ray_cluster.Cluster,
    models: Path,
    out: Path,
    workers: int | None = 2,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    **changes: Any,
) -> Any:
    """Plan (or go on) and run on the cluster."""
    plan = plan_for(out, fake.options(**changes), lambda: scan(models, workers=1, examiner=fake.EXAMINER))
    engine = functools.partial(ray_engine.render_shards, address=cluster.address)
    return run(plan, models, out, workers=workers, backend=ray_cluster.BACKEND, engine=engine, on_progress=on_progress)


class Watch:
    """Sees all events; calls `act` once, at the first picture of a shard."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.act, self.acted = act, False
        self.events: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        self.events.append(progress)
        if progress.event == "images" and not self.acted:
            self.acted = True
            self.act()

    def told(self, event: str) -> list[str]:
        return [progress.message for progress in self.events if progress.event == event]


def drivers(pid: int) -> list[int]:
    """Return the Ray drivers that a process has started."""
    return children_named("ray_driver", pid)


def at_work(cluster: ray_cluster.Cluster) -> list[tuple[int, ...]]:
    """Return actor and workers where an actor has started any: Ray and Python start short-lived children, too."""
    found = ((actor, *children_named("mmdgen.generate.worker", actor)) for actor in cluster.actors())
    return [pids for pids in found if len(pids) > 1]


@needs_ray
@pytest.mark.ray
class TestOnACluster:
    def test_the_same_bytes_as_on_one_machine(self, cluster, models, tmp_path):
        """Of a model that ends its worker, too, to the words that say so. Without --workers every processor works."""
        root = tmp_path / "models"
        shutil.copytree(models, root)
        fake.write_model(root / "source1" / "bad" / "m.pmx", "bad one", "draw-segfault")
        fake.go(root, tmp_path / "local", 2)
        watch = Watch()
        summary = go(cluster, root, tmp_path / "ray", None, watch)
        assert summary.failed == {"crashed": 1}
        assert_same(tmp_path / "ray", tmp_path / "local")
        crash = "source1/bad/m.pmx: drawing it ends the process: it was ended by SIGSEGV"
        assert [crash in line for line in watch.told("retry")] == [False, True]
        first, last = watch.events[0], watch.events[-1]
        assert (first.event, first.images, last.event) == ("start", 0, "shard")
        assert last.images == last.total
        assert last.drawn == summary.drawn == summary.images
        shards = list((tmp_path / "ray").rglob("*.h5"))
        assert sum(event.event == "shard" for event in watch.events) == len(shards) > 2
        assert summary.rate > 0
        until(lambda: not cluster.actors())

    def test_an_actor_and_a_worker_are_killed(self, cluster, gated, reference, tmp_path):
        """Each in the middle of a shard; its shard is made again, and nobody is blamed."""

        def kill() -> None:
            (actor, worker), (_, other) = until(lambda: (found := at_work(cluster))[1:] and found)
            os.kill(actor, signal.SIGKILL)
            until(lambda: not alive(worker), 60)
            os.kill(other, signal.SIGKILL)
            (gated / ray_cluster.GATE).unlink()

        watch = Watch(kill)
        go(cluster, gated, tmp_path / "d", 2, watch)
        told = watch.told("retry")
        assert len(told) == 2
        assert sum("its Ray actor on" in line and "the shard is tried again" in line for line in told) == 1
        assert sum("it was ended by SIGKILL" in line for line in told) == 1
        assert_same(tmp_path / "d", reference)

    def test_a_machine_comes_and_is_lost(self, cluster, gated, reference, tmp_path):
        """A third actor works on a machine that joins. Its Ray is killed: nothing of ours goes on there."""
        killed: list[int] = []

        def join_and_die() -> None:
            raylet = cluster.add()
            killed.extend(until(lambda: [pids for pids in at_work(cluster) if stat_parent(pids[0]) == raylet])[0])
            os.kill(raylet, signal.SIGKILL)
            until(lambda: not any(map(alive, killed)), 60)
            (gated / ray_cluster.GATE).unlink()

        watch = Watch(join_and_die)
        go(cluster, gated, tmp_path / "d", None, watch)
        assert len(killed) == 2
        assert len(watch.told("retry")) == 1
        assert "was lost, or the way there; it is made again" in watch.told("retry")[0]
        assert_same(tmp_path / "d", reference)

    def test_the_command_is_killed_and_started_again(self, cluster, gated, reference, tmp_path):
        """With kill -9. Meanwhile nobody else can have the folder, and soon nobody works on it any more."""
        out = tmp_path / "d"
        code = (
            f"import sys; sys.path[:0] = {[str(TESTS), str(TESTS.parent)]!r}\n"
            "from test_ray_engine import *\n"
            f"cluster = type('', (), {{'address': {cluster.address!r}}})\n"
            f"go(cluster, Path({str(gated)!r}), Path({str(out)!r}))\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True)
        try:
            until(lambda: len(at_work(cluster)) == 2 or process.poll() is not None)
            assert process.poll() is None, process.communicate()[1].decode()
            with pytest.raises(ConfigError, match="another run is working on"):
                go(cluster, gated, out)
            mine = [*drivers(process.pid), *itertools.chain.from_iterable(at_work(cluster))]
            assert len(mine) == 5
        finally:
            process.kill()
            process.communicate()
        (gated / ray_cluster.GATE).unlink()
        go(cluster, gated, out)
        assert_same(out, reference)
        until(lambda: not any(map(alive, mine)), 60)
        assert_same(out, reference)

    def test_ray_s_driver_is_killed(self, cluster, gated, tmp_path):
        watch = Watch(lambda: os.kill(drivers(os.getpid())[0], signal.SIGKILL))
        with pytest.raises(EngineError, match="Ray's driver is gone: it was ended by SIGKILL"):
            go(cluster, gated, tmp_path / "d", 2, watch)
        until(lambda: not cluster.actors())
        assert_no_debris(tmp_path / "d")

    def test_an_interrupt_ends_everything(self, cluster, gated, tmp_path):
        def interrupt() -> None:
            assert len(drivers(os.getpid())) == 1
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            go(cluster, gated, tmp_path / "d", 2, Watch(interrupt))
        assert drivers(os.getpid()) == []
        until(lambda: not cluster.actors(), 60)
        assert_no_debris(tmp_path / "d")

    def test_a_machine_that_does_not_see_the_folder(self, cluster, gated, tmp_path):
        """Here it vanishes after the start; on a cluster it was never there."""

        def vanish(progress: Progress) -> None:
            if progress.event == "start":
                gated.rename(tmp_path / "elsewhere")

        with pytest.raises(EngineError, match="models is not there; every machine must see --out and --models"):
            go(cluster, gated, tmp_path / "d", 1, vanish)
        assert_no_debris(tmp_path / "d")


def stat_parent(pid: int) -> int:
    return int((stat(pid) or ["", "0"])[1])


@needs_ray
@pytest.mark.ray
@pytest.mark.gl
class TestAClusterOfOneMachine:
    def test_the_command(self, tmp_path, short, monkeypatch):
        """Interrupted while Ray starts, then finished: the local engine's bytes, a clean stdout, and no Ray left."""
        root, out, local = tmp_path / "models", tmp_path / "ray", tmp_path / "local"
        for name, content in build_character(1).files.items():
            path = root / "first" / "a" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        monkeypatch.setenv("TMPDIR", str(short))
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
            monkeypatch.delenv(name, raising=False)
        words = ["render", "--models", root, "--poses", 24, "--size", 32, "--samples", 1, "--shard-size", 6]
        words += ["--renderer", "gl", "--json"]
        expected = self.call(*words, "--workers", 1, "--out", local)
        assert expected.returncode == 0, expected.stderr
        out.mkdir()
        for name in ("plan.json", "provenance.jsonl"):  # as after a start that got no further
            shutil.copy(local / name, out / name)
        words += ["--out", out, "--engine", "ray", "--workers", 2]
        process = self.start(*words)
        (driver,) = until(lambda: drivers(process.pid), 300)
        until(lambda: len(session(driver)) > 1 or process.poll() is not None, 300)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 130, errors
        assert output == ""
        assert "What is finished is kept; the same command goes on" in errors
        assert session(driver) == []
        done = self.call(*words)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert json.loads(done.stdout)["images"] == json.loads(expected.stdout)["images"]
        assert_same(out, local)
        assert len(list((out / "train").glob("*.h5"))) == 4
        assert verify_dataset(out).problems == ()
        assert list(short.iterdir()) == []

    @staticmethod
    def start(*words: object) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def call(self, *words: object) -> subprocess.CompletedProcess:
        process = self.start(*words)
        output, errors = process.communicate(timeout=400)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


class TestRefusals:
    def render(self, tmp_path: Path, *words: str) -> tuple[int, str, float]:
        start = time.monotonic()
        out = str(tmp_path / "d")
        result = CliRunner().invoke(cli, ["render", "--poses", "2", "--out", out, "--engine", "ray", *words])
        assert not (tmp_path / "d").exists()
        return result.exit_code, result.output, time.monotonic() - start

    def test_ray_is_missing(self, tmp_path, monkeypatch):
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *more: None if name == "ray" else find(name, *more)
        )
        code, output, _ = self.render(tmp_path)
        assert (code, output) == (1, "mmdgen: --engine ray needs ray: pip install 'mmdgen[ray]'\n")

    @needs_ray
    def test_nobody_listens(self, tmp_path, monkeypatch):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, output, seconds = self.render(tmp_path, "--ray-address", address)
        assert code == 1
        assert output.startswith(f"mmdgen: --ray-address {address}: no Ray cluster answers there (")
        assert output.count("\n") == 1
        assert seconds < 60
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert self.render(tmp_path)[1] == output

    @needs_ray
    def test_somebody_else_listens(self, tmp_path):
        """Ray itself would try for minutes."""
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                with server.accept()[0] as connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

            thread = threading.Thread(target=answer)
            thread.start()
            address = f"127.0.0.1:{server.getsockname()[1]}"
            code, output, seconds = self.render(tmp_path, "--ray-address", address)
            thread.join()
        assert (code, output) == (
            1,
            f"mmdgen: --ray-address {address}: what answers there is not a Ray cluster's head\n",
        )
        assert seconds < 60

    @needs_ray
    @pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:", ":6379", "http://head:1"])
    def test_what_is_no_address(self, tmp_path, address):
        code, output, _ = self.render(tmp_path, "--ray-address", address)
        assert code == 1
        assert "give host:port as `ray start` printed it, auto, or local" in output

    @needs_ray
    def test_a_device(self, models, plan, tmp_path):
        with pytest.raises(ConfigError, match="leave out --device"):
            ray_engine.render_shards(plan, [0], models, tmp_path / "d", device=1)

    def test_a_device_is_refused_before_anything_is_scanned(self, tmp_path):
        code, output, _ = self.render(tmp_path, "--device", "0")
        assert code == 2
        assert "leave out --device" in output

    def test_an_address_for_another_engine(self):
        result = CliRunner().invoke(cli, ["render", "--poses", "2", "--ray-address", "auto"])
        assert result.exit_code == 2
        assert "--ray-address is for --engine ray" in result.output


class TestHost:
    """What an actor does on its machine, without Ray."""

    def config(self, plan: Plan, models: Path, folder: Path) -> dict[str, Any]:
        (folder / "d" / WORK_FOLDER).mkdir(exist_ok=True)
        own = worker_config(plan, models, folder / "d", ray_cluster.BACKEND)
        return {**own, "slots": 2, "device": None, "code": code_digest()}

    @pytest.fixture
    def start(self) -> Iterator[Callable[[dict[str, Any]], Host]]:
        hosts: list[Host] = []

        def make(config: dict[str, Any]) -> Host:
            hosts.append(Host(config))
            return hosts[-1]

        yield make
        for host in hosts:
            host.stop()  # one that nobody speaks to would end this process

    def hear(self, host: Host, kind: str, *tasks: ShardTask, seconds: float = 60) -> list[Any]:
        """Send tasks, and return all that is told until something of this kind is."""
        news = host.talk(list(tasks))

        def listen() -> bool:
            news.extend(host.talk([]))
            return any(item[0] == kind for item in news)

        until(listen, seconds)
        return news

    def test_it_makes_shards_in_several_processes(self, start, plan, gated, tmp_path):
        host = start(self.config(plan, gated, tmp_path))
        news = [*self.hear(host, "host"), *host.talk([ShardTask(0), ShardTask(1)])]
        until(lambda: news.extend(host.talk([])) or sum(item[0] == "ready" for item in news) == 2)
        assert len(children_named("mmdgen.generate.worker")) == 2
        (gated / ray_cluster.GATE).unlink()
        until(lambda: news.extend(host.talk([])) or sum(item[0] == "done" for item in news) == 2)
        host.stop()
        assert children_named("mmdgen.generate.worker") == []
        assert sum(item[0] == "ready" for item in news) == 2
        assert {item[2].index for item in news if item[0] == "done"} == {0, 1}
        assert len(list((tmp_path / "d" / "train").glob("*.h5"))) == 2

    def test_it_stops_in_the_middle(self, start, plan, gated, tmp_path):
        host = start(self.config(plan, gated, tmp_path))
        self.hear(host, "host")
        self.hear(host, "note", ShardTask(0), ShardTask(1))
        host.stop()
        assert children_named("mmdgen.generate.worker") == []
        assert not list((tmp_path / "d").rglob("*.h5"))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"out": "/nowhere/d"}, "/nowhere/d/plan.json is not there; every machine must see --out and --models"),
            ({"models": "/nowhere"}, "/nowhere is not there; every machine must see"),
            ({"code": "0"}, "is not the driver's (the sources differ); install the same one on every machine"),
            ({"plan": "0"}, "plan.json is another one"),
        ],
    )
    def test_what_it_refuses(self, start, plan, models, tmp_path, monkeypatch, changes, message):
        monkeypatch.setattr("mmdgen.generate.ray_host.PLAN_PATIENCE", 0.0)
        news = self.hear(start({**self.config(plan, models, tmp_path), **changes}), "unusable")
        error = news[-1][2]
        assert isinstance(error, EngineError)
        assert message in str(error)
        assert str(error).startswith(os.uname().nodename)

    def test_it_ends_when_nobody_speaks_to_it(self, plan, gated, tmp_path):
        """And its workers with it: another machine makes their shards by then."""
        config = self.config(plan, gated, tmp_path)
        code = (
            f"import sys, time; sys.path[:] = {sys.path!r}\n"
            "from mmdgen.generate import ray_host\n"
            "from mmdgen.generate.shard import ShardTask\n"
            "ray_host.LEASE = 1.5\n"
            f"host, news = ray_host.Host({config!r}), []\n"
            "while not any(item[0] == 'host' for item in news): news += host.talk([])\n"
            "news += host.talk([ShardTask(0)])\n"
            "while not any(item[0] == 'ready' for item in news): news += host.talk([])\n"
            "print('ready', flush=True)\n"
            "time.sleep(90)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "ready\n"
            workers = children(process.pid)
            assert process.wait(timeout=60) == 1
        assert workers
        until(lambda: not any(map(alive, workers)), 60)

    def test_a_worker_of_an_earlier_run_writes_nothing(self, plan, models, tmp_path):
        out = tmp_path / "d"
        (out / WORK_FOLDER).mkdir(exist_ok=True)
        lock = out / WORK_FOLDER / LOCK_FILE
        lock.write_text("the first run")
        worker = ShardWorker(worker_config(plan, models, out, fake.BACKEND))
        worker.handle(ShardTask(0), lambda value: None)
        lock.write_text("the second run")
        with pytest.raises(EngineError, match="another run has taken over"):
            worker.handle(ShardTask(1), lambda value: None)
        shutil.rmtree(out / WORK_FOLDER)  # it has finished
        with pytest.raises(EngineError, match="another run has taken over, or has finished"):
            worker.handle(ShardTask(1), lambda value: None)
        assert [path.name for path in out.rglob("*.h5")] == [Path(plan.file(0)).name]
        assert not (out / WORK_FOLDER).exists()


def test_what_a_driver_leaves_is_swept(tmp_path):
    """The sweeper needs nothing but the end of its input, which the system sees to when the driver ends."""
    folder = tmp_path / "ray"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "x").touch()
    daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
    sweeper = ray_sweeper.start(daemon.pid, str(folder))
    try:
        time.sleep(0.5)
        assert daemon.poll() is None, "not before"
        assert folder.exists(), "not before"
        with sweeper:
            assert sweeper.stdin is not None
            sweeper.stdin.close()
            assert sweeper.wait(60) == 0
        assert daemon.wait(60) == -signal.SIGKILL
        assert not folder.exists()
    finally:
        daemon.kill()
        daemon.wait()


def test_what_others_remove_meanwhile_is_not_the_end(tmp_path, monkeypatch):
    """Driver, sweeper and command clear up at the same time: a try that removes nothing is followed by another."""
    folder, tries = tmp_path / "ray", []
    folder.mkdir()
    remove = shutil.rmtree

    def late(path: str, **options: Any) -> None:
        tries.append(path)
        if len(tries) == 3:
            remove(path, **options)

    monkeypatch.setattr(ray_sweeper.shutil, "rmtree", late)
    ray_sweeper.clear_up(None, str(folder))
    assert len(tries) == 3
    assert not folder.exists()


def children_named(module: str, pid: int | None = None) -> list[int]:
    return [child for child in children(pid or os.getpid()) if module in command(child)]


class TestRoom:
    """How many actors fit on a cluster, and what each one takes."""

    def driver(self, *nodes: dict[str, Any], gpus: bool = True) -> Driver:
        driver = Driver({"gpus": gpus, "workers": None}, lambda *news: None)
        driver._measure(list(nodes))
        return driver

    @pytest.mark.parametrize(
        ("machines", "room", "slots", "needs"),
        [
            ([{"CPU": 8.0}, {"CPU": 3.0}, {"memory": 1.0}], 11, 1, {"num_cpus": 1}),
            ([{"CPU": 32.0, "GPU": 8.0}, {"CPU": 64.0}], 8, 2, {"num_gpus": 1, "num_cpus": 4}),
            ([{"CPU": 96.0, "GPU": 2.0}], 2, 8, {"num_gpus": 1, "num_cpus": 16}),
            ([{"CPU": 32.0, "GPU": 2.0}, {"CPU": 13.0, "GPU": 2.0}], 4, 3, {"num_gpus": 1, "num_cpus": 6}),
            ([{"CPU": 2.0, "GPU": 4.0}], 4, 2, {"num_gpus": 1, "num_cpus": 0}),
            ([], 0, 1, {"num_cpus": 1}),
        ],
    )
    def test_it(self, machines, room, slots, needs):
        driver = self.driver(*({"Alive": True, "Resources": machine} for machine in machines))
        assert (driver._room, driver._slots, driver._needs) == (room, slots, needs)

    def test_what_draws_on_processors_takes_no_gpu(self):
        driver = self.driver({"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}, gpus=False)
        assert (driver._room, driver._slots, driver._needs) == (8, 1, {"num_cpus": 1})

    def test_dead_machines_do_not_count(self):
        nodes = [{"Alive": alive, "Resources": {"CPU": cores}} for alive, cores in ((False, 8.0), (True, 1.0))]
        assert self.driver(*nodes)._room == 1


class TestBlame:
    """Who is left out after which deaths (both engines)."""

    CRASH = Death(-11, "it was ended by SIGSEGV", "")
    KILLED = Death(-9, "it was ended by SIGKILL", "")
    RESET = Death(DEVICE_LOST, "it lost its OpenGL context", "")
    KEEPER = Death(-9, "its Ray actor was ended", "", "keeper")
    MACHINE = Death(-9, "the machine was lost", "", "machine")

    def test_a_crash_is_repeated_carefully_and_then_the_model_is_left_out(self, plan):
        retries = Retries(plan)
        task, message = retries.after_death(ShardTask(0), self.CRASH, ("draw", 1))
        assert task == ShardTask(0, careful=True)
        assert "the shard is tried again" in message
        task, message = retries.after_death(task, self.CRASH, ("draw", 1))
        assert task == ShardTask(0, True, ((1, "drawing it ends the process: it was ended by SIGSEGV"),))
        assert "goes on without it" in message

    @pytest.mark.parametrize("death", [KILLED, RESET, KEEPER])
    def test_what_comes_from_outside_accuses_only_when_it_comes_again(self, plan, death):
        retries = Retries(plan)
        task, _ = retries.after_death(ShardTask(0), death, ("draw", 1))
        assert task == ShardTask(0, careful=True)
        for model in (1, 2):
            same, message = retries.after_death(task, death, ("load", model))
            assert same == task
            assert f"loading {plan.models[model].path}" in message
        blamed, _ = retries.after_death(task, death, ("load", 2))
        assert [model for model, _ in blamed.crashed] == [2]

    def test_a_lost_machine_accuses_nobody(self, plan):
        retries = Retries(plan)
        for task in (ShardTask(0), ShardTask(0, careful=True)):
            for _ in range((MACHINES_LOST - 1) // 2):
                again, message = retries.after_death(task, self.MACHINE, ("draw", 1))
                assert again == task
                assert "it is made again" in message
        assert retries.after_death(ShardTask(1), self.MACHINE, None)[0] == ShardTask(1)
        with pytest.raises(EngineError, match=r"was lost 5 times together with what made it, .* drawing source"):
            retries.after_death(ShardTask(0), self.MACHINE, ("draw", 1))

    def test_no_model_is_at_work(self, plan):
        retries = Retries(plan)
        with pytest.raises(EngineError, match="died twice while writing train shard 0"):
            retries.after_death(ShardTask(0, careful=True), self.CRASH, ("write", 0))
        retries.after_death(ShardTask(0, careful=True), self.KILLED, None)
        with pytest.raises(EngineError, match="died twice while starting train shard 0"):
            retries.after_death(ShardTask(0, careful=True), self.KILLED, None)

    @needs_ray
    def test_what_ray_s_errors_mean(self):
        from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError

        from mmdgen.generate.ray_driver import death_of

        died = ActorDiedError()
        died.error_msg = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
        gone = ActorDiedError()
        gone.error_msg = "The actor died because its node has died. Node Id: 840a2a"
        errors = (died, OutOfMemoryError("too much"), gone, ActorUnavailableError("no answer", None))
        assert [death_of(error, "m").lost for error in errors] == ["keeper", "keeper", "machine", "machine"]
        assert all(death_of(error, "m").from_outside for error in errors)
