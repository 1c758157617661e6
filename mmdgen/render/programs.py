"""Shader programs by variant, compiled once a context."""

from __future__ import annotations

from importlib import resources

import moderngl

from mmdgen.errors import RenderError

_HEADER = "#version 430 core\n"


_INSTANCES = "//!instances"


def _read(name: str) -> str:
    return resources.files("mmdgen.render").joinpath("shaders").joinpath(f"{name}.glsl").read_text("utf-8")


def _source(name: str, defines: dict[str, int]) -> str:
    defines = {**defines, "FRAGMENT": int(name.endswith(".frag"))}
    head = _HEADER + "".join(f"#define {key} {value}\n" for key, value in defines.items())
    return head + _read(name).replace(_INSTANCES, _read("instances"))


class Programs:
    """Compiles and keeps programs of one context."""

    def __init__(self, context: moderngl.Context) -> None:
        self._context = context
        self._cache: dict[tuple, moderngl.Program] = {}

    def _get(self, vertex: str, fragment: str | None, defines: dict[str, int], varyings: tuple[str, ...] = ()):
        key = (vertex, fragment, tuple(sorted(defines.items())), varyings)
        if key not in self._cache:
            try:
                self._cache[key] = self._context.program(
                    vertex_shader=_source(vertex, defines),
                    fragment_shader=_source(fragment, defines) if fragment else None,
                    varyings=varyings,
                )
            except moderngl.Error as error:
                raise RenderError(f"shader {vertex}/{fragment} with {defines} was refused: {error}") from error
        return self._cache[key]

    def phong(self, geometry: dict[str, int], *, opaque: bool, specular: bool, dynamic: bool) -> moderngl.Program:
        """Return the body program; `geometry` holds the defines of the vertex shader that the model decides."""
        extra = {"EDGE": 0, "FEEDBACK": 0, "OPAQUE": int(opaque), "SPECULAR": int(specular), "DYNAMIC": int(dynamic)}
        return self._get("model.vert", "phong.frag", {**geometry, **extra})

    def edge(self, geometry: dict[str, int]) -> moderngl.Program:
        """Return the outline program."""
        return self._get("model.vert", "edge.frag", {**geometry, "EDGE": 1, "FEEDBACK": 0})

    def feedback(self, geometry: dict[str, int]) -> moderngl.Program:
        """Return the program that writes posed positions, for comparison with the oracle."""
        return self._get("model.vert", None, {**geometry, "EDGE": 0, "FEEDBACK": 1}, ("v_position",))

    def resolve(self, grid: int) -> moderngl.Program:
        """Return the program that averages `grid` x `grid` samples."""
        return self._get("resolve.vert", "resolve.frag", {"GRID": grid})

    def release(self) -> None:
        for program in self._cache.values():
            program.release()
        self._cache.clear()
