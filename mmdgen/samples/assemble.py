"""From parts to a PMX file: materials in drawing order, vertices with weights, sparse movements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.formats.pmx import records as pmx
from mmdgen.samples.body import HEAD_PIVOT_Y, NECK_Y, NECK_Z
from mmdgen.samples.conventions import Conventions
from mmdgen.samples.curves import steady
from mmdgen.samples.mesh import Part, drop_unused, merge
from mmdgen.samples.morphs import Moves
from mmdgen.samples.palette import Color, mix, scaled, shade
from mmdgen.samples.traits import Traits

# key -> (name, English name, texture, edge, both sides, sphere). The order is the drawing order.
MATERIALS: dict[str, tuple[str, str, str, bool, bool, bool]] = {
    "body_skin": ("体", "body", "skin_plain", True, False, False),
    "neck": ("首", "neck", "neck", True, False, False),
    "cloth": ("服", "clothes", "cloth", True, False, False),
    "sleeve": ("袖", "sleeves", "sleeve", True, False, False),
    "collar": ("襟", "collar", "collar", True, True, False),
    "face": ("顔", "face", "face", True, False, False),
    "sclera": ("白目", "eye_white", "sclera", False, False, False),
    "iris": ("瞳", "iris", "iris", False, False, False),
    "highlight": ("ハイライト", "highlight", "highlight", False, False, False),
    "mouth": ("口内", "mouth_inside", "mouth", False, False, False),
    "lips": ("口", "lips", "", False, False, False),
    "blush": ("照れ", "blush", "blush", False, False, False),
    "tears": ("涙", "tears", "", False, False, False),
    "lash": ("まつげ", "lashes", "lash", False, True, False),
    "brow": ("眉", "brows", "brow", False, True, False),
    "hair_back": ("後ろ髪内", "hair_inside", "hair_inside", False, False, False),
    "hair_cap": ("髪ベース", "hair_base", "hair", True, False, True),
    "hair": ("後ろ髪", "hair_back", "hair", True, False, True),
    "hair_front": ("前髪", "hair_front", "hair", True, False, True),
    "fur": ("耳", "animal_ears", "fur", True, False, False),
    "hat": ("帽子", "hat", "hat", True, True, False),
    "ribbon": ("リボン", "ribbon", "ribbon", True, True, False),
    "metal": ("飾り", "ornaments", "metal", True, False, True),
    "frame": ("眼鏡", "glasses", "", True, False, False),
    "lens": ("レンズ", "lenses", "lens", False, False, False),
}


@dataclass(frozen=True, slots=True)
class Look:
    """Flat colours of materials without a texture and the skin's line colour."""

    lips: Color
    frame: Color
    skin_line: Color


def _edge_color(traits: Traits, key: str, look: Look, strength: float) -> tuple[float, float, float, float]:
    base = {
        "face": look.skin_line, "neck": look.skin_line, "body_skin": look.skin_line,
        "hair": scaled(shade(traits.hair.middle, 0.6), 0.5), "hair_cap": scaled(shade(traits.hair.middle, 0.6), 0.5),
        "hair_front": scaled(shade(traits.hair.root, 0.6), 0.5), "fur": scaled(shade(traits.hair.root, 0.6), 0.5),
        "cloth": scaled(shade(traits.clothes.main, 0.6), 0.5), "sleeve": scaled(shade(traits.clothes.main, 0.6), 0.5),
        "collar": scaled(shade(traits.clothes.second, 0.6), 0.5),
    }.get(key, (0.12, 0.10, 0.14))  # fmt: skip
    r, g, b = mix((0.05, 0.04, 0.06), base, strength)
    return (r, g, b, 1.0)


def join_parts(parts: list[Part]) -> tuple[Part, list[tuple[str, int]]]:
    """Join all parts in the materials' order; return the whole and (material, number of faces) for those used."""
    joined, used = [], []
    for key in MATERIALS:
        own = [part for part in parts if part.material == key]
        if own:
            piece = drop_unused(merge(own))
            joined.append(piece)
            used.append((key, len(piece.face)))
    unknown = {part.material for part in parts} - MATERIALS.keys()
    if unknown:
        raise ValueError(f"parts of unknown materials: {sorted(unknown)}")
    return merge(joined, "all"), used


def make_materials(
    traits: Traits, habits: Conventions, used: list[tuple[str, int]], look: Look, textures: dict[str, int]
) -> tuple[pmx.PmxMaterial, ...]:
    """Return the PMX materials; `textures` maps texture keys (also ``sphere``, ``toon_skin``, ``toon``) to numbers."""
    result = []
    for key, faces in used:
        name, name_en, texture, edge, both, sphere = MATERIALS[key]
        color = {"lips": look.lips, "frame": look.frame, "tears": (0.85, 0.93, 1.0)}.get(key, (1.0, 1.0, 1.0))
        alpha = {"blush": 0.0, "tears": 0.0, "lens": 0.9}.get(key, 1.0)
        flags = pmx.SELF_SHADOW | (pmx.DOUBLE_SIDED if both else 0) | (pmx.EDGE if edge else 0)
        if edge:
            flags |= pmx.GROUND_SHADOW | pmx.SELF_SHADOW_MAP
        skin = key in ("face", "neck", "body_skin")
        toon_shared, toon_index = 1, 0 if skin else 1
        if habits.toon == "own":
            toon_shared, toon_index = 0, textures["toon_skin" if skin else "toon"]
        elif habits.toon == "none":
            toon_shared, toon_index = 0, -1
        shiny = sphere or key in ("highlight",)
        ambient = habits.ambient
        if key in ("sclera", "iris", "highlight", "lips", "mouth", "brow", "lash"):
            ambient = min(1.0, habits.ambient + 0.1)
        result.append(
            pmx.PmxMaterial(
                name=name,
                name_en=name_en,
                diffuse=(*_f32(color), alpha),
                specular=(0.12, 0.12, 0.12) if shiny else (0.0, 0.0, 0.0),
                specular_power=40.0 if shiny else 5.0,
                ambient=_f32(scaled(color, ambient)),
                flags=flags,
                edge_color=_f32(_edge_color(traits, key, look, habits.edge_tint)),
                edge_size=float(np.float32(habits.edges * (0.8 if skin else 1.0))),
                texture_index=textures[texture] if texture else -1,
                sphere_index=textures["sphere"] if sphere and habits.sphere else -1,
                sphere_mode=habits.sphere if sphere and habits.sphere else 0,
                toon_shared=toon_shared,
                toon_index=toon_index,
                index_count=3 * faces,
            )
        )
    return tuple(result)


def _f32(values: tuple[float, ...]) -> tuple:
    return tuple(float(np.float32(value)) for value in values)


def make_vertices(whole: Part, bones: dict[str, int], scale: float, offset_y: float, habits: Conventions) -> np.ndarray:
    """Return `VERTEX [V]` in MU, with the fewest weights that say the same, SDEF at the neck by habit."""
    count = len(whole.position)
    vertices = np.zeros(count, pmx.VERTEX)
    vertices["position"] = steady(whole.position * scale + np.array([0, offset_y, 0]))
    vertices["normal"] = steady(whole.normal)
    vertices["uv"] = steady(whole.uv)
    vertices["edge_scale"] = whole.edge
    names = list(whole.weights)
    weight = steady(np.stack([whole.weights[name] for name in names], -1), 2.0**-12)
    number = np.array([bones[name] for name in names])
    width = min(4, weight.shape[1])
    best = np.argsort(-weight, axis=1, kind="stable")[:, :width]
    top = np.zeros((count, 4))
    index = np.zeros((count, 4), int)
    top[:, :width] = np.take_along_axis(weight, best, 1)
    index[:, :width] = number[best]
    top[top < 1e-3] = 0
    top /= top.sum(1, keepdims=True)
    top = steady(top, 2.0**-12)
    top[:, 0] += 1 - top.sum(1)
    index[top == 0] = 0
    used = (top > 0).sum(1)
    deform = np.select([used == 1, used == 2], [pmx.BDEF1, pmx.BDEF2], pmx.BDEF4)
    if habits.bdef4_shoulders:  # some exporters write every shared vertex of the body with four slots
        body = np.isin(
            index[:, 0], [number for name, number in bones.items() if name[:1] in "左右" or "上半身" in name]
        )
        deform = np.where((deform == pmx.BDEF2) & body, pmx.BDEF4, deform)
    two = deform == pmx.BDEF2
    if habits.sdef_neck:
        neck = {bones["首"], bones["頭"], bones.get("頭D", bones["頭"]), bones["上半身2"]}
        sdef = two & np.isin(index[:, 0], list(neck)) & np.isin(index[:, 1], list(neck))
        pivot = np.where(np.isin(index, [bones["上半身2"]]).any(1), NECK_Y, HEAD_PIVOT_Y)
        center = np.zeros((count, 3))
        center[:, 1], center[:, 2] = pivot * scale + offset_y, NECK_Z * scale
        vertices["sdef_c"][sdef] = center[sdef]
        vertices["sdef_r0"][sdef] = center[sdef] + [0, -0.05 * scale, 0]
        vertices["sdef_r1"][sdef] = center[sdef] + [0, 0.05 * scale, 0]
        deform = np.where(sdef, pmx.SDEF, deform)
    vertices["deform"] = deform
    one, four = deform == pmx.BDEF1, deform == pmx.BDEF4
    vertices["bone_index"] = -1
    vertices["bone_index"][:, 0] = index[:, 0]
    vertices["bone_index"][~one, 1] = index[~one, 1]
    vertices["bone_index"][four] = index[four]
    vertices["bone_weight"][:, 0] = np.where(one, 1.0, top[:, 0])
    vertices["bone_weight"][four] = top[four]
    for k in range(habits.extra_uvs):
        vertices["additional_uv"][:, k, :2] = vertices["uv"]
    return vertices


def collect_moves(whole: Part, scale: float) -> Moves:
    """Return the movements that do something, sparse and in MU."""
    moves = {}
    for name, move in whole.moves.items():
        index = np.nonzero((np.abs(move) > 1e-5).any(1))[0]
        if len(index):
            moves[name] = (index, steady(move[index] * scale))
    return moves
