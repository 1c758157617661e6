"""VMD: byte-exact round trips, truncation at every byte, known contents of real files, and motions between keys."""

from __future__ import annotations

import dataclasses
import json
import struct

import numpy as np
import pytest
from conftest import real_files
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdgen.errors import FormatError
from mmdgen.formats.sniff import sniff
from mmdgen.formats.vmd import VmdFile, read_vmd, write_vmd
from mmdgen.formats.vmd import records as vmd
from mmdgen.formats.vmd.records import curves_of, field_text, interpolation_of, physics_of
from mmdgen.pose.keyframes import Tracks, bezier, track_name, tracks_of

SOME = settings(max_examples=60, deadline=None)
LINEAR = np.array([[20, 20, 107, 107]] * 4, np.uint8)
SECTIONS = ("morphs", "cameras", "lights", "shadows", "properties")


def fixed(text: str, size: int = vmd.KEY_NAME_SIZE) -> bytes:
    """A name as MMD writes it: cut to the field, perhaps in the middle of a character; garbage after the NUL."""
    return (text.encode("cp932") + b"\0").ljust(size, b"\xfd")[:size]


def bone_keys(*keys: tuple) -> np.ndarray:
    """Keys (name, frame, position, rotation, curves)."""
    rows = np.zeros(len(keys), vmd.BONE)
    for row, (name, frame, position, rotation, curves) in zip(rows, keys, strict=True):
        row["name"], row["frame"], row["position"], row["rotation"] = fixed(name), frame, position, rotation
        row["interpolation"] = interpolation_of(curves)
    return rows


def morph_keys(*keys: tuple) -> np.ndarray:
    return np.array([(fixed(name), frame, weight) for name, frame, weight in keys], vmd.MORPH)


def small_vmd(**changes) -> VmdFile:
    """A file with every section: two bones, a morph, camera, light, shadow and three property keys (2, 0, 1 IKs)."""
    camera, light, shadow = np.zeros(1, vmd.CAMERA), np.zeros(2, vmd.LIGHT), np.zeros(1, vmd.SHADOW)
    camera["distance"], camera["fov_deg"], camera["interpolation"] = -45, 30, (20, 107, 20, 107)
    light["color"], shadow["mode"] = 0.6, 1
    values = {
        "signature": vmd.SIGNATURE,
        "name": fixed("試験モデル", 20),
        "bones": bone_keys(
            ("頭", 0, (0, 0, 0), (0, 0, 0, 1), LINEAR),
            ("首", 30, (1, 2, 3), (0, 0.6, 0, 0.8), LINEAR),
            ("頭", 30, (0, 0, 0), (1, 0, 0, 0), LINEAR),
        ),
        "morphs": morph_keys(("まばたき", 0, 0.0), ("まばたき", 10, 1.0)),
        "cameras": camera,
        "lights": light,
        "shadows": shadow,
        "properties": np.array([(0, 1, 2), (5, 0, 0), (9, 1, 1)], vmd.PROPERTY),
        "iks": np.array([(fixed("左足ＩＫ", 20), 1), (fixed("右足ＩＫ", 20), 0), (fixed("左足ＩＫ", 20), 0)], vmd.IK),
    }
    return VmdFile(**{**values, **changes})


def same(a: VmdFile, b: VmdFile) -> bool:
    """Whether two files hold the same bytes in every field."""
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(VmdFile)]
    return all((x.tobytes() == y.tobytes()) if isinstance(x, np.ndarray) else x == y for x, y in pairs)


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_the_records_have_the_sizes_of_the_format():
    dtypes = (vmd.BONE, vmd.MORPH, vmd.CAMERA, vmd.LIGHT, vmd.SHADOW, vmd.PROPERTY, vmd.IK)
    assert [d.itemsize for d in dtypes] == [111, 23, 61, 28, 9, 9, 21]


def test_the_bytes_are_where_the_format_has_them():
    data = write_vmd(small_vmd())
    assert data[:30] == b"Vocaloid Motion Data 0002" + bytes(5)
    assert data[30:50] == fixed("試験モデル", 20)
    assert struct.unpack_from("<I", data, 50) == (3,)
    second = 54 + 111
    assert data[second : second + 15] == fixed("首")
    assert struct.unpack_from("<I7f", data, second + 15) == pytest.approx((30, 1, 2, 3, 0, 0.6, 0, 0.8))
    morphs = 54 + 3 * 111
    assert struct.unpack_from("<I15sIf", data, morphs) == (2, fixed("まばたき"), 0, 0.0)
    camera = morphs + 4 + 2 * 23
    assert struct.unpack_from("<IIf", data, camera) == (1, 0, -45.0)
    assert struct.unpack_from("<IB", data, camera + 4 + 56) == (30, 0)
    properties = camera + 4 + 61 + 4 + 2 * 28 + 4 + 9
    assert struct.unpack_from("<IIBI", data, properties) == (3, 0, 1, 2)
    assert data[properties + 13 :][:21] == fixed("左足ＩＫ", 20) + b"\1"


def test_what_is_written_is_read_and_written_again():
    data = write_vmd(small_vmd())
    file = read_vmd(data)
    assert sniff(data) == "vmd"
    assert write_vmd(file) == data
    assert same(file, small_vmd())
    assert field_text(file.name) == "試験モデル"
    assert [[field_text(s["name"]) for s in states] for states in file.iks_by_property()] == [
        ["左足ＩＫ", "右足ＩＫ"],
        [],
        ["左足ＩＫ"],
    ]
    assert not file.truncated


@pytest.mark.parametrize(
    ("signature", "size"),
    [
        (vmd.SIGNATURE, 20),
        (vmd.OLD_SIGNATURE, 10),
        (b"Vocaloid Motion Data\0\0\0\0\0\0\0\0\0\0", 20),
        (b"Vocaloid Motion Data 0002\0JKLM", 20),
        (b"Vocaloid Motion Data file\0\xfd\xfd\xfd\xfd", 10),
    ],
)
def test_the_signature_says_how_long_the_name_is(signature, size):
    name = fixed("カメラ・照明 on Data", size)
    file = read_vmd(write_vmd(small_vmd(signature=signature, name=name)))
    assert same(file, small_vmd(signature=signature, name=name))
    assert len(write_vmd(file)) == len(write_vmd(small_vmd())) - 20 + size


@pytest.mark.parametrize("signature", [b"Vocaloid Motion Data 0003", b"Vocaloid Motion Dat", b"Vocaloid Motion Datas"])
def test_other_signatures_are_refused(signature):
    with pytest.raises(FormatError, match=r"signature at byte 0: .*known version"):
        read_vmd(signature.ljust(300, b"\0"))


def arrays(dtype: np.dtype, most: int = 4) -> st.SearchStrategy[np.ndarray]:
    """Arrays of any bytes: names without NUL, NaN payloads, frames out of order."""
    sizes = st.integers(0, most).map(lambda n: n * dtype.itemsize)
    return sizes.flatmap(lambda n: st.binary(min_size=n, max_size=n)).map(lambda raw: np.frombuffer(raw, dtype))


@st.composite
def files(draw) -> VmdFile:
    """Any file: any bytes in every field, ending before any section."""
    signature = draw(st.sampled_from([vmd.SIGNATURE, vmd.OLD_SIGNATURE]))
    size = vmd.name_size(signature) or 0
    values: dict = {"signature": signature, "name": draw(st.binary(min_size=size, max_size=size))}
    sections = list(vmd.SECTIONS)[: draw(st.integers(1, 6))]
    values |= {section: draw(arrays(vmd.SECTIONS[section])) for section in sections}
    if len(sections) == 5 and draw(st.booleans()):
        properties = draw(arrays(vmd.PROPERTY)).copy()
        properties["ik_count"] %= 4
        count = int(properties["ik_count"].sum())
        values["properties"] = properties
        values["iks"] = np.frombuffer(draw(st.binary(min_size=count * 21, max_size=count * 21)), vmd.IK)
        values["tail"] = draw(st.binary(max_size=9))
    else:
        values["tail"] = draw(st.binary(max_size=3))  # too short for a count
    return VmdFile(**values)


@given(files())
@SOME
def test_any_bytes_in_fields_survive(file):
    data = write_vmd(file)
    again = read_vmd(data)
    assert same(again, file)
    assert write_vmd(again) == data


def test_a_file_may_end_in_every_section_but_the_first():
    whole = write_vmd(small_vmd())
    ends = {}
    for count in range(len(SECTIONS) + 1):
        missing = dict.fromkeys(SECTIONS[count:])
        file = small_vmd(**missing, **({"iks": np.zeros(0, vmd.IK)} if missing else {}))
        ends[len(write_vmd(file))] = SECTIONS[:count]
    required = min(ends)
    for size in range(len(whole) + 1):
        data = whole[:size]
        if size < required:
            with pytest.raises(FormatError) as caught:
                read_vmd(data)
            assert caught.value.offset <= size
            continue
        file = read_vmd(data)
        assert write_vmd(file) == data
        assert file.truncated == (size not in ends), size
        there = tuple(section for section in SECTIONS if getattr(file, section) is not None)
        assert there == ends[max(end for end in ends if end <= size)]
        assert len(tracks_of(file).bones) == 2


@given(st.integers(0, len(write_vmd(small_vmd())) - 1), st.binary(min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_damage_is_an_error_or_kept(position, raw):
    data = bytearray(write_vmd(small_vmd()))
    data[position : position + len(raw)] = raw
    try:
        file = read_vmd(bytes(data))
    except FormatError:
        return
    assert write_vmd(file) == bytes(data)
    tracks = tracks_of(file)
    for track in tracks.bones.values():
        position, rotation = track.sample(np.array([0.0, 7.5, 1e10]))
        assert np.isfinite(position).all()
        assert np.allclose(np.linalg.norm(rotation, axis=1), 1)


def test_a_count_that_the_file_cannot_hold_names_its_field():
    data = bytearray(write_vmd(small_vmd()))
    data[50:54] = b"\xff\xff\xff\xff"
    with pytest.raises(FormatError) as caught:
        read_vmd(bytes(data), "big.vmd")
    assert (caught.value.file, caught.value.field, caught.value.offset) == ("big.vmd", "bones.count", 50)


def test_the_writer_refuses_what_vmd_cannot_hold():
    for changes, field in (
        ({"signature": b"Vocaloid Motion Data 0002"}, "signature"),
        ({"name": b"x" * 21}, "name"),
        ({"signature": vmd.OLD_SIGNATURE, "name": b"x" * 11}, "name"),
        ({"bones": np.zeros(1, vmd.MORPH)}, "bones"),
        ({"bones": None}, "morphs"),
        ({"lights": None}, "shadows"),
        ({"shadows": None}, "properties"),
        ({"properties": None}, "iks"),
        ({"iks": np.zeros(2, vmd.IK)}, "iks"),
        ({"iks": np.zeros(3, vmd.PROPERTY)}, "iks"),
    ):
        with pytest.raises(FormatError) as caught:
            write_vmd(small_vmd(**changes))
        assert caught.value.field == field


# -- interpolation blocks ----------------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.booleans())
@SOME
def test_interpolation_blocks_hold_their_curves(raw, physics):
    curves = np.frombuffer(raw, np.uint8).reshape(2, 4, 4)
    block = interpolation_of(curves, physics)
    assert block.shape == (2, 64)
    assert np.array_equal(curves_of(block), curves)
    assert physics_of(block).tolist() == [physics] * 2


def test_interpolation_blocks_are_as_mmd_writes_them():
    # x, y, z, rotation, each as ax, ay, bx, by; in the first row 99, 15 switch physics off
    block = interpolation_of(np.arange(1, 17).reshape(4, 4), physics=False)
    first = [1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 4, 8, 12, 16]
    assert block[:16].tolist() == [1, 5, 99, 15, *first[4:]]
    assert block[16:32].tolist() == [*first[1:], 0]
    assert block[32:48].tolist() == [*first[2:], 0, 0]
    assert block[48:].tolist() == [*first[3:], 0, 0, 0]


# -- known contents ----------------------------------------------------------------------------------------------------


@pytest.mark.goldens
@pytest.mark.parametrize("name", ["test_1bone_cube_motion", "test_append_bone", "test_vertex_morph_motion"])
def test_the_files_hold_what_another_parser_found(name, shared):
    path = shared / "goldens" / "parser" / f"{name}.vmd"
    expected_path = path.with_name(f"{name.removesuffix('_motion')}_motion.json")
    data = path.read_bytes()
    file = read_vmd(data, str(path))
    assert write_vmd(file) == data
    if not expected_path.is_file():  # of one file only the model has expectations
        assert file.morphs is not None
        assert [(field_text(name), frame, weight) for name, frame, weight in file.morphs.tolist()] == [
            ("blink", 0, 0.0),
            ("blink", 10, 1.0),
        ]
        return
    expected = json.loads(expected_path.read_text("utf-8"))
    assert set(expected) <= {"targetModelName", "maxFrame", "boneKeyframes", "morphKeyframes", "modelKeyframes"}
    assert field_text(file.name) == expected["targetModelName"]
    assert tracks_of(file).last_frame == expected["maxFrame"]
    keys = {(field_text(key["name"]), int(key["frame"])): key for key in file.bones}  # that parser sorts by frame
    assert len(keys) == len(file.bones) == len(expected["boneKeyframes"])
    for wanted in expected["boneKeyframes"]:
        key = keys[wanted["boneName"], wanted["frame"]]
        assert set(wanted) == {"boneName", "frame", "translation", "rotation", "interpolation", "physicsEnabled"}
        assert key["position"].tolist() == wanted["translation"]
        assert key["rotation"].tolist() == wanted["rotation"]
        assert bool(physics_of(key["interpolation"])) == wanted["physicsEnabled"]
        # That parser takes all curves from the first row, of which the physics switch covers two bytes.
        first_row = key["interpolation"][:16].reshape(4, 4).T
        curves = ["translationX", "translationY", "translationZ", "rotation"]
        assert first_row.tolist() == [wanted["interpolation"][curve] for curve in curves]
        clean = curves_of(key["interpolation"])
        covered = np.zeros((4, 4), bool)
        covered[2:, 0] = True
        assert np.array_equal(clean[~covered], first_row[~covered])
    morphs = [] if file.morphs is None else [(field_text(k["name"]), k["frame"], k["weight"]) for k in file.morphs]
    assert morphs == [(k["morphName"], k["frame"], k["weight"]) for k in expected["morphKeyframes"]]
    shown = [] if file.properties is None else list(zip(file.properties, file.iks_by_property(), strict=True))
    assert [(p["frame"], p["visible"], len(states)) for p, states in shown] == [
        (k["frame"], k["visible"], len(k["constraintStates"])) for k in expected.get("modelKeyframes", [])
    ]


@pytest.mark.corpus
def test_real_files_survive_a_round_trip():
    for path in real_files(".vmd"):
        data = path.read_bytes()
        file = read_vmd(data, str(path))
        assert write_vmd(file) == data, path
        assert not file.truncated
        assert not file.tail
        tracks = tracks_of(file)
        assert tracks.repaired == 0
        names = np.array([field_text(name) for name in file.bones["name"].tolist()])
        for name, track in tracks.bones.items():
            keys = file.bones[names == name][::-1]
            keys = keys[np.unique(keys["frame"], return_index=True)[1]]  # real files do have two keys at one frame
            position, rotation = track.sample(keys["frame"])
            assert np.array_equal(position, keys["position"])
            length = np.linalg.norm(keys["rotation"], axis=1)
            assert np.allclose(np.abs((rotation * keys["rotation"]).sum(axis=1)), length, atol=1e-5)


# -- curves ------------------------------------------------------------------------------------------------------------

UNIT = st.floats(0, 1)
CURVE = st.tuples(UNIT, UNIT, UNIT, UNIT).map(np.array)
POINT = st.integers(0, 127)


@given(st.tuples(POINT, POINT, POINT, POINT), st.lists(UNIT, min_size=2, max_size=20))
@SOME
def test_curves_go_from_corner_to_corner_and_never_fall(points, xs):
    curve = np.array(points) / 127
    heights = bezier(curve, np.array([0, *sorted(xs), 1]))
    assert (heights[0], heights[-1]) == (0, 1)
    assert (np.diff(heights) >= -1e-12).all()
    assert ((heights >= 0) & (heights <= 1)).all()


@given(UNIT, UNIT, UNIT)
@SOME
def test_control_points_on_the_diagonal_change_nothing(a, b, x):
    assert bezier(np.array([a, a, b, b]), np.array(x)) == x


@given(CURVE, UNIT)
@SOME
def test_heights_are_those_of_the_curve(curve, s):
    """The point at any parameter s lies on the curve that `bezier` gives as a function of x."""
    ax, ay, bx, by = curve

    def point(a: float, b: float, s: float) -> float:
        corners = np.array([0, a, b, 1])
        while len(corners) > 1:  # de Casteljau
            corners = corners[:-1] * (1 - s) + corners[1:] * s
        return float(corners[0])

    x, y = point(ax, bx, s), point(ay, by, s)
    # Where the curve is steep, the rounding of x decides: its neighbours on both sides bound the height.
    below, above = bezier(curve, np.clip([x - 1e-12, x + 1e-12], 0, 1))
    assert below - 1e-9 <= y <= above + 1e-9


@given(CURVE, UNIT)
@SOME
def test_curves_turned_around_are_symmetric(curve, x):
    ax, ay, bx, by = curve
    turned = np.array([1 - bx, 1 - by, 1 - ax, 1 - ay])
    below, above = 1 - bezier(turned, np.clip([1 - x + 1e-12, 1 - x - 1e-12], 0, 1))
    assert below - 1e-9 <= bezier(curve, np.array(x)) <= above + 1e-9


# -- poses -------------------------------------------------------------------------------------------------------------

EASE = np.array([[0, 0, 0, 127], [127, 0, 127, 127], [20, 20, 107, 107], [64, 0, 64, 127]], np.uint8)


def tracks(bones: np.ndarray, *morphs: tuple) -> Tracks:
    return tracks_of(small_vmd(bones=bones, morphs=morph_keys(*morphs)))


def test_every_axis_follows_its_own_curve_of_the_later_key():
    turn = (0, np.sin(0.5), 0, np.cos(0.5))  # 1 radian about y
    track = tracks(
        bone_keys(
            ("頭", 20, (4, 4, 4), turn, EASE),
            ("頭", 10, (0, 0, 0), (0, 0, 0, 1), LINEAR[:, ::-1]),
            ("頭", 0, (0, 0, 0), (0, 0, 0, 1), LINEAR),
        )
    ).bones["頭"]
    assert track.frame.tolist() == [0, 10, 20]
    frames = np.array([10, 12.5, 15, 17.5, 20])
    position, rotation = track.sample(frames)
    shares = (frames - 10) / 10
    for axis in range(3):
        assert np.allclose(position[:, axis], 4 * bezier(EASE[axis] / 127, shares))
    assert position[:, 2].tolist() == (4 * shares).tolist()
    assert (position[1:4, 0] > position[1:4, 2]).all()  # the first curve rises early, the second one late
    assert (position[1:4, 1] < position[1:4, 2]).all()
    angle = 2 * np.arctan2(rotation[:, 1], rotation[:, 3])
    assert np.allclose(angle, bezier(EASE[3] / 127, shares))
    assert not rotation[:, [0, 2]].any()


def test_keys_are_met_exactly_and_held_after_the_last():
    keys = [("頭", 7 * n, (n, -n, 0.1 * n), (0.6, 0, 0, 0.8) if n % 2 else (0, 0, -1, 0), EASE) for n in range(4)]
    track = tracks(bone_keys(*keys[::-1])).bones["頭"]
    position, rotation = track.sample([0, 7, 14, 21, 22, 1e9])
    assert (
        position.astype(np.float32).tolist() == np.array([k[2] for k in [*keys, keys[3], keys[3]]], np.float32).tolist()
    )
    assert np.allclose(rotation, [k[3] for k in [*keys, keys[3], keys[3]]])


@given(st.lists(st.floats(-1, 1), min_size=8, max_size=8), st.floats(0, 30))
@SOME
def test_rotations_take_the_shorter_way_at_even_speed(numbers, frame):
    a, b = np.array(numbers).reshape(2, 4) + np.array([0, 0, 0, 2.5])
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    near, far = (tracks(bone_keys(("頭", 0, 0, a, LINEAR), ("頭", 30, 0, end, LINEAR))).bones["頭"] for end in (b, -b))
    middle = near.sample(frame)[1]
    assert np.allclose(np.abs(middle @ far.sample(frame)[1]), 1)  # a quaternion and its negative are one rotation
    whole, part = (np.arccos(np.clip(np.abs(end @ a), 0, 1)) for end in (b, middle))
    assert part == pytest.approx(whole * frame / 30, abs=1e-3)


def test_a_track_that_begins_late_starts_at_rest():
    motion = tracks(bone_keys(("首", 10, (2, 0, 0), (0, 1, 0, 0), LINEAR)), ("あ", 4, 1.0), ("い", 0, 0.5))
    position, rotation = motion.bones["首"].sample([0, 5, 10, 11])
    assert position[:, 0].tolist() == [0, 1, 2, 2]
    assert np.allclose(rotation, [(0, 0, 0, 1), (0, 0.5**0.5, 0, 0.5**0.5), (0, 1, 0, 0), (0, 1, 0, 0)])
    assert motion.morphs["あ"].sample([0, 1, 2, 4, 99]).tolist() == [0, 0.25, 0.5, 1, 1]
    assert motion.morphs["い"].sample(3.0) == 0.5
    assert motion.last_frame == 10


def test_of_keys_at_one_frame_the_last_one_counts():
    rest = (0, 0, 0, 1)
    bones = bone_keys(*[("頭", frame, (x, 0, 0), rest, LINEAR) for frame, x in ((5, 1), (0, 2), (5, 3), (0, 4))])
    bones["name"][0] = b"\x93\xaa\0other rest"  # the same name, with other bytes after its NUL
    motion = tracks(bones, ("あ", 3, 0.25), ("あ", 3, 0.75))
    assert list(motion.bones) == ["頭"]
    assert motion.bones["頭"].sample([0, 5])[0][:, 0].tolist() == [4, 3]
    assert motion.morphs["あ"].sample(3) == 0.75


def test_long_names_match_by_what_is_left_of_them():
    long = "左腕捩追加ボーンＡ"  # 18 bytes: the eighth character is cut in two
    assert len(long.encode("cp932")) == 18
    motion = tracks(bone_keys((long, 0, 0, (0, 0, 0, 1), LINEAR)))
    assert track_name(long) in motion.bones
    assert track_name("頭") == "頭"
    with pytest.raises(UnicodeEncodeError):
        track_name("머리")


def test_values_that_mean_nothing_are_repaired_and_counted():
    bones = bone_keys(
        ("頭", 0, (np.nan, 1, 2), (0, 0, 0, 0), LINEAR),
        ("首", 0, (1, 2, 3), (0, np.inf, 0, 1), LINEAR),
        ("腰", 0, (1, 2, 3), (0, 0, 0, 5), LINEAR),
    )
    motion = tracks(bones, ("あ", 0, np.nan), ("い", 0, 2.0))
    assert motion.repaired == 3
    positions = {name: track.sample(0)[0].tolist() for name, track in motion.bones.items()}
    assert positions == {"頭": [0, 0, 0], "首": [1, 2, 3], "腰": [1, 2, 3]}
    assert all(track.sample(0)[1].tolist() == [0, 0, 0, 1] for track in motion.bones.values())
    assert [track.sample(0) for track in motion.morphs.values()] == [0, 2]


def test_control_points_outside_the_square_are_moved_to_its_edge():
    wild = np.array([[200, 0, 128, 127]] * 4, np.uint8)
    edge = np.minimum(wild, 127)
    a, b = (
        tracks(bone_keys(("頭", 0, 0, (0, 0, 0, 1), LINEAR), ("頭", 9, 1, (0, 0, 0, 1), curves))).bones["頭"]
        for curves in (wild, edge)
    )
    frames = np.linspace(0, 9, 50)
    assert np.array_equal(a.sample(frames)[0], b.sample(frames)[0])
    assert (np.diff(a.sample(frames)[0], axis=0) >= 0).all()


def test_an_empty_motion_has_no_tracks():
    motion = tracks_of(VmdFile(vmd.SIGNATURE, b"", np.zeros(0, vmd.BONE)))
    assert (motion.bones, motion.morphs, motion.repaired, motion.last_frame) == ({}, {}, 0, 0)
