"""PMD: byte-exact round trips, truncation at every byte, and what MMD means by PMD's own ways of saying things."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import real_files
from hypothesis import given, settings
from hypothesis import strategies as st
from pmd_build import fixed, small_pmd

from mmdgen.errors import FormatError
from mmdgen.formats.cursor import layout
from mmdgen.formats.pmd import read_pmd, write_pmd
from mmdgen.formats.pmd import records as pmd
from mmdgen.formats.pmd.records import PmdEnglish, PmdFile, PmdIk, PmdMorph, field_text
from mmdgen.formats.sniff import sniff
from mmdgen.model.from_pmd import split_texture
from mmdgen.model.load import model_from_bytes


def model_of(file: PmdFile, path: Path = Path("missing-folder/small.pmd")):
    return model_from_bytes(write_pmd(file), path)


def changed(items: np.ndarray, row: int, **values) -> np.ndarray:
    items = items.copy()
    for field, value in values.items():
        items[field][row] = value
    return items


def test_the_records_have_the_sizes_of_the_format():
    sizes = [d.itemsize for d in (pmd.VERTEX, pmd.MATERIAL, pmd.BONE, pmd.OFFSET, pmd.FRAME_ENTRY, pmd.BODY, pmd.JOINT)]
    assert sizes == [38, 70, 39, 16, 3, 83, 124]


def test_what_is_written_is_read_and_written_again():
    data = write_pmd(small_pmd())
    file = read_pmd(data)
    assert sniff(data) == "pmd"
    assert write_pmd(file) == data
    assert field_text(file.name) == "試験"
    assert file.name.endswith(b"\0" + b"\xfd" * 15)
    assert [field_text(name) for name in file.bones["name"].tolist()] == ["センター", "頭", "両目", "左目", "右目"]
    assert file.iks[0].chain.tolist() == [0, 1]
    assert (file.iks[0].bone, file.iks[0].target, file.iks[0].iterations, file.iks[0].weight) == (1, 2, 40, 0.5)
    assert not file.truncated


@given(
    st.binary(min_size=20, max_size=20),
    st.binary(min_size=256, max_size=256),
    st.binary(max_size=40),
    st.floats(width=32),
)
@settings(max_examples=50, deadline=None)
def test_any_bytes_in_fields_survive(name, comment, tail, number):
    bones = changed(small_pmd().bones, 0, position=number)
    file = small_pmd(name=name, comment=comment, tail=tail, bones=bones, version=number)
    data = write_pmd(file)
    again = read_pmd(data)
    assert (again.name, again.comment, again.tail) == (name, comment, tail)
    assert write_pmd(again) == data


def arrays(dtype: np.dtype, most: int = 3) -> st.SearchStrategy[np.ndarray]:
    """Arrays of any bytes: names without NUL, NaN payloads, wild indices."""
    return st.integers(0, most).flatmap(lambda count: exactly(dtype, count))


def exactly(dtype: np.dtype, count: int) -> st.SearchStrategy[np.ndarray]:
    size = dtype.itemsize * count
    return st.binary(min_size=size, max_size=size).map(lambda raw: np.frombuffer(raw, dtype))


def raw(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


# Any float32, signalling NaN with its payload too.
FLOAT = st.integers(0, 2**32 - 1).map(lambda bits: layout("f").unpack_from(struct.pack("<I", bits), 0)[0])


@st.composite
def files(draw) -> PmdFile:
    """Any file: any bytes in every field, ending before any optional section."""
    u8, u16 = st.integers(0, 255), st.integers(0, 65535)
    names = np.dtype("S20")
    ik = st.builds(PmdIk, u16, u16, u16, FLOAT, arrays(np.dtype("<u2")))
    morph = st.builds(PmdMorph, raw(20), u8, arrays(pmd.OFFSET))
    values = {
        "version": draw(FLOAT),
        "name": draw(raw(20)),
        "comment": draw(raw(256)),
        "vertices": draw(arrays(pmd.VERTEX)),
        "indices": draw(arrays(np.dtype("<u2"), 7)),
        "materials": draw(arrays(pmd.MATERIAL)),
        "bones": draw(arrays(pmd.BONE)),
        "iks": tuple(draw(st.lists(ik, max_size=2))),
        "morphs": tuple(draw(st.lists(morph, max_size=3))),
        "shown_morphs": draw(arrays(np.dtype("<u2"))),
        "frame_names": draw(arrays(np.dtype("S50"))),
        "frame_entries": draw(arrays(pmd.FRAME_ENTRY)),
    }
    sections = draw(st.integers(0, 4))
    if sections > 0:
        values["english_flag"] = draw(st.sampled_from([0, 1, 255]))
    if values.get("english_flag"):
        values["english"] = PmdEnglish(
            draw(raw(20)),
            draw(raw(256)),
            draw(exactly(names, len(values["bones"]))),
            draw(exactly(names, max(len(values["morphs"]) - 1, 0))),
            draw(exactly(np.dtype("S50"), len(values["frame_names"]))),
        )
    if sections > 1:
        values["toons"] = draw(exactly(np.dtype("S100"), 10))
    if sections > 2:
        values["bodies"] = draw(arrays(pmd.BODY))
    if sections > 3:
        values["joints"] = draw(arrays(pmd.JOINT))
        values["tail"] = draw(st.binary(max_size=9))
    return PmdFile(**values)


def contents(record: object) -> object:
    """What a record holds, as bytes and numbers that compare bit by bit."""
    if isinstance(record, np.ndarray):
        return record.dtype, record.tobytes()
    if isinstance(record, tuple):
        return tuple(contents(item) for item in record)
    if isinstance(record, float):
        return layout("f").pack([record])
    if dataclasses.is_dataclass(record):
        return tuple(contents(getattr(record, field.name)) for field in dataclasses.fields(record))
    return record


@given(files())
@settings(max_examples=60, deadline=None)
def test_generated_files_keep_every_bit(file):
    data = write_pmd(file)
    again = read_pmd(data)
    assert contents(again) == contents(file)
    assert write_pmd(again) == data
    assert not again.truncated


@given(st.integers(0, 3000), st.binary(min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_damage_is_an_error_or_kept(position, patch):
    data = bytearray(write_pmd(small_pmd()))
    data[position : position + len(patch)] = patch
    try:
        file = read_pmd(bytes(data))
    except FormatError:
        return
    assert write_pmd(file) == bytes(data)


def test_a_file_may_end_in_the_optional_sections_and_nowhere_before():
    whole = write_pmd(small_pmd())
    required = len(write_pmd(small_pmd(english_flag=None, english=None, toons=None, bodies=None, joints=None)))
    assert required < len(whole)
    ends = {
        required: None,
        required + 1 + 276 + 100 + 20 + 50: "toons",
        required + 1 + 276 + 100 + 20 + 50 + 1000: "bodies",
        required + 1 + 276 + 100 + 20 + 50 + 1000 + 87: "joints",
        len(whole): "all",
    }
    for size in range(len(whole) + 1):
        data = whole[:size]
        if size < required:
            with pytest.raises(FormatError) as caught:
                read_pmd(data)
            assert caught.value.offset <= size
            continue
        file = read_pmd(data)
        assert write_pmd(file) == data
        assert file.truncated == (size not in ends), size
    model = model_from_bytes(whole[: required + 5], Path("x.pmd"))
    assert [d.code for d in model.diagnostics if d.code == "file_truncated"] == ["file_truncated"]


def test_a_count_that_the_file_cannot_hold_names_its_field():
    data = bytearray(write_pmd(small_pmd()))
    data[283:287] = b"\xff\xff\xff\xff"
    with pytest.raises(FormatError) as caught:
        read_pmd(bytes(data), "big.pmd")
    assert (caught.value.file, caught.value.field, caught.value.offset) == ("big.pmd", "vertices.count", 283)


def test_the_writer_refuses_what_pmd_cannot_hold():
    for changes, field in (
        ({"name": b"x" * 21}, "name"),
        ({"bones": np.zeros(70000, pmd.BONE)}, "bones.count"),
        ({"toons": None}, "toons"),
        ({"english_flag": 0}, "english"),
        ({"toons": np.zeros(9, "S100")}, "toons"),
        ({"bones": np.zeros(4, pmd.BONE)}, "bones"),
        ({"vertices": np.zeros(4, pmd.BONE)}, "vertices"),
    ):
        with pytest.raises(FormatError) as caught:
            write_pmd(small_pmd(**changes))
        assert field in str(caught.value)


def test_it_becomes_a_model():
    file = small_pmd()
    model = model_of(file)
    assert (model.name, model.name_en, model.comment) == ("試験", "test", "作者")
    assert np.array_equal(model.position, file.vertices["position"])
    assert model.face.tolist() == [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]
    assert model.bone_weight[2].tolist() == pytest.approx([0.7, 0.3, 0, 0])
    assert model.bone_weight[3].tolist() == [0, 1, 0, 0]
    assert model.bone_index[:, :2].tolist() == [[1, 0]] * 8
    assert model.edge_scale.tolist() == [1, 1, 1, 1, 1, 0, 1, 1]
    assert model.uv1 is None
    assert len(model.sdef.vertex) == 0


def test_bones_take_rotations_as_their_kinds_say():
    skeleton = model_of(small_pmd()).skeleton
    assert skeleton.name == ("センター", "頭", "両目", "左目", "右目")
    assert skeleton.name_en == ("center", "head", "eyes", "eye L", "eye R")
    assert skeleton.parent.tolist() == [-1, 0, 1, 1, 1]
    assert skeleton.append_source.tolist() == [-1, -1, -1, 2, 2]
    assert skeleton.append_ratio.tolist() == pytest.approx([0, 0, 0, 1, -0.3])
    assert skeleton.append_rotation.tolist() == [False, False, False, True, True]
    assert not skeleton.append_translation.any()


def test_bones_without_a_source_take_nothing():
    bones = changed(changed(small_pmd().bones, 3, ik=0), 4, tail=0xFFFF)
    skeleton = model_of(small_pmd(bones=bones)).skeleton
    assert skeleton.append_source.tolist() == [-1] * 5


def test_morphs_are_relative_to_the_base():
    model = model_of(small_pmd())
    assert [(m.name, m.name_en, m.panel, m.kind) for m in model.morphs] == [("まばたき", "blink", 2, "vertex")]
    assert model.morphs[0].index.tolist() == [5, 6]
    assert model.morphs[0].offset.tolist() == [[0, -1, 0], [0, -0.5, 0]]


@pytest.mark.parametrize("index", [4, 1000, 0xFFFFFFFF])
def test_morph_entries_past_the_base_are_dropped(index):
    file = small_pmd()
    bad = changed(file.morphs[1].offsets, 0, index=index)
    model = model_of(dataclasses.replace(file, morphs=(file.morphs[0], PmdMorph(fixed("a"), 2, bad))))
    assert model.morphs[0].index.tolist() == [6]
    assert "morph_index_out_of_range" in [d.code for d in model.diagnostics]


def test_materials_are_what_mmd_makes_of_them():
    first, second = model_of(small_pmd()).materials
    assert first.diffuse == (0.25, 0.5, 0.75, 1.0)
    assert first.specular == (0.125, 0.25, 0.375)
    assert (first.specular_power, first.ambient) == (6.0, (0.5, 0.625, 0.875))
    assert (first.double_sided, first.edge, first.edge_size) == (False, True, 1.0)
    assert (first.first_face, first.face_count, second.first_face, second.face_count) == (0, 2, 2, 2)
    assert (second.double_sided, second.edge) == (True, False)
    assert second.diffuse[3] == pytest.approx(0.98)


def test_texture_fields_name_textures_and_spheres():
    assert split_texture("a.bmp") == ("a.bmp", "", 0)
    assert split_texture("a.bmp*b.sph") == ("a.bmp", "b.sph", 1)
    assert split_texture("b.SPA*a.bmp") == ("a.bmp", "b.SPA", 2)
    assert split_texture("b.sph") == ("", "b.sph", 1)
    assert split_texture("") == ("", "", 0)
    model = model_of(small_pmd())
    first, second = model.materials
    assert model.textures[first.texture].name == "face.bmp"
    assert (model.textures[first.sphere_texture].name, first.sphere_mode) == ("shine.sph", 1)
    assert second.texture == -1
    assert (model.textures[second.sphere_texture].name, second.sphere_mode) == ("glow.spa", 2)
    missing = [d.message for d in model.diagnostics if d.code == "texture_missing"]
    assert missing == ["face.bmp", "shine.sph", "glow.spa"]


def test_toons_are_the_files_own_then_the_shared_ones(tmp_path):
    own = small_pmd()
    names = own.toons.copy() if own.toons is not None else np.zeros(10, "S100")
    names[3] = b"mine.bmp"
    (tmp_path / "mine.bmp").write_bytes(b"BM")
    for file, path, expected in (
        (own, tmp_path, (None, 3)),  # toon04.bmp is not there: MMD's own
        (small_pmd(toons=None, bodies=None, joints=None), tmp_path, (None, 3)),
        (small_pmd(toons=names), tmp_path, ("mine.bmp", -1)),
    ):
        model = model_of(file, path / "m.pmd")
        first, second = model.materials
        name = model.textures[first.toon_texture].name if first.toon_texture >= 0 else None
        assert (name, first.toon_shared) == expected
        assert (second.toon_texture, second.toon_shared) == (-1, -1)
    (tmp_path / "Toon04.BMP").write_bytes(b"BM")
    model = model_of(own, tmp_path / "m.pmd")
    assert model.textures[model.materials[0].toon_texture].path == tmp_path / "Toon04.BMP"


def test_damage_is_repaired_and_said():
    file = small_pmd()
    materials = changed(changed(file.materials, 0, toon=77, index_count=7), 1, ambient=np.nan)
    bones = changed(file.bones, 2, parent=3, name=b"\x83")
    vertices = changed(changed(file.vertices, 0, bone=(9, 0)), 1, weight=130)
    broken = dataclasses.replace(
        file,
        materials=materials,
        bones=bones,
        vertices=vertices,
        indices=np.append(file.indices, [1]).astype("<u2"),
    )
    model = model_of(broken)
    codes = {d.code for d in model.diagnostics}
    assert codes >= {
        "texture_index_out_of_range",
        "material_face_count",
        "material_value_invalid",
        "name_damaged",
        "weight_bone_out_of_range",
        "weight_invalid",
        "face_remainder",
        "append_cycle",
    }
    assert model.skeleton.name[2] == "\ufffd"
    assert np.allclose(model.bone_weight.sum(axis=1), 1)


# -- real files --------------------------------------------------------------------------------------------------------


@pytest.mark.corpus
def test_real_files_survive_a_round_trip():
    for path in real_files(".pmd"):
        data = path.read_bytes()
        assert write_pmd(read_pmd(data, str(path))) == data, path


@pytest.mark.corpus
def test_a_pmd_and_the_pmx_made_of_it_are_the_same_model(shared):
    folder = shared / "models" / "mmdagent" / "gene"
    old, new = (
        model_from_bytes((folder / f"Gene_light.{kind}").read_bytes(), folder / f"Gene_light.{kind}")
        for kind in ("pmd", "pmx")
    )
    assert np.allclose(old.position, new.position, atol=1e-5)
    assert np.array_equal(old.face, new.face)
    assert np.allclose(old.normal, new.normal, atol=1e-3)
    assert np.allclose(old.uv, new.uv)
    assert old.skeleton.name == new.skeleton.name
    for field in ("parent", "append_source", "append_rotation"):
        assert np.array_equal(getattr(old.skeleton, field), getattr(new.skeleton, field)), field
    assert np.allclose(old.skeleton.append_ratio, new.skeleton.append_ratio)
    assert np.allclose(old.skeleton.rest, new.skeleton.rest, atol=1e-5)
    for a, b in zip(old.materials, new.materials, strict=True):
        assert (a.first_face, a.face_count, a.sphere_mode) == (b.first_face, b.face_count, b.sphere_mode)
        assert a.diffuse[:3] == pytest.approx(b.diffuse[:3])
        assert a.ambient == pytest.approx(b.ambient)
        if a.diffuse[3] == 1.0:  # the author changed the translucent ones in the PMX
            assert (b.diffuse[3], a.double_sided, a.edge) == (1.0, b.double_sided, b.edge)
    by_name = {morph.name: morph for morph in new.morphs if morph.kind == "vertex"}
    # PMX does not cut names after 20 bytes, and the author made material morphs of a few.
    pairs = [(morph, by_name[morph.name]) for morph in old.morphs if morph.name in by_name]
    assert len(pairs) >= len(old.morphs) - 6
    for morph, other in pairs:
        dense = np.zeros((2, len(old.position), 3))
        dense[0, morph.index], dense[1, other.index] = morph.offset, other.offset
        assert np.allclose(dense[0], dense[1], atol=1e-5), morph.name
