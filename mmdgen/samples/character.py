"""One character: from a seed to the files of a real model, and the truth about them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.samples.accessories import build_accessories
from mmdgen.samples.assemble import Look, collect_moves, join_parts, make_materials, make_vertices
from mmdgen.samples.backhair import Hair
from mmdgen.samples.body import HEAD_PIVOT_Y, NECK_Y, NECK_Z, Torso, arm_path, build_neck, build_torso
from mmdgen.samples.clothes import build_clothes
from mmdgen.samples.conventions import Conventions, draw_conventions
from mmdgen.samples.curves import steady
from mmdgen.samples.extras import build_blush
from mmdgen.samples.eyes import build_eyes, iris_center
from mmdgen.samples.eyeshape import EyeShape
from mmdgen.samples.facepaint import line_color
from mmdgen.samples.hairstyles import build_hair
from mmdgen.samples.head import build_ear, build_skin, chin_share, chin_y
from mmdgen.samples.mesh import Part, mirrored
from mmdgen.samples.morphs import build_morphs
from mmdgen.samples.mouth import build_mouth
from mmdgen.samples.mouthshape import MouthShape
from mmdgen.samples.names import character_name, readme
from mmdgen.samples.palette import mix, shade
from mmdgen.samples.rig import Rig
from mmdgen.samples.skull import Skull
from mmdgen.samples.texturing import paint_textures
from mmdgen.samples.traits import Traits, draw_traits


@dataclass(frozen=True, slots=True)
class Truth:
    """What is exactly known about a character. Heights in MU, bone and morph numbers as in the file.

    `top_y` is the top of the flat hair over the skull, without cowlicks, ears and hats. `slots` has the keys
    ``normal_left`` ... ``smile_both`` (left is the character's, x > 0): each is a list of (morph, weight, side), where
    the side ``both`` means all of the morph's vertices; empty where no morph does it. `mouth_open` likewise.
    """

    seed: int
    name: str
    chin_y: float
    top_y: float
    center_x: float
    neck: int
    head: int
    slots: dict[str, tuple[tuple[int, float, str], ...]]
    mouth_open: tuple[tuple[int, float, str], ...]
    one_sided: bool
    habits: Conventions
    styles: dict[str, str]

    def to_json(self) -> dict:
        """Return the truth as JSON values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Character:
    """`files` maps paths (``hanaka.pmx``, ``tex/face.png``, ``readme.txt``) to bytes."""

    name: str
    files: dict[str, bytes]
    truth: Truth


def _build_parts(
    traits: Traits, skull: Skull, shape: EyeShape, mouth: MouthShape, torso: Torso, hair: Hair, hidden: bool
) -> list[Part]:
    ear = build_ear(traits, skull)
    parts = [build_skin(traits, skull, shape, mouth), ear, mirrored(ear)]
    parts += build_eyes(traits, skull, shape)
    parts += build_mouth(traits, skull, mouth)
    if hidden:
        parts += build_blush(skull, shape)
    parts += hair.parts
    parts += [build_neck(traits, torso), build_torso(traits, torso), *build_clothes(traits, torso)]
    parts += build_accessories(traits, shape, hair)
    return parts


def _build_rig(
    traits: Traits, habits: Conventions, shape: EyeShape, torso: Torso, chains: dict[str, np.ndarray], ground: float
) -> Rig:
    rig = Rig()
    waist = torso.base_y - 0.75 * torso.height
    root = ""
    if habits.all_parent:
        rig.add("全ての親", "master", "", (0, ground, 0), movable=True)
        root = "全ての親"
    rig.add("センター", "center", root, (0, 0.5 * (ground + waist), 0), movable=True)
    rig.add("上半身", "upper body", "センター", (0, waist, NECK_Z))
    rig.add("下半身", "lower body", "センター", (0, waist, NECK_Z))
    rig.add("上半身2", "upper body2", "上半身", (0, torso.base_y - 0.45 * torso.height, NECK_Z))
    rig.add("首", "neck", "上半身2", (0, NECK_Y, NECK_Z))
    rig.add("頭", "head", "首", (0, HEAD_PIVOT_Y, NECK_Z - 0.05))
    face = "頭"
    if habits.head_d:
        rig.add("頭D", "head_D", "首", (0, HEAD_PIVOT_Y, NECK_Z - 0.05), layer=1, append=("頭", 1.0), visible=False)
        face = "頭D"
    eye_x, eye_y = iris_center(shape)
    high = (0, 1.9, 0.0) if habits.eyes_high else (0, eye_y, -0.2)
    rig.add("両目", "eyes", face, high)
    for name, name_en, sign in (("左目", "eye_L", 1.0), ("右目", "eye_R", -1.0)):
        rig.add(name, name_en, face, (sign * eye_x, eye_y, -0.05), layer=2, append=("両目", habits.eye_ratio))
    if habits.mouth == "jaw":
        rig.add("あご", "jaw", face, (0, -0.55, -0.1))
    arm = arm_path(traits, torso)
    names = ("肩", "腕", "ひじ", "手首")
    names_en = ("shoulder", "arm", "elbow", "wrist")
    for side, side_en, sign in (("左", "L", 1.0), ("右", "R", -1.0)):
        places = [arm[0] * [0.35, 1, 1] + [0, 0.06, 0], *arm[:3]]
        parent = "上半身2"
        for name, name_en, position in zip(names, names_en, places, strict=True):
            rig.add(side + name, f"{name_en}_{side_en}", parent, position * [sign, 1, 1])
            parent = side + name
    for stem, joints in chains.items():
        parent = "頭"
        for k in range(len(joints) - 1):
            rig.add(f"{stem}{k + 1}", f"hair_{len(rig.joints)}", parent, joints[k])
            parent = f"{stem}{k + 1}"
    return rig


def _bind(whole: Part, habits: Conventions, jaw_fall: float) -> None:
    """Move weights to the arrangement of bones that the habits ask for."""
    if habits.mouth == "jaw" and "mouth_a" in whole.moves:
        # the chin hangs on the jaw bone, which the morph lowers: the vertex morph keeps only the lips' own movement
        weight = _jaw_weights(whole)
        whole.weights["あご"] = weight * whole.weights["頭"]
        whole.weights["頭"] = whole.weights["頭"] - whole.weights["あご"]
        whole.moves["mouth_a"] = whole.moves["mouth_a"] + weight[:, None] * np.array([0.0, jaw_fall, -0.35 * jaw_fall])
    if habits.head_d:
        whole.weights["頭D"] = whole.weights.pop("頭")


def _jaw_weights(whole: Part) -> np.ndarray:
    """Return the jaw bone's share f64 [n]: the skin around the chin, fading upwards."""
    moved = np.abs(whole.moves["mouth_a"]).max(1) > 1e-6
    skin = whole.normal.any(1) & moved
    return np.where(skin, chin_share(whole.position), 0.0)


def build_character(seed: int) -> Character:
    """Build the character of a seed: the same bytes for the same seed, on any machine with the same libraries."""
    traits = draw_traits(seed)
    habits = draw_conventions(seed)
    skull = Skull(traits.face)
    shape = EyeShape(traits.eyes, traits.face.eye_line)
    mouth = MouthShape(-0.725 + traits.mouth_gap, traits.mouth_width, traits.mouth_curve)
    torso = Torso(traits)
    hair = build_hair(traits)
    parts = _build_parts(traits, skull, shape, mouth, torso, hair, habits.hidden_blush)
    chin = chin_y(parts[0])
    whole, used = join_parts(parts)
    jaw_fall = 0.045
    _bind(whole, habits, jaw_fall)

    scale = traits.head_height / 2
    offset = 16.4 + 0.5 * (traits.body - 1.0) + scale
    rig = _build_rig(traits, habits, shape, torso, hair.chains, -offset / scale)
    numbers = {joint.name: k for k, joint in enumerate(rig.joints)}
    vertices = make_vertices(whole, numbers, scale, offset, habits)
    materials_used = {key: k for k, (key, _) in enumerate(used)}
    morphs, found = build_morphs(
        collect_moves(whole, scale),
        habits,
        materials_used,
        numbers.get("あご", -1),
        scale * np.array([0.0, -jaw_fall, 0.35 * jaw_fall]),
    )

    textures = paint_textures(traits, habits, shape, mouth, {key for key, _ in used})
    separator = "\\" if habits.backslashes else "/"
    texture_numbers = {key: k for k, key in enumerate(textures)}
    line = line_color(traits)
    look = Look(
        mix(line, (0.62, 0.20, 0.22), 0.45), mix(traits.extras.color, (0.1, 0.1, 0.12), 0.6), shade(traits.skin, 0.55)
    )
    name, kana = character_name(seed)
    big = habits.wide_indices
    file = pmx.PmxFile(
        header=pmx.PmxHeader(
            version=habits.version,
            encoding="utf-8" if habits.utf8 else "utf-16-le",
            additional_uv_count=habits.extra_uvs,
            vertex_index_size=4 if big or len(vertices) > 65535 else 2,
            texture_index_size=2 if big else 1,
            material_index_size=2 if big else 1,
            bone_index_size=2 if big or len(rig.joints) > 127 else 1,
            morph_index_size=2 if big else 1,
            body_index_size=1,
        ),
        name=kana,
        name_en=name,
        comment=f"{kana}（{seed}）\r\nmmdgen で生成したモデルです。CC0 1.0",
        comment_en=f"{name} ({seed})\r\nGenerated by mmdgen. CC0 1.0",
        vertices=vertices,
        faces=whole.face.astype(np.int32),
        textures=tuple(f"{habits.texture_folder}{separator}{texture.file}" for texture in textures.values()),
        materials=make_materials(traits, habits, used, look, texture_numbers),
        bones=rig.bones(scale, offset, False),
        morphs=morphs,
        frames=_frames(rig, morphs),
    )
    files = {f"{name}.pmx": write_pmx(file), "readme.txt": readme(name, seed).encode()}
    files.update({f"{habits.texture_folder}/{texture.file}": texture.content for texture in textures.values()})
    mouth_open = tuple(found.pop("mouth_open"))
    truth = Truth(
        seed=seed,
        name=name,
        chin_y=float(steady(chin * scale + offset)),
        top_y=float(steady(hair.top_y * scale + offset)),
        center_x=0.0,
        neck=numbers["首"],
        head=numbers["頭"],
        slots={slot: tuple(terms) for slot, terms in found.items()},
        mouth_open=mouth_open,
        one_sided=habits.winks != "none",
        habits=habits,
        styles={
            "build": traits.build, "hair": traits.hair.style, "fringe": traits.hair.fringe, "side": traits.hair.side,
            "eyes": traits.eyes.style, "clothes": traits.clothes.kind, "headwear": traits.extras.headwear,
            "animal": traits.extras.animal, "horns": traits.extras.horns, "glasses": traits.extras.glasses,
        },
    )  # fmt: skip
    return Character(name, files, truth)


def _frames(rig: Rig, morphs: tuple[pmx.PmxMorph, ...]) -> tuple[pmx.PmxDisplayFrame, ...]:
    """Return the display frames: root, expressions, body, hair."""
    hair = [k for k, joint in enumerate(rig.joints) if joint.name_en.startswith("hair_")]
    body = [k for k, joint in enumerate(rig.joints) if k and k not in hair and joint.visible]
    frames = [
        pmx.PmxDisplayFrame("Root", "Root", 1, ((0, 0),)),
        pmx.PmxDisplayFrame("表情", "Exp", 1, tuple((1, k) for k in range(len(morphs)))),
        pmx.PmxDisplayFrame("体", "body", 0, tuple((0, k) for k in body)),
    ]
    if hair:
        frames.append(pmx.PmxDisplayFrame("髪", "hair", 0, tuple((0, k) for k in hair)))
    return tuple(frames)
