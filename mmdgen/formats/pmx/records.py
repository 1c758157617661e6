"""What a PMX file says, record by record, in the file's own order and units.

Lengths are MMD units, the frame is MMD's (left-handed, +y up, the character looks along -z), angles are radians.
Index -1 means none. Records hold exactly what was read, so that ``write(read(b)) == b``: no repair happens here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BDEF1, BDEF2, BDEF4, SDEF, QDEF = range(5)

# One row a vertex, whatever the deform type. Fields that a type does not have are zero, bones -1.
# BDEF2 and SDEF store the first weight only; the second one is 1 - first and stays 0 here.
VERTEX = np.dtype(
    [
        ("position", "<f4", 3),
        ("normal", "<f4", 3),
        ("uv", "<f4", 2),
        ("additional_uv", "<f4", (4, 4)),
        ("deform", "u1"),
        ("bone_index", "<i4", 4),
        ("bone_weight", "<f4", 4),
        ("sdef_c", "<f4", 3),
        ("sdef_r0", "<f4", 3),
        ("sdef_r1", "<f4", 3),
        ("edge_scale", "<f4"),
    ]
)

# Morph kinds as the file numbers them.
MORPH_GROUP, MORPH_VERTEX, MORPH_BONE, MORPH_UV = range(4)  # 4-7: additional UV 1-4
MORPH_MATERIAL, MORPH_FLIP, MORPH_IMPULSE = 8, 9, 10

# `PmxMorph.offsets` by kind (after index widening).
GROUP_OFFSET = np.dtype([("morph", "<i4"), ("weight", "<f4")])  # flip morphs have the same shape
VERTEX_OFFSET = np.dtype([("vertex", "<i4"), ("offset", "<f4", 3)])
BONE_OFFSET = np.dtype([("bone", "<i4"), ("translation", "<f4", 3), ("rotation", "<f4", 4)])  # quaternion xyzw
UV_OFFSET = np.dtype([("vertex", "<i4"), ("offset", "<f4", 4)])
MATERIAL_OFFSET = np.dtype(
    [
        ("material", "<i4"),  # -1: all
        ("operation", "u1"),  # 0 multiply, 1 add
        ("diffuse", "<f4", 4),
        ("specular", "<f4", 3),
        ("specular_power", "<f4"),
        ("ambient", "<f4", 3),
        ("edge_color", "<f4", 4),
        ("edge_size", "<f4"),
        ("texture", "<f4", 4),
        ("sphere", "<f4", 4),
        ("toon", "<f4", 4),
    ]
)
IMPULSE_OFFSET = np.dtype([("body", "<i4"), ("local", "u1"), ("velocity", "<f4", 3), ("torque", "<f4", 3)])

OFFSET_DTYPES = {
    MORPH_GROUP: GROUP_OFFSET,
    MORPH_VERTEX: VERTEX_OFFSET,
    MORPH_BONE: BONE_OFFSET,
    **dict.fromkeys(range(MORPH_UV, MORPH_UV + 5), UV_OFFSET),
    MORPH_MATERIAL: MATERIAL_OFFSET,
    MORPH_FLIP: GROUP_OFFSET,
    MORPH_IMPULSE: IMPULSE_OFFSET,
}

# `PmxMaterial.flags`
DOUBLE_SIDED, GROUND_SHADOW, SELF_SHADOW_MAP, SELF_SHADOW, EDGE, VERTEX_COLOR, POINT_DRAW, LINE_DRAW = (
    1 << bit for bit in range(8)
)

# `PmxBone.flags`
BONE_TAIL_IS_BONE = 0x0001
BONE_ROTATABLE = 0x0002
BONE_MOVABLE = 0x0004
BONE_VISIBLE = 0x0008
BONE_ENABLED = 0x0010
BONE_IK = 0x0020
BONE_APPEND_LOCAL = 0x0080
BONE_APPEND_ROTATION = 0x0100
BONE_APPEND_TRANSLATION = 0x0200
BONE_FIXED_AXIS = 0x0400
BONE_LOCAL_AXES = 0x0800
BONE_AFTER_PHYSICS = 0x1000
BONE_EXTERNAL_PARENT = 0x2000

Vec3 = tuple[float, float, float]
Vec4 = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class PmxHeader:
    """`version` 2.0 or 2.1; `encoding` ``utf-16-le`` or ``utf-8``; index sizes are 1, 2 or 4 bytes."""

    version: float = 2.0
    encoding: str = "utf-16-le"
    additional_uv_count: int = 0
    vertex_index_size: int = 4
    texture_index_size: int = 1
    material_index_size: int = 1
    bone_index_size: int = 2
    morph_index_size: int = 2
    body_index_size: int = 1
    signature: bytes = b"PMX "
    extra_globals: bytes = b""  # settings past the eighth, kept for the round trip


@dataclass(frozen=True, slots=True)
class PmxMaterial:
    name: str
    name_en: str = ""
    diffuse: Vec4 = (1.0, 1.0, 1.0, 1.0)
    specular: Vec3 = (0.0, 0.0, 0.0)
    specular_power: float = 5.0
    ambient: Vec3 = (0.5, 0.5, 0.5)
    flags: int = 0
    edge_color: Vec4 = (0.0, 0.0, 0.0, 1.0)
    edge_size: float = 1.0
    texture_index: int = -1
    sphere_index: int = -1
    sphere_mode: int = 0  # 0 none, 1 multiply, 2 add, 3 sub-texture
    toon_shared: int = 1  # 1: toon_index is 0-9 of the shared ramps; 0: a texture index
    toon_index: int = 0
    memo: str = ""
    index_count: int = 0  # number of vertex indices (three a face)


@dataclass(frozen=True, slots=True)
class PmxIkLink:
    bone_index: int
    limits: tuple[Vec3, Vec3] | None = None  # lower, upper


@dataclass(frozen=True, slots=True)
class PmxIk:
    target_index: int
    loop_count: int
    limit_angle: float
    links: tuple[PmxIkLink, ...] = ()


@dataclass(frozen=True, slots=True)
class PmxBone:
    name: str
    name_en: str = ""
    position: Vec3 = (0.0, 0.0, 0.0)
    parent_index: int = -1
    layer: int = 0
    flags: int = BONE_ROTATABLE | BONE_VISIBLE | BONE_ENABLED
    tail: Vec3 | int = (0.0, 0.0, 0.0)  # a bone index where BONE_TAIL_IS_BONE
    append_index: int = -1  # meaningful where BONE_APPEND_ROTATION or BONE_APPEND_TRANSLATION
    append_ratio: float = 0.0
    fixed_axis: Vec3 | None = None
    local_axes: tuple[Vec3, Vec3] | None = None  # x and z
    external_key: int | None = None
    ik: PmxIk | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PmxMorph:
    name: str
    name_en: str
    panel: int  # 0 system, 1 brow, 2 eye, 3 mouth, 4 other
    kind: int  # MORPH_...
    offsets: np.ndarray  # structured, OFFSET_DTYPES[kind]


@dataclass(frozen=True, slots=True)
class PmxDisplayFrame:
    name: str
    name_en: str
    special: int
    elements: tuple[tuple[int, int], ...]  # (0 bone | 1 morph, index)


@dataclass(frozen=True, slots=True)
class PmxRigidBody:
    name: str
    name_en: str
    bone_index: int
    group: int
    mask: int
    shape: int
    size: Vec3
    position: Vec3
    rotation: Vec3
    mass: float
    linear_damping: float
    angular_damping: float
    restitution: float
    friction: float
    mode: int


@dataclass(frozen=True, slots=True)
class PmxJoint:
    name: str
    name_en: str
    kind: int
    body_a: int
    body_b: int
    position: Vec3
    rotation: Vec3
    limits: tuple[Vec3, Vec3, Vec3, Vec3]  # translation lower, upper; rotation lower, upper
    spring_translation: Vec3
    spring_rotation: Vec3


@dataclass(frozen=True, slots=True)
class PmxSoftBody:
    name: str
    name_en: str
    shape: int
    material_index: int
    group: int
    mask: int
    flags: int
    link_distance: int
    cluster_count: int
    total_mass: float
    collision_margin: float
    aero_model: int
    config: tuple[float, ...]  # 12: VCF DP DG LF PR VC DF MT CHR KHR SHR AHR
    cluster: tuple[float, ...]  # 6: SRHR_CL SKHR_CL SSHR_CL SR_SPLT_CL SK_SPLT_CL SS_SPLT_CL
    iterations: tuple[int, ...]  # 4: V_IT P_IT D_IT C_IT
    stiffness: tuple[float, ...]  # 3: LST AST VST
    anchors: tuple[tuple[int, int, int], ...]  # (body, vertex, near mode)
    pins: tuple[int, ...]  # vertices


@dataclass(frozen=True, slots=True, eq=False)
class PmxFile:
    """Exactly what the file says. V vertices, F faces.

    `vertices` is structured `VERTEX [V]`, `faces` i32 [F, 3] (indices of vertices; 4-byte indices are kept as they are,
    so a damaged file may hold values past V). `tail` is what follows the last section that was read.

    `sections` is None where the file holds every section of its version. Otherwise the file ends early and this is the
    number of whole sections after the morphs: 0 none, 1 frames, 2 and bodies, 3 and joints (all that a 2.1 file without
    soft bodies has). The records of the missing sections are then empty, and what the file holds of the first one is in
    `tail`. Nothing that is drawn depends on them.

    Text that does not decode is kept reversibly, see `mmdgen.formats.text` (`is_clean` tells).
    """

    header: PmxHeader
    name: str
    name_en: str
    comment: str
    comment_en: str
    vertices: np.ndarray
    faces: np.ndarray
    textures: tuple[str, ...] = ()
    materials: tuple[PmxMaterial, ...] = ()
    bones: tuple[PmxBone, ...] = ()
    morphs: tuple[PmxMorph, ...] = ()
    frames: tuple[PmxDisplayFrame, ...] = ()
    bodies: tuple[PmxRigidBody, ...] = ()
    joints: tuple[PmxJoint, ...] = ()
    soft_bodies: tuple[PmxSoftBody, ...] = ()
    tail: bytes = field(default=b"", repr=False)
    sections: int | None = None
