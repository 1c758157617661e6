"""3D models beside the networks: drawn in the same pose, framed and lit as in a dataset.

The one thread of the gallery owns the renderer. Models are known by their number in the list, never by a path.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from mmdgen.annotate.store import resolve
from mmdgen.errors import ConfigError, MmdgenError, RenderError
from mmdgen.formats.text import one_line
from mmdgen.generate.catalogue import find_models
from mmdgen.model.load import load_model
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.vocabulary import THA1
from mmdgen.render.prepare import prepare_model
from mmdgen.render.renderer import Renderer
from mmdgen.render.scene import Scene
from mmdgen.render.view import View
from mmdgen.web.finding import plain_reason

MOST_OPEN = 2  # models kept on the GPU
_SAMPLES = 4

T = TypeVar("T")


class Gallery:
    """The models below a folder. All methods may be called from any thread; futures hold what the thread made.

    `names` are their paths relative to the folder, as the list shows them. Raises `ConfigError` where there is none.
    """

    def __init__(
        self, folder: Path, size: int, annotations: Path | None, make: Callable[[], Renderer] = Renderer
    ) -> None:
        self._folder, self._size, self._annotations, self._make = folder, size, annotations, make
        self._paths = find_models(folder)
        if not self._paths:
            raise ConfigError(f"{folder}: there is no .pmx or .pmd file below it")
        self.names = [one_line(path) for path in self._paths]
        self._renderer: Renderer | None = None
        self._scenes: OrderedDict[int, Scene] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gallery")

    def picture(self, model: int, values: tuple[float, ...] | None = None) -> Future[np.ndarray]:
        """Return the future picture u8 [S, S, 4] of a model in a pose (None: at rest).

        The future raises `MmdgenError` for a model that cannot be used; its message names no folder.
        """
        if not 0 <= model < len(self._paths):
            raise LookupError("there is no such model")
        return self._thread.submit(self._picture, model, THA1.rest if values is None else np.array(values, np.float32))

    def close(self) -> None:
        """End the thread and free the GPU."""
        self._thread.submit(self._release)
        self._thread.shutdown(wait=True)

    # On the gallery's thread

    def _picture(self, model: int, pose: np.ndarray) -> np.ndarray:
        scene = self._scenes.pop(model, None) or self._open(model)
        self._scenes[model] = scene
        return next(iter(scene.posed(pose[None])))

    def _open(self, model: int) -> Scene:
        while len(self._scenes) >= MOST_OPEN:
            self._scenes.popitem(last=False)[1].release()
        try:
            if self._renderer is None:
                self._renderer = self._make()
        except RenderError as error:
            raise RenderError(f"nothing can be drawn on this machine: {error}") from None
        path = self._folder / self._paths[model]
        try:
            loaded = load_model(path)
            found = resolve(loaded, self._annotations)
            bounds = found.bounds
            binding = PoseBinding(THA1, found.neck, found.head, found.parameter_terms(), bounds.center_x)
            view = View.of_head(bounds.chin_y, bounds.top_y, bounds.center_x, size=self._size, samples=_SAMPLES)
            return self._renderer.scene(prepare_model(loaded, binding, view))
        except MmdgenError as error:
            raise MmdgenError(f"this model cannot be posed: {plain_reason(error, path)}") from None

    def _release(self) -> None:
        for scene in self._scenes.values():
            scene.release()
        self._scenes.clear()
        if self._renderer is not None:
            self._renderer.release()
            self._renderer = None
