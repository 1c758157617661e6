"""Which MMD format a file has, by its first bytes: extensions of real files lie."""

from __future__ import annotations


def sniff(data: bytes) -> str | None:
    """``"pmx"``, ``"pmd"``, ``"vmd"``, ``"vpd"`` or None for anything else. The first 32 bytes of the file are enough.

    Of a PMX signature only three letters count: the fourth byte varies among real files (nanoem accepts ``PMX\\xa0``).
    A PMX 1.0 file, which begins with ``Pmx``, is a different format that nothing in use writes any more: None.
    """
    if data[:3] == b"PMX":
        return "pmx"
    if data[:3] == b"Pmd":
        return "pmd"
    if data[:20] == b"Vocaloid Motion Data":
        return "vmd"
    if data[:23] == b"Vocaloid Pose Data file":
        return "vpd"
    return None
