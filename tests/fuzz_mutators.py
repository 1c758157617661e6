"""Mutations: values at their edges, sections and records moved about, blind damage. A function of a `Draw` alone."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from fuzz_seed import Field, Record, Seed

from mmdgen import rng

_T = TypeVar("_T")

GROWTH = 1 << 15  # bytes that one mutation may add

# The bits of float32 values that break arithmetic: NaN (quiet, signalling, negative), infinities, the largest, the
# smallest, ones whose square or product overflows, minus zero, and numbers that only look harmless.
FLOATS = tuple(
    struct.pack("<I", bits)
    for bits in (0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0xFF7FFFFF, 1, 0x80000001)
) + tuple(
    struct.pack("<f", value)
    for value in (-0.0, 0.0, 1.0, -1.0, 1e-30, 1e-6, 1e6, 1.0000001e6, -1e6, 1e10, 1e19, -1e30, 3e38, 100.0, 0.5, 2.0)
)
_BYTES = (0x00, 0xFF, 0x7F, 0x80, 0x01, 0x20, 0x2A, 0x2F, 0x5C, 0x81, 0xFD)
_TOKENS = (
    b"",
    b"-",
    b"nan",
    b"inf",
    b"-1e999",
    b"1e-999",
    b"0x10",
    b"1_000",
    b"9" * 40,
    b"4294967296",
    b"-1",
    b"1.5",
    b"\xef\xbc\x91",
    b";",
    b",",
    b"{",
    b"}",
    b"//",
    b"\r",
    b"\n",
    b"\0",
    b"\x1a",
    b"\x81",
    b"Bone0{",
    b"Morph9{",
)


class Draw:
    """Random choices of one case: the stream of (seed, "fuzz", kind, number) of `mmdgen.rng`."""

    def __init__(self, seed: int, kind: str, number: int) -> None:
        self._random = rng.generator(seed, "fuzz", kind, number)
        self._next: list[int] = []

    def below(self, limit: int) -> int:
        """A number of [0, limit); 0 where that is empty."""
        if not self._next:  # one call of numpy for many numbers
            self._next = self._random.integers(0, 1 << 62, 48).tolist()
        return self._next.pop() % max(limit, 1)

    def one(self, of: Sequence[_T]) -> _T:
        return of[self.below(len(of))]

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent

    def size(self, largest: int) -> int:
        """A number of [1, largest], small ones as likely as large ones."""
        return 1 + self.below(1 << self.below(largest.bit_length())) % max(largest, 1)

    def bytes(self, count: int) -> bytes:
        return bytes(self.below(256) for _ in range(min(count, 64))) * (1 if count <= 64 else count // 64 + 1)


# -- values ------------------------------------------------------------------------------------------------------------


def _integer(draw: Draw, field: Field, old: int, length: int) -> int:
    """An integer worth trying: an edge of its type, of the file's size, or near what was there."""
    bits = 8 * field.size
    edges = (0, 1, 2, -1, -2, 1 << bits - 1, (1 << bits - 1) - 1, (1 << bits - 1) + 1, (1 << bits) - 2, 3, 255, 256)
    near = (old + 1, old - 1, old * 2, old * 2 + 1, old // 2, -old, old ^ 1 << draw.below(bits), old + 256)
    sizes = (
        length,
        length // 4,
        length - field.offset,
        length - field.offset - field.size,
        1 << 16,
        1 << 24,
        0x40000000,
    )
    choice = draw.below(10)
    if choice < 4:
        return draw.one(edges)
    if choice < 7:
        return draw.one(near)
    return draw.one(sizes) if choice < 9 else draw.below(1 << bits)


def set_value(draw: Draw, data: bytearray, field: Field, length: int) -> None:
    """Replace the value of `field` in `data`."""
    if field.code[-1] == "f":
        raw = draw.one(FLOATS) if draw.chance(90) else draw.bytes(4)
        data[field.offset : field.offset + 4] = raw if field.code[0] == "<" else raw[::-1]
        return
    code = field.code.upper()
    (old,) = struct.unpack_from(code, data, field.offset)
    value = _integer(draw, field, old, length) & (1 << 8 * field.size) - 1
    struct.pack_into(code, data, field.offset, value)


def _change_values(draw: Draw, seed: Seed, data: bytearray) -> None:
    """A few values anywhere, or counts only, or a run of neighbours (all of a vector, many indices)."""
    fields = seed.fields
    way = draw.below(8)
    if way == 0:
        counts = [field for field in fields if field.role == "count"]
        set_value(draw, data, draw.one(counts or fields), len(data))
    elif way < 3:
        first = draw.below(len(fields))
        for field in fields[first : first + draw.size(40)]:
            set_value(draw, data, field, len(data))
    elif way == 3:  # headers come first, and decide most
        set_value(draw, data, fields[draw.below(min(24, len(fields)))], len(data))
    else:
        values = [field for field in fields if field.role == "value"] or fields
        for _ in range(draw.size(6)):
            set_value(draw, data, draw.one(values), len(data))


def _change_token(draw: Draw, seed: Seed, data: bytearray) -> None:
    """In a text format: a number or a sign becomes another token."""
    tokens = list(re.finditer(rb"[-+0-9.eE]+|[{};,]|[^\s{};,]+", bytes(data)))
    if tokens:
        start, end = draw.one(tokens).span()
        data[start:end] = draw.one(_TOKENS)


# -- sections and records ----------------------------------------------------------------------------------------------


def _bump(data: bytearray, count: Field | None, by: int) -> None:
    """Add to a count, so that the reader goes along with what was done to its records."""
    if count is not None:
        (old,) = struct.unpack_from(count.code.upper(), data, count.offset)
        struct.pack_into(count.code.upper(), data, count.offset, (old + by) & (1 << 8 * count.size) - 1)


def _change_records(draw: Draw, seed: Seed, data: bytearray) -> None:
    """Delete, repeat or swap records, mostly with the count set right."""
    record: Record = draw.one(seed.records)
    body = bytes(data[record.start : record.end])
    count = record.count if draw.chance(75) else None
    way = draw.below(4)
    if way == 0:
        _bump(data, count, -1)
        del data[record.start : record.end]
    elif way == 1:
        times = min(draw.size(200), GROWTH // len(body))
        _bump(data, count, times)
        data[record.start : record.start] = body * times
    elif way == 2:
        other = draw.one(seed.records)
        if other.start >= record.end:
            there = bytes(data[other.start : other.end])
            data[other.start : other.end] = body
            data[record.start : record.end] = there
    else:  # all records of a section are the same: cycles, duplicate names
        for other in seed.records:
            if other.count == record.count and other.end - other.start == len(body):
                data[other.start : other.end] = body


def _change_sections(draw: Draw, seed: Seed, data: bytearray) -> None:
    """Cut out, repeat or swap what lies between two cuts."""
    cuts = seed.cuts
    a = draw.below(len(cuts) - 1)
    b = a + 1 + draw.below(min(len(cuts) - a - 1, 2))
    way = draw.below(3)
    if way == 0:
        del data[cuts[a] : cuts[b]]
    elif way == 1:
        at = draw.one(cuts)
        data[at:at] = data[cuts[a] : cuts[b]] * min(draw.size(4), 1 + GROWTH // max(cuts[b] - cuts[a], 1))
    else:
        c = b + draw.below(len(cuts) - b)
        data[cuts[a] : cuts[c]] = data[cuts[b] : cuts[c]] + data[cuts[a] : cuts[b]]


# -- blind -------------------------------------------------------------------------------------------------------------


def _flip(draw: Draw, data: bytearray) -> None:
    for _ in range(draw.size(12)):
        if data:
            data[draw.below(len(data))] ^= 1 << draw.below(8)


def _overwrite(draw: Draw, data: bytearray) -> None:
    start = draw.below(len(data))
    size = min(draw.size(64), len(data) - start)
    data[start : start + size] = bytes([draw.one(_BYTES)]) * size if draw.chance(60) else draw.bytes(size)[:size]


def _truncate(draw: Draw, data: bytearray) -> None:
    del data[len(data) - draw.size(len(data)) if draw.chance(50) else draw.below(len(data)) :]


def _insert(draw: Draw, data: bytearray) -> None:
    at, size = draw.below(len(data) + 1), draw.size(600)
    data[at:at] = bytes([draw.one(_BYTES)]) * size if draw.chance(50) else draw.bytes(size)[:size]


def _delete(draw: Draw, data: bytearray) -> None:
    start = draw.below(len(data))
    del data[start : start + draw.size(64)]


def _copy(draw: Draw, data: bytearray) -> None:
    start, at = draw.below(len(data)), draw.below(len(data) + 1)
    data[at:at] = data[start : start + draw.size(256)]


_BLIND: tuple[Callable[[Draw, bytearray], None], ...] = (
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _truncate,
    _insert,
    _delete,
    _copy,
)


def _splice(draw: Draw, data: bytearray, other: bytes) -> None:
    """The beginning of one file with the end of another, or a part of it in the middle."""
    if draw.chance(50):
        data[draw.below(len(data) + 1) :] = other[draw.below(len(other)) :]
        return
    start, at = draw.below(len(other)), draw.below(len(data) + 1)
    part = other[start : start + draw.size(512)]
    data[at : at + (len(part) if draw.chance(50) else 0)] = part


# -- a case ------------------------------------------------------------------------------------------------------------


def mutate(draw: Draw, seeds: Sequence[Seed]) -> tuple[Seed, bytes]:
    """One of `seeds` and what became of it.

    Up to four changes of values come first, while the map of the seed still holds; then records or sections may move,
    then blind damage may follow. Half of the cases are structural only, a quarter blind only. Check sums are mended
    three times of four.
    """
    seed = draw.one([seed for seed in seeds for _ in range(seed.weight)])
    data = bytearray(seed.data)
    way = draw.below(8)
    if way < 6:
        value = _change_values if seed.fields else _change_token
        moved = draw.below(100)
        if moved < 25 and seed.records:
            if draw.chance(40):
                value(draw, seed, data) if seed.fields else None
            _change_records(draw, seed, data)
        elif moved < 45 and len(seed.cuts) > 2:
            if draw.chance(40):
                value(draw, seed, data) if seed.fields else None
            _change_sections(draw, seed, data)
        else:
            for _ in range(draw.size(4)):
                value(draw, seed, data)
    if way >= 4:
        for _ in range(draw.size(3)):
            if draw.chance(15):
                _splice(draw, data, draw.one(seeds).data)
            elif data:
                draw.one(_BLIND)(draw, data)
    result = bytes(data[: len(seed.data) * 2 + 2 * GROWTH])
    if seed.mend is not None and draw.chance(75):
        result = seed.mend(result)
    return seed, result
