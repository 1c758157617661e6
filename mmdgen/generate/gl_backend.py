"""The real renderer, as a shard uses it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mmdgen.errors import ModelError
from mmdgen.generate.backend import DrawnScene
from mmdgen.generate.catalogue import UsableModel, changed_since, texture_fingerprint
from mmdgen.model.load import load_model
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.vocabulary import PoseVocabulary
from mmdgen.render.devices import AUTO, Choice
from mmdgen.render.prepare import Prepared, prepare_model
from mmdgen.render.pulse import Pulse
from mmdgen.render.renderer import Renderer
from mmdgen.render.view import View


class GlBackend:
    """Draws with `Renderer`; see `Backend`. `device` is an EGL index or another choice (None: ``auto``)."""

    def __init__(self, device: Choice = None) -> None:
        self._renderer = Renderer(AUTO if device is None else device)
        self._pulse = Pulse(self._renderer.context)

    def report(self) -> dict[str, Any]:
        return self._renderer.report()

    def prepare(self, path: Path, model: UsableModel, vocabulary: PoseVocabulary, view: View) -> Prepared:
        return prepare(path, model, vocabulary, view)

    def scene(self, prepared: Prepared) -> AbstractContextManager[DrawnScene]:
        scene = self._renderer.scene(prepared)
        prepared.forget_texels()
        return scene

    def check(self) -> None:
        self._pulse.check()

    def close(self) -> None:
        self._pulse.release()
        self._renderer.release()


def prepare(path: Path, model: UsableModel, vocabulary: PoseVocabulary, view: View) -> Prepared:
    """Load and reduce a model, as `Backend.prepare`; this loads no GL."""
    if not path.is_file():
        raise ModelError("model_missing", f"{path}: the file is no longer there")
    loaded = load_model(path)
    change = changed_since(model, loaded.id, texture_fingerprint(loaded.textures))
    if change:
        raise ModelError("model_changed", f"{path}: {change}")
    binding = PoseBinding(vocabulary, model.neck, model.head, model.terms, model.center_x)
    return prepare_model(loaded, binding, view)
