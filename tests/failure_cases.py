"""The failure modes of the reference that concern the model file, each as a file made by code."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pmd_build import small_pmd
from pmx_build import Builder
from toy import RED, ToyBuilder, toy_builder

from mmdgen.formats.pmd import write_pmd
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.model.load import model_from_bytes
from mmdgen.model.records import Model

OK, REPAIRED, REJECTED = "ok", "repaired", "rejected"
FILE = pmx.PmxFile
replace = dataclasses.replace


@dataclass(frozen=True)
class Case:
    """A file, what it must be called, and what it must look like.

    `codes` are all diagnostics in order, or the one code of the rejection. A model that is not rejected must have the
    posed faces and the pictures of `sound`, or only pass `check` where that is None.
    """

    build: Callable[[], bytes]
    status: str = OK
    codes: tuple[str, ...] = ()
    sound: Callable[[], bytes] | None = lambda: write_pmx(toy_builder().file())
    check: Callable[[Model], object] = lambda model: None
    message: str = ""
    exact: bool = True  # pictures equal bit for bit; else last bits may decide samples at edges


CASES: dict[str, Case] = {}


def case(name: str, status: str = OK, *codes: str, **settings):
    """Register the function below as the builder of a case."""

    def register(build: Callable[[], bytes]) -> Callable[[], bytes]:
        CASES[name] = Case(build, status, codes, **settings)
        return build

    return register


def toy_file(change: Callable[[ToyBuilder], object] | None = None, header: pmx.PmxHeader | None = None) -> FILE:
    toy = toy_builder()
    if change:
        change(toy)
    file = toy.file()
    return replace(file, header=header) if header else file


def padded(count: int, size: int) -> bytes:
    """The toy behind `count` vertices that no face uses, with vertex indices of `size` bytes."""
    file = toy_file(header=pmx.PmxHeader(vertex_index_size=size))
    spare = np.zeros(count, pmx.VERTEX)
    spare["normal"], spare["bone_index"] = (0, 0, -1), (0, -1, -1, -1)
    for morph in file.morphs:
        morph.offsets["vertex"] += count
    return write_pmx(replace(file, vertices=np.concatenate([spare, file.vertices]), faces=file.faces + count))


def patched(data: bytes, at: int, value: int, code: str = "<i") -> bytes:
    changed = bytearray(data)
    struct.pack_into(code, changed, at, value)
    return bytes(changed)


# Places in the toy's file: signature 4, version 4, number of settings 1, settings 8, then four texts.
SETTINGS_COUNT, SETTINGS, NAME = 8, 9, 17


def vertex_count_at(data: bytes) -> int:
    place = NAME
    for _ in range(4):
        place += 4 + struct.unpack_from("<i", data, place)[0]
    return place


def face_count_at(data: bytes) -> int:
    """Behind the vertices: the section that begins with the number of face indices of the toy."""
    count = len(toy_builder().faces) * 3
    return data.index(struct.pack("<i4I", count, *np.array(toy_builder().faces).ravel()[:4]))


def sound() -> bytes:
    return write_pmx(toy_file())


# File structure

CASES["fm01_unsigned_16_bit_vertex_indices"] = Case(lambda: padded(40000, 2))
CASES["fm01_unsigned_8_bit_vertex_indices"] = Case(lambda: padded(140, 1))
CASES["fm15_more_than_65536_vertices"] = Case(lambda: padded(70000, 4))


@case("fm02_wrong_index_size", REJECTED, "format_error", message="vertices")
def _():
    return patched(sound(), SETTINGS + 5, 4, "B")  # bones have two bytes


@case("fm02_index_size_that_does_not_exist", REJECTED, "format_error", message="header")
def _():
    return patched(sound(), SETTINGS + 5, 3, "B")


@case("fm03_morph_of_a_vertex_that_does_not_exist", REPAIRED, "morph_index_out_of_range")
def _():
    file = toy_file()
    more = np.zeros(1, pmx.VERTEX_OFFSET)
    more["vertex"], more["offset"] = 1580964, (9, 9, 9)
    first = replace(file.morphs[0], offsets=np.concatenate([more, file.morphs[0].offsets, more]))
    return write_pmx(replace(file, morphs=(first, *file.morphs[1:])))


@case("fm04_negative_vertex_count", REJECTED, "format_error", message="vertices")
def _():
    data = sound()
    return patched(data, vertex_count_at(data), -1)


CASES["fm05_signature_pmx_10"] = Case(lambda: write_pmx(toy_file(header=pmx.PmxHeader(signature=b"PMX\x10"))))
CASES["fm06_signature_pmx_a0"] = Case(lambda: write_pmx(toy_file(header=pmx.PmxHeader(signature=b"PMX\xa0"))))
CASES["fm07_bad_signature"] = Case(lambda: b"XPM " + sound()[4:], REJECTED, ("format_error",), message="XPM ")
CASES["fm07_empty_file"] = Case(lambda: b"", REJECTED, ("format_error",), message="empty")


@case("fm08_protected_vertex_count", REJECTED, "format_error", message="vertices")
def _():
    data = sound()
    return patched(data, vertex_count_at(data), 0x7FFFFFFF)


@case("fm08_protected_face_count", REJECTED, "format_error", message="faces")
def _():
    data = sound()
    return patched(data, face_count_at(data), 0x7FFFFFFD)


@case("fm08_protected_faces_no_triangles", REJECTED, "format_error", message="faces")
def _():
    data = sound()
    return patched(data, face_count_at(data), len(toy_builder().faces) * 3 - 1)


CASES["fm08_protected_text_length"] = Case(
    lambda: patched(sound(), NAME, -8), REJECTED, ("format_error",), message="name"
)
CASES["fm08_protected_faces"] = Case(
    lambda: write_pmx(replace(toy_file(), faces=toy_file().faces + 100000)), REJECTED, ("no_faces",)
)


def physics(version: float, **indices) -> FILE:
    """The toy with bodies, joints and (2.1) soft bodies; `indices` are changes of the bodies."""
    header = pmx.PmxHeader(version=version)
    builder = Builder(4, header, wild=False)
    soft = (builder.soft_body(), builder.soft_body()) if version > 2 else ()
    bodies = tuple(replace(builder.body(), **indices) for _ in range(3))
    return replace(toy_file(header=header), bodies=bodies, joints=(builder.joint(), builder.joint()), soft_bodies=soft)


@case("fm09_pmx_2_1")
def _():
    file = physics(2.1)
    impulse, flip = np.zeros(1, pmx.IMPULSE_OFFSET), np.zeros(1, pmx.GROUP_OFFSET)
    more = (pmx.PmxMorph("i", "", 4, pmx.MORPH_IMPULSE, impulse), pmx.PmxMorph("f", "", 4, pmx.MORPH_FLIP, flip))
    vertices = file.vertices.copy()
    four = vertices["bone_index"][:, 1] < 0  # what hangs on one bone, now by QDEF
    vertices["deform"][four] = pmx.QDEF
    vertices["bone_weight"][four, 0] = 1
    return write_pmx(replace(file, morphs=(*file.morphs, *more), vertices=vertices))


CASES["fm10_truncated_joint"] = Case(lambda: write_pmx(physics(2.0))[:-30], REPAIRED, ("file_truncated",))
CASES["fm10_truncated_body"] = Case(
    lambda: write_pmx(replace(physics(2.0), joints=()))[:-30], REPAIRED, ("file_truncated",)
)
CASES["fm10_truncated_soft_body"] = Case(lambda: write_pmx(physics(2.1))[:-30], REPAIRED, ("file_truncated",))
CASES["fm10_bytes_left_over"] = Case(lambda: write_pmx(physics(2.0)) + b"made with \x00\xff")
CASES["fm10_truncated_morph"] = Case(
    lambda: write_pmx(replace(toy_file(), sections=0))[:-10], REJECTED, ("format_error",), message="morphs"
)
CASES["fm11_more_than_8_settings"] = Case(
    lambda: write_pmx(toy_file(header=pmx.PmxHeader(extra_globals=b"\x01\x02\x03")))
)
CASES["fm11_fewer_than_8_settings"] = Case(
    lambda: patched(sound(), SETTINGS_COUNT, 7, "B"), REJECTED, ("format_error",), message="header"
)


def with_uvs(count: int) -> bytes:
    file = toy_file(header=pmx.PmxHeader(additional_uv_count=count))
    file.vertices["additional_uv"][:, :count] = np.arange(4) + 0.5
    return write_pmx(file)


CASES["fm12_four_additional_uvs"] = Case(lambda: with_uvs(4))
CASES["fm51_three_additional_uvs"] = Case(lambda: with_uvs(3))


def four_bones(deform: int, bones=(0, 1, 2, 1), weights=(0.25, 0.25, 0.25, 0.25)) -> bytes:
    """The toy with a red square on four bones; PMX 2.1."""

    def change(toy: ToyBuilder) -> None:
        toy.quad((0.3, 18.4, -1.4), (0.3, 0, 0), (0, 0.3, 0), (deform, bones, weights, None))
        toy.material("four", RED)

    return write_pmx(toy_file(change, pmx.PmxHeader(version=2.1)))


CASES["fm13_qdef"] = Case(lambda: four_bones(pmx.QDEF), sound=lambda: four_bones(pmx.BDEF4))


@case("fm14_every_kind_of_morph_out_of_bounds", REPAIRED, *["morph_index_out_of_range"] * 5)
def _():
    file = toy_file()
    more = []
    for kind, field in (
        (pmx.MORPH_GROUP, "morph"),
        (pmx.MORPH_VERTEX, "vertex"),
        (pmx.MORPH_BONE, "bone"),
        (pmx.MORPH_UV, "vertex"),
        (pmx.MORPH_MATERIAL, "material"),
    ):
        offsets = np.zeros(2, pmx.OFFSET_DTYPES[kind])
        offsets[field] = [100, 127]
        more.append(pmx.PmxMorph(f"m{kind}", "", 4, kind, offsets))
    # Before the others, so that groups that name morphs by number would notice a dropped one.
    return write_pmx(replace(file, morphs=(*file.morphs, *more)))


def old_file(**changes):
    """A PMD without textures."""
    file = small_pmd(**changes)
    file.materials["texture"] = b""
    return file


def damaged_name(model: Model) -> None:
    assert model.skeleton.name[1] == "表情操作用の補助親\ufffd"


@case("fm16_pmd_name_cut_in_mid_character", REPAIRED, "name_damaged", sound=None, check=damaged_name)
def _():
    file = old_file()
    file.bones["name"][1] = "表情操作用の補助親".encode("cp932") + "骨".encode("cp932")[:1]
    return write_pmd(file)


def without_english() -> bytes:
    return write_pmd(old_file(english_flag=0, english=None))


def as_with_english(model: Model) -> None:
    whole = model_from_bytes(write_pmd(old_file()), Path("x.pmd"))
    assert set(model.skeleton.name_en) == {""} != set(whole.skeleton.name_en)
    assert model.skeleton.name == whole.skeleton.name
    for field in ("position", "normal", "face", "bone_index", "bone_weight"):
        np.testing.assert_array_equal(getattr(model, field), getattr(whole, field))
    for ours, theirs in zip(model.morphs, whole.morphs, strict=True):
        np.testing.assert_array_equal(ours.offset, theirs.offset)


CASES["fm16_pmd_without_english"] = Case(without_english, sound=None, check=as_with_english)


@case("fm16_utf8_name_of_a_wrong_encoding", REPAIRED, "name_damaged")
def _():
    bones = list(toy_file().bones)
    bones.append(pmx.PmxBone("左目".encode("cp932").decode("utf-8", "surrogateescape"), parent_index=2))
    return write_pmx(replace(toy_file(header=pmx.PmxHeader(encoding="utf-8")), bones=tuple(bones)))


CASES["fm17_no_vertices"] = Case(
    lambda: write_pmx(
        replace(toy_file(), vertices=np.zeros(0, pmx.VERTEX), faces=np.zeros((0, 3), np.int32), morphs=())
    ),
    REJECTED,
    ("no_vertices",),
)
CASES["fm17_no_faces"] = Case(
    lambda: write_pmx(replace(toy_file(), faces=np.zeros((0, 3), np.int32))), REJECTED, ("no_faces",)
)
CASES["fm17_no_bones"] = Case(lambda: write_pmx(replace(toy_file(), bones=())), REJECTED, ("no_bones",))
CASES["fm17_no_materials"] = Case(lambda: write_pmx(replace(toy_file(), materials=())), REJECTED, ("no_materials",))


# Rig


def with_bones(*bones: pmx.PmxBone, change: Callable[[ToyBuilder], object] | None = None) -> bytes:
    file = toy_file(change)
    return write_pmx(replace(file, bones=(*file.bones, *bones)))


CASES["fm18_bone_cycle"] = Case(
    lambda: with_bones(pmx.PmxBone("甲", parent_index=4), pmx.PmxBone("乙", parent_index=3)),
    REPAIRED,
    ("bone_cycle",),
    check=lambda model: np.testing.assert_array_equal(model.skeleton.parent, [-1, 0, 1, -1, 3]),
)
CASES["fm18_bone_that_is_its_own_parent"] = Case(
    lambda: write_pmx(replace(toy_file(), bones=(replace(toy_file().bones[0], parent_index=0), *toy_file().bones[1:]))),
    REPAIRED,
    ("bone_cycle",),
)
CASES["fm18_bone_parent_out_of_range"] = Case(
    lambda: with_bones(pmx.PmxBone("迷子", parent_index=77)), REPAIRED, ("bone_parent_out_of_range",)
)
CASES["fm18_ik_of_bones_that_do_not_exist"] = Case(
    lambda: with_bones(
        pmx.PmxBone("ＩＫ", flags=pmx.BONE_IK, ik=pmx.PmxIk(500, 40, 0.1, (pmx.PmxIkLink(-7), pmx.PmxIkLink(999)))),
        pmx.PmxBone("己ＩＫ", flags=pmx.BONE_IK, ik=pmx.PmxIk(4, 40, 0.1, (pmx.PmxIkLink(4),))),
    )
)
CASES["fm18_tail_out_of_range"] = Case(lambda: with_bones(pmx.PmxBone("先", flags=pmx.BONE_TAIL_IS_BONE, tail=900)))


def group(name: str, *members: int) -> pmx.PmxMorph:
    table = np.zeros(len(members), pmx.GROUP_OFFSET)
    table["morph"], table["weight"] = members, 1.0
    return pmx.PmxMorph(name, "", 4, pmx.MORPH_GROUP, table)


@case("fm19_group_morph_cycle", REPAIRED, "morph_group_nested", "morph_group_nested", "morph_group_nested")
def _():
    file = toy_file()
    return write_pmx(replace(file, morphs=(*file.morphs, group("甲", 4), group("乙", 3, 0), group("己", 5))))


EYE_BONES = (
    pmx.PmxBone("両目", position=(0, 21, 0), parent_index=2),
    *(
        pmx.PmxBone(
            name, position=(x, 18, -0.8), parent_index=2, layer=2, append_index=3, append_ratio=0.3,
            flags=pmx.BONE_APPEND_ROTATION | pmx.BONE_APPEND_TRANSLATION,
        )
        for name, x in (("左目", 0.45), ("右目", -0.45))
    ),
)  # fmt: skip


def eyes_on(left: int, right: int) -> Callable[[ToyBuilder], None]:
    def change(toy: ToyBuilder) -> None:
        for first, bone in ((72, left), (76, right)):
            for vertex in range(first, first + 4):
                toy.weights[vertex] = (pmx.BDEF1, (bone,), (1.0,), None)

    return change


# Eyes append from 両目, which no pose moves: they must go with the head and not turn by it once more.
CASES["fm20_append_eyes_move_with_the_head"] = Case(lambda: with_bones(*EYE_BONES, change=eyes_on(4, 5)), exact=False)


def append_shift(direct: bool) -> bytes:
    """A flag on a bone that bone morph 3 shifts (`direct`, by half), or on one that takes half its shift by append."""

    def change(toy: ToyBuilder) -> None:
        toy.bones.append(pmx.PmxBone("元", position=(0, 17, 0), parent_index=2))
        toy.bones.append(
            pmx.PmxBone(
                "写", position=(0, 17, 0), parent_index=2, append_index=3, append_ratio=0.5,
                flags=pmx.BONE_APPEND_TRANSLATION,
            )
        )  # fmt: skip
        toy.quad((0.6, 18.4, -1.6), (0.2, 0, 0), (0, 0.2, 0), (pmx.BDEF1, (3 if direct else 4,), (1.0,), None))
        toy.material("flag", RED)
        rows = np.zeros(1, pmx.BONE_OFFSET)
        rows["bone"], rows["translation"], rows["rotation"] = 3, (0, 0.4 * (0.5 if direct else 1), 0), (0, 0, 0, 1)
        toy.morphs.append(pmx.PmxMorph("上げ", "", 4, pmx.MORPH_BONE, rows))
        toy.morphs[2] = toy.morphs[3]  # what the mouth's parameter uses

    return write_pmx(toy_file(change))


CASES["fm21_append_translation"] = Case(
    lambda: append_shift(False), REPAIRED, ("name_duplicate",), sound=lambda: append_shift(True), exact=False
)
CASES["fm22_weights_that_add_up_to_2"] = Case(
    lambda: four_bones(pmx.BDEF4, weights=(0.5, 0.5, 0.5, 0.5)),
    REPAIRED,
    ("weight_invalid",),
    sound=lambda: four_bones(pmx.BDEF4),
)
CASES["fm22_empty_slots"] = Case(
    lambda: four_bones(pmx.BDEF4, (0, -1, 2, -1), (0.5, 0, 0.5, 0)),
    sound=lambda: four_bones(pmx.BDEF4, (0, 2, 0, 0), (0.5, 0.5, 0, 0)),
)
CASES["fm22_weights_of_no_bone"] = Case(
    lambda: four_bones(pmx.BDEF4, (0, -1, 2, 77), (0.25, 0.25, 0.25, 0.25)),
    REPAIRED,
    ("weight_bone_out_of_range",),
    sound=lambda: four_bones(pmx.BDEF4, (0, 2, 0, 0), (0.5, 0.5, 0, 0)),
)
CASES["fm23_tiny_weights"] = Case(
    lambda: four_bones(pmx.BDEF4, (2, 1, 0, 0), (1 - 2e-7, 1e-7, 1e-7, 0)),
    sound=lambda: four_bones(pmx.BDEF4, (2, 1, 0, 0), (1, 0, 0, 0)),
    exact=False,
)
CASES["fm23_only_tiny_weights"] = Case(
    lambda: four_bones(pmx.BDEF4, (2, 1, 0, 0), (1e-8, 1e-8, 0, 0)),
    REPAIRED,
    ("weight_zero",),
    sound=lambda: four_bones(pmx.BDEF4, (2, 1, 0, 0), (1, 0, 0, 0)),
)
CASES["fm23_no_weights"] = Case(
    lambda: four_bones(pmx.BDEF4, (2, 1, 0, 0), (0, 0, 0, 0)),
    REPAIRED,
    ("weight_zero",),
    sound=lambda: four_bones(pmx.BDEF4, (2, 1, 0, 0), (1, 0, 0, 0)),
)


def with_normals(value) -> bytes:
    file = toy_file()
    file.vertices["normal"][10:60] = value
    return write_pmx(file)


CASES["fm24_nan_normals"] = Case(lambda: with_normals(np.nan), REPAIRED, ("normal_invalid",))
CASES["fm24_infinite_normals"] = Case(lambda: with_normals((0, np.inf, 0)), REPAIRED, ("normal_invalid",))
CASES["fm24_nan_rigid_bodies"] = Case(
    lambda: write_pmx(physics(2.0, position=(np.nan,) * 3, size=(np.nan,) * 3, mass=np.nan))
)
CASES["fm24_nan_bone"] = Case(
    lambda: with_bones(pmx.PmxBone("無", position=(np.nan, 17, 0), parent_index=2)),
    REPAIRED,
    ("bone_value_invalid",),
    check=lambda model: np.testing.assert_array_equal(model.skeleton.rest[3], model.skeleton.rest[2]),
)
CASES["fm24_nan_bone_between_neck_and_face"] = Case(  # takes the place of the head bone: the same pivot
    lambda: with_bones(pmx.PmxBone("無", position=(np.nan, np.nan, np.nan), parent_index=2), change=eyes_on(3, 3)),
    REPAIRED,
    ("bone_value_invalid",),
)
CASES["fm24_nan_append_ratio"] = Case(
    lambda: with_bones(
        pmx.PmxBone("率", parent_index=2, flags=pmx.BONE_APPEND_ROTATION, append_index=2, append_ratio=np.nan),
        change=eyes_on(3, 3),
    ),
    REPAIRED,
    ("bone_value_invalid",),
)


def long_normals() -> bytes:
    file = toy_file()
    file.vertices["normal"] *= 3
    return write_pmx(file)


CASES["fm25_zero_normals"] = Case(lambda: with_normals(0), REPAIRED, ("normal_invalid",))
CASES["fm25_long_normals"] = Case(long_normals, REPAIRED, ("normal_length",))
CASES["fm26_rigid_bodies_of_no_bone"] = Case(lambda: write_pmx(physics(2.0, bone_index=120)))


@case("fm27_names_that_are_not_unique", REPAIRED, "name_duplicate", "name_duplicate", "name_duplicate")
def _():
    file = toy_file()
    bones = (*file.bones, pmx.PmxBone("頭", position=(5, 5, 5)), pmx.PmxBone("首", position=(5, 5, 5)))
    materials = tuple(replace(material, name="顔") for material in file.materials)
    morphs = (*file.morphs, replace(file.morphs[0], name="あ"))
    return write_pmx(replace(file, bones=bones, materials=materials, morphs=morphs))


@case("fm47_display_frames_with_duplicates")
def _():
    frame = pmx.PmxDisplayFrame("表情", "Exp", 1, ((1, 0), (1, 0), (0, 2), (0, 2), (0, 99), (1, 99)))
    return write_pmx(replace(toy_file(), frames=(frame, frame)))


# Materials


def hidden_part(texture: bool = False) -> bytes:
    """The toy with a wall of alpha 0 before the face."""

    def change(toy: ToyBuilder) -> None:
        toy.quad((0, 18, -3), (3, 0, 0), (0, 3, 0))
        toy.material("wall", RED, alpha=0.0, flags=pmx.EDGE)

    return write_pmx(toy_file(change))


CASES["fm41_hidden_materials_stay_hidden"] = Case(hidden_part)
CASES["fm34_shared_toons"] = Case(
    lambda: write_pmx(
        replace(toy_file(), materials=tuple(replace(m, toon_shared=1, toon_index=9) for m in toy_file().materials))
    ),
    check=lambda model: np.testing.assert_array_equal([m.toon_shared for m in model.materials], 9),
)
CASES["fm34_a_shared_toon_that_does_not_exist"] = Case(
    lambda: write_pmx(
        replace(
            toy_file(),
            materials=(replace(toy_file().materials[0], toon_shared=1, toon_index=10), *toy_file().materials[1:]),
        )
    ),
    REPAIRED,
    ("texture_index_out_of_range",),
    check=lambda model: np.testing.assert_equal(model.materials[0].toon_shared, -1),
)


def blank(model: Model) -> None:
    assert all(material.texture == -1 for material in model.materials)


CASES["fm35_no_texture"] = Case(
    lambda: write_pmx(
        replace(toy_file(), textures=("",), materials=tuple(replace(m, texture_index=0) for m in toy_file().materials))
    ),
    check=blank,
)


def crowded() -> bytes:
    """41,000 vertices, 171 morphs and 38 materials, as in the report about 5.6 GB of graphics memory."""
    file = toy_file(header=pmx.PmxHeader(vertex_index_size=4))
    count = 41000
    vertices = np.concatenate([np.resize(file.vertices, count), file.vertices])
    faces = np.arange(count // 3 * 3, dtype=np.int32).reshape(-1, 3)
    morphs = []
    for number in range(171):
        table = np.zeros(50, pmx.VERTEX_OFFSET)
        table["vertex"], table["offset"] = np.arange(50) * 800 + number, (0, 0.01, 0)
        morphs.append(pmx.PmxMorph(f"m{number}", "", 2, pmx.MORPH_VERTEX, table))
    share = len(faces) // 38 * 3
    materials = [pmx.PmxMaterial(f"p{number}", index_count=share) for number in range(37)]
    materials.append(pmx.PmxMaterial("last", index_count=len(faces) * 3 - 37 * share))
    return write_pmx(replace(file, vertices=vertices, faces=faces, morphs=tuple(morphs), materials=tuple(materials)))


def small_in_memory(model: Model) -> None:
    """Morphs stay as sparse as in the file, and only the three in use become columns."""
    from toy import toy_binding

    from mmdgen.pose.rig import Frame, build_rig

    dense = len(model.morphs) * len(model.position) * 12
    assert sum(morph.index.nbytes + morph.offset.nbytes for morph in model.morphs) < dense / 500
    rig = build_rig(model, toy_binding(), Frame(-2.2, 2.2, 15.7, 20.1, 4.4 / 256))
    assert 0 < rig.morph_offset.nbytes <= 150 * 3 * 5 * 4


CASES["fm46_memory_of_morphs"] = Case(crowded, sound=None, check=small_in_memory)
