"""What the tests of the Ray engine need: a real cluster that can be killed, and a renderer that waits for them.

The cluster's processes are the children of one helper process (this file as a program) that leads a session of its own,
by which they are found and ended, whatever happened to Ray.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_backend as fake
import numpy as np
from processes import command, session

from mmdgen.generate.pool import end_session

BACKEND = "ray_cluster:GatedBackend"
GATE = "gate"  # a file in the folder of the models
MEMORY = 80 << 20
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 400, "health_check_failure_threshold": 4}


class GatedScene(fake.FakeScene):
    """Stops before its second posed picture as long as there is a gate."""

    gate = Path()

    def posed(self, poses: np.ndarray) -> Iterator[np.ndarray]:
        for number, image in enumerate(super().posed(poses)):
            while number == 1 and self.gate.exists():
                time.sleep(0.02)
            yield image


class GatedBackend(fake.FakeBackend):
    def prepare(self, path: Path, model: Any, vocabulary: Any, view: Any) -> Any:
        return path, super().prepare(path, model, vocabulary, view)

    def scene(self, prepared: Any) -> GatedScene:
        path, (model_id, do, view) = prepared
        scene = GatedScene(model_id, do, view.size, view.ambient)
        scene.gate = path.parents[2] / GATE
        return scene


class Cluster:
    """A running cluster: a head with two processors, and what is added. `address` is where to join it."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        with (folder / "cluster.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).absolute()), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
                text=True,
            )
        try:
            self.address = self._answer()["address"]
        except BaseException:
            self.close()
            raise

    def add(self) -> int:
        """Add a node with one processor; return the process id of its raylet."""
        return self._ask("add")["raylet"]

    def actors(self) -> list[int]:
        """Return the process ids of our actors."""
        return [pid for pid in session(self.process.pid) if command(pid).startswith("ray::HostActor")]

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._ask("stop")
        end_session(self.process.pid)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _ask(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:  # Ray may print, too
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError("the cluster did not start; cluster.log says why")


def main(folder: str) -> None:
    from ray.cluster_utils import Cluster as RayCluster

    settings = {"object_store_memory": MEMORY, "include_dashboard": False}
    head = {"num_cpus": 2, "_system_config": QUICK, "temp_dir": folder, **settings}
    cluster = RayCluster(initialize_head=True, head_node_args=head)

    def say(**values: Any) -> None:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()

    say(address=cluster.address)
    for line in sys.stdin:
        if line.strip() == "stop":
            break
        node = cluster.add_node(num_cpus=1, **settings)
        say(raylet=node.all_processes["raylet"][0].process.pid)
    cluster.shutdown()
    say()


if __name__ == "__main__":
    main(sys.argv[1])
