"""The model layer: every repair made by code, the promises of `Model` under mutation, bone order, sums of morphs."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import real_files
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pmd import small_pmd

import mmdgen.model as model_package
from mmdgen.errors import FormatError, MmdgenError, ModelError
from mmdgen.formats.pmd import write_pmd
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.model.diagnostics import CODES, Diagnostics
from mmdgen.model.load import load_model, model_from_bytes
from mmdgen.model.mesh import face_normals
from mmdgen.model.morphs import MIDDLE, flatten_terms
from mmdgen.model.records import Model, MorphKind, MorphTerm
from mmdgen.model.skeleton import BoneRow, build_skeleton

SHARED = Path(__file__).resolve().parents[2] / "shared" / "models"
SQUARE = np.array([(-1, 0, 0), (-1, 2, 0), (1, 2, 0), (1, 0, 0)], np.float32)
MATERIAL = pmx.PmxMaterial("skin", index_count=6)
BONES = (
    pmx.PmxBone("センター"),
    pmx.PmxBone("首", position=(0, 1, 0), parent_index=0),
    pmx.PmxBone("頭", position=(0, 2, 0), parent_index=1),
)


def small_pmx(rows: int = 4, **changes) -> pmx.PmxFile:
    """A square facing the viewer, in `rows` / 4 copies behind each other, on three bones."""
    vertices = np.zeros(rows, pmx.VERTEX)
    vertices["position"] = np.resize(SQUARE, (rows, 3))
    vertices["position"][:, 2] = np.arange(rows) // 4
    vertices["normal"] = (0, 0, -1)
    vertices["bone_index"] = (2, -1, -1, -1)
    vertices["edge_scale"] = 1
    first = np.arange(rows // 4)[:, None, None] * 4
    values = {
        "header": pmx.PmxHeader(),
        "name": "小",
        "name_en": "small",
        "comment": "",
        "comment_en": "",
        "vertices": vertices,
        "faces": (first + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3).astype(np.int32),
        "materials": (dataclasses.replace(MATERIAL, index_count=rows // 4 * 6),),
        "bones": BONES,
    }
    return pmx.PmxFile(**{**values, **changes})


def load(file: pmx.PmxFile) -> Model:
    model = model_from_bytes(write_pmx(file), Path("missing-folder/small.pmx"))
    check_contract(model)
    return model


def codes(model: Model) -> list[str]:
    return [diagnostic.code for diagnostic in model.diagnostics]


def with_vertices(rows: int = 4, **fields) -> pmx.PmxFile:
    """`small_pmx` with fields of vertex 1 set."""
    file = small_pmx(rows)
    for name, value in fields.items():
        file.vertices[name][1] = value
    return file


def vertex_morph(name: str, index, offset, panel: int = 2) -> pmx.PmxMorph:
    table = np.zeros(len(index), pmx.VERTEX_OFFSET)
    table["vertex"], table["offset"] = index, offset
    return pmx.PmxMorph(name, "", panel, pmx.MORPH_VERTEX, table)


def group_morph(name: str, index, weight) -> pmx.PmxMorph:
    table = np.zeros(len(index), pmx.GROUP_OFFSET)
    table["morph"], table["weight"] = index, weight
    return pmx.PmxMorph(name, "", 4, pmx.MORPH_GROUP, table)


def check_contract(model: Model) -> None:
    """Everything that the records of `mmdgen.model` promise."""
    vertices, bones = len(model.position), len(model.skeleton.name)
    for array, dtype, shape in (
        (model.position, np.float32, (vertices, 3)),
        (model.normal, np.float32, (vertices, 3)),
        (model.uv, np.float32, (vertices, 2)),
        (model.bone_index, np.int32, (vertices, 4)),
        (model.bone_weight, np.float32, (vertices, 4)),
        (model.edge_scale, np.float32, (vertices,)),
        (model.face, np.int32, (len(model.face), 3)),
        (model.skeleton.rest, np.float32, (bones, 3)),
        (model.skeleton.parent, np.int32, (bones,)),
        (model.skeleton.append_source, np.int32, (bones,)),
        (model.skeleton.append_ratio, np.float32, (bones,)),
    ):
        assert array.dtype == dtype
        assert array.shape == shape
        assert np.isfinite(array).all()
        assert array.flags.c_contiguous
    assert np.allclose(np.linalg.norm(model.normal.astype(float), axis=1), 1, atol=2e-3)
    assert model.bone_index.min() >= 0
    assert model.bone_index.max() < bones
    assert model.bone_weight.min() >= 0
    assert np.allclose(model.bone_weight.sum(axis=1), 1, atol=1e-5)
    assert len(model.face) > 0
    assert model.face.min() >= 0
    assert model.face.max() < vertices
    end = 0
    for material in model.materials:
        assert material.first_face == end
        end += material.face_count
        for index in (material.texture, material.sphere_texture, material.toon_texture):
            assert -1 <= index < len(model.textures)
        assert (material.sphere_mode == 0) == (material.sphere_texture == -1)
        assert -1 <= material.toon_shared <= 9
        assert material.toon_shared == -1 or material.toon_texture == -1
        assert np.isfinite((*material.diffuse, *material.specular, *material.ambient, *material.edge_color)).all()
        assert np.isfinite((material.specular_power, material.edge_size)).all()
    assert end == len(model.face)
    check_skeleton(model.skeleton)
    limits = {
        "group": len(model.morphs),
        "vertex": vertices,
        "uv": vertices,
        "bone": bones,
        "material": len(model.materials),
    }
    for morph in model.morphs:
        assert len(morph.index) == len(morph.offset)
        assert morph.index.dtype == np.int32
        if len(morph.index):
            assert morph.index.min() >= (-1 if morph.kind == "material" else 0)
            assert morph.index.max() < limits[morph.kind]
        if morph.kind != "material":
            assert morph.offset.dtype == np.float32
            assert np.isfinite(morph.offset).all()
        if morph.kind == "group":
            assert all(model.morphs[i].kind != "group" for i in morph.index)
        if morph.kind == "bone" and len(morph.index):
            assert np.allclose(np.linalg.norm(morph.offset[:, 3:], axis=1), 1, atol=1e-4)
    if len(model.sdef.vertex):
        assert model.sdef.vertex.max() < vertices
    names = [model.name, model.comment, *model.skeleton.name, *(m.name for m in (*model.morphs, *model.materials))]
    "".join(names).encode("utf-8")
    assert {diagnostic.code for diagnostic in model.diagnostics} <= set(CODES)


def check_skeleton(skeleton) -> None:
    count = len(skeleton.name)
    assert sorted(skeleton.order.tolist()) == list(range(count))
    place = np.empty(count, int)
    place[skeleton.order] = np.arange(count)
    for needed in (skeleton.parent, skeleton.append_source):
        there = needed >= 0
        assert (place[needed[there]] < place[there]).all()
    takes = skeleton.append_rotation | skeleton.append_translation
    assert ((skeleton.append_source >= 0) == takes).all()


# -- sound files -----------------------------------------------------------------------------------------------------


def test_a_sound_file_is_loaded_as_it_is(tmp_path):
    data = write_pmx(small_pmx())
    path = tmp_path / "model.txt"  # told by content
    path.write_bytes(data)
    model = load_model(path)
    check_contract(model)
    assert model.id == hashlib.sha256(data).hexdigest()
    assert (model.path, model.name, model.name_en) == (path, "小", "small")
    assert model.diagnostics == ()
    assert np.array_equal(model.position, SQUARE)
    assert model.bone_weight.tolist() == [[1, 0, 0, 0]] * 4
    assert model.bone_index[:, 0].tolist() == [2] * 4
    assert model.skeleton.order.tolist() == [0, 1, 2]


def test_pmd_comes_through_the_same_door(tmp_path):
    path = tmp_path / "model.pmx"
    path.write_bytes(write_pmd(small_pmd()))
    check_contract(load_model(path))


def test_files_that_are_no_models_are_refused(tmp_path):
    for data, word in (
        (b"", "empty"),
        (b"Vocaloid Motion Data 0002" + bytes(40), "VMD"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
    ):
        with pytest.raises(FormatError, match=word):
            model_from_bytes(data, Path("x"))
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "none.pmx")
    assert caught.value.code == "file_unreadable"
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path)
    assert caught.value.code == "file_unreadable"


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("no_vertices", {"vertices": np.zeros(0, pmx.VERTEX), "faces": np.zeros((0, 3), np.int32)}),
        ("no_faces", {"faces": np.zeros((0, 3), np.int32)}),
        ("no_faces", {"materials": (dataclasses.replace(MATERIAL, index_count=0),)}),
        ("no_faces", {"faces": np.array([[0, 1, 99]], np.int32)}),
        ("no_bones", {"bones": ()}),
        ("no_materials", {"materials": ()}),
    ],
)
def test_what_cannot_be_drawn_is_rejected(code, changes):
    with pytest.raises(ModelError) as caught:
        model_from_bytes(write_pmx(small_pmx(**changes)), Path("x.pmx"))
    assert caught.value.code == code
    assert "x.pmx" in str(caught.value)


# -- vertices --------------------------------------------------------------------------------------------------------

WEIGHTS = [  # deform, bones, weights in the file, expected bone: weight, code
    (pmx.BDEF1, (1, -1, -1, -1), (0, 0, 0, 0), {1: 1}, None),
    (pmx.BDEF2, (1, 2, -1, -1), (0.25, 0, 0, 0), {1: 0.25, 2: 0.75}, None),
    (pmx.BDEF4, (0, 1, 2, -1), (0.5, 0.25, 0.25, 0), {0: 0.5, 1: 0.25, 2: 0.25}, None),
    (pmx.QDEF, (0, 1, 2, 0), (0.5, 0.25, 0.125, 0.125), {0: 0.625, 1: 0.25, 2: 0.125}, None),
    (pmx.SDEF, (1, 2, -1, -1), (0.75, 0, 0, 0), {1: 0.75, 2: 0.25}, None),
    (pmx.BDEF4, (0, 1, -1, -1), (0.499, 0.5, 0, 0), {0: 0.499 / 0.999, 1: 0.5 / 0.999}, None),
    (pmx.BDEF4, (0, 1, 2, -1), (1, 1, 2, 0), {0: 0.25, 1: 0.25, 2: 0.5}, "weight_invalid"),
    (pmx.BDEF4, (0, 1, 2, 1), (-1, 1, 1, 0), {1: 0.5, 2: 0.5}, "weight_invalid"),
    (pmx.BDEF2, (1, 2, -1, -1), (1.5, 0, 0, 0), {1: 1}, "weight_invalid"),
    (pmx.BDEF4, (0, 1, 2, 1), (np.nan, 1, 0, 0), {1: 1}, "weight_invalid"),
    (pmx.BDEF4, (0, 1, 2, 1), (np.inf, 1, 0, 0), {1: 1}, "weight_invalid"),
    (pmx.BDEF4, (2, 1, 0, -1), (0, 0, 0, 0), {2: 1}, "weight_zero"),
    (pmx.BDEF1, (-1, -1, -1, -1), (0, 0, 0, 0), {0: 1}, "weight_bone_out_of_range"),
    (pmx.BDEF1, (77, -1, -1, -1), (0, 0, 0, 0), {0: 1}, "weight_bone_out_of_range"),
    (pmx.BDEF4, (1, 77, -1, 2), (0.5, 0.25, 0, 0.25), {1: 2 / 3, 2: 1 / 3}, "weight_bone_out_of_range"),
]


@pytest.mark.parametrize(("deform", "bones", "weights", "expected", "code"), WEIGHTS)
def test_weights(deform, bones, weights, expected, code):
    model = load(with_vertices(deform=deform, bone_index=bones, bone_weight=weights))
    got: dict[int, float] = {}
    for bone, weight in zip(model.bone_index[1].tolist(), model.bone_weight[1].tolist(), strict=True):
        if weight:
            got[bone] = got.get(bone, 0) + weight
    assert got == pytest.approx(expected)
    assert (code in codes(model)) if code else codes(model) == []
    assert model.bone_weight[0].tolist() == [1, 0, 0, 0]


def test_spherical_deform_is_kept_with_its_two_bones():
    points = {"sdef_c": (0, 1, 0), "sdef_r0": (0, 0.5, 0), "sdef_r1": (0, 1.5, 0)}
    good = {"deform": pmx.SDEF, "bone_index": (1, 2, -1, -1), "bone_weight": (0.5, 0, 0, 0)}
    model = load(with_vertices(**good, **points))
    assert model.sdef.vertex.tolist() == [1]
    assert (model.sdef.c.tolist(), model.sdef.r0.tolist(), model.sdef.r1.tolist()) == (
        [[0, 1, 0]],
        [[0, 0.5, 0]],
        [[0, 1.5, 0]],
    )
    assert model.bone_index[1, :2].tolist() == [1, 2]
    for bad in ({"sdef_c": (np.nan, 0, 0)}, {"bone_index": (1, 9, -1, -1)}):
        model = load(with_vertices(**{**good, **points, **bad}))
        assert len(model.sdef.vertex) == 0
        assert "sdef_invalid" in codes(model)


@pytest.mark.parametrize("position", [(np.nan, 0, 0), (0, np.inf, 0), (0, 0, 3e38)])
def test_vertices_without_a_place_lose_their_faces(position):
    file = with_vertices(8, position=position)
    materials = tuple(pmx.PmxMaterial(name, index_count=6) for name in "ab")
    model = load(dataclasses.replace(file, materials=materials))
    assert codes(model) == ["position_invalid", "face_vertex_invalid"]
    assert model.position[1].tolist() == [0, 0, 0]
    # One face of the first square is gone, and the second material begins one face earlier.
    assert model.face.tolist() == [[0, 2, 3], [4, 5, 6], [4, 6, 7]]
    assert [(m.first_face, m.face_count) for m in model.materials] == [(0, 1), (1, 2)]


@pytest.mark.parametrize("normal", [(0, 0, 0), (np.nan, 0, 1), (np.inf, 0, 0)])
def test_missing_normals_come_from_the_faces(normal):
    model = load(with_vertices(normal=normal))
    assert codes(model) == ["normal_invalid"]
    assert model.normal.tolist() == [[0, 0, -1]] * 4


def test_normals_get_length_one():
    assert codes(load(with_vertices(normal=(0, 0, -1.02)))) == []
    model = load(with_vertices(normal=(0, 0, -3)))
    assert codes(model) == ["normal_length"]
    assert model.normal[1].tolist() == [0, 0, -1]


def test_normals_of_unused_vertices_point_somewhere():
    position = np.array([(0, 0, 0), (0, 1, 0), (1, 0, 0), (5, 5, 5)], np.float32)
    normal = face_normals(position, np.array([[0, 1, 2]]), 4)
    assert normal.tolist() == [[0, 0, -1]] * 4  # clockwise as the viewer sees it: towards the viewer
    assert face_normals(position, np.array([[0, 2, 1]]), 4)[0].tolist() == [0, 0, 1]


def test_other_vertex_numbers():
    model = load(with_vertices(uv=(np.nan, 0.5), edge_scale=np.nan))
    assert codes(model) == ["uv_invalid", "edge_scale_invalid"]
    assert model.uv[1].tolist() == [0, 0.5]
    assert model.edge_scale.tolist() == [1, 1, 1, 1]
    assert load(with_vertices(edge_scale=-1)).edge_scale.tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize("deform", [pmx.BDEF1, pmx.BDEF2, pmx.BDEF4, pmx.SDEF, pmx.QDEF])
def test_signalling_nan_everywhere(deform):
    file = small_pmx(8)
    fields = ("position", "normal", "uv", "bone_weight", "sdef_c", "sdef_r0", "sdef_r1", "edge_scale")
    for field in fields:
        bits = file.vertices[field].view(np.uint32)
        bits[1] = 0x7FA00001
        assert np.isnan(file.vertices[field][1]).all()
    file.vertices["deform"][1] = deform
    file.vertices["bone_index"][1] = (0, 1, 2, 0)
    assert "position_invalid" in codes(load(file))


def test_additional_uv_is_kept():
    file = small_pmx(header=pmx.PmxHeader(additional_uv_count=1))
    file.vertices["additional_uv"][:, 0] = [(1, 2, 3, 4), (np.nan, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)]
    model = load(file)
    assert model.uv1 is not None
    assert model.uv1.shape == (4, 4)
    assert model.uv1[:2].tolist() == [[1, 2, 3, 4], [0, 0, 0, 0]]
    found = [(item.code, item.index, item.message) for item in model.diagnostics]
    assert found == [("uv_invalid", 1, "1 vertices, additional UV")]


# -- faces and materials ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "ranges", "faces", "code"),
    [
        ((6, 6), [(0, 2), (2, 2)], 4, None),
        ((6, 0, 6), [(0, 2), (2, 0), (2, 2)], 4, None),
        ((6, 3), [(0, 2), (2, 1)], 3, "material_face_count"),
        ((6, 600), [(0, 2), (2, 2)], 4, "material_face_count"),
        ((600, 6), [(0, 4), (4, 0)], 4, "material_face_count"),
        ((7, 5), [(0, 2), (2, 2)], 4, "material_face_count"),
        ((12, 2147483646), [(0, 4), (4, 0)], 4, "material_face_count"),
    ],
)
def test_face_counts_of_materials(counts, ranges, faces, code):
    materials = tuple(pmx.PmxMaterial(f"m{i}", index_count=count) for i, count in enumerate(counts))
    model = load(small_pmx(8, materials=materials))
    assert [(m.first_face, m.face_count) for m in model.materials] == ranges
    assert len(model.face) == faces
    assert codes(model) == ([code] if code else [])


def test_faces_of_missing_vertices_are_dropped():
    faces = np.array([[0, 1, 2], [0, 2, 4], [-1, 2, 3], [0, 2, 3]], np.int32)
    model = load(small_pmx(faces=faces, materials=(dataclasses.replace(MATERIAL, index_count=12),)))
    assert model.face.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert [(d.code, d.index, d.message) for d in model.diagnostics] == [("face_vertex_invalid", 1, "2 faces")]


def test_materials_with_textures_that_do_not_exist():
    material = dataclasses.replace(
        MATERIAL, texture_index=5, sphere_index=1, sphere_mode=2, toon_shared=0, toon_index=-1
    )
    model = load(small_pmx(materials=(material,), textures=("a.png", "b.spa")))
    (got,) = model.materials
    assert (got.texture, got.sphere_texture, got.sphere_mode, got.toon_texture, got.toon_shared) == (-1, 1, 2, -1, -1)
    assert [(d.code, d.message) for d in model.diagnostics] == [
        ("texture_index_out_of_range", "skin: texture 5 of 2 textures"),
        ("texture_missing", "b.spa"),
    ]
    assert [texture.name for texture in model.textures] == ["a.png", "b.spa"]


@pytest.mark.parametrize(
    ("changes", "expected", "code"),
    [
        ({"toon_shared": 1, "toon_index": 9}, (-1, 9, 0), None),
        ({"toon_shared": 1, "toon_index": 10}, (-1, -1, 0), "texture_index_out_of_range"),
        ({"toon_shared": 0, "toon_index": 1}, (-1, 3, 0), None),  # toon04.bmp that is not beside the model: MMD's own
        ({"toon_shared": 0, "toon_index": 2}, (-1, -1, 0), None),  # toon0.bmp: none
        ({"toon_shared": 0, "toon_index": 0}, (0, -1, 0), "texture_missing"),
        ({"sphere_mode": 1, "sphere_index": -1}, (-1, 0, 0), None),
        ({"sphere_mode": 0, "sphere_index": 0}, (-1, 0, 0), None),
        ({"sphere_mode": 7, "sphere_index": 0}, (-1, 0, 0), "sphere_mode_invalid"),
        ({"texture_index": 3}, (-1, 0, 0), None),  # an empty name is no texture
    ],
)
def test_toons_and_spheres(changes, expected, code):
    textures = ("own.bmp", "toon\\TOON04.bmp", "toon0.bmp", "")
    model = load(small_pmx(materials=(dataclasses.replace(MATERIAL, **changes),), textures=textures))
    (material,) = model.materials
    assert (material.toon_texture, material.toon_shared, material.sphere_mode) == expected
    assert codes(model) == ([code] if code else [])


def test_material_flags_and_numbers():
    material = dataclasses.replace(
        MATERIAL,
        flags=pmx.DOUBLE_SIDED | pmx.EDGE,
        diffuse=(0.1, np.nan, 0.3, np.nan),
        specular_power=np.inf,
        edge_size=1.5,
    )
    model = load(small_pmx(materials=(material,)))
    (got,) = model.materials
    assert (got.double_sided, got.edge, got.edge_size, got.specular_power) == (True, True, 1.5, 0.0)
    assert got.diffuse == pytest.approx((0.1, 0, 0.3, 1), abs=1e-6)
    assert codes(model) == ["material_value_invalid"]
    (plain,) = load(small_pmx()).materials
    assert (plain.double_sided, plain.edge) == (False, False)


# -- bones -----------------------------------------------------------------------------------------------------------


def rows(parents, sources=(), layers=(), physics=()) -> list[BoneRow]:
    count = len(parents)
    sources = [*sources, *[-1] * (count - len(sources))]
    layers = [*layers, *[0] * (count - len(layers))]
    return [
        BoneRow(
            name=f"b{i}",
            name_en="",
            position=(0.0, float(i), 0.0),
            parent=parents[i],
            layer=layers[i],
            after_physics=i in physics,
            append_source=sources[i],
            append_ratio=-0.5,
            append_rotation=sources[i] != -1,
        )
        for i in range(count)
    ]


def skeleton_of(*arguments, **keywords):
    diagnostics = Diagnostics()
    skeleton = build_skeleton(rows(*arguments, **keywords), diagnostics)
    check_skeleton(skeleton)
    return skeleton, [diagnostic.code for diagnostic in diagnostics.as_tuple()]


def test_bones_are_ordered_as_mmd_evaluates_them():
    skeleton, found = skeleton_of([-1, 0, 0, 0, 0], layers=[0, 2, 1, 0, 1], physics=(3,))
    assert skeleton.order.tolist() == [0, 2, 4, 1, 3]
    assert found == []


def test_bones_wait_for_parents_and_sources():
    skeleton, found = skeleton_of([2, 0, -1, 0], sources=[-1, 3, -1, -1])
    assert skeleton.order.tolist() == [2, 0, 3, 1]
    assert skeleton.append_source.tolist() == [-1, 3, -1, -1]
    assert found == []


def test_cycles_are_broken():
    skeleton, found = skeleton_of([3, 0, 1, 2, 3])
    assert skeleton.parent.tolist() == [-1, 0, 1, 2, 3]
    assert found == ["bone_cycle"]
    assert skeleton_of([0])[0].parent.tolist() == [-1]
    skeleton, found = skeleton_of([-1, 0, 0], sources=[-1, 2, 1])
    assert (skeleton.append_source.tolist(), found) == ([-1, 2, -1], ["append_cycle"])
    skeleton, found = skeleton_of([-1, 0], sources=[1])  # takes from its own child
    assert (skeleton.append_source.tolist(), found) == ([-1, -1], ["append_cycle"])
    assert skeleton_of([-1, 0], sources=[-1, 1])[1] == ["append_cycle"]  # from itself
    assert not skeleton_of([-1, 0], sources=[1])[0].append_rotation.any()


def test_bones_that_do_not_exist():
    skeleton, found = skeleton_of([-1, 9, -7], sources=[-1, -1, 9])
    assert skeleton.parent.tolist() == [-1, -1, -1]
    assert skeleton.append_source.tolist() == [-1, -1, -1]
    assert found == ["bone_parent_out_of_range"] * 2 + ["append_source_out_of_range"]


def test_bone_numbers():
    table = rows([-1, 0, 1], sources=[-1, -1, 0])
    table[1].position = (np.nan, 0, 0)
    table[2].append_ratio = np.nan
    diagnostics = Diagnostics()
    skeleton = build_skeleton(table, diagnostics)
    assert skeleton.rest.tolist() == [[0, 0, 0], [0, 0, 0], [0, 2, 0]]
    assert skeleton.append_source.tolist() == [-1, -1, -1]
    assert [d.code for d in diagnostics.as_tuple()] == ["bone_value_invalid"] * 2


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_bones_become_a_skeleton(data):
    count = data.draw(st.integers(1, 12))
    index = st.integers(-2, count)
    parents = data.draw(st.lists(index, min_size=count, max_size=count))
    sources = data.draw(st.lists(index, min_size=count, max_size=count))
    layers = data.draw(st.lists(st.integers(-1, 2), min_size=count, max_size=count))
    physics = data.draw(st.sets(st.integers(0, count - 1)))
    table = rows(parents, sources, layers, physics)
    diagnostics = Diagnostics()
    skeleton = build_skeleton(table, diagnostics)
    check_skeleton(skeleton)
    # Nothing is changed without being said, and nothing is said without a change.
    changed = sum(a != b and a != -1 for a, b in zip(parents, skeleton.parent.tolist(), strict=True))
    changed += sum(a != b and a >= 0 for a, b in zip(sources, skeleton.append_source.tolist(), strict=True))
    assert changed == len(diagnostics.as_tuple())
    # Where the rank alone respects every dependency, it is the order.
    rank = sorted(range(count), key=lambda i: (i in physics, layers[i], i))
    place = {bone: k for k, bone in enumerate(rank)}
    needed = [(i, j) for k in (skeleton.parent, skeleton.append_source) for i, j in enumerate(k.tolist()) if j >= 0]
    if all(place[j] < place[i] for i, j in needed):
        assert skeleton.order.tolist() == rank


def test_long_chains_are_no_problem():
    count = 20000
    skeleton, _ = skeleton_of([i + 1 for i in range(count - 1)] + [-1])
    assert skeleton.order.tolist() == list(range(count))[::-1]


def test_names():
    bones = (*BONES, pmx.PmxBone("頭"), pmx.PmxBone("\ud83d腕"))
    model = load(small_pmx(bones=bones))
    assert model.skeleton.name[3:] == ("頭", "\ufffd腕")
    assert [(d.code, d.section, d.index) for d in model.diagnostics] == [
        ("name_damaged", "bones", 4),
        ("name_duplicate", "bones", 3),
    ]


# -- morphs ----------------------------------------------------------------------------------------------------------


def test_morph_entries_that_move_nothing_real_are_dropped():
    uv = np.zeros(2, pmx.UV_OFFSET)
    uv["vertex"], uv["offset"] = [3, 4], 0.5
    bone = np.zeros(3, pmx.BONE_OFFSET)
    bone["bone"], bone["rotation"] = [2, 3, 1], [(0, 0, 0, 2), (0, 0, 0, 1), (0, 0, 0, 0)]
    material = np.zeros(3, pmx.MATERIAL_OFFSET)
    material["material"] = [-1, 0, 1]
    morphs = (
        vertex_morph("a", [0, 4, 1], [(0, 1, 0), (0, 1, 0), (0, np.nan, 0)]),
        pmx.PmxMorph("b", "", 4, pmx.MORPH_UV, uv),
        pmx.PmxMorph("c", "", 4, pmx.MORPH_BONE, bone),
        pmx.PmxMorph("d", "", 4, pmx.MORPH_MATERIAL, material),
        pmx.PmxMorph("e", "", 4, pmx.MORPH_UV + 1, uv),
    )
    model = load(small_pmx(morphs=morphs, header=pmx.PmxHeader(additional_uv_count=1)))
    assert [morph.kind for morph in model.morphs] == ["vertex", "uv", "bone", "material", "other"]
    assert [morph.index.tolist() for morph in model.morphs] == [[0], [3], [2, 1], [-1, 0], []]
    assert model.morphs[2].offset[:, 3:].tolist() == [[0, 0, 0, 1]] * 2
    assert [(d.code, d.index) for d in model.diagnostics] == [
        ("morph_index_out_of_range", 0),
        ("morph_value_invalid", 0),
        ("morph_index_out_of_range", 1),
        ("morph_index_out_of_range", 2),
        ("morph_index_out_of_range", 3),
    ]


def test_groups_in_groups_are_ignored_as_in_mmd():
    morphs = (
        vertex_morph("a", [0], [(0, 1, 0)]),
        group_morph("inner", [0], [1]),
        group_morph("outer", [0, 1, 2, 99], [0.5, 1, 1, 1]),
    )
    model = load(small_pmx(morphs=morphs))
    assert model.morphs[2].index.tolist() == [0]
    assert codes(model) == ["morph_index_out_of_range", "morph_group_nested"]
    flat = flatten_terms(model, [MorphTerm(2)], 0.0)
    assert flat.vertex_offset.tolist() == [[0, 0.5, 0]]


def morph_model() -> Model:
    """16 vertices from x = -1 to 1 (two of them in the middle), bones on both sides, one morph of each kind."""
    file = small_pmx(16)
    file.vertices["position"][:, 0] = np.repeat(np.linspace(-1, 1, 15), [1] * 7 + [2] + [1] * 7)
    bones = (*BONES, pmx.PmxBone("左目", position=(0.5, 2, 0)), pmx.PmxBone("右目", position=(-0.5, 2, 0)))
    rotation = np.zeros(3, pmx.BONE_OFFSET)
    rotation["bone"], rotation["translation"] = [2, 3, 4], (0, 1, 0)
    rotation["rotation"] = (0, np.sin(0.1), 0, np.cos(0.1))
    uv = np.zeros(2, pmx.UV_OFFSET)
    uv["vertex"], uv["offset"] = [0, 15], (0.25, 0.5, 7, 7)
    material = np.zeros(1, pmx.MATERIAL_OFFSET)
    material["diffuse"] = (0, 0, 0, -1)
    offset = np.stack([np.arange(16), np.ones(16), np.zeros(16)], axis=1)
    morphs = (
        vertex_morph("lids", np.arange(16), offset),
        vertex_morph("twice", [3, 3, 15], [(0, 1, 0), (0, 1, 0), (1, 0, 0)]),
        pmx.PmxMorph("bones", "", 2, pmx.MORPH_BONE, rotation),
        pmx.PmxMorph("uv", "", 2, pmx.MORPH_UV, uv),
        pmx.PmxMorph("shown", "", 4, pmx.MORPH_MATERIAL, material),
        group_morph("all", [0, 1, 2, 3, 4], [0.5, 2, 0.5, 1, 1]),
    )
    return load(dataclasses.replace(file, bones=bones, morphs=morphs))


def dense(model: Model, flat) -> tuple[np.ndarray, np.ndarray]:
    position, uv = np.zeros((len(model.position), 3)), np.zeros((len(model.position), 2))
    for index in (flat.vertex_index, flat.uv_index):
        assert (np.diff(index) > 0).all()
    position[flat.vertex_index], uv[flat.uv_index] = flat.vertex_offset, flat.uv_offset
    return position, uv


def test_groups_are_flattened_with_their_weights():
    model = morph_model()
    position, uv = dense(model, flat := flatten_terms(model, [MorphTerm(5, 2.0)], 0.0))
    expected = np.zeros((16, 3))
    for morph, weight in ((0, 1.0), (1, 4.0)):
        for index, offset in zip(model.morphs[morph].index, model.morphs[morph].offset, strict=True):
            expected[index] += weight * offset
    assert np.allclose(position, expected)
    assert uv[[0, 15]].tolist() == [[0.5, 1.0]] * 2
    assert flat.bone_index.tolist() == [2, 3, 4]
    assert flat.bone_weight.tolist() == [1.0] * 3  # 2 * 0.5
    assert flat.bone_rotation[0].tolist() == pytest.approx([0, np.sin(0.1), 0, np.cos(0.1)])
    assert flat.bone_translation.tolist() == [[0, 1, 0]] * 3
    assert (flat.material["material"].tolist(), flat.material_weight.tolist()) == ([0], [2.0])
    assert not flat.empty


def test_sides_are_told_by_x_and_share_the_middle():
    model = morph_model()
    left, right = (flatten_terms(model, [MorphTerm(5, 1.0, side)], 0.0) for side in ("left", "right"))
    middle = np.flatnonzero(np.abs(model.position[:, 0]) <= MIDDLE)
    assert middle.tolist() == [7, 8]
    assert set(left.vertex_index) == set(range(7, 16))
    assert set(right.vertex_index) == set(range(0, 9))
    assert left.vertex_offset[0, 1] == 0.25  # half of 0.5
    assert left.bone_index.tolist() == [2, 3]
    assert left.bone_weight.tolist() == [0.25, 0.5]
    assert right.bone_index.tolist() == [2, 4]
    assert (left.uv_index.tolist(), right.uv_index.tolist()) == ([15], [0])
    assert left.material_weight.tolist() == [0.5]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(-2, 2, width=32)), max_size=5),
    st.sampled_from([0.0, 0.3, -5.0, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_left_and_right_make_the_whole(terms, center):
    model = _MORPHS
    both = flatten_terms(model, [MorphTerm(morph, weight) for morph, weight in terms], center)
    sides = [MorphTerm(morph, weight, side) for side in ("left", "right") for morph, weight in terms]
    halves = [flatten_terms(model, [term for term in sides if term.side == side], center) for side in ("left", "right")]
    whole = flatten_terms(model, sides, center)
    for got in zip(
        dense(model, both), dense(model, halves[0]), dense(model, halves[1]), dense(model, whole), strict=True
    ):
        assert np.allclose(got[0], got[1] + got[2], atol=1e-5)
        assert np.allclose(got[0], got[3], atol=1e-5)
    for bone in range(5):
        shares = [flat.bone_weight[flat.bone_index == bone].sum() for flat in (both, *halves)]
        assert shares[0] == pytest.approx(shares[1] + shares[2], abs=1e-5)
    assert both.material_weight.sum() == pytest.approx(sum(half.material_weight.sum() for half in halves), abs=1e-5)


_MORPHS = morph_model()


def test_no_effect_is_empty():
    for terms in ([], [MorphTerm(0, 0.0)], [MorphTerm(0), MorphTerm(0, -1.0)], [MorphTerm(0, 1.0, "left")]):
        flat = flatten_terms(_MORPHS, terms, 0.0 if len(terms) != 1 or terms[0].side == "both" else 100.0)
        assert flat.empty
        assert flat.vertex_offset.shape == (0, 3)
        assert flat.material.dtype == pmx.MATERIAL_OFFSET


@pytest.mark.parametrize("term", [MorphTerm(6), MorphTerm(-1), MorphTerm(0, np.nan), MorphTerm(0, 1.0, "top")])
def test_terms_that_make_no_sense_are_refused(term):
    with pytest.raises(ModelError) as caught:
        flatten_terms(_MORPHS, [term], 0.0)
    assert caught.value.code == "bad_term"


# -- everything at once ----------------------------------------------------------------------------------------------

_SEEDS = [
    write_pmx(small_pmx(8)),
    write_pmx(
        dataclasses.replace(
            small_pmx(8),
            morphs=(vertex_morph("a", [0, 1], [(0, 1, 0)] * 2), group_morph("g", [0, 1], [1, 1])),
            textures=("a.png",),
            header=pmx.PmxHeader(additional_uv_count=1, vertex_index_size=1, bone_index_size=1, morph_index_size=1),
        )
    ),
    write_pmd(small_pmd()),
]


@given(
    st.sampled_from(_SEEDS),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=5)), max_size=6),
    st.floats(0.2, 1.5),
)
@settings(max_examples=300, deadline=None)
def test_mutated_files_load_as_promised_or_fail_with_one_error(seed, edits, length):
    data = bytearray(seed)
    for place, patch in edits:
        at = int(place * (len(data) - 1))
        data[at : at + len(patch)] = patch
    if length < 1:
        del data[int(len(data) * length) :]
    try:
        model = model_from_bytes(bytes(data), Path("missing-folder/fuzz.pmx"))
    except MmdgenError:
        return
    check_contract(model)


def test_every_code_that_is_used_is_listed_and_every_listed_code_is_used():
    folder = Path(model_package.__path__[0])
    source = "".join(path.read_text("utf-8") for path in folder.glob("*.py") if path.name != "diagnostics.py")
    used = set(re.findall(r'diagnostics\.add\(\s*"(\w+)"', source))
    assert used == set(CODES)
    with pytest.raises(KeyError):
        Diagnostics().add("no_such_code", "x", 0, "")


@pytest.mark.corpus
def test_real_models_load_as_promised_or_say_why():
    for path in real_files(".pmd", ".pmx"):
        try:
            model = load_model(path)
        except MmdgenError:
            if SHARED in path.parents:
                raise
            continue
        check_contract(model)
        assert model.morphs or "group" not in codes(model)
        for kind in MorphKind:
            of_kind = [MorphTerm(number) for number, morph in enumerate(model.morphs) if morph.kind is kind]
            if of_kind:
                flatten_terms(model, of_kind, 0.0)
