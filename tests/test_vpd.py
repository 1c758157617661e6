"""VPD: byte-exact round trips of every layout that is accepted, canonical texts, and errors that name the line."""

from __future__ import annotations

import dataclasses
import time

import pytest
from conftest import real_files
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdgen.errors import FormatError
from mmdgen.formats.sniff import sniff
from mmdgen.formats.vpd import VpdBone, VpdFile, VpdMorph, read_vpd, write_vpd

SOME = settings(max_examples=80, deadline=None)
REST = (0.0, 0.0, 0.0)
TURN = (0.092297, 0.025437, 0.18354, 0.978313)

# As MMD and, with the morph, MikuMikuMoving write it.
TEXT = """Vocaloid Pose Data file

ミク.osm;\t\t// 親ファイル名
2;\t\t\t\t// 総ポーズボーン数

Bone0{右親指１
  -0.000000,0.000000,0.000000;\t\t\t\t// trans x,y,z
  0.092297,0.025437,0.183540,0.978313;\t\t// Quaternion x,y,z,w
}

Bone1{表示
  1.500000,-2.250000,0.000000;\t\t\t\t// trans x,y,z
  0.000000,0.000000,0.000000,1.000000;\t\t// Quaternion x,y,z,w
}

Morph0{まばたき
  0.500000;\t\t\t\t// weight
}

""".replace("\n", "\r\n").encode("cp932")
POSE = VpdFile(
    "ミク.osm",
    (
        VpdBone("右親指１", REST, TURN),
        VpdBone("表示", (1.5, -2.25, 0.0), (0.0, 0.0, 0.0, 1.0)),
        VpdMorph("まばたき", 0.5),
    ),
)


def error_of(data: bytes) -> FormatError:
    with pytest.raises(FormatError) as caught:
        read_vpd(data, "pose.vpd")
    return caught.value


def test_a_pose_is_read():
    file = read_vpd(TEXT)
    assert sniff(TEXT) == "vpd"
    assert file == POSE
    assert file.bones == POSE.blocks[:2]
    assert file.morphs == POSE.blocks[2:]
    assert (file.bone_count, file.stated_bones) == (None, 2)
    assert write_vpd(file) == TEXT


def test_a_new_pose_is_written_as_mmd_writes_it():
    bone = dataclasses.replace(POSE.bones[0], translation=(-0.0, 0.0, 0.0))
    assert write_vpd(dataclasses.replace(POSE, blocks=(bone, *POSE.blocks[1:]))) == TEXT


def test_only_what_changed_is_written_anew():
    text = TEXT.replace(b"Bone0{", b"// mine\r\nBone7{").replace(b"0.183540", b"+.18354e0").replace(b"2;\t", b"02 ;\t")
    file = read_vpd(text)
    assert file == POSE
    assert write_vpd(file) == text
    changed = dataclasses.replace(file, blocks=(file.blocks[0], *file.blocks[2:], VpdMorph("あ", 0.1)))
    data = write_vpd(changed)
    assert read_vpd(data) == changed
    kept = text[text.index(b"Bone7{") : text.index(b"Bone1{")]
    assert kept in data  # and so is the number text
    assert "1;\t\t\t\t// 総ポーズボーン数".encode("cp932") in data  # the number of bones is another one
    moved = dataclasses.replace(file, blocks=(dataclasses.replace(file.blocks[0], name="頭"), *file.blocks[1:]))
    anew = TEXT[TEXT.index(b"Bone0{") : TEXT.index(b"Bone1{")].replace("右親指１".encode("cp932"), "頭".encode("cp932"))
    assert write_vpd(moved) == text.replace(kept, anew)


def test_comments_at_the_end_do_not_swallow_what_is_appended():
    start = b"Vocaloid Pose Data file\nm.osm;\n0;"
    block = b"Bone0{a\n0,0,0;0,0,0,1;}"
    for text in (
        start,
        start + b" // none",
        start + b"\n",
        start + b"\n//x",
        *(start + b"\n" + block + t for t in ENDS),
    ):
        file = read_vpd(text)
        more = dataclasses.replace(file, blocks=(*file.blocks, VpdMorph("b", 1.0)), bone_count=0)
        again = read_vpd(write_vpd(more))
        assert again.blocks == more.blocks, text
        assert write_vpd(again) == write_vpd(more)


ENDS = (b"", b"// end", b"\n// end", b"\r// end", b" ", b"\n", b"\n//\n")


@pytest.mark.parametrize("stated", [0, 1, 3, 999999999])
def test_another_number_of_bones_than_stated_is_kept(stated):
    text = TEXT.replace(b"\n2;", b"\n%d;" % stated)
    file = read_vpd(text)
    assert (file.bone_count, file.stated_bones) == (stated, stated)
    assert write_vpd(file) == text
    bare = VpdFile(file.parent, tuple(dataclasses.replace(b, raw=b"") for b in file.blocks), file.bone_count)
    assert read_vpd(write_vpd(bare)) == file


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\r\n", b"\n"),
        (b"\r\n", b"\r"),
        (b"\r\n\r\n", b"\r\n"),
        (b"\t", b""),
        (b"}", b"}\t"),
        (b",", b" , "),
        (b"0,", b"0,\r\n// one a line\r\n"),
        (b";\t", b";junk "),
        (b";\t\t\t\t// trans x,y,z\r\n", b";"),
        (b"// weight\r\n}\r\n\r\n", b"}"),
        (b"Bone0{", b"Bone{"),
        (b"Bone0{", b"Bone0 \t{"),
        (b"data file", b"data file 2"),
        (b"  0.000000", b"  -0"),
        (b"0.000000", b"0.E-7"),
    ],
)
def test_every_layout_survives(old, new):
    text = TEXT.replace(old, new)
    file = read_vpd(text)
    assert [b.name for b in file.blocks] == [b.name for b in POSE.blocks]
    assert write_vpd(file) == text
    assert file == POSE


def test_damaged_names_survive():
    # a lone lead byte; a character with two codes, of which cp932 writes the other one; braces in second bytes
    for raw in (b"\x83", b"\x87\x5a\xed\x40", b"\x83\x7b\x83\x7d", b"a//b;c{d}", b" spaces ", b"", b"\xff\x00\x1a"):
        text = TEXT.replace("表示".encode("cp932"), raw)
        file = read_vpd(text)
        assert write_vpd(file) == text
        assert len(file.blocks) == 3
        assert write_vpd(dataclasses.replace(file, parent="a")) == text.replace("ミク.osm".encode("cp932"), b"a")


# -- generated poses ---------------------------------------------------------------------------------------------------

NUMBER = st.floats(allow_nan=False, allow_infinity=False)
NAME = st.text(st.sampled_from("aZ0 ;{}/首頭ボ能表ｱ"), max_size=8)
BONE = st.builds(VpdBone, NAME, st.tuples(NUMBER, NUMBER, NUMBER), st.tuples(NUMBER, NUMBER, NUMBER, NUMBER))
BLOCKS = st.lists(st.one_of(BONE, st.builds(VpdMorph, NAME, NUMBER)), max_size=5).map(tuple)
PARENT = st.text(st.sampled_from("a.首ボ能"), max_size=8)
COUNT = st.one_of(st.none(), st.integers(0, 999999999))


@given(st.builds(VpdFile, PARENT, BLOCKS, COUNT))
@SOME
def test_generated_poses_keep_every_bit(file):
    data = write_vpd(file)
    again = read_vpd(data)
    assert (again.parent, again.blocks, again.stated_bones) == (file.parent, file.blocks, file.stated_bones)
    assert repr(again.blocks) == repr(file.blocks)  # signs of zeros too
    assert write_vpd(again) == data


@given(BLOCKS, st.randoms(use_true_random=False))
@SOME
def test_any_space_and_comments_survive(blocks, random):
    def space(line_end: bool = False) -> bytes:
        pieces = [b" ", b"\t", b"\r\n", b"\n", b"// \x83\x7d, 1;}{\n", b"//\r"]
        return (b"\n" if line_end else b"") + b"".join(random.choices(pieces, k=random.randrange(4)))

    text = b"Vocaloid Pose Data file" + space(True) + b"m.osm;" + space(True) + b"1;" + space(True)
    for number, block in enumerate(blocks):
        bone = isinstance(block, VpdBone)
        text += (b"Bone%d{" if bone else b"Morph%d{") % number + block.name.encode("cp932") + space(True)
        for values in (block.translation, block.rotation) if bone else ((block.weight,),):
            text += (space() + b",").join(space() + repr(float(v)).encode() for v in values) + space() + b";"
            text += space(True) if random.random() < 0.5 else b" "
        text += b"}" + space()
    file = read_vpd(text)
    assert file.blocks == blocks
    assert write_vpd(file) == text


def test_the_writer_refuses_what_vpd_cannot_hold():
    bone = VpdBone("a", REST, (0.0, 0.0, 0.0, 1.0))
    for changes, field in (
        ({"parent": "a;b"}, "parent"),
        ({"parent": "a\nb"}, "parent"),
        ({"parent": " a"}, "parent"),
        ({"parent": "머리"}, "parent"),
        ({"bone_count": -1}, "parent"),
        ({"bone_count": 10**9}, "parent"),
        ({"blocks": (bone, dataclasses.replace(bone, name="a\nb"))}, "blocks[1].name"),
        ({"blocks": (dataclasses.replace(bone, name="머리"),)}, "blocks[0].name"),
        ({"blocks": (dataclasses.replace(bone, name="\udc81A"),)}, "blocks[0].name"),
        ({"blocks": (dataclasses.replace(bone, translation=(0.0, float("nan"), 0.0)),)}, "blocks[0].translation"),
        ({"blocks": (dataclasses.replace(bone, rotation=REST),)}, "blocks[0].rotation"),
        ({"blocks": (VpdMorph("a", float("inf")),)}, "blocks[0].weight"),
    ):
        with pytest.raises(FormatError) as caught:
            write_vpd(dataclasses.replace(POSE, **changes))
        assert caught.value.field == field, changes


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        (b"Vocaloid Pose", b"Vocaloid Poes", 1, "signature"),
        (b"osm;", b"osm", 3, "parent"),
        (b"\n2;", b"\ntwo;", 4, "bone_count"),
        (b"\n2;", b"\n-2;", 4, "bone_count"),
        (b"\n2;", b"\n2000000000;", 4, "bone_count"),
        (b"Bone1{", b"Bone1", 11, "blocks[1].kind"),
        (b"Bone1{", b"Bome1{", 11, "blocks[1].kind"),
        (b"Bone1{", b"// ", 12, "blocks[1].kind"),
        (b"1.500000", b"1.5.0", 12, "blocks[1].translation"),
        (b"1.500000", b"-1.#IND00", 12, "blocks[1].translation"),
        (b"1.500000", b"1e999", 12, "blocks[1].translation"),
        (b"1.500000", b"1" * 65, 12, "blocks[1].translation"),
        (b"1.500000,", b"", 12, "blocks[1].translation"),
        (b"1.500000", b"1,2,3,4", 12, "blocks[1].translation"),
        (b"0.183540,0.978313;", b"0.18,0.97", 9, "blocks[0].rotation"),
        (b"0.500000", b"", 17, "blocks[2].weight"),
        (b"0.500000;", b"0.5,", 17, "blocks[2].weight"),
        (b"weight\r\n}", b"weight\r\n", 20, "blocks[2].end"),
    ],
)
def test_errors_name_the_line(old, new, line, field):
    assert TEXT.count(old) == 1
    error = error_of(TEXT.replace(old, new))
    assert (error.file, error.field) == ("pose.vpd", field)
    assert f": line {line}: " in str(error)
    assert TEXT.replace(old, new)[: error.offset].count(b"\n") == line - 1


def test_a_pose_ends_between_two_blocks_or_is_an_error():
    whole = len(read_vpd(TEXT).blocks)
    counts = []
    for size in range(len(TEXT) + 1):
        data = TEXT[:size]
        try:
            file = read_vpd(data)
        except FormatError:
            continue
        assert write_vpd(file) == data
        assert file.blocks == POSE.blocks[: len(file.blocks)]
        assert (file.bone_count is None) == (len(file.bones) == 2)
        counts.append(len(file.blocks))
    assert counts == sorted(counts)
    assert set(counts) == set(range(whole + 1))


@given(st.integers(0, len(TEXT)), st.integers(0, 6), st.binary(max_size=6))
@settings(max_examples=400, deadline=None)
def test_damage_is_an_error_or_kept(position, cut, raw):
    data = TEXT[:position] + raw + TEXT[position + cut :]
    try:
        file = read_vpd(data)
    except FormatError:
        return
    assert write_vpd(file) == data


@pytest.mark.parametrize(
    "text",
    [
        b" ",
        b"\n",
        b"//",
        b"//\n",
        b"1",
        b"-",
        b"1.",
        b"1e",
        b"0 ",
        b"0,",
        b"0;",
        b"Bone{",
        b"Bone0{\n",
        b"{",
        b"}",
        b"\x81",
    ],
)
def test_reading_takes_time_in_proportion_to_the_file(text):
    many = text * (500_000 // len(text))
    head = b"Vocaloid Pose Data file\nm.osm;\n1;\n"
    starts = (b"", head[:24], head[:31], head, head + b"Bone0{", head + b"Bone0{\n0", head + b"Bone0{\n0,0,0;0,0,0,1;")
    messages = []
    begin = time.process_time()
    for start in starts:
        try:
            assert write_vpd(read_vpd(start + many)) == start + many
        except FormatError as error:
            messages.append(str(error))
    assert time.process_time() - begin < 5
    assert max(map(len, messages), default=0) < 400


@pytest.mark.corpus
def test_real_files_survive_a_round_trip():
    for path in real_files(".vpd"):
        data = path.read_bytes()
        file = read_vpd(data, str(path))
        assert write_vpd(file) == data, path
        assert file.bone_count is None
        # Without its text, MMD's own layout comes out again; other editors end lines in their own way.
        bare = VpdFile(file.parent, tuple(dataclasses.replace(block, raw=b"") for block in file.blocks))
        assert write_vpd(bare).replace(b"\r\n", b"\n") == data.replace(b"\r\n", b"\n"), path
