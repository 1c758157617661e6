"""Files of a megabyte or two that are made to cost: long chains, everything damaged, thousands of what comes in dozens.

Mutations of small files never show that something takes quadratic time; these do. Each is valid as a file.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Callable

import numpy as np
from fuzz_images import RGBA, chunk, png
from fuzz_seeds import VPD, head_builder, vmd_bytes
from pmd_build import fixed, small_pmd

from mmdgen.formats.pmd import records as pmd
from mmdgen.formats.pmd import write_pmd
from mmdgen.formats.pmd.records import PmdMorph
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.writer import write_pmx

_WIDE = pmx.PmxHeader(
    vertex_index_size=4, texture_index_size=4, material_index_size=4, bone_index_size=4, morph_index_size=4
)
_NAN = (float("nan"), float("nan"), float("nan"))


def _head(**changes) -> bytes:
    return write_pmx(dataclasses.replace(head_builder().file(), header=_WIDE, **changes))


def _bones(count: int, make: Callable[[int], pmx.PmxBone]) -> bytes:
    """The head with `count` bones after its own; `make` gets the index."""
    own = head_builder().file().bones
    return _head(bones=(*own, *(make(i) for i in range(len(own), len(own) + count))))


def _morphs(count: int, make: Callable[[int], pmx.PmxMorph]) -> bytes:
    own = head_builder().file().morphs
    return _head(morphs=(*own, *(make(i) for i in range(len(own), len(own) + count))))


def _again(number: int, times: int) -> bytes:
    """The head with one of its own morphs many times, each under a name of its own."""
    own = head_builder().file().morphs[number]
    return _morphs(times, lambda i: dataclasses.replace(own, name=own.name + "abcdefgh"[i % 8]))


def _table(kind: int, **values) -> np.ndarray:
    table = np.zeros(len(next(iter(values.values()))), pmx.OFFSET_DTYPES[kind])
    for name, value in values.items():
        table[name] = value
    return table


_APPEND = pmx.BONE_APPEND_ROTATION | pmx.BONE_APPEND_TRANSLATION


def _append(i: int, source: int, parent: int = -1, **more) -> pmx.PmxBone:
    return pmx.PmxBone(f"b{i}", flags=_APPEND, append_index=source, append_ratio=0.9, parent_index=parent, **more)


def _vertex_flood() -> bytes:
    """Vertices whose every number is bad, in faces of them."""
    file = head_builder().file()
    vertices = np.repeat(file.vertices[:1], 30_000)
    for name in ("position", "normal", "uv", "edge_scale"):
        vertices[name] = np.nan
    vertices["deform"], vertices["bone_weight"], vertices["bone_index"] = pmx.SDEF, np.nan, 99
    vertices[:4] = file.vertices[:4]
    faces = np.arange(90_000, dtype=np.int32).reshape(-1, 3) % 4
    return _head(
        vertices=vertices,
        faces=faces,
        materials=(dataclasses.replace(file.materials[0], index_count=90_000),),
        morphs=(),
    )


def _pmd_morphs() -> bytes:
    entries = np.zeros(8, pmd.OFFSET)
    entries["index"] = 0xFFFFFFFF
    morphs = tuple(PmdMorph(fixed(f"m{i}"), i % 2, entries) for i in range(8000))
    return write_pmd(small_pmd(morphs=morphs, english_flag=0, english=None))


def _pmd_bones() -> bytes:
    bones = np.zeros(20_000, pmd.BONE)
    bones["name"] = fixed("頭")
    bones["parent"] = np.arange(20_000) - 1
    bones["parent"][0] = pmd.NONE
    bones["kind"], bones["ik"] = pmd.UNDER_ROTATION, np.roll(np.arange(20_000), 1)
    return write_pmd(small_pmd(bones=bones, english_flag=0, english=None))


def _png_chunks() -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in RGBA)
    return png(RGBA.shape[1], RGBA.shape[0], 8, 6, rows, chunk(b"tEXt", b"a\0b") * 60_000)


def _png_empty_pixels() -> bytes:
    """The pixels in single bytes, between thousands of empty chunks."""
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in RGBA))
    parts = b"".join(chunk(b"IDAT", rows[k : k + 1]) + chunk(b"IDAT", b"") * 150 for k in range(len(rows)))
    whole = png(RGBA.shape[1], RGBA.shape[0], 8, 6, b"")
    at = whole.index(b"IDAT") - 4
    return whole[:at] + parts + chunk(b"IEND", b"")


def _jpeg_segments() -> bytes:
    from fuzz_seeds import seeds_of

    data = seeds_of("jpeg")[0].data
    return data[:2] + b"\xff\xfe\0\2" * 200_000 + data[2:]


def _jpeg_scans() -> bytes:
    """A progressive file of a megapixel whose scans say nothing, over and over."""
    from fuzz_seeds import seeds_of

    data = next(seed.data for seed in seeds_of("jpeg") if seed.name == "progressive")
    frame = data.index(b"\xff\xc2")
    data = data[: frame + 5] + struct.pack(">HH", 1000, 1000) + data[frame + 9 :]
    first = data.index(b"\xff\xda")
    length = struct.unpack_from(">H", data, first + 2)[0]
    scan = data[first : first + 2 + length] + b"\0"
    return data[:first] + scan * 10_000 + b"\xff\xd9"


def _gif_blocks() -> bytes:
    from fuzz_seeds import seeds_of

    data = seeds_of("gif")[0].data
    start = data.index(b"\x2c", 13)
    return data[:start] + b"\x21\xfe\1x\0" * 200_000 + data[start:]


def _gif_frames() -> bytes:
    from fuzz_seeds import seeds_of

    data = next(seed.data for seed in seeds_of("gif") if seed.name == "animated")
    start = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    return data[:start] + data[start:-1] * 10_000 + b";"


def _tiff_entries() -> bytes:
    entries = b"".join(struct.pack("<HHII", 256 + k % 300, 4, 1, 4) for k in range(0xFFFF))
    return b"II*\0" + struct.pack("<IH", 8, 0xFFFF) + entries + struct.pack("<I", 0)


def _tiff_loop() -> bytes:
    """Directories that follow each other in a circle, and one value of a million items."""
    entry = struct.pack("<HHII", 256, 3, 1, 4) + struct.pack("<HHII", 257, 3, 1, 4)
    strips = struct.pack("<HHII", 273, 4, 250_000, 60) + struct.pack("<HHII", 279, 4, 250_000, 60)
    return b"II*\0" + struct.pack("<IH", 8, 4) + entry + strips + struct.pack("<I", 8) + bytes(1_000_100)


def _webp_chunks() -> bytes:
    from fuzz_seeds import seeds_of

    data = next(seed.data for seed in seeds_of("webp") if seed.name == "lossy alpha")
    body = data[12:30] + b"XYZW\0\0\0\0" * 100_000 + data[30:]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a chain of bones": ("pmx", lambda: _bones(10_000, lambda i: pmx.PmxBone(f"b{i}", parent_index=i - 1))),
    "a chain from the end": ("pmx", lambda: _bones(10_000, lambda i: pmx.PmxBone(f"b{i}", parent_index=i + 1))),
    "a chain without places": (
        "pmx",
        lambda: _bones(20_000, lambda i: pmx.PmxBone(f"b{i}", parent_index=i - 1, position=_NAN)),
    ),
    "many circles": ("pmx", lambda: _bones(10_000, lambda i: pmx.PmxBone(f"b{i}", parent_index=i ^ 1))),
    "a circle of bones": (
        "pmx",
        lambda: _bones(10_000, lambda i: pmx.PmxBone(f"b{i}", parent_index=i - 1 if i > 6 else 10_005)),
    ),
    "appends from the one before": ("pmx", lambda: _bones(10_000, lambda i: _append(i, i - 1))),
    "appends from the one after": ("pmx", lambda: _bones(10_000, lambda i: _append(i, i + 1, i - 1))),
    "appends and parents": ("pmx", lambda: _bones(10_000, lambda i: _append(i, i - 2, i - 1))),
    "appends from descendants": ("pmx", lambda: _bones(10_000, lambda i: _append(i, 10_000, i - 1))),
    "appends that move": ("pmx", lambda: _bones(10_000, lambda i: _append(i, 2, i - 1))),
    "bones of one name": ("pmx", lambda: _bones(10_000, lambda i: pmx.PmxBone("頭", "head", parent_index=i - 1))),
    "bones of damaged names": ("pmx", lambda: _bones(10_000, lambda i: pmx.PmxBone(f"\udc00{i}", parent_index=99999))),
    "groups in groups": (
        "pmx",
        lambda: _morphs(
            5_000, lambda i: pmx.PmxMorph(f"g{i}", "", 4, 0, _table(0, morph=np.arange(i - 5, i + 5), weight=1))
        ),
    ),
    "a group of many": (
        "pmx",
        lambda: _morphs(1, lambda i: pmx.PmxMorph("まばたき", "", 2, 0, _table(0, morph=[0] * 100_000, weight=1))),
    ),
    "a morph of many": (
        "pmx",
        lambda: _morphs(1, lambda i: pmx.PmxMorph("あ", "", 3, 1, _table(1, vertex=[5] * 60_000, offset=0.1))),
    ),
    "bone morphs of many": (
        "pmx",
        lambda: _morphs(1, lambda i: pmx.PmxMorph("あ", "", 3, 2, _table(2, bone=[2] * 20_000, rotation=0.5))),
    ),
    "material morphs of many": (
        "pmx",
        lambda: _morphs(1, lambda i: pmx.PmxMorph("あ", "", 3, 8, _table(8, material=[-1] * 10_000))),
    ),
    "morphs of one name": (
        "pmx",
        lambda: _morphs(5_000, lambda i: pmx.PmxMorph("まばたき", "blink", 2, 1, _table(1, vertex=[200], offset=-0.2))),
    ),
    "morphs of damaged values": (
        "pmx",
        lambda: _morphs(5_000, lambda i: pmx.PmxMorph("\ud800", "", 9, 1, _table(1, vertex=[9**6], offset=np.nan))),
    ),
    "lids again and again": ("pmx", lambda: _again(1, 1_000)),
    "lids of both eyes": ("pmx", lambda: _again(0, 1_000)),
    "mouths again and again": ("pmx", lambda: _again(3, 3_000)),
    "mouths of bones": (
        "pmx",
        lambda: _morphs(
            3_000, lambda i: pmx.PmxMorph("あ", "", 3, 2, _table(2, bone=[4, 5], translation=(0, -1, 0), rotation=0.5))
        ),
    ),
    "many textures": ("pmx", lambda: _head(textures=tuple(f"テクスチャ\\顔{i}.png" for i in range(5_000)))),
    "a long texture name": ("pmx", lambda: _head(textures=("../" * 200_000 + "é" * 100_000,))),
    "textures of damaged names": ("pmx", lambda: _head(textures=tuple(f"a\ud800ä{i}" for i in range(10_000)))),
    "many materials": (
        "pmx",
        lambda: _head(
            materials=tuple(
                pmx.PmxMaterial(
                    "\udc80", diffuse=(*_NAN, 1), texture_index=77, sphere_mode=9, toon_index=88, index_count=3
                )
                for _ in range(4_000)
            )
        ),
    ),
    "damaged vertices": ("pmx", _vertex_flood),
    "a long comment": ("pmx", lambda: _head(comment="\ud800x" * 300_000, name="\udc00" * 100_000)),
    "morphs past the base": ("pmd", _pmd_morphs),
    "bones in a circle of appends": ("pmd", _pmd_bones),
    "many frames": ("vmd", lambda: vmd_bytes(frames=6_000)),
    "many poses": ("vpd", lambda: (VPD + VPD[VPD.index("Bone0") :] * 5_000).encode("cp932")),
    "a long line": ("vpd", lambda: VPD.replace("0.500000", "0." + "5" * 2_000_000).encode("cp932")),
    "a comment without end": ("vpd", lambda: VPD.replace("// weight", "/" * 2_000_000).encode("cp932")),
    "blanks": ("vpd", lambda: VPD.replace("\r\n\r\n", "\r\n" * 500_000).encode("cp932")),
    "chunks": ("png", _png_chunks),
    "empty chunks": ("png", _png_empty_pixels),
    "comments": ("jpeg", _jpeg_segments),
    "scans": ("jpeg", _jpeg_scans),
    "comments in blocks": ("gif", _gif_blocks),
    "frames": ("gif", _gif_frames),
    "entries": ("tiff", _tiff_entries),
    "a circle of directories": ("tiff", _tiff_loop),
    "chunks of no kind": ("webp", _webp_chunks),
}


def costly_jobs() -> list[tuple[str, int, bytes]]:
    """All of them as jobs of `fuzzing.run_jobs`; numbers that are multiples of 12 get a rig and an annotation."""
    return [(kind, 12 * number, make()) for number, (kind, make) in enumerate(BOMBS.values())]


def name_of(number: int) -> str:
    """What the case `number` of `costly_jobs` is called."""
    return list(BOMBS)[number // 12]
