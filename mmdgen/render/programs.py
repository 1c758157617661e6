"""Shader programs by variant, compiled once a context."""

from __future__ import annotations

import re
from importlib import resources

import moderngl

from mmdgen.errors import RenderError

_HEADER = "#version 430 core\n"
_INCLUDE = re.compile(r"//!(\w+)")  # is replaced by that file
SPHERE_SECOND_UV = 3  # the sphere mode that is no sphere but a texture with its own UV
_BODY = dict.fromkeys(("EDGE", "FEEDBACK", "VERTEX_SPECULAR", "SECOND_UV", "DYNAMIC"), 0)


def _read(name: str) -> str:
    return resources.files("mmdgen.render").joinpath("shaders").joinpath(f"{name}.glsl").read_text("utf-8")


def _source(name: str, defines: dict[str, int]) -> str:
    defines = {**defines, "FRAGMENT": int(name.endswith(".frag"))}
    head = _HEADER + "".join(f"#define {key} {value}\n" for key, value in defines.items())
    return head + _INCLUDE.sub(lambda found: _read(found[1]), _read(name))


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
        extra = {"OPAQUE": int(opaque), "SPECULAR": int(specular), "DYNAMIC": int(dynamic)}
        return self._get("model.vert", "phong.frag", {**_BODY, **geometry, **extra})

    def mmd(
        self, geometry: dict[str, int], *, opaque: bool, dynamic: bool, sphere: int, toon: bool, specular: bool
    ) -> moderngl.Program:
        """Return the body program of MikuMikuDance's shading; `sphere` is the material's sphere mode."""
        extra = {
            "OPAQUE": int(opaque),
            "DYNAMIC": int(dynamic),
            "SPHERE": sphere,
            "SECOND_UV": int(sphere == SPHERE_SECOND_UV),
            "TOON": int(toon),
            "VERTEX_SPECULAR": int(specular),
        }
        return self._get("model.vert", "mmd.frag", {**_BODY, **geometry, **extra})

    def edge(self, geometry: dict[str, int], *, dynamic: bool, linear: bool) -> moderngl.Program:
        """Return the outline program."""
        extra = {"EDGE": 1, "DYNAMIC": int(dynamic), "LINEAR": int(linear)}
        return self._get("model.vert", "edge.frag", {**_BODY, **geometry, **extra})

    def feedback(self, geometry: dict[str, int]) -> moderngl.Program:
        """Return the program that writes posed positions, for comparison with the oracle."""
        return self._get("model.vert", None, {**_BODY, **geometry, "FEEDBACK": 1}, ("v_position",))

    def surface(self, geometry: dict[str, int]) -> moderngl.Program:
        """Return the program that writes posed positions, normals and uv, for `flow`."""
        defines = {**_BODY, **geometry, "FEEDBACK": 1}
        return self._get("model.vert", None, defines, ("v_position", "v_normal", "v_uv"))

    def flow(self, defines: dict[str, int]) -> moderngl.Program:
        """Return the program that draws which surface is where; see flow.vert.glsl and flow.frag.glsl."""
        return self._get("flow.vert", "flow.frag", defines)

    def flow_resolve(self) -> moderngl.Program:
        """Return the program that makes displacements and visibility of surfaces."""
        return self._get("resolve.vert", "flow_resolve.frag", {})

    def resolve(self, grid: int, *, linear: bool) -> moderngl.Program:
        """Return the program that averages `grid` x `grid` samples: linear light, or sRGB values as they are."""
        return self._get("resolve.vert", "resolve.frag", {"GRID": grid, "LINEAR": int(linear)})

    def release(self) -> None:
        for program in self._cache.values():
            program.release()
        self._cache.clear()
