"""The rendered check of automatic annotations, as worker processes do it: one renderer a process, made when needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmdgen.errors import RenderError

# What eyes and mouth can be sure to at most without pictures: below `annotate.records.SURE`.
UNCHECKED = 0.7


class Checker:
    """Finds annotations and, with `check`, checks the automatic eye and mouth morphs in pictures.

    `problem` says why nothing can be drawn, or is empty. A `renderer` of the caller's is used, and is the caller's to
    release; else one is made for the first model whose morphs nobody has stored: where all are stored, scanning needs
    no OpenGL. Without pictures nothing automatic is sure.
    """

    def __init__(self, *, check: bool = True, renderer: Any = None) -> None:
        self.problem = ""
        self._check, self._renderer = check, renderer

    def find(self, model: Any, *, bounds: Any = None, eyes: Any = None) -> Any:
        """Return what `annotate.auto.annotate` does, with the eyes' confidence that pictures and geometry give.

        Raises what that does.
        """
        # here, so that only the processes that annotate load these packages
        from mmdgen.annotate.auto import annotate
        from mmdgen.annotate.check import annotate_checked
        from mmdgen.render.renderer import Renderer

        if eyes is not None:
            return annotate(model, bounds=bounds, eyes=eyes)
        if self._check and self._renderer is None and not self.problem:
            try:
                self._renderer = Renderer()
            except RenderError as error:
                self.problem = str(error)
        if self._check and self._renderer is not None:
            return annotate_checked(model, self._renderer, bounds=bounds)
        found = annotate(model, bounds=bounds)
        why = self.problem or "that was not asked for"
        reasons = (f"not checked in pictures: {why}", *found.eyes.reasons)
        return replace(
            found, eyes=replace(found.eyes, confidence=min(found.eyes.confidence, UNCHECKED), reasons=reasons)
        )
