"""Reading and writing positions in a file: the only code of mmdgen that touches byte offsets.

`Cursor` reads little-endian values and raises one `FormatError` that carries the file, the byte offset and the field
path such as ``morphs[12].offsets.count``. `Buffer` is its counterpart for writing. Both keep the bits of NaN values: a
plain float32 -> float64 conversion would set the quiet bit of a signalling NaN and so change the file.
"""

from __future__ import annotations

import functools
import itertools
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from mmdgen.errors import FormatError
from mmdgen.formats.text import decode_fixed, decode_text, encode_fixed, encode_text, printable

_I32 = struct.Struct("<i")


class TruncatedError(FormatError):
    """The file ends (or is too short for a count that it holds) before the value that was to be read."""


class Layout:
    """A compiled sequence of numbers: a `struct` format of ``b B h H i I f``, little-endian without saying so."""

    __slots__ = ("_bits", "_kinds", "_struct", "size")

    def __init__(self, layout: str) -> None:
        self._kinds = "".join(kind * int(times or 1) for times, kind in re.findall(r"(\d*)([bBhHiIf])", layout))
        self._struct = struct.Struct("<" + layout)
        self._bits = struct.Struct("<" + self._kinds.replace("f", "I"))
        self.size = self._struct.size

    def unpack_from(self, data: bytes, position: int) -> tuple[Any, ...]:
        """The numbers at `position`; float32 values become floats, NaN with its payload."""
        values = self._struct.unpack_from(data, position)
        total = sum(values)
        if total == total:
            return values
        bits = self._bits.unpack_from(data, position)
        return tuple(v if v == v else _nan_from_bits(b) for v, b in zip(values, bits, strict=True))

    def pack(self, values: Sequence[Any]) -> bytes:
        """The bytes of `values`. struct.error, OverflowError or TypeError where a value does not fit its kind."""
        total = sum(values)
        if total == total:
            return self._struct.pack(*values)
        bits = [_bits_from_float(v) if kind == "f" else v for kind, v in zip(self._kinds, values, strict=True)]
        return self._bits.pack(*bits)


def _nan_from_bits(bits: int) -> float:
    """The float64 NaN with the sign and the payload of a float32 NaN, by bits: no floating-point unit sees it."""
    wide = (bits & 0x80000000) << 32 | 0x7FF << 52 | (bits & 0x7FFFFF) << 29
    return struct.unpack("<d", struct.pack("<Q", wide))[0]


def _bits_from_float(value: float) -> int:
    """The float32 bits of `value`; the inverse of `_nan_from_bits` for NaN."""
    if value == value:
        return struct.unpack("<I", struct.pack("<f", value))[0]
    wide = struct.unpack("<Q", struct.pack("<d", value))[0]
    # A float64 NaN made elsewhere may keep its payload in the bits that float32 lacks: it must not turn into infinity.
    payload = wide >> 29 & 0x7FFFFF or 0x400000
    return wide >> 32 & 0x80000000 | 0x7F800000 | payload


@functools.lru_cache(maxsize=256)
def layout(kinds: str) -> Layout:
    """The compiled `Layout` of a `struct` format such as ``3f2HB``; cached."""
    return Layout(kinds)


class _Path:
    """Where in the structure we are; shared by reader and writer. Kept cheap: text is only made for an error."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._steps: list[tuple[str, int]] = []

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Add `name` to the field path of every error raised inside."""
        self._steps.append((name, -1))
        yield
        self._steps.pop()  # not on an exception: whoever catches it may still ask where it happened

    def items(self, name: str, count: int) -> Iterator[int]:
        """The numbers 0 to `count` - 1; while number i is being handled, the field path has ``name[i]``."""
        steps = self._steps
        depth = len(steps)
        steps.append((name, 0))
        for index in range(count):
            steps[depth] = (name, index)
            yield index
        del steps[depth:]

    def path(self, field: str = "") -> str:
        """The field path here, such as ``bones[3].ik.links[0].limits``."""
        parts = [name if index < 0 else f"{name}[{index}]" for name, index in self._steps]
        return ".".join([*parts, field] if field else parts)


class Cursor(_Path):
    """A reading position in `data`. Every method checks the bytes left first and takes the name of what it reads."""

    def __init__(self, data: bytes, file: str = "<bytes>") -> None:
        super().__init__(file)
        self._data = bytes(data)
        self._position = 0

    # -- where we are -------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The byte offset of the next value."""
        return self._position

    @property
    def remaining(self) -> int:
        """How many bytes follow."""
        return len(self._data) - self._position

    def mark(self) -> tuple[int, int]:
        """A place to return to with `rewind`, also after an error."""
        return self._position, len(self._steps)

    def rewind(self, mark: tuple[int, int]) -> None:
        """Return to a place that `mark` gave."""
        self._position, depth = mark
        del self._steps[depth:]

    def fail(self, message: str, field: str = "", *, back: int = 0) -> NoReturn:
        """Raise the FormatError for the value that starts `back` bytes before the current position."""
        raise FormatError(message, file=self.file, offset=self._position - back, field=self.path(field))

    def require(self, size: int, field: str) -> None:
        """Raise `TruncatedError` unless `size` more bytes follow."""
        left = len(self._data) - self._position
        if size > left:
            raise TruncatedError(
                f"the file ends too early: {size} bytes needed, {left} left",
                file=self.file,
                offset=self._position,
                field=self.path(field),
            )

    # -- numbers ------------------------------------------------------------------------------------------------------

    def unpack(self, numbers: Layout, field: str) -> tuple[Any, ...]:
        """All numbers of a `Layout`."""
        position = self._position
        end = position + numbers.size
        if end > len(self._data):
            self.require(numbers.size, field)
        self._position = end
        return numbers.unpack_from(self._data, position)

    def u8(self, field: str) -> int:
        return self.unpack(layout("B"), field)[0]

    def u16(self, field: str) -> int:
        return self.unpack(layout("H"), field)[0]

    def i32(self, field: str) -> int:
        return self.unpack(layout("i"), field)[0]

    def u32(self, field: str) -> int:
        return self.unpack(layout("I"), field)[0]

    def f32(self, field: str) -> float:
        return self.unpack(layout("f"), field)[0]

    def floats(self, count: int, field: str) -> tuple[Any, ...]:
        """`count` float32 values (a small number: each count compiles a layout)."""
        return self.unpack(layout(f"{count}f"), field)

    def count(self, field: str, minimum: int, kind: str = "i") -> int:
        """A number of items of at least `minimum` bytes each, as a `kind` of `Layout` (``i`` is i32).

        A negative one is a FormatError; one that the bytes left cannot hold is a `TruncatedError`, so nothing is ever
        allocated for it.
        """
        numbers = layout(kind)
        value = self.unpack(numbers, field)[0]
        if value < 0:
            self.fail(f"the count is negative: {value}", field, back=numbers.size)
        left = len(self._data) - self._position
        if value * minimum > left:
            raise TruncatedError(
                f"{value} items take at least {value * minimum} bytes, but only {left} bytes are left",
                file=self.file,
                offset=self._position - numbers.size,
                field=self.path(field),
            )
        return value

    # -- bytes, text, arrays ------------------------------------------------------------------------------------------

    def take(self, size: int, field: str) -> bytes:
        """The next `size` bytes."""
        self.require(size, field)
        position = self._position
        self._position = position + size
        return self._data[position : position + size]

    def rest(self) -> bytes:
        """All bytes that follow; the position moves to the end."""
        return self.take(self.remaining, "tail")

    def text(self, encoding: str, field: str) -> str:
        """A text with its length in bytes as i32 before it. Damaged text does not fail, see `mmdgen.formats.text`."""
        # The usual case without the detour: a model has thousands of names.
        position = self._position + 4
        if position <= len(self._data):
            end = position + _I32.unpack_from(self._data, position - 4)[0]
            if position <= end <= len(self._data):
                self._position = end
                return decode_text(self._data[position:end], encoding)
        return decode_text(self.take(self.count(field, 1), field), encoding)

    def fixed_text(self, size: int, field: str) -> tuple[str, bytes]:
        """A cp932 field of `size` bytes as `text.decode_fixed` gives it: the text and what to keep for writing it."""
        return decode_fixed(self.take(size, field))

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """The match of `pattern` right here, of which the position moves to the end; None (and no move) without one."""
        found = pattern.match(self._data, self._position)
        if found is not None:
            self._position = found.end()
        return found

    @property
    def line(self) -> int:
        """The number of the current line of a text file, from 1. Counts from the start: for error messages."""
        return self._data.count(b"\n", 0, self._position) + 1

    def array(self, dtype: np.dtype, count: int, field: str) -> np.ndarray:
        """The next `count` items as an array [count] of its own memory."""
        self.require(dtype.itemsize * count, field)
        items = np.frombuffer(self._data, dtype, count, self._position)
        self._position += items.nbytes
        return items.copy()

    # -- records of varying size --------------------------------------------------------------------------------------

    def walk(self, count: int, kind_at: int, sizes: Sequence[int], name: str, kind_name: str) -> np.ndarray:
        """Where each of the next `count` records starts, i64 [count + 1]: the last one is where they end; move there.

        A record of kind k has ``sizes[k]`` bytes (there may be up to 256 kinds) and holds k in the byte `kind_at`. An
        unknown kind is a FormatError at ``name[i].kind_name``.
        """
        start = self._position
        offsets = self._uniform(count, kind_at, sizes)
        if offsets is None:
            offsets = self._chain(count, kind_at, sizes, name, kind_name)
        self._position = int(offsets[-1]) if count else start
        return offsets

    def _uniform(self, count: int, kind_at: int, sizes: Sequence[int]) -> np.ndarray | None:
        """The offsets where all records have the kind of the first one: no walk needed."""
        start, data = self._position, self._data
        if count == 0:
            return np.array([start])
        kind = data[start + kind_at] if start + kind_at < len(data) else len(sizes)
        if kind >= len(sizes) or start + count * sizes[kind] > len(data):
            return None
        size = sizes[kind]
        kinds = np.ndarray((count,), np.uint8, data, start + kind_at, (size,))
        return start + size * np.arange(count + 1) if (kinds == kind).all() else None

    def _chain(self, count: int, kind_at: int, sizes: Sequence[int], name: str, kind_name: str) -> np.ndarray:
        """The offsets by following the chain: each record's kind says where the next one starts."""
        data, start = self._data, self._position
        # An unknown kind jumps past the end of the data, which ends the loop without a test for it in every step.
        jump = [*sizes, *[len(data) + 1] * (256 - len(sizes))]
        position = start + kind_at
        # The one loop over vertices of the whole reader, so in the fastest form that Python has for it.
        try:
            kinds_at = [position := position + jump[data[position]] for _ in itertools.repeat(None, count)]
        except IndexError:
            self._blame(count, kind_at, sizes, name, kind_name)
        offsets = np.empty(count + 1, np.int64)
        offsets[0] = start
        offsets[1:] = np.fromiter(kinds_at, np.int64, count)
        offsets[1:] -= kind_at
        if offsets[-1] > len(data):
            self._blame(count, kind_at, sizes, name, kind_name)
        return offsets

    def _blame(self, count: int, kind_at: int, sizes: Sequence[int], name: str, kind_name: str) -> NoReturn:
        """Follow the chain again, slowly, and raise the error for the first record that is damaged."""
        for _ in self.items(name, count):
            self.require(kind_at + 1, kind_name)
            kind = self._data[self._position + kind_at]
            if kind >= len(sizes):
                self._position += kind_at
                self.fail(f"unknown kind {kind}, expected 0 to {len(sizes) - 1}", kind_name)
            self.take(sizes[kind], "")
        self.fail(f"{count} records do not fit", name)

    def gather(self, offsets: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """The items of `dtype` at the byte `offsets` [N], as an array [N]. IndexError for one outside the data."""
        last = len(self._data) - dtype.itemsize
        if offsets.size == 0:
            return np.empty(0, dtype)
        # Overlapping items at every byte: taking from it copies whole items, whatever their alignment.
        opaque = np.dtype((np.void, dtype.itemsize))
        return np.ndarray((last + 1,), opaque, self._data, 0, (1,))[offsets].view(dtype)


class Buffer(_Path):
    """A growing file. A value that does not fit its field is a FormatError with field path and offset so far."""

    def __init__(self, file: str = "<bytes>") -> None:
        super().__init__(file)
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    def getvalue(self) -> bytes:
        """Everything written."""
        return bytes(self._data)

    def fail(self, message: str, field: str = "") -> NoReturn:
        """Raise the FormatError for the value that was to be written here."""
        raise FormatError(message, file=self.file, offset=len(self._data), field=self.path(field))

    def pack(self, numbers: Layout, values: Sequence[Any], field: str) -> None:
        """All numbers of a `Layout`."""
        try:
            self._data += numbers.pack(values)
        except (struct.error, OverflowError, TypeError, ValueError) as error:
            self.fail(f"cannot write {tuple(values)!r}: {error}", field)

    def put(self, kind: str, value: float, field: str) -> None:
        """One number as a `kind` of `Layout`."""
        self.pack(layout(kind), (value,), field)

    def floats(self, values: Sequence[float], count: int, field: str) -> None:
        """`count` float32 values."""
        self.pack(layout(f"{count}f"), values, field)

    def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        self._data += data

    def text(self, text: str, encoding: str, field: str) -> None:
        """A text with its length in bytes as i32 before it."""
        try:
            raw = encode_text(text, encoding)
        except UnicodeEncodeError:
            self.fail(f"the text {printable(text)!r} cannot be written as {encoding}", field)
        self.put("i", len(raw), field)
        self._data += raw

    def fixed_text(self, text: str, rest: bytes, size: int, field: str) -> None:
        """A cp932 field of `size` bytes, see `text.encode_fixed`."""
        try:
            self._data += encode_fixed(text, rest, size)
        except ValueError as error:  # UnicodeEncodeError is one
            self.fail(str(error), field)

    def array(self, items: np.ndarray) -> None:
        """The bytes of an array, whose dtype says the byte order."""
        self._data += np.ascontiguousarray(items).tobytes()

    def scatter(self, offsets: np.ndarray, items: np.ndarray) -> None:
        """Overwrite bytes written before: item i goes to byte ``offsets[i]``, counted from the start of the file."""
        if offsets.size == 0:
            return
        opaque = np.dtype((np.void, items.dtype.itemsize))
        whole = np.ndarray((len(self._data) - opaque.itemsize + 1,), opaque, self._data, 0, (1,))
        whole[offsets] = np.ascontiguousarray(items).view(opaque)

    def reserve(self, sizes: np.ndarray) -> np.ndarray:
        """Append room for records of `sizes` bytes [N]; returns where each one starts, i64 [N]."""
        ends = len(self._data) + np.cumsum(sizes, dtype=np.int64)
        if len(ends):
            self._data += bytes(int(ends[-1]) - len(self._data))
        return ends - sizes
