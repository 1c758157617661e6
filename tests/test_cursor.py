"""Positions, counts, field paths, bits of NaN, records of varying size, and reversible text."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdgen.errors import FormatError
from mmdgen.formats.cursor import Buffer, Cursor, TruncatedError, layout
from mmdgen.formats.sniff import sniff
from mmdgen.formats.text import decode_fixed, decode_text, encode_fixed, encode_text, is_clean, printable

MANY = settings(max_examples=150, deadline=None)
# Bytes that make text go wrong: surrogates in either half, UTF-8 leads and tails, Shift-JIS leads.
TRICKY = st.lists(st.sampled_from([0x00, 0x30, 0x41, 0x5C, 0x81, 0x87, 0xD8, 0xDB, 0xDC, 0xDF, 0xE3, 0xED, 0xFA, 0xFF]))
RAW = st.one_of(st.binary(max_size=40), TRICKY.map(bytes))


def raised(work) -> FormatError:
    with pytest.raises(FormatError) as caught:
        work()
    return caught.value


# -- numbers ----------------------------------------------------------------------------------------------------------


@MANY
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9), st.integers(0, 255))
def test_floats_keep_their_bits(bits, byte):
    data = bytes([byte]) + struct.pack(f"<{len(bits)}I", *bits)
    numbers = layout(f"B{len(bits)}f")
    values = numbers.unpack_from(data, 0)
    assert numbers.pack(values) == data
    with np.errstate(invalid="ignore"):  # numpy warns where a signalling NaN is converted
        plain = np.frombuffer(data, "<f4", offset=1).astype(float)
    assert np.array_equal(np.array(values[1:]), plain, equal_nan=True)


@pytest.mark.parametrize("bits", [0x7F800001, 0xFF800001, 0x7FBFFFFF, 0x7FC00000, 0xFFFFFFFF, 0x7F800000, 0x80000000])
def test_every_kind_of_float32_survives(bits):
    data = struct.pack("<I", bits)
    (value,) = layout("f").unpack_from(data, 0)
    assert math.isnan(value) == (bits & 0x7FFFFFFF > 0x7F800000)
    assert layout("f").pack((value,)) == data


def test_a_nan_whose_payload_float32_cannot_hold_stays_nan():
    tiny = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000001))[0]
    assert math.isnan(struct.unpack("<f", layout("f").pack((tiny,)))[0])


def test_scalars_arrays_and_places():
    data = struct.pack("<BHiIf", 7, 65535, -3, 2**32 - 1, 0.5) + struct.pack("<3h", 1, -2, 3) + b"tail"
    cursor = Cursor(data)
    assert (cursor.u8("a"), cursor.u16("b"), cursor.i32("c"), cursor.u32("d"), cursor.f32("e")) == (
        7,
        65535,
        -3,
        2**32 - 1,
        0.5,
    )
    mark = cursor.mark()
    items = cursor.array(np.dtype("<i2"), 3, "items")
    assert items.tolist() == [1, -2, 3]
    items[0] = 9  # an array of its own memory
    cursor.rewind(mark)
    assert cursor.array(np.dtype("<i2"), 3, "items").tolist() == [1, -2, 3]
    assert (cursor.position, cursor.remaining) == (len(data) - 4, 4)
    assert cursor.rest() == b"tail"
    assert cursor.remaining == 0


def test_numbers_that_do_not_fit():
    buffer = Buffer("out.bin")
    buffer.raw(b"12")
    with buffer.at("head"):
        for kind, value in (("B", 256), ("b", -129), ("h", 2**15), ("f", 1e39), ("B", 0.5)):
            with pytest.raises(FormatError) as caught:
                buffer.put(kind, value, "x")
            assert (caught.value.file, caught.value.offset, caught.value.field) == ("out.bin", 2, "head.x")
    assert raised(lambda: Buffer().floats((1.0, 2.0), 3, "v")).field == "v"
    assert buffer.getvalue() == b"12"


# -- errors -----------------------------------------------------------------------------------------------------------


def test_errors_say_file_offset_and_path():
    cursor = Cursor(struct.pack("<4h", 1, 2, 3, 4), "a.bin")

    def read():
        for _ in cursor.items("bones", 2):
            with cursor.at("ik"):
                for _ in cursor.items("links", 3):
                    cursor.u16("bone")

    error = raised(read)
    assert (error.file, error.offset, error.field) == ("a.bin", 8, "bones[1].ik.links[1].bone")
    assert isinstance(error, TruncatedError)


def test_paths_end_with_their_blocks_and_rewind_cleans_up():
    cursor = Cursor(b"")
    list(cursor.items("a", 3))
    with cursor.at("b"):
        assert cursor.path("c") == "b.c"
    assert cursor.path("x") == "x"
    mark = cursor.mark()

    def read():
        for _ in cursor.items("bodies", 1):
            cursor.u8("kind")

    raised(read)
    cursor.rewind(mark)
    assert cursor.path() == ""


@pytest.mark.parametrize(("kind", "size"), [("i", 4), ("I", 4), ("H", 2), ("B", 1)])
def test_counts(kind, size):
    def cursor(value: int) -> Cursor:
        return Cursor(b"?" + struct.pack("<" + kind, value) + bytes(20))

    for value, minimum in ((0, 5), (4, 5), (20, 1), (100, 0)):
        at = cursor(value)
        at.take(1, "")
        assert at.count("n", minimum, kind) == value
    for value, minimum in ((5, 5), (21, 1), (255, 4)):
        at = cursor(value)
        at.take(1, "")
        error = raised(lambda at=at, minimum=minimum: at.count("n", minimum, kind))
        assert isinstance(error, TruncatedError)
        assert (error.offset, error.field) == (1, "n")
        assert str(value) in error.reason


def test_negative_counts_are_no_truncation():
    error = raised(lambda: Cursor(struct.pack("<i", -1)).count("n", 1))
    assert not isinstance(error, TruncatedError)
    assert "negative" in error.reason


# -- records of varying size ------------------------------------------------------------------------------------------


def varying(kinds: list[int], sizes: list[int], kind_at: int) -> bytes:
    records = (bytearray(b"\xee" * sizes[kind]) for kind in kinds)
    out = b""
    for kind, record in zip(kinds, records, strict=True):
        record[kind_at] = kind
        out += bytes(record)
    return out


@MANY
@given(st.data())
def test_walk_finds_every_record(data):
    kind_at = data.draw(st.integers(0, 4))
    sizes = data.draw(st.lists(st.integers(kind_at + 1, 12), min_size=1, max_size=5))
    kinds = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=30))
    start = data.draw(st.integers(0, 3))
    raw = bytes(start) + varying(kinds, sizes, kind_at) + b"!"
    cursor = Cursor(raw)
    cursor.take(start, "")
    offsets = cursor.walk(len(kinds), kind_at, sizes, "v", "kind")
    assert offsets.tolist() == [start + sum(sizes[k] for k in kinds[:n]) for n in range(len(kinds) + 1)]
    assert cursor.rest() == b"!"
    assert cursor.gather(offsets[:-1] + kind_at, np.dtype("u1")).tolist() == kinds


@MANY
@given(st.data())
def test_walk_names_the_damaged_record(data):
    sizes, kind_at = [5, 7, 9], 3
    kinds = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=12))
    raw = varying(kinds, sizes, kind_at)
    starts = [sum(sizes[k] for k in kinds[:n]) for n in range(len(kinds))]
    bad = data.draw(st.integers(0, len(kinds) - 1))
    broken = bytearray(raw)
    broken[starts[bad] + kind_at] = data.draw(st.integers(3, 255))
    error = raised(lambda: Cursor(bytes(broken)).walk(len(kinds), kind_at, sizes, "v", "kind"))
    assert (error.offset, error.field) == (starts[bad] + kind_at, f"v[{bad}].kind")
    assert not isinstance(error, TruncatedError)

    cut = data.draw(st.integers(0, len(raw) - 1))
    error = raised(lambda: Cursor(raw[:cut]).walk(len(kinds), kind_at, sizes, "v", "kind"))
    first = max(n for n in range(len(kinds)) if starts[n] <= cut)
    assert isinstance(error, TruncatedError)
    assert (error.offset, error.field.split(".")[0]) == (starts[first], f"v[{first}]")


@MANY
@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 3))
def test_scatter_is_the_inverse_of_gather(kinds, start):
    sizes = np.array([5, 6, 9, 13])[kinds]
    item = np.dtype([("a", "<u2"), ("b", "u1")])
    items = np.array([(300 + i, i) for i in range(len(kinds))], item)
    buffer = Buffer()
    buffer.raw(bytes(start))
    offsets = buffer.reserve(sizes)
    assert len(buffer) == start + sizes.sum()
    buffer.scatter(offsets + 1, items)
    cursor = Cursor(buffer.getvalue())
    assert cursor.gather(offsets + 1, item).tolist() == items.tolist()
    assert sum(cursor.rest()) == sum(items.tobytes())


def test_gather_stays_inside():
    with pytest.raises(IndexError):
        Cursor(bytes(8)).gather(np.array([5]), np.dtype("<f4"))
    assert Cursor(b"").gather(np.array([], np.int64), np.dtype("<f4")).shape == (0,)
    assert Cursor(b"ab").walk(0, 0, [1], "v", "k").tolist() == [0]


# -- text -------------------------------------------------------------------------------------------------------------


@MANY
@given(RAW, st.sampled_from(["utf-16-le", "utf-8"]))
def test_any_bytes_come_back_from_text(raw, encoding):
    text = decode_text(raw, encoding)
    assert encode_text(text, encoding) == raw
    try:
        assert text == raw.decode(encoding)
        assert is_clean(text)
    except UnicodeDecodeError:
        assert not is_clean(text)
    assert json.loads(json.dumps(printable(text), ensure_ascii=False).encode("utf-8")) == printable(text)


@MANY
@given(st.text(), st.sampled_from(["utf-16-le", "utf-8"]))
def test_text_comes_back_through_a_file(text, encoding):
    buffer = Buffer()
    buffer.text(text, encoding, "name")
    cursor = Cursor(buffer.getvalue())
    assert cursor.text(encoding, "name") == text
    assert cursor.remaining == 0
    assert is_clean(text)
    assert printable(text) == text


def test_text_lengths_are_checked():
    for length in (-1, 3, 2**31 - 1):
        error = raised(lambda length=length: Cursor(struct.pack("<i", length) + b"ab").text("utf-8", "name"))
        assert (error.offset, error.field) == (0, "name")
    assert raised(lambda: Cursor(b"ab").text("utf-8", "name")).offset == 0
    assert raised(lambda: Buffer().text("\ud800", "utf-8", "name")).field == "name"


@MANY
@given(st.binary(min_size=1, max_size=24) | TRICKY.filter(bool).map(bytes))
def test_any_fixed_field_comes_back(raw):
    text, rest = decode_fixed(raw)
    assert encode_fixed(text, rest, len(raw)) == raw
    cursor, buffer = Cursor(raw), Buffer()
    buffer.fixed_text(*cursor.fixed_text(len(raw), "name"), len(raw), "name")
    assert buffer.getvalue() == raw


def test_every_pair_of_shift_jis_bytes_comes_back():
    twice = 0
    for high in range(256):
        for low in range(256):
            raw = bytes([high, low, 0, 0xFD])
            text, rest = decode_fixed(raw)
            assert encode_fixed(text, rest, 4) == raw
            twice += len(rest) == len(raw)
    assert twice == 398  # characters that cp932 has under two codes


def test_fixed_fields():
    raw = "頭".encode("cp932") + b"\0" + b"\xfd" * 17
    assert decode_fixed(raw) == ("頭", b"\xfd" * 17)
    cut = "まばたき".encode("cp932")[:-1]  # real PMD names are cut in the middle of a character
    text, rest = decode_fixed(cut)
    assert text.startswith("まばた")
    assert not is_clean(text)
    assert printable(text) == "まばた\ufffd"
    assert encode_fixed(text, rest, len(cut)) == cut
    assert encode_fixed("首", b"", 6) == "首".encode("cp932") + bytes(4)
    assert encode_fixed("首首", b"\xfd" * 16 + b"\x01", 8) == "首首".encode("cp932") + b"\0" + b"\xfd\xfd\x01"
    nec = b"\x87\x54\xfa\x4a\x00\x00"  # the same roman numeral under two codes
    assert encode_fixed(*decode_fixed(nec), 6) == nec
    assert encode_fixed("Ⅱ", decode_fixed(nec)[1], 6)[2:] == bytes(4)  # what belongs to another text is not kept
    for text in ("頭頭頭頭", "a\0b", "\U0001f600"):
        with pytest.raises(ValueError, match=r"."):
            encode_fixed(text, b"", 6)
        assert raised(lambda text=text: Buffer().fixed_text(text, b"", 6, "name")).field == "name"


def test_sniff():
    assert sniff(b"PMX \0\0\0@") == "pmx"
    assert sniff(b"PMX\xa0") == "pmx"
    assert sniff(b"Pmd\0\0\x80?") == "pmd"
    assert sniff(b"Vocaloid Motion Data 0002\0") == "vmd"
    for other in (b"", b"PM", b"Pmx ", b"pmd", b"\x89PNG", b"Vocaloid"):
        assert sniff(other) is None
