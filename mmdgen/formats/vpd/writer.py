"""`VpdFile` -> VPD bytes: the text of what was read, and MMD's own layout for what is new."""

from __future__ import annotations

import math

from mmdgen.errors import FormatError
from mmdgen.formats.cursor import Buffer, Cursor
from mmdgen.formats.text import encode_text, printable
from mmdgen.formats.vpd.reader import ENCODING, read_block, read_header
from mmdgen.formats.vpd.records import SIGNATURE, VpdBone, VpdFile, VpdMorph

_SHORT = 32  # characters of a number that is written without an exponent


def write_vpd(file: VpdFile) -> bytes:
    """The bytes of `file`; reading them gives the same records, and ``write_vpd(read_vpd(data)) == data``.

    FormatError, with the field path, for what VPD cannot hold: line ends in names, a semicolon in the parent's name,
    text that cp932 lacks, numbers that are not finite.
    """
    buffer = Buffer()
    piece = _header(buffer, file)
    buffer.raw(piece)
    counts = {VpdBone: 0, VpdMorph: 0}
    for i in buffer.items("blocks", len(file.blocks)):
        if _swallows(piece, first=i == 0):
            buffer.raw(b"\r\n")
        block = file.blocks[i]
        piece = _block(buffer, block, counts[type(block)])
        counts[type(block)] += 1
        buffer.raw(piece)
    return buffer.getvalue()


def _swallows(piece: bytes, first: bool) -> bool:
    """Whether text right behind `piece` would become part of its last line: a comment or the line of the bone count."""
    tail = piece[max(piece.rfind(b"\r"), piece.rfind(b"\n")) + 1 :]
    return bool(tail.strip()) if first else b"//" in tail


def _header(buffer: Buffer, file: VpdFile) -> bytes:
    stated = file.stated_bones
    if file.raw and _header_says(file.raw, file.parent, stated):
        return file.raw
    text = f";\t\t// 親ファイル名\r\n{stated};\t\t\t\t// 総ポーズボーン数\r\n\r\n"
    raw = SIGNATURE + b"\r\n\r\n" + _encoded(buffer, file.parent, "parent") + text.encode(ENCODING)
    if not _header_says(raw, file.parent, stated):
        buffer.fail(f"cannot write the parent {printable(file.parent)!r} with {stated} bones", "parent")
    return raw


def _header_says(raw: bytes, parent: str, stated: int) -> bool:
    """Whether `raw`, and all of it, is a header with these values."""
    cursor = Cursor(raw)
    try:
        return read_header(cursor)[:2] == (parent, stated) and not cursor.remaining
    except FormatError:
        return False


def _block(buffer: Buffer, block: VpdBone | VpdMorph, number: int) -> bytes:
    """The text of a block: its own, or a new one numbered `number`."""
    if block.raw and _block_says(block.raw, block):
        return block.raw
    if isinstance(block, VpdBone):
        translation = _numbers(buffer, block.translation, 3, "translation")
        rotation = _numbers(buffer, block.rotation, 4, "rotation")
        kind, lines = "Bone", f"  {translation};\t\t\t\t// trans x,y,z\r\n  {rotation};\t\t// Quaternion x,y,z,w\r\n"
    else:
        kind, lines = "Morph", f"  {_numbers(buffer, (block.weight,), 1, 'weight')};\t\t\t\t// weight\r\n"
    name = _encoded(buffer, block.name, "name")
    raw = b"%s%d{%s\r\n%s}\r\n\r\n" % (kind.encode(), number, name, lines.encode(ENCODING))
    if not _block_says(raw, block):
        buffer.fail(f"the name {printable(block.name)!r} cannot be written", "name")
    return raw


def _block_says(raw: bytes, block: VpdBone | VpdMorph) -> bool:
    """Whether `raw`, and all of it, is a block with the values of `block`."""
    cursor = Cursor(raw)
    try:
        return read_block(cursor) == block and not cursor.remaining
    except FormatError:
        return False


def _encoded(buffer: Buffer, text: str, field: str) -> bytes:
    try:
        return encode_text(text, ENCODING)
    except UnicodeEncodeError:
        buffer.fail(f"the text {printable(text)!r} cannot be written as {ENCODING}", field)


def _numbers(buffer: Buffer, values: tuple[float, ...], count: int, field: str) -> str:
    """The numbers with commas between them: as MMD writes them, with as many digits more as they need."""
    if len(values) != count:
        buffer.fail(f"{len(values)} numbers, expected {count}", field)
    texts = []
    for value in map(float, values):
        if not math.isfinite(value):
            buffer.fail(f"the number {value} cannot be written", field)
        text = f"{value:.6f}"
        texts.append(text if len(text) <= _SHORT and float(text) == value else repr(value))
    return ",".join(texts)
