"""VPD bytes -> `VpdFile`.

The text is matched as bytes, before it is decoded: of its delimiters, only a brace can be the second byte of a cp932
character, and the only one looked for stands behind ASCII. Every pattern is possessive (it never gives back what it
took), so that reading takes time in proportion to the file, whatever is in it.
"""

from __future__ import annotations

import math
import re
from typing import NoReturn

from mmdgen.formats.cursor import Cursor
from mmdgen.formats.text import decode_text, printable
from mmdgen.formats.vpd.records import SIGNATURE, VpdBone, VpdFile, VpdMorph

ENCODING = "cp932"
MAX_NUMBER = 64  # bytes of one number's text

_SIGNATURE = re.compile(re.escape(SIGNATURE) + rb"[^\r\n]*+")
_SPACE = re.compile(rb"(?:[ \t\r\n\f\v]++|//[^\r\n]*+)*+")  # comments are space
_NUMBER = re.compile(rb"[-+]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?+")
_ITEM = re.compile(rb"%s(%s)%s([,;])" % (_SPACE.pattern, _NUMBER.pattern, _SPACE.pattern))
_REST_OF_LINE = re.compile(rb"[^\r\n]*+")
_PARENT = re.compile(rb"([^;\r\n]*+);")
_COUNT = re.compile(rb"([0-9]{1,9}+)[ \t]*+;")
_BLOCK = re.compile(rb"(Bone|Morph)[0-9]*+[ \t]*+\{([^\r\n]*+)")
_MORE_ON_LINE = re.compile(rb"[ \t]*+(?=[-+.0-9}])")
_END = re.compile(rb"\}")
_SHOWN = re.compile(rb"[^\r\n]{0,40}+")


def read_vpd(data: bytes, file: str = "<bytes>") -> VpdFile:
    """Everything that the VPD file `data` says; `file` names it in errors.

    FormatError, with the line, the byte offset and the field path, where the file is damaged. Not an error: text that
    does not decode (see `mmdgen.formats.text`), another number of bones than stated, and text behind a semicolon.
    ``write_vpd(read_vpd(data)) == data`` always holds.
    """
    cursor = Cursor(data, file)
    parent, count, raw = read_header(cursor)
    blocks: list[VpdBone | VpdMorph] = []
    while cursor.remaining:
        with cursor.at(f"blocks[{len(blocks)}]"):
            blocks.append(read_block(cursor))
    found = sum(isinstance(block, VpdBone) for block in blocks)
    return VpdFile(parent, tuple(blocks), None if count == found else count, raw)


def read_header(cursor: Cursor) -> tuple[str, int, bytes]:
    """The parent file, the stated number of bones, and the text up to the first block."""
    start = cursor.mark()
    if cursor.match(_SIGNATURE) is None:
        _fail(cursor, f"this is no VPD file, which begins with {SIGNATURE.decode()!r}", "signature")
    cursor.match(_SPACE)
    parent = cursor.match(_PARENT)
    if parent is None:
        _fail(cursor, "expected the model's file name and a semicolon", "parent")
    cursor.match(_REST_OF_LINE)
    cursor.match(_SPACE)
    count = cursor.match(_COUNT)
    if count is None:
        _fail(cursor, "expected the number of bones and a semicolon", "bone_count")
    cursor.match(_REST_OF_LINE)
    cursor.match(_SPACE)
    return decode_text(parent[1], ENCODING), int(count[1]), cursor.since(start)


def read_block(cursor: Cursor) -> VpdBone | VpdMorph:
    """The bone or morph that begins here, with all text up to the next one."""
    start = cursor.mark()
    head = cursor.match(_BLOCK)
    if head is None:
        _fail(cursor, "expected a block such as 'Bone0{' or the end of the file", "kind")
    name = decode_text(head[2], ENCODING)
    if head[1] == b"Bone":
        x, y, z = _numbers(cursor, 3, "translation")
        qx, qy, qz, qw = _numbers(cursor, 4, "rotation")
        _close(cursor)
        return VpdBone(name, (x, y, z), (qx, qy, qz, qw), cursor.since(start))
    (weight,) = _numbers(cursor, 1, "weight")
    _close(cursor)
    return VpdMorph(name, weight, cursor.since(start))


def _numbers(cursor: Cursor, count: int, field: str) -> list[float]:
    """`count` finite numbers with commas between them and a semicolon behind them."""
    values = []
    for number in range(1, count + 1):
        mark = cursor.mark()
        item = cursor.match(_ITEM)
        if item is None or (item[2] == b",") != (number < count):
            cursor.rewind(mark)
            _blame(cursor, number, count, field)
        value = float(item[1]) if len(item[1]) <= MAX_NUMBER else math.inf
        if not math.isfinite(value):
            cursor.rewind(mark)
            cursor.match(_SPACE)
            _fail(cursor, f"number {number} of {count} is out of range or longer than {MAX_NUMBER} characters", field)
        values.append(value)
    if cursor.match(_MORE_ON_LINE) is None:
        cursor.match(_REST_OF_LINE)
    return values


def _blame(cursor: Cursor, number: int, count: int, field: str) -> NoReturn:
    """The error for what is wrong with number `number` of `count` here."""
    cursor.match(_SPACE)
    if cursor.match(_NUMBER) is None:
        _fail(cursor, f"expected number {number} of {count}", field)
    cursor.match(_SPACE)
    _fail(cursor, f"expected {'a comma' if number < count else 'a semicolon'} after number {number} of {count}", field)


def _close(cursor: Cursor) -> None:
    cursor.match(_SPACE)
    if cursor.match(_END) is None:
        _fail(cursor, "expected the closing brace", "end")
    cursor.match(_SPACE)


def _fail(cursor: Cursor, message: str, field: str) -> NoReturn:
    """The error for what stands here instead."""
    line, mark = cursor.line, cursor.mark()
    found = cursor.match(_SHOWN)
    cursor.rewind(mark)
    shown = repr(printable(decode_text(found[0], ENCODING))) if found and found[0] else "the end of the line"
    cursor.fail(f"line {line}: {message}, found {shown if cursor.remaining else 'the end of the file'}", field)
