"""A renderer, a model format and a scan without GL, deterministic and quick, that fail in any way a test asks for.

A fake model is a file `*.pmx` that holds JSON: ``name`` and ``do`` (how to fail). Environment variables slow it down or
break the disk, in worker processes too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmdgen import fsio
from mmdgen.errors import AnnotationError, ModelError, RenderError
from mmdgen.generate.catalogue import UsableModel
from mmdgen.generate.options import RenderOptions
from mmdgen.generate.provenance import provenance_row, terms_beside
from mmdgen.generate.splits import source_folder
from mmdgen.model.records import MorphTerm

BACKEND = "fake_backend:FakeBackend"
EXAMINER = "fake_backend:examine"
SIZE = 16


def write_model(path: Path, name: str, do: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": name, "do": do}), "utf-8")
    return path


def read(path: Path) -> tuple[str, dict[str, Any]]:
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), json.loads(data)


def die(how: str) -> None:
    if how == "exit":
        os._exit(3)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        ctypes.string_at(0)


def examine(path: Path, relative: str, root: Path, annotations: Path | None) -> UsableModel:
    model_id, content = read(path)
    do = content["do"]
    if do.startswith("scan-"):
        die(do.removeprefix("scan-"))
    if do == "no-mouth":
        raise AnnotationError("no_mouth_morph", f"{path}: no morph opens the mouth")
    if do == "scan-bug":
        raise ZeroDivisionError("nobody foresaw this")
    provenance = provenance_row(model_id, relative, content["name"], "a comment", terms_beside(path, root))
    return UsableModel(
        id=model_id,
        path=relative,
        source=source_folder(relative),
        name=content["name"],
        status="ok",
        vertices=3,
        confidence=1.0,
        neck=0,
        head=1,
        chin_y=10.0,
        top_y=12.5,
        center_x=0.1,
        terms={"mouth": (MorphTerm(2, 0.5, "left"),), "left_eye": (), "right_eye": ()},
        textures="",
        provenance=provenance,
        hints=tuple(provenance["hints"]),
    )


class FakeScene:
    def __init__(self, model_id: str, do: str, size: int, ambient: float) -> None:
        self.model_id, self.do, self.size, self.ambient = model_id, do, size, ambient

    def __enter__(self) -> FakeScene:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _image(self, kind: str, pose: np.ndarray) -> np.ndarray:
        time.sleep(float(os.environ.get("FAKE_DELAY", "0")))
        content = f"{self.model_id}{kind}{self.ambient}".encode() + pose.astype(np.float32).tobytes()
        key = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
        image = np.resize(key, (self.size, self.size, 4)).copy()
        image[..., 3] = 255
        image[:2] = 0
        return image

    def rest(self) -> np.ndarray:
        return self._image("rest", np.zeros(1))

    def expressions(self, poses: np.ndarray) -> Iterator[np.ndarray]:
        for pose in poses:
            yield self._image("expression", pose[3:])

    def posed(self, poses: np.ndarray) -> Iterator[np.ndarray]:
        for number, pose in enumerate(poses):
            if number == 1:
                die(self.do.removeprefix("draw-"))
                if self.do == "render-error":
                    raise RenderError("the driver refused")
                if self.do == "bug":
                    raise IndexError("list index out of range")
            yield self._image("posed", pose)

    def flows(self, poses: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Everything moves to the right by 32 times the pose's first value, in steps of 1/64; the last row is hidden.

        It says a surface also where the posed image is transparent, as the real one does at silhouettes.
        """
        for pose in poses:
            flow = np.zeros((self.size, self.size, 2), np.float32)
            flow[..., 0] = np.rint(pose[0] * 32 * 64) / 64
            seen = np.full((self.size, self.size), 1, np.uint8)
            columns = np.arange(self.size) + flow[0, :, 0]
            seen[:, (columns >= 0) & (columns <= self.size - 1)] = 2
            seen[-1] = 1
            yield flow, seen


class FakeBackend:
    def __init__(self) -> None:
        if os.environ.get("FAKE_NO_GL"):
            raise RenderError("no OpenGL context could be made")
        if os.environ.get("FAKE_DEAD_START"):
            sys.stderr.write("the driver says goodbye\n")
            os._exit(7)
        if os.environ.get("FAKE_KILLED_STARTS"):  # how many, and the folder in which they are counted
            count, _, folder = os.environ["FAKE_KILLED_STARTS"].partition(":")
            if len(os.listdir(folder)) < int(count):
                Path(folder, str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        break_disk()
        os.write(1, b"a library that prints on standard output must not break the protocol\n")

    def report(self) -> dict[str, Any]:
        return {"vendor": "nobody", "renderer": "fake", "version": "1", "software": not os.environ.get("FAKE_GPU")}

    def prepare(self, path: Path, model: UsableModel, vocabulary: Any, view: Any) -> Any:
        if not path.is_file():
            raise ModelError("model_missing", f"{path}: the file is no longer there")
        model_id, content = read(path)
        if model_id != model.id:
            raise ModelError("model_changed", f"{path}: the file has changed")
        if content["do"] == "load-exit":
            os._exit(4)
        assert model.terms["mouth"] == (MorphTerm(2, 0.5, "left"),)
        return model_id, content["do"], view

    def scene(self, prepared: Any) -> contextlib.AbstractContextManager:
        model_id, do, view = prepared
        return FakeScene(model_id, do, view.size, view.ambient)

    def close(self) -> None:
        pass


def break_disk() -> None:
    """Make every atomic write fail from the n-th on as on a full disk, n from FAKE_ENOSPC."""
    limit = os.environ.get("FAKE_ENOSPC")
    if limit is None:
        return
    calls = 0
    sync = os.fsync

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= int(limit):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    fsio.os.fsync = full  # type: ignore[assignment]


def kill_at_write() -> None:
    """End this very process with kill -9 at its n-th step of an atomic write, n from FAKE_KILL_AT."""
    limit = os.environ.get("FAKE_KILL_AT")
    if limit is None:
        return
    calls = 0

    def counted(function: Any) -> Any:
        def call(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= int(limit):
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)

        return call

    os.fsync = counted(os.fsync)
    Path.replace = counted(Path.replace)  # type: ignore[method-assign]


def options(**changes: Any) -> RenderOptions:
    values: dict[str, Any] = {
        "poses": {"train": 41, "validation": 7},
        "seed": 5,
        "size": SIZE,
        "ambient": (0.5, 1.2),
        "shard_size": 12,
    }
    return RenderOptions(**{**values, **changes})


def catalogue(models: Path) -> Any:
    """What a scan finds, found without other processes."""
    from mmdgen.generate.catalogue import ScanWorker, _collect, find_models

    worker, paths = ScanWorker({"root": str(models), "annotations": "", "examiner": EXAMINER}), find_models(models)
    return _collect(paths, {path: worker.handle(path, lambda value: None) for path in paths}, None)


def go(models: Path, out: Path, workers: int | None = 2, on_progress: Any = None, **changes: Any) -> Any:
    """Plan (or go on) and run with the fakes, as the command does with the real ones."""
    from mmdgen.generate.run import plan_for, run

    plan = plan_for(out, options(**changes), lambda: catalogue(models))
    watch = on_progress or (lambda progress: None)
    return run(plan, models, out, workers=workers, backend=BACKEND, on_progress=watch)


if __name__ == "__main__":
    kill_at_write()
    go(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
