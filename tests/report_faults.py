"""A report worker without GL for files that crash, hang or surprise it: a fake model says what is to happen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_backend as fake
import numpy as np

from mmdgen.generate.catalogue import Rejection, UsableModel, reason
from mmdgen.generate.report import Look
from mmdgen.generate.report_worker import ReportWorker

WORKER = "report_faults:FaultyWorker"


class FaultyWorker(ReportWorker):
    """Judges with `fake_backend.examine`, draws flat pictures, and fails as the file's ``do`` says."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.root, self.out = Path(config["root"]), Path(config["out"])
        self.seconds = float(config["seconds"])
        self.report = {"renderer": "none"}

    def judge(self, relative: str) -> UsableModel | Rejection:
        path = self.root / relative
        if fake.read(path)[1]["do"] == "scan-hang":
            time.sleep(60)
        try:
            return fake.examine(path, relative, self.root, None)
        except Exception as error:
            return Rejection(relative, *reason(error, self.root), fake.read(path)[0])

    def look(self, look: Look, number: int, path: Path, note: Callable[[Any], None]) -> None:
        look.sha256, content = fake.read(path)
        look.name = content["name"]
        do = content["do"]
        note(("stage", "draw"))
        self.keep(look, number, "rest", "rest", np.full((8, 8, 4), 200, np.uint8), ruled=True)
        if do == "draw-hang":
            time.sleep(60)
        if do == "draw-bug":
            raise ZeroDivisionError(f"nobody foresaw {path}")
        if do == "draw-once":  # the first process that tries dies, the second one does not
            mark = self.out / "tried"
            if not mark.exists():
                mark.touch()
                os._exit(9)
        if do.startswith("draw-"):
            fake.die(do.removeprefix("draw-"))
