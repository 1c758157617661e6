"""The layouts of PMX records in the file, which depend on the header. Reader and writer share them."""

from __future__ import annotations

import functools

import numpy as np

from mmdgen.errors import FormatError
from mmdgen.formats.cursor import layout
from mmdgen.formats.pmx.records import (
    BDEF1,
    BDEF2,
    BDEF4,
    MORPH_BONE,
    MORPH_FLIP,
    MORPH_GROUP,
    MORPH_IMPULSE,
    MORPH_MATERIAL,
    MORPH_UV,
    MORPH_VERTEX,
    OFFSET_DTYPES,
    QDEF,
    SDEF,
    PmxHeader,
)

# Which numbers hold an index, by size in bytes. Vertex indices are unsigned where they are small: a 16-bit one read as
# signed turns the second half of a large model inside out (mrdoob/three.js PR 8587).
SIGNED = {1: "b", 2: "h", 4: "i"}
UNSIGNED = {1: "B", 2: "H", 4: "i"}


class Layouts:
    """Compiled layouts for one combination of index sizes; see `layouts_of`. Texts between them are not included."""

    def __init__(self, sizes: tuple[int, ...], additional_uv_count: int) -> None:
        vertex = UNSIGNED[sizes[0]]
        texture, material, bone, morph, body = (SIGNED[size] for size in sizes[1:])
        self.vertex_index = np.dtype("<" + vertex)

        # diffuse specular specular_power ambient flags edge_color edge_size texture sphere sphere_mode toon_shared
        self.material = layout(f"11fB5f{texture}{texture}BB")
        self.toon_texture = layout(texture)
        self.toon_shared = layout("B")

        self.bone = layout(f"3f{bone}iH")  # position parent layer flags
        self.bone_reference = layout(bone)
        self.append = layout(f"{bone}f")  # bone ratio
        self.ik = layout(f"{bone}if")  # target loop_count limit_angle
        self.ik_link = layout(f"{bone}B")  # bone has_limits

        self.morph = layout("BB")  # panel kind
        self.frame_element = {0: layout(bone), 1: layout(morph)}

        # bone group mask shape size position rotation mass damping(2) restitution friction mode
        self.body = layout(f"{bone}BHB14fB")
        self.joint = layout(f"B{body}{body}24f")  # kind a b position rotation limits(4) springs(2)
        # shape material group mask flags, link_distance cluster_count, mass margin, aero, config cluster, iterations,
        # stiffness
        self.soft_body = layout(f"B{material}BHBii2fi18f4i3f")
        self.anchor = layout(f"{body}{vertex}B")  # body vertex near_mode
        self.pin = layout(vertex)

        # Offsets differ from `OFFSET_DTYPES` only in the type of their first field, the index.
        index_kinds = {
            MORPH_GROUP: morph,
            MORPH_VERTEX: vertex,
            MORPH_BONE: bone,
            **dict.fromkeys(range(MORPH_UV, MORPH_UV + 5), vertex),
            MORPH_MATERIAL: material,
            MORPH_FLIP: morph,
            MORPH_IMPULSE: body,
        }
        self.offsets = {kind: _with_index(OFFSET_DTYPES[kind], index) for kind, index in index_kinds.items()}

        # A vertex is a head (position, normal, uv, additional uvs, the deform type), the deform values, an edge scale.
        self.vertex_head = np.dtype((np.void, 32 + 16 * additional_uv_count))
        self.deforms = {
            BDEF1: np.dtype([("bone", "<" + bone, 1)]),
            BDEF2: np.dtype([("bone", "<" + bone, 2), ("weight", "<f4", 1)]),
            BDEF4: np.dtype([("bone", "<" + bone, 4), ("weight", "<f4", 4)]),
            SDEF: np.dtype([("bone", "<" + bone, 2), ("weight", "<f4", 1), ("vectors", "<f4", 9)]),
            QDEF: np.dtype([("bone", "<" + bone, 4), ("weight", "<f4", 4)]),
        }
        self.vertex_sizes = [self.vertex_head.itemsize + 1 + self.deforms[kind].itemsize + 4 for kind in range(5)]


def _with_index(wide: np.dtype, kind: str) -> np.dtype:
    """`wide` with its first field, the index, as a `kind`."""
    names = list(wide.names or ())
    return np.dtype([(names[0], np.dtype("<" + kind)), *((name, wide[name]) for name in names[1:])])


@functools.lru_cache(maxsize=64)
def _compiled(sizes: tuple[int, ...], additional_uv_count: int) -> Layouts:
    return Layouts(sizes, additional_uv_count)


def layouts_of(header: PmxHeader) -> Layouts:
    """The layouts for the index sizes and additional uvs of `header`; FormatError where they are impossible."""
    sizes = (
        header.vertex_index_size,
        header.texture_index_size,
        header.material_index_size,
        header.bone_index_size,
        header.morph_index_size,
        header.body_index_size,
    )
    if not set(sizes) <= set(SIGNED):
        raise FormatError(f"index sizes must be 1, 2 or 4 bytes, not {sizes}", field="header")
    if header.additional_uv_count not in range(5):
        raise FormatError(f"0 to 4 additional uvs are possible, not {header.additional_uv_count}", field="header")
    return _compiled(sizes, header.additional_uv_count)
