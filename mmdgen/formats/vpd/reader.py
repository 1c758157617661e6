"""VPD bytes -> `VpdFile`.

The text is matched as bytes, before it is decoded: of its delimiters, only a brace can be the second byte of a cp932
character, and the only one looked for stands behind ASCII. Every pattern is possessive (it never gives back what it
took), so that reading takes time in proportion to the file, whatever is in it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NoReturn

from mmdgen.formats.cursor import Cursor
from mmdgen.formats.text import decode_text, printable
from mmdgen.formats.vpd.records import SIGNATURE, VpdBone, VpdFile, VpdMorph

ENCODING = "cp932"
MAX_NUMBER = 64  # bytes of one number's text

_SPACE = rb"(?:[ \t\r\n\f\v]++|//[^\r\n]*+)*+"  # comments are space
_REST_OF_LINE = rb"[^\r\n]*+"
_NUMBER = rb"([-+]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?+)"
_AFTER_SEMICOLON = rb"(?>[ \t]*+(?=[-+.0-9}])|[^\r\n]*+)"  # more of the block, else anything counts as a comment
_SHOWN = re.compile(rb"[^\r\n]{0,40}+")


@dataclass(frozen=True, slots=True)
class _Step:
    """A piece of the text: its pattern, and for the error where it does not match, what is expected and the field."""

    pattern: re.Pattern[bytes]
    expected: str
    field: str


class _Grammar:
    """Pieces of text that follow each other, matched at once; piece by piece only to find what is wrong."""

    def __init__(self, *steps: tuple[bytes, str, str]) -> None:
        self.steps = [_Step(re.compile(pattern), expected, field) for pattern, expected, field in steps]
        self.whole = re.compile(b"".join(pattern for pattern, _, _ in steps))

    def match(self, cursor: Cursor) -> re.Match[bytes]:
        """The match of all pieces here, or the error for the first one that does not match."""
        found = cursor.match(self.whole)
        if found is not None:
            return found
        for step in self.steps:
            if cursor.match(step.pattern) is None:
                _fail(cursor, f"expected {step.expected}", step.field)
        _fail(cursor, "the text does not fit together", "")

    def refuse(self, cursor: Cursor, number: int) -> NoReturn:
        """The error for number `number`, from 1, of what was matched from here on."""
        for step in self.steps:
            if step.pattern.pattern == _NUMBER:
                number -= 1
                if number == 0:
                    _fail(cursor, f"a number out of range or longer than {MAX_NUMBER} characters", step.field)
            cursor.match(step.pattern)
        _fail(cursor, "a number out of range", "")


def _items(count: int, field: str) -> list[tuple[bytes, str, str]]:
    """`count` numbers with commas between them and a semicolon behind them."""
    steps = []
    for i in range(1, count + 1):
        mark, name = (b",", "a comma") if i < count else (b";", "a semicolon")
        steps += [(_SPACE, "", field), (_NUMBER, f"number {i} of {count}", field)]
        steps += [(_SPACE, "", field), (mark, f"{name} after number {i} of {count}", field)]
    return [*steps, (_AFTER_SEMICOLON, "", field)]


def _block(kind: bytes, *items: tuple[bytes, str, str]) -> _Grammar:
    head = (kind + rb"[0-9]*+[ \t]*+\{([^\r\n]*+)", "a block such as 'Bone0{' or the end of the file", "kind")
    return _Grammar(head, *items, (_SPACE, "", "end"), (rb"\}", "the closing brace", "end"), (_SPACE, "", "end"))


_HEADER = _Grammar(
    (re.escape(SIGNATURE) + _REST_OF_LINE, f"{SIGNATURE.decode()!r}, with which VPD files begin", "signature"),
    (_SPACE, "", "parent"),
    (rb"([^;\r\n]*+);", "the model's file name and a semicolon", "parent"),
    (_REST_OF_LINE + _SPACE, "", "bone_count"),
    (rb"([0-9]{1,9}+)[ \t]*+;", "the number of bones and a semicolon", "bone_count"),
    (_REST_OF_LINE + _SPACE, "", "bone_count"),
)
_BONE = _block(b"Bone", *_items(3, "translation"), *_items(4, "rotation"))
_MORPH = _block(b"Morph", *_items(1, "weight"))
_MORPH_AHEAD = re.compile(b"(?=Morph)")


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
    found = _HEADER.match(cursor)
    return decode_text(found[1], ENCODING), int(found[2]), found[0]


def read_block(cursor: Cursor) -> VpdBone | VpdMorph:
    """The bone or morph that begins here, with all text up to the next one."""
    start = cursor.mark()
    grammar = _BONE if cursor.match(_MORPH_AHEAD) is None else _MORPH
    raw, name, *texts = grammar.match(cursor).group(*range(grammar.whole.groups + 1))
    values = [float(text) if len(text) <= MAX_NUMBER else math.inf for text in texts]
    for number, value in enumerate(values, 1):
        if not math.isfinite(value):
            cursor.rewind(start)
            grammar.refuse(cursor, number)
    if grammar is _MORPH:
        return VpdMorph(decode_text(name, ENCODING), values[0], raw)
    x, y, z, qx, qy, qz, qw = values
    return VpdBone(decode_text(name, ENCODING), (x, y, z), (qx, qy, qz, qw), raw)


def _fail(cursor: Cursor, message: str, field: str) -> NoReturn:
    """The error for what stands here instead."""
    line, mark = cursor.line, cursor.mark()
    found = cursor.match(_SHOWN)
    cursor.rewind(mark)
    shown = repr(printable(decode_text(found[0], ENCODING))) if found and found[0] else "the end of the line"
    cursor.fail(f"line {line}: {message}, found {shown if cursor.remaining else 'the end of the file'}", field)
