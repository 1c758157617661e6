"""A renderer whose driver is reset, or whose process is ended, after some models: once, as files can count it.

BREAK_AT=N      after so many models drawn by one process
BREAK_HOW       error: every later picture is refused; silent: it is empty; kill: the process ends
BREAK_TIMES=N   so many processes break at most
BREAK_FOLDER    where what happened is noted: a file `broken-*` for each break, and `drawn` with a line a model
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from fake_backend import FakeBackend, FakeScene

from mmdgen.errors import DeviceLostError, RenderError

BACKEND = "breaking_backend:BreakingBackend"


class BreakingScene(FakeScene):
    """Does as its backend does."""

    backend: BreakingBackend

    def _image(self, kind: str, pose: np.ndarray) -> np.ndarray:
        if not self.backend.lost:
            return super()._image(kind, pose)
        if self.backend.how == "error":
            raise RenderError("OpenGL reports GL_CONTEXT_LOST after drawing on fake")
        return np.zeros((self.size, self.size, 4), np.uint8)

    def posed(self, poses: np.ndarray) -> Iterator[np.ndarray]:
        for number, image in enumerate(super().posed(poses)):
            if number == 1:
                self.backend.may_break()
            yield image


class BreakingBackend(FakeBackend):
    def __init__(self) -> None:
        super().__init__()
        self.how, self.at = os.environ["BREAK_HOW"], int(os.environ["BREAK_AT"])
        self.folder = Path(os.environ["BREAK_FOLDER"])
        self.scenes = 0
        self.lost = False

    def scene(self, prepared: Any) -> AbstractContextManager:
        model_id, do, view = prepared
        self.scenes += 1
        with (self.folder / "drawn").open("a") as log:
            log.write(f"{os.getpid()} {model_id}\n")
        scene = BreakingScene(model_id, do, view.size, view.ambient)
        scene.backend = self
        return scene

    def may_break(self) -> None:
        """Break in the middle of the model, unless enough processes have."""
        if self.lost or self.scenes != self.at:
            return
        for number in range(int(os.environ["BREAK_TIMES"])):
            try:
                (self.folder / f"broken-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            self.lost = True
            return

    def check(self) -> None:
        if self.lost:
            raise DeviceLostError("the OpenGL context was lost: the fake driver was reset")
