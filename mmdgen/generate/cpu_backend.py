"""Drawing without OpenGL: our own rasteriser, and the choice between it and a GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mmdgen.errors import RenderError
from mmdgen.generate.backend import Backend, DrawnScene
from mmdgen.generate.catalogue import UsableModel
from mmdgen.generate.gl_backend import GlBackend, prepare
from mmdgen.pose.vocabulary import PoseVocabulary
from mmdgen.render.devices import AUTO, Choice, gpu_files
from mmdgen.render.prepare import Prepared
from mmdgen.render.view import View


class CpuBackend:
    """Draws with `CpuScene`; see `Backend`."""

    def __init__(self) -> None:
        # Here, so that only processes that draw load a compiler.
        from mmdgen.render.cpu_scene import CpuScene, describe

        self._kind, self._report = CpuScene, describe()

    def report(self) -> dict[str, Any]:
        return self._report

    def prepare(self, path: Path, model: UsableModel, vocabulary: PoseVocabulary, view: View) -> Prepared:
        return prepare(path, model, vocabulary, view)

    def scene(self, prepared: Prepared) -> AbstractContextManager[DrawnScene]:
        return self._kind(prepared)

    def check(self) -> None:
        """A processor is not lost without the process."""

    def close(self) -> None:
        """Nothing is kept."""


class AutoBackend:
    """Draws with a GPU where one can draw, else with `CpuBackend`. OpenGL's own software renderer is never taken.

    Without `device` a machine that has no GPU's driver is not asked for OpenGL at all. Raises `RenderError` where a
    `device` was named that has no OpenGL.
    """

    def __init__(self, device: Choice = None) -> None:
        self._chosen: Backend = self._choose(device)

    @staticmethod
    def _choose(device: Choice) -> Backend:
        unnamed = device is None or device == AUTO
        if unnamed and not gpu_files():
            return CpuBackend()
        try:
            found = GlBackend(device)
        except RenderError:
            if not unnamed:
                raise
            return CpuBackend()
        if found.report()["software"]:
            found.close()
            return CpuBackend()
        return found

    def report(self) -> dict[str, Any]:
        return self._chosen.report()

    def prepare(self, path: Path, model: UsableModel, vocabulary: PoseVocabulary, view: View) -> Any:
        return self._chosen.prepare(path, model, vocabulary, view)

    def scene(self, prepared: Any) -> AbstractContextManager[DrawnScene]:
        return self._chosen.scene(prepared)

    def check(self) -> None:
        self._chosen.check()

    def close(self) -> None:
        self._chosen.close()
