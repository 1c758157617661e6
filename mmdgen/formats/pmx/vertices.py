"""The vertex block of a PMX file <-> one structured array, without a loop over vertices where numpy can do it.

A vertex has a size that depends on its deform type, so only the chain of sizes tells where the next one starts.
`Cursor.walk` finds all starts; everything else is gathered at once: the head and the edge scale, which all types share,
and the deform values for each type.
"""

from __future__ import annotations

import numpy as np

from mmdgen.formats.cursor import Buffer, Cursor
from mmdgen.formats.pmx.layouts import Layouts
from mmdgen.formats.pmx.records import SDEF, VERTEX

_EDGE = np.dtype("<f4")
_SDEF_VECTORS = ("sdef_c", "sdef_r0", "sdef_r1")


def read_vertices(cursor: Cursor, layouts: Layouts) -> np.ndarray:
    """The block with its count as a `VERTEX` array [V]; FormatError for an unknown deform type or a short file."""
    count = cursor.count("vertices.count", min(layouts.vertex_sizes))
    kind_at = layouts.vertex_head.itemsize
    starts = cursor.walk(count, kind_at, layouts.vertex_sizes, "vertices", "deform")
    starts, ends = starts[:-1], starts[1:]

    vertices = np.zeros(count, VERTEX)
    vertices["bone_index"] = -1
    # The head of a vertex is laid out in the file as at the start of VERTEX: one copy for all of its fields.
    _heads(vertices, layouts)[:] = cursor.gather(starts, layouts.vertex_head)
    deform = cursor.gather(starts + kind_at, np.dtype("u1"))
    vertices["deform"] = deform
    vertices["edge_scale"] = cursor.gather(ends - _EDGE.itemsize, _EDGE)
    for kind, dtype in layouts.deforms.items():
        rows = np.flatnonzero(deform == kind)
        if not rows.size:
            continue
        values = cursor.gather(starts[rows] + (kind_at + 1), dtype)
        bones = values["bone"]
        vertices["bone_index"][rows, : bones.shape[1]] = bones
        if "weight" in (dtype.names or ()):
            weights = values["weight"]
            vertices["bone_weight"][rows, : weights.shape[1]] = weights
        if kind == SDEF:
            for number, name in enumerate(_SDEF_VECTORS):
                vertices[name][rows] = values["vectors"][:, 3 * number : 3 * number + 3]
    return vertices


def write_vertices(buffer: Buffer, vertices: np.ndarray, layouts: Layouts) -> None:
    """Append the block; FormatError for an array that is no `VERTEX`, an unknown deform type or too large an index.

    Fields that a vertex's type does not have are not written.
    """
    if vertices.dtype != VERTEX or vertices.ndim != 1:
        buffer.fail(f"an array [V] of the dtype VERTEX is needed, not {vertices.shape} of {vertices.dtype}", "vertices")
    deform = vertices["deform"]
    unknown = np.flatnonzero(deform >= len(layouts.vertex_sizes))
    if unknown.size:
        buffer.fail(f"unknown kind {deform[unknown[0]]}", f"vertices[{unknown[0]}].deform")
    buffer.put("i", len(vertices), "vertices.count")
    sizes = np.asarray(layouts.vertex_sizes)[deform]
    kind_at = layouts.vertex_head.itemsize
    starts = buffer.reserve(sizes)
    buffer.scatter(starts, _heads(np.ascontiguousarray(vertices), layouts))
    buffer.scatter(starts + kind_at, deform)
    buffer.scatter(starts + sizes - _EDGE.itemsize, vertices["edge_scale"])
    for kind, dtype in layouts.deforms.items():
        rows = np.flatnonzero(deform == kind)
        if not rows.size:
            continue
        values = np.zeros(rows.size, dtype)
        width = dtype["bone"].shape[0]
        bones = vertices["bone_index"][rows, :width]
        values["bone"] = bones
        if (values["bone"] != bones).any():
            row = int(rows[np.flatnonzero((values["bone"] != bones).any(axis=1))[0]])
            buffer.fail(f"a bone index does not fit {dtype['bone'].base}", f"vertices[{row}].bone_index")
        if "weight" in (dtype.names or ()):
            values["weight"] = vertices["bone_weight"][rows, : dtype["weight"].shape[0]]
        if kind == SDEF:
            for number, name in enumerate(_SDEF_VECTORS):
                values["vectors"][:, 3 * number : 3 * number + 3] = vertices[name][rows]
        buffer.scatter(starts[rows] + (kind_at + 1), values)


def _heads(vertices: np.ndarray, layouts: Layouts) -> np.ndarray:
    """The leading bytes of each of `vertices` as one opaque item [V], a view."""
    return np.ndarray(vertices.shape, layouts.vertex_head, vertices.data, 0, vertices.strides)
