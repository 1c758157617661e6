"""What a shard needs of a renderer.

Workers make theirs from the name of a class ("package.module:Class"), so that the parent process never loads GL and
tests can plan, resume and crash with a renderer that needs none.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmdgen.generate.catalogue import UsableModel
from mmdgen.generate.worker import resolve
from mmdgen.pose.vocabulary import PoseVocabulary
from mmdgen.render.view import View

DEFAULT_BACKEND = "mmdgen.generate.gl_backend:GlBackend"


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
