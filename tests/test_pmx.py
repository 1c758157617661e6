"""PMX: exact round trips, damaged files, real files, an independent reader and other people's goldens."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pmx_build import Builder, build_pmx, cut_sections, same
from pmx_strategies import headers, pmx_files

from mmdgen.errors import FormatError
from mmdgen.formats.cursor import Cursor
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.reader import read_pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.formats.sniff import sniff
from mmdgen.formats.text import is_clean

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
MANY = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Not valid PMX: its header promises bone indices of one byte, its vertices have two.
DAMAGED_SHARED = {"joint_orient_test.pmx": "vertices[13].deform"}


def small(**changes) -> pmx.PmxFile:
    """A small 2.1 file with two records in every section."""
    return dataclasses.replace(build_pmx(5, vertices=4), **changes)


def failure(data: bytes) -> FormatError:
    """The error that `data` gives; it must be the only thing that happens and say where."""
    with pytest.raises(FormatError) as caught:
        read_pmx(data, "model.pmx")
    error = caught.value
    assert error.file == "model.pmx"
    assert 0 <= error.offset <= len(data)
    assert error.field
    assert str(error).startswith(f"model.pmx: {error.field} at byte {error.offset}: ")
    return error


# -- round trips ------------------------------------------------------------------------------------------------------


@MANY
@given(pmx_files())
def test_any_file_comes_back(file):
    data = write_pmx(file)
    again = read_pmx(data)
    assert same(again, file)
    assert write_pmx(again) == data
    assert sniff(data) == "pmx"


@MANY
@given(headers(), st.integers(0, 2**32), st.data())
def test_changed_bytes_give_an_error_or_an_exact_round_trip(header, seed, data):
    raw = bytearray(write_pmx(build_pmx(seed, header, wild=True)))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        file = read_pmx(bytes(raw), "model.pmx")
    except FormatError:
        failure(bytes(raw))
    else:
        assert write_pmx(file) == bytes(raw)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_an_error(noise):
    failure(b"PMX " + struct.pack("<f", 2.0) + noise[:20] + b"\xff" * 8)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_vertex_indices_are_unsigned_when_small_and_others_signed(size):
    header = pmx.PmxHeader(vertex_index_size=size, bone_index_size=size, texture_index_size=size)
    top = {1: 255, 2: 65535, 4: 2**31 - 1}[size]
    offsets = np.array([(top, (1, 2, 3))], pmx.VERTEX_OFFSET)
    file = build_pmx(1, header, records=0)
    file = dataclasses.replace(
        file,
        faces=np.array([[0, top // 2 + 1, top]], np.int32),
        morphs=(pmx.PmxMorph("m", "", 1, pmx.MORPH_VERTEX, offsets),),
        bones=(pmx.PmxBone("b", parent_index=-1),),
        materials=(pmx.PmxMaterial("m", texture_index=-1, sphere_index=-(256**size) // 2),),
    )
    again = read_pmx(write_pmx(file))
    assert again.faces.tolist() == [[0, top // 2 + 1, top]]
    assert again.morphs[0].offsets["vertex"].tolist() == [top]
    assert again.bones[0].parent_index == -1
    assert again.materials[0].sphere_index == -(256**size) // 2


def test_fields_that_a_deform_type_lacks_are_empty():
    file = read_pmx(write_pmx(build_pmx(3, pmx.PmxHeader(additional_uv_count=1), vertices=50)))
    v = file.vertices
    assert set(v["deform"].tolist()) == {0, 1, 2, 3, 4}
    one, two = v[v["deform"] == pmx.BDEF1], v[(v["deform"] == pmx.BDEF2) | (v["deform"] == pmx.SDEF)]
    assert (one["bone_index"][:, 1:] == -1).all()
    assert (one["bone_weight"] == 0).all()
    assert (two["bone_index"][:, 2:] == -1).all()
    assert (two["bone_weight"][:, 1:] == 0).all()
    assert (v["sdef_c"][v["deform"] != pmx.SDEF] == 0).all()
    assert (v["sdef_r1"][v["deform"] == pmx.SDEF] != 0).any()
    assert (v["additional_uv"][:, 0] != 0).any()
    assert (v["additional_uv"][:, 1:] == 0).all()


def test_damaged_names_are_kept_and_recognisable():
    header = pmx.PmxHeader(encoding="utf-16-le")
    data = write_pmx(dataclasses.replace(build_pmx(1, header, records=0), name="ab"))
    at = data.index("ab".encode("utf-16-le"))
    odd = data[: at - 4] + struct.pack("<i", 3) + data[at : at + 3] + data[at + 4 :]
    for raw in (odd, data.replace("ab".encode("utf-16-le"), b"\x00\xd8b\x00")):
        file = read_pmx(raw)
        assert not is_clean(file.name)
        assert write_pmx(file) == raw
    assert is_clean(read_pmx(data).name)


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "seed"), [(2.0, 1), (2.1, 2)])
def test_cut_at_every_byte(version, seed):
    header = pmx.PmxHeader(version=version, additional_uv_count=1, bone_index_size=1)
    file = build_pmx(seed, header, vertices=4, records=1)
    data = write_pmx(file)
    complete = 4 if version > 2.0 else 3
    ends = [len(write_pmx(cut_sections(file, n))) for n in range(complete)] + [len(data)]
    for cut in range(len(data)):
        if cut < ends[0] or ends[0] < cut < ends[1]:
            error = failure(data[:cut])
            assert error.field.startswith("header") or "ends too early" in error.reason or "left" in error.reason
            continue
        part = read_pmx(data[:cut])
        sections = max(n for n in range(complete) if ends[n] <= cut)
        assert part.sections == sections
        assert part.tail == data[ends[sections] : cut]
        assert same(dataclasses.replace(part, tail=b""), cut_sections(file, sections))
        assert write_pmx(part) == data[:cut]
    assert read_pmx(data).sections is None


def counted(data: bytes) -> dict[str, tuple[int, str]]:
    """The place of every count and text length in a file: field path -> (byte offset, number kind)."""
    found: dict[str, tuple[int, str]] = {}

    class Recorder(Cursor):
        def count(self, field, minimum, kind="i"):
            found[self.path(field)] = (self.position, kind)
            return super().count(field, minimum, kind)

        def text(self, encoding, field):
            found[self.path(field)] = (self.position, "i")
            return super().text(encoding, field)

    from mmdgen.formats.pmx.reader import _Reader

    _Reader(Recorder(data)).read()
    return found


def test_every_count_is_checked_before_it_is_believed():
    data = write_pmx(build_pmx(7, records=2))
    places = counted(data)
    expected = {f"{name}.count" for name in ("vertices", "faces", "textures", "materials", "bones", "morphs", "frames")}
    expected |= {"bones[1].ik.links.count", "morphs[0].offsets.count", "frames[0].elements.count", "textures[1]"}
    expected |= {"materials[1].memo", "bodies.count", "joints[1].name", "soft_bodies[0].anchors.count"}
    assert expected <= set(places)
    for path, (offset, kind) in places.items():
        if kind != "i":
            continue
        for value in (-1, -(2**31), 2**31 - 1, 2**30):
            bad = data[:offset] + struct.pack("<i", value) + data[offset + 4 :]
            if value > 0 and path.startswith(("bodies", "joints", "soft_bodies")):
                # More than the file holds: as for a file that was cut there, which MMD opens.
                part = read_pmx(bad)
                assert part.sections == {"bodies": 1, "joints": 2, "soft_bodies": 3}[path.split("[")[0].split(".")[0]]
                assert write_pmx(part) == bad
                continue
            error = failure(bad)
            assert (error.field, error.offset) == (path, offset)
            assert str(value) in error.reason


def test_a_huge_count_allocates_nothing():
    data = write_pmx(small())
    for path in ("vertices.count", "faces.count", "bones.count", "morphs[1].offsets.count"):
        offset, _ = counted(data)[path]
        bad = data[:offset] + struct.pack("<i", 2_147_483_646) + data[offset + 4 :]
        tracemalloc.start()
        failure(bad)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


@pytest.mark.parametrize(
    ("offset", "value", "field"),
    [
        (0, b"PMD ", "header.signature"),
        (0, b"Pmx ", "header.signature"),
        (4, struct.pack("<f", 1.0), "header.version"),
        (4, struct.pack("<f", 2.2), "header.version"),
        (4, struct.pack("<f", float("nan")), "header.version"),
        (8, b"\x07", "header.count"),
        (9, b"\x02", "header.encoding"),
        (10, b"\x05", "header.additional_uv_count"),
        (11, b"\x00", "header.vertex_index_size"),
        (12, b"\x03", "header.texture_index_size"),
        (13, b"\x08", "header.material_index_size"),
        (14, b"\xff", "header.bone_index_size"),
        (15, b"\x05", "header.morph_index_size"),
        (16, b"\x00", "header.body_index_size"),
    ],
)
def test_bad_headers(offset, value, field):
    data = write_pmx(small())
    error = failure(data[:offset] + value + data[offset + len(value) :])
    assert (error.field, error.offset) == (field, offset)


def test_header_longer_than_eight_is_kept():
    file = small(header=pmx.PmxHeader(version=2.1, extra_globals=b"\x09\x00\xff", signature=b"PMX\xa0"))
    data = write_pmx(file)
    assert data[8] == 11
    again = read_pmx(data)
    assert again.header.extra_globals == b"\x09\x00\xff"
    assert same(again, file)


@pytest.mark.parametrize("kinds", [(1,), (0, 1, 2, 3)])
def test_unknown_deform_type(kinds):
    data = write_pmx(build_pmx(2, vertices=9, kinds=kinds))
    file = read_pmx(data)
    sizes = {0: 39, 1: 45, 2: 61, 3: 81, 4: 61}  # with bone indices of two bytes
    block = counted(data)["vertices.count"][0] + 4
    at = block + sum(sizes[int(kind)] for kind in file.vertices["deform"][:7]) + 32
    assert data[at] == file.vertices["deform"][7]
    error = failure(data[:at] + b"\x05" + data[at + 1 :])
    assert (error.field, error.offset) == ("vertices[7].deform", at)
    assert "unknown kind 5" in error.reason


def test_wrong_index_sizes_in_the_header_are_noticed():
    data = write_pmx(build_pmx(2, pmx.PmxHeader(bone_index_size=2), vertices=40))
    for size in (b"\x01", b"\x04"):
        assert failure(data[:14] + size + data[15:]).field.startswith("vertices[")


def test_unknown_toon_kind():
    material = dataclasses.replace(build_pmx(5).materials[0], name="@@@@", toon_shared=1, toon_index=77)
    data = write_pmx(small(materials=(material,)))
    marker = data.index("@@@@".encode("utf-16-le")) + 8
    size = struct.unpack_from("<i", data, marker)[0]
    at = marker + 4 + size + 11 * 4 + 1 + 5 * 4 + 2 + 1
    assert data[at : at + 2] == b"\x01\x4d"
    error = failure(data[:at] + b"\x02" + data[at + 1 :])
    assert (error.field, error.offset) == ("materials[0].toon_shared", at)


def patched(data: bytes, path: str, back: int, value: int) -> tuple[bytes, int]:
    """`data` with one byte changed that lies `back` bytes before the count at `path`."""
    at = counted(data)[path][0] - back
    return data[:at] + bytes([value]) + data[at + 1 :], at


def test_unknown_kinds_inside_records():
    data = write_pmx(small())
    bad, at = patched(data, "morphs[3].offsets.count", 1, 11)
    error = failure(bad)
    assert (error.field, error.offset) == ("morphs[3].kind", at)
    assert "unknown morph kind 11" in error.reason

    file = small(frames=(pmx.PmxDisplayFrame("f", "", 0, ((0, 1),)),))
    data = write_pmx(file)
    bad, at = patched(data, "frames[0].elements.count", -4, 2)
    assert (failure(bad).field, failure(bad).offset) == ("frames[0].elements[0].kind", at)

    ik = pmx.PmxIk(0, 1, 0.5, (pmx.PmxIkLink(1),))
    data = write_pmx(small(bones=(pmx.PmxBone("b", flags=pmx.BONE_IK, ik=ik),)))
    bad, at = patched(data, "bones[0].ik.links.count", -4 - 2, 2)
    assert (failure(bad).field, failure(bad).offset) == ("bones[0].ik.links[0].has_limits", at)

    data = write_pmx(small())
    bad, at = patched(data, "faces.count", 0, 13)
    assert (failure(bad).field, failure(bad).offset) == ("faces.count", at)


def test_negative_material_count():
    data = write_pmx(small(bones=()))
    at = counted(data)["bones.count"][0] - 4
    bad = data[:at] + struct.pack("<i", -3) + data[at + 4 :]
    assert (failure(bad).field, failure(bad).offset) == ("materials[1].index_count", at)


def test_errors_survive_the_way_from_a_worker():
    error = failure(write_pmx(small())[:100])
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, FormatError)
    assert (str(again), again.offset, again.field) == (str(error), error.offset, error.field)


# -- what the writer refuses ------------------------------------------------------------------------------------------


def refused(file: pmx.PmxFile) -> FormatError:
    with pytest.raises(FormatError) as caught:
        write_pmx(file)
    return caught.value


def test_the_writer_refuses_what_the_header_cannot_hold():
    header = pmx.PmxHeader(vertex_index_size=1, bone_index_size=1, morph_index_size=1, encoding="utf-8")
    file = build_pmx(1, header, records=0)
    bone = pmx.PmxBone("b")
    many = np.array([(256, (0, 0, 0))], pmx.VERTEX_OFFSET)
    vertices = file.vertices.copy()
    vertices["bone_index"][2, 0] = 128
    cases = {
        "faces[2]": {"faces": np.array([[0, 1, 256]], np.int32)},
        "bones[0].values": {"bones": (dataclasses.replace(bone, parent_index=128),)},
        "bones[1].name": {"bones": (bone, dataclasses.replace(bone, name="\ud800"))},
        "morphs[0].offsets[0].vertex": {"morphs": (pmx.PmxMorph("m", "", 1, pmx.MORPH_VERTEX, many),)},
        "morphs[0].offsets": {"morphs": (pmx.PmxMorph("m", "", 1, pmx.MORPH_BONE, many),)},
        "morphs[0].kind": {"morphs": (pmx.PmxMorph("m", "", 1, 11, many),)},
        "vertices[2].bone_index": {"vertices": vertices},
        "vertices": {"vertices": np.zeros((3, 3))},
        "soft_bodies": {"soft_bodies": (Builder(1, header, False).soft_body(),)},
        "sections": {"sections": 4},
        "bodies": {"sections": 1, "bodies": (Builder(1, header, False).body(),)},
        "header.version": {"header": dataclasses.replace(header, version=1.0)},
        "header": {"header": dataclasses.replace(header, bone_index_size=3)},
    }
    for field, change in cases.items():
        assert refused(dataclasses.replace(file, **change)).field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"flags": pmx.BONE_IK}, "ik"),
        ({"flags": pmx.BONE_FIXED_AXIS}, "fixed_axis"),
        ({"flags": 0, "fixed_axis": (1.0, 0.0, 0.0)}, "fixed_axis"),
        ({"flags": pmx.BONE_LOCAL_AXES}, "local_axes"),
        ({"flags": pmx.BONE_EXTERNAL_PARENT}, "external_key"),
        ({"flags": pmx.BONE_TAIL_IS_BONE}, "tail"),
        ({"flags": 0, "tail": 3}, "tail"),
        ({"flags": 0, "append_index": 3}, "append_index"),
    ],
)
def test_bone_flags_and_fields_must_agree(change, field):
    bone = dataclasses.replace(pmx.PmxBone("b"), **change)
    assert refused(small(bones=(bone,))).field == f"bones[0].{field}"


# -- other readers and real files -------------------------------------------------------------------------------------


def bench():
    spec = importlib.util.spec_from_file_location("bench_parse", ROOT / "tools" / "bench" / "parse.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("deform", ["mixed", "runs", "one"])
def test_a_reader_that_goes_field_by_field_agrees(deform):
    parse = bench()
    data = parse.build_file(700, deform)
    file = read_pmx(data)
    assert parse.agree(file, parse.FieldByField(data).read())
    assert write_pmx(file) == data
    altered = dataclasses.replace(file, faces=file.faces[:, ::-1])
    assert not parse.agree(altered, parse.FieldByField(data).read())  # the comparison can fail


@pytest.mark.slow
def test_far_faster_than_field_by_field():
    parse = bench()
    data = parse.build_file(20_000, "mixed")
    plain = min(parse.milliseconds(lambda: parse.FieldByField(data).read()) for _ in range(2))
    fast = min(parse.milliseconds(lambda: read_pmx(data)) for _ in range(6))
    assert plain / fast > 15  # 40 and more when measured alone; see tools/bench/parse.py


def model_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".pmx")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared models are not here")
def test_shared_files_come_back_exactly():
    files = model_files(SHARED)
    damaged = {}
    for path in files:
        data = path.read_bytes()
        try:
            file = read_pmx(data, str(path))
        except FormatError as error:
            damaged[path.name] = error.field
            continue
        assert write_pmx(file) == data, path
        assert file.sections is None, path
    assert len(files) >= 30
    assert damaged == DAMAGED_SHARED


@pytest.mark.corpus
@pytest.mark.skipif("MMDGEN_CORPUS" not in os.environ, reason="MMDGEN_CORPUS names no folder of real models")
def test_corpus_files_come_back_exactly():
    files = model_files(Path(os.environ["MMDGEN_CORPUS"]))
    assert files
    exact = 0
    for path in files:
        data = path.read_bytes()
        try:
            file = read_pmx(data, str(path))
        except FormatError:
            continue
        assert write_pmx(file) == data, path
        exact += 1
    assert exact >= 0.9 * len(files)


GOLDENS = sorted((SHARED / "goldens" / "parser").glob("*_model.json"))


@pytest.mark.goldens
@pytest.mark.skipif(not GOLDENS, reason="the shared parser goldens are not here")
@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_parser_goldens_agree(path):
    golden = json.loads(path.read_text(encoding="utf-8"))
    file = read_pmx(path.with_name(path.name.replace("_model.json", ".pmx")).read_bytes())
    assert set(golden) <= {"name", "vertices", "indices", "bones", "materials", "ik", "morphs", "physics"}
    # None of these models has any of the following, and that is what the goldens say.
    assert [len(file.morphs), len(file.bodies), len(file.joints)] == [0, 0, 0]
    assert not golden["morphs"]
    assert not any(golden.get("physics", {}).values())
    assert_close(file.name, golden["name"])
    assert len(file.vertices) == len(golden["vertices"])
    for row, (vertex, expected) in enumerate(zip(file.vertices, golden["vertices"], strict=True)):
        count = len(expected["boneIndices"])
        assert count == {pmx.BDEF1: 1, pmx.BDEF2: 2, pmx.SDEF: 2}.get(int(vertex["deform"]), 4)
        weights = [1.0] if count == 1 else vertex["bone_weight"][:count]
        if count == 2:
            weights = [weights[0], 1 - weights[0]]
        found = {
            "index": row,
            "position": vertex["position"],
            "normal": vertex["normal"],
            "uv": vertex["uv"],
            "boneIndices": vertex["bone_index"][:count],
            "boneWeights": weights,
        }
        assert_close(found, expected)
    assert_close(file.faces.reshape(-1), golden["indices"])
    assert len(file.bones) == len(golden["bones"])
    for index, expected in enumerate(golden["bones"]):
        assert_close({key: value for key, value in golden_bone(index, file).items() if key in expected}, expected)
    chains = [golden_ik(index, bone.ik) for index, bone in enumerate(file.bones) if bone.ik is not None]
    if "ik" in golden:
        assert_close(chains, golden["ik"])
    for index, (material, expected) in enumerate(zip(file.materials, golden.get("materials", []), strict=True)):
        names = {-1: "", **dict(enumerate(file.textures))}
        found = {
            "index": index,
            "name": material.name,
            "texture": names[material.texture_index],
            "sphereTexture": names[material.sphere_index],
            "toonTexture": "" if material.toon_shared else names[material.toon_index],
            "vertexCount": material.index_count,
        }
        assert_close(found, expected)


def golden_bone(index: int, file: pmx.PmxFile) -> dict:
    """A bone in the words of the goldens; what a bone lacks has the values that their reader gives it."""
    bone = file.bones[index]
    axes = bone.local_axes or ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    append = bone.flags & (pmx.BONE_APPEND_ROTATION | pmx.BONE_APPEND_TRANSLATION)
    return {
        "index": index,
        "name": bone.name,
        "parentIndex": bone.parent_index,
        "transformOrder": bone.layer,
        "origin": bone.position,
        "isMovable": bool(bone.flags & pmx.BONE_MOVABLE),
        "isRotatable": bool(bone.flags & pmx.BONE_ROTATABLE),
        "appendParentIndex": bone.append_index,
        "appendRatio": bone.append_ratio if append else 1.0,
        "appendRotation": bool(bone.flags & pmx.BONE_APPEND_ROTATION),
        "appendTranslation": bool(bone.flags & pmx.BONE_APPEND_TRANSLATION),
        "appendLocal": bool(bone.flags & pmx.BONE_APPEND_LOCAL),
        "fixedAxis": bool(bone.flags & pmx.BONE_FIXED_AXIS),
        "fixedAxisVector": bone.fixed_axis or (0.0, 0.0, 0.0),
        "localAxes": bool(bone.flags & pmx.BONE_LOCAL_AXES),
        "localXAxis": axes[0],
        "localZAxis": axes[1],
        "externalParentTransform": bool(bone.flags & pmx.BONE_EXTERNAL_PARENT),
        "deformAfterPhysics": bool(bone.flags & pmx.BONE_AFTER_PHYSICS),
    }


def golden_ik(index: int, ik: pmx.PmxIk) -> dict:
    none = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    return {
        "boneIndex": index,
        "targetBoneIndex": ik.target_index,
        "iterationCount": ik.loop_count,
        "angleLimit": ik.limit_angle,
        "links": [
            {
                "boneIndex": link.bone_index,
                "hasLimit": link.limits is not None,
                "minimumAngle": (link.limits or none)[0],
                "maximumAngle": (link.limits or none)[1],
            }
            for link in ik.links
        ],
    }


def assert_close(found, expected, path: str = "") -> None:
    """Equal in structure and text; numbers to the precision of a float32."""
    if isinstance(expected, dict):
        assert set(found) == set(expected), path
        for key in expected:
            assert_close(found[key], expected[key], f"{path}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for i, value in enumerate(expected):
            assert_close(found[i], value, f"{path}[{i}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-12), path
    else:
        assert found == expected, path
