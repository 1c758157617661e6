"""Text of MMD files: bytes <-> `str`, reversible for every byte string.

Names are keys, so text is decoded strictly first. Real files also hold text that is no valid text (an odd number of
UTF-16 bytes, lone surrogates, a Shift-JIS field cut in the middle of a character). Such a name must neither fail the
file nor change when the file is written again, so what does not decode becomes lone surrogates, which no valid text
contains:

* ``utf-8`` and ``cp932``: each undecodable byte b is U+DC00 + b (Python's ``surrogateescape``, PEP 383).
* ``utf-16-le``: a lone surrogate stays itself (``surrogatepass``). An odd last byte b is the *pair* U+DBFF, U+DC00 + b
  as two separate code points: decoding never leaves a high surrogate before a low one, so it cannot mean anything else.

`is_clean` tells whether a text was decoded without such repairs; `printable` gives a version that any encoder accepts.
"""

from __future__ import annotations

import re

from mmdgen import errors

_SURROGATES = re.compile("[\ud800-\udfff]+")
_ODD_BYTE = "\udbff"


def is_clean(text: str) -> bool:
    """Whether `text` was decoded (and can be encoded) without damage: it holds no surrogate code point."""
    return text.isascii() or _SURROGATES.search(text) is None


def printable(text: str) -> str:
    """`text` with every run of damaged code points replaced by one U+FFFD: safe for UTF-8, JSON and terminals."""
    return text if is_clean(text) else _SURROGATES.sub("\ufffd", text)


def one_line(text: str) -> str:
    """Return any text, odd file names too, for terminals, pages and JSON: in full, see `mmdgen.errors.one_line`."""
    return errors.one_line(text, None)


def decode_text(raw: bytes, encoding: str) -> str:
    """The text of `raw` in ``utf-16-le``, ``utf-8`` or ``cp932``; never fails, see the module for damaged bytes.

    For ``utf-16-le`` and ``utf-8``, ``encode_text(decode_text(raw, e), e) == raw`` always holds. ``cp932`` has a few
    hundred characters with two codes; `decode_fixed` takes care of them.
    """
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-16-le":
            return raw.decode(encoding, "surrogateescape")
    whole = len(raw) & ~1
    text = raw[:whole].decode(encoding, "surrogatepass")
    return text if whole == len(raw) else text + _ODD_BYTE + chr(0xDC00 + raw[-1])


def encode_text(text: str, encoding: str) -> bytes:
    """The bytes of `text`, the inverse of `decode_text`; UnicodeEncodeError where `encoding` cannot express it."""
    try:
        return text.encode(encoding)
    except UnicodeEncodeError:
        if encoding != "utf-16-le":
            return text.encode(encoding, "surrogateescape")
    if len(text) >= 2 and text[-2] == _ODD_BYTE and 0xDC00 <= ord(text[-1]) <= 0xDCFF:
        return text[:-2].encode(encoding, "surrogatepass") + bytes([ord(text[-1]) - 0xDC00])
    return text.encode(encoding, "surrogatepass")


def decode_fixed(raw: bytes, encoding: str = "cp932") -> tuple[str, bytes]:
    """Split a fixed-size field such as PMD's into its text (up to the first NUL) and what the text does not determine.

    The second value is normally the bytes after the NUL (editors leave 0xFD or garbage there). Where the text would
    not be encoded to the same bytes (cp932 has two codes for some characters, such as NEC and IBM roman numerals), it
    is the whole field instead: the only case in which it is as long as `raw`. `encode_fixed` puts both together again.
    """
    end = raw.find(b"\0")
    body = raw if end < 0 else raw[:end]
    text = decode_text(body, encoding)
    if encode_text(text, encoding) != body:
        return text, raw
    return text, b"" if end < 0 else raw[end + 1 :]


def encode_fixed(text: str, rest: bytes, size: int, encoding: str = "cp932") -> bytes:
    """The field of `size` bytes whose `decode_fixed` is ``(text, rest)``.

    A changed text takes the place of the bytes before the NUL; it is padded with NUL bytes where `rest` is too short,
    and a `rest` that no longer fits is cut from its start. ValueError where the text holds a NUL or does not fit into
    `size` bytes; its subclass UnicodeEncodeError where the encoding cannot express it.
    """
    if len(rest) == size and decode_fixed(rest, encoding) == (text, rest):
        return rest
    body = encode_text(text, encoding)
    if b"\0" in body:
        raise ValueError(f"the text {printable(text)!r} holds a NUL, which ends the field")
    if len(body) > size:
        raise ValueError(f"the text {printable(text)!r} takes {len(body)} bytes, the field has {size}")
    if len(body) == size:
        return body
    free = size - len(body) - 1
    after = b"" if len(rest) == size else rest  # a whole field belongs to the text that it was read with
    return body + b"\0" + (after[-free:] if free else b"").ljust(free, b"\0")
