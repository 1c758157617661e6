"""What a shard needs of a renderer.

Workers make theirs from the name of a class ("package.module:Class"), so that the parent process never loads GL and
tests can plan, resume and crash with a renderer that needs none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmdgen.errors import ConfigError, RenderError
from mmdgen.generate.catalogue import UsableModel
from mmdgen.generate.worker import resolve
from mmdgen.pose.vocabulary import PoseVocabulary
from mmdgen.render import devices
from mmdgen.render.view import View

DEFAULT_BACKEND = "mmdgen.generate.gl_backend:GlBackend"
CPU_BACKEND = "mmdgen.generate.cpu_backend:CpuBackend"
AUTO_BACKEND = "mmdgen.generate.cpu_backend:AutoBackend"

GL, CPU = "gl", "cpu"
# By name: a GPU where one can draw, else our own rasteriser; OpenGL, in software too; our own rasteriser.
RENDERERS = {devices.AUTO: AUTO_BACKEND, GL: DEFAULT_BACKEND, CPU: CPU_BACKEND}


class DrawnScene(Protocol):
    """One model, ready to be drawn: pictures are u8 [H, W, 4] arrays that the receiver may keep."""

    def rest(self) -> np.ndarray: ...
    def expressions(self, poses: np.ndarray) -> Iterator[np.ndarray]: ...
    def posed(self, poses: np.ndarray) -> Iterator[np.ndarray]: ...
    def flows(self, poses: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield flow f32 [H, W, 2] pixels and visibility u8 [H, W] (see `render.flow.FlowDrawer.flows`)."""
        ...


class Backend(Protocol):
    """Made once a worker, used from the thread that made it, but for `prepare`, which other threads call.

    The class is called without arguments, or with ``device`` (an EGL index or ``auto``) where it takes one and the run
    chose one.
    """

    def report(self) -> dict[str, Any]:
        """Return what draws, for the manifest; ``software`` tells whether the CPU does."""
        ...

    def prepare(self, path: Path, model: UsableModel, vocabulary: PoseVocabulary, view: View) -> Any:
        """Load and reduce a model. Raises `ModelError` (``model_missing``, ``model_changed``) or another error."""
        ...

    def scene(self, prepared: Any) -> AbstractContextManager[DrawnScene]:
        """Return the scene of a prepared model."""
        ...

    def check(self) -> None:
        """Raise `DeviceLostError` when what draws no longer does, whatever model it is given; see `check_device`."""
        ...

    def close(self) -> None: ...


def backend_named(renderer: str, *, flow: bool) -> str:
    """Return the backend of a renderer, one of `RENDERERS`; flows are drawn with OpenGL only. Raises `ConfigError`."""
    if renderer not in RENDERERS:
        raise ConfigError(f"a renderer is one of {', '.join(RENDERERS)}, found {renderer!r}")
    if flow and renderer == CPU:
        raise ConfigError("flow is drawn with OpenGL only: use --renderer gl or auto, or leave out --flow")
    return DEFAULT_BACKEND if flow else RENDERERS[renderer]


def devices_for(backend: str, choice: devices.Choice, say: Callable[[str], None]) -> tuple[int | None, ...]:
    """Return the devices that draw for `choice` (`devices.resolve`); (None,) where a backend draws without any.

    Where `AUTO_BACKEND` may take what there is and OpenGL does not work, `say` is told why our own rasteriser draws.
    """
    if backend == CPU_BACKEND:
        return (None,)
    try:
        return devices.resolve(choice, say)
    except RenderError as error:
        if backend != AUTO_BACKEND or choice not in (None, devices.AUTO):
            raise
        say(f"drawing on the processor: {error}")
        return (None,)


def make_backend(name: str, device: int | str | None = None) -> Backend:
    """Return a new backend of the class "package.module:Class" on a device; what draws on the CPU knows of none."""
    kind = resolve(name)
    if device is None or "device" not in inspect.signature(kind).parameters:
        return kind()
    return kind(device=device)


def check_device(backend: Backend) -> None:
    """Raise `DeviceLostError` when what a backend draws with was lost. One without `check` has nothing to lose."""
    check = getattr(backend, "check", None)
    if check is not None:
        check()
