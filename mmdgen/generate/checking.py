"""The rendered check of automatic annotations, as worker processes do it: one renderer a process, made when needed."""

from __future__ import annotations

from typing import Any


class Checker:
    """Finds annotations and checks the automatic ones in pictures. `problem` says why nothing could be drawn, or is "".

    The renderer is made for the first model whose eye and mouth morphs nobody has stored: where all are stored,
    scanning needs no OpenGL.
    """

    def __init__(self, renderer: Any = None) -> None:
        self.problem = ""
        self._renderer = renderer

    def find(self, model: Any, *, bounds: Any = None, eyes: Any = None) -> Any:
        """Return what `annotate.auto.annotate` does, with automatic eye and mouth morphs checked in pictures."""
        from mmdgen.annotate.auto import annotate

        return annotate(model, bounds=bounds, eyes=eyes)
