"""The failure modes of the reference that concern textures: models with texture files made by code."""

from __future__ import annotations

import io
import struct
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from toy import RED, ToyBuilder, toy_builder

from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.model.load import load_model
from mmdgen.model.textures import decode_texture

WHITE = (1.0, 1.0, 1.0)
UV = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


@dataclass(frozen=True)
class TextureCase:
    """`build` and `reference` write a model below a folder and return its path: both must look the same.

    `codes` are the diagnostics, `missing` the textures that are drawn white; `check` looks at the first picture.
    """

    build: Callable[[Path], Path]
    reference: Callable[[Path], Path]
    codes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    tolerance: int = 0
    check: Callable[[np.ndarray], object] | None = None


TEXTURES: dict[str, TextureCase] = {}


def pattern() -> np.ndarray:
    """u8 [32, 32, 4], opaque: four colours and a gradient, no two corners alike, so that no flip goes unseen."""
    texels = np.full((32, 32, 4), 255, np.uint8)
    texels[:16, :16, :3] = (200, 30, 60)
    texels[:16, 16:, :3] = (20, 180, 90)
    texels[16:, :16, :3] = (40, 60, 220)
    texels[16:, 16:, 0] = np.arange(16) * 8
    return texels


def see_through() -> np.ndarray:
    texels = pattern()
    texels[8:24, 8:24, 3] = 96
    texels[:4, :, 3] = 0
    return texels


def encoded(texels: np.ndarray, kind: str, mode: str = "RGBA", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(texels).convert(mode).save(out, kind, **options)
    return out.getvalue()


def png(texels: np.ndarray) -> bytes:
    return encoded(texels, "PNG")


def textured(
    folder: Path,
    name: str,
    files: dict[str, bytes],
    uv=UV,
    change: Callable[[ToyBuilder], object] | None = None,
    **material,
) -> Path:
    """Write the toy with a textured square before its face, and `files`; return the model's path."""
    toy = toy_builder()
    toy.textures.append(name)
    toy.quad((0, 18, -2), (0.7, 0, 0), (0, 0.7, 0))
    toy.uvs[-4:] = uv
    toy.material("square", WHITE, **{"texture_index": 0, **material})
    if change:
        change(toy)
    for place, content in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    path = folder / "toy.pmx"
    path.write_bytes(write_pmx(toy.file()))
    return path


def plain(texels: Callable[[], np.ndarray] = pattern, **settings) -> Callable[[Path], Path]:
    """The reference: the same square with an ordinary PNG beside the model."""
    return lambda folder: textured(folder, "t.png", {"t.png": png(texels())}, **settings)


def untextured(folder: Path) -> Path:
    return textured(folder, "", {}, texture_index=-1)


def found(case: str, name: str, place: str) -> None:
    """A texture that the model calls `name` and that lies at `place`."""
    TEXTURES[case] = TextureCase(lambda folder: textured(folder, name, {place: png(pattern())}), plain())


def decoded(case: str, content: Callable[[], bytes], name: str = "t.bin", texels=pattern, tolerance: int = 0) -> None:
    """A file whose pixels must be `texels`, whatever it is called."""
    TEXTURES[case] = TextureCase(
        lambda folder: textured(folder, name, {name: content()}), plain(texels), tolerance=tolerance
    )


def sphere(folder: Path) -> Path:
    path = textured(
        folder, "t.png", {"t.png": png(pattern()), "s.spa": encoded(pattern(), "BMP", "RGB")},
        change=lambda toy: toy.textures.append("s.spa"), sphere_index=1, sphere_mode=2,
    )  # fmt: skip
    model = load_model(path)
    material = model.materials[-1]
    assert (material.sphere_mode, material.sphere_texture) == (2, 1)
    assert np.array_equal(decode_texture(model.textures[1]), pattern())
    return path


TEXTURES["fm29_spa_is_read"] = TextureCase(sphere, plain())
decoded("fm29_sph_as_the_texture", lambda: encoded(pattern(), "BMP", "RGB"), "t.sph")
found("fm30_backslashes", "tex\\face\\t.png", "tex/face/t.png")
found("fm30_backslashes_and_dots", ".\\tex\\..\\tex\\t.png", "tex/t.png")
found("fm30_absolute_path_of_the_author", "C:\\Users\\me\\mmd\\t.png", "t.png")
found("fm31_case", "Tex\\FACE.PNG", "tex/face.png")
found("fm32_cp932_name_unpacked_as_cp437", "tex/顔.png", "tex/" + "顔.png".encode("cp932").decode("cp437"))
found("fm32_gbk_name_unpacked_as_cp437", "脸部.png", "脸部.png".encode("gbk").decode("cp437"))
found("fm32_model_with_a_name_read_as_gbk", "髪.png".encode("cp932").decode("gbk"), "髪.png")
found("fm33_japanese_in_another_unicode_form", "ガクぱ.png", unicodedata.normalize("NFD", "ガクぱ.png"))
found("fm33_half_width", "ﾃｸｽﾁｬ.png", "ﾃｸｽﾁｬ.png")


def with_toon(name: str, codes: tuple[str, ...]) -> TextureCase:
    def build(folder: Path) -> Path:
        return textured(
            folder, "t.png", {"t.png": png(pattern())}, toon_shared=0, toon_index=1,
            change=lambda toy: toy.textures.append(name),
        )  # fmt: skip

    return TextureCase(build, plain(), codes)


TEXTURES["fm34_shared_toon_by_its_name"] = with_toon("toon03.bmp", ())
TEXTURES["fm34_own_toon_that_is_missing"] = with_toon("mine.bmp", ("texture_missing",))


def one_bad(content: bytes | None, codes: tuple[str, ...] = ()) -> TextureCase:
    """The square's texture is bad and drawn white; that of a second square is drawn all the same."""

    def second(toy: ToyBuilder, files: dict[str, bytes]) -> None:
        toy.textures.append("good.png")
        toy.quad((0, 18.8, -2.5), (0.3, 0, 0), (0, 0.3, 0))
        toy.material("good", WHITE, texture_index=len(toy.textures) - 1)

    def build(folder: Path) -> Path:
        files = {"good.png": png(pattern()), **({} if content is None else {"bad.png": content})}
        return textured(folder, "bad.png", files, change=lambda toy: second(toy, files))

    def reference(folder: Path) -> Path:
        files = {"good.png": png(pattern())}
        return textured(folder, "", files, texture_index=-1, change=lambda toy: second(toy, files))

    return TextureCase(build, reference, codes, ("bad.png",))


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in 300 bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", 60000, 60000, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(5000))) + chunk(b"IEND", b"")
    )


TEXTURES["fm36_one_texture_is_no_image"] = one_bad(b"this is a text, not a picture")
TEXTURES["fm36_one_texture_is_cut_off"] = one_bad(png(see_through())[:-60])
TEXTURES["fm36_one_texture_is_empty"] = one_bad(b"")
TEXTURES["fm36_one_texture_is_missing"] = one_bad(None, ("texture_missing",))
TEXTURES["fm99_image_bomb"] = one_bad(bomb())

for _rle in (None, "tga_rle"):
    for _origin in (1, -1):
        decoded(
            f"fm37_tga_{'top' if _origin > 0 else 'bottom'}_{'rle' if _rle else 'raw'}",
            lambda rle=_rle, origin=_origin: encoded(see_through(), "TGA", compression=rle, orientation=origin),
            "t.tga",
            see_through,
        )


def tga_from_the_right() -> bytes:
    """Rows from the top, pixels from the right: origin bits 0x30."""
    texels = see_through()[:, ::-1, [2, 1, 0, 3]]
    return struct.pack("<3B5x4H2B", 0, 0, 2, 0, 0, 32, 32, 32, 0x38) + texels.tobytes()


decoded("fm37_tga_from_the_right", tga_from_the_right, "t.tga", see_through)


def bmp_32(texels: np.ndarray) -> bytes:
    """A BMP with a header of 40 bytes and 32 bits a pixel, whose fourth byte is alpha to MMD."""
    height, width = texels.shape[:2]
    body = np.ascontiguousarray(texels[::-1, :, [2, 1, 0, 3]]).tobytes()
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 32, 0, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + header + body


decoded("fm38_bmp_with_alpha", lambda: bmp_32(see_through()), "t.bmp", see_through)
decoded(
    "fm38_bmp_of_an_odd_size",
    lambda: bmp_32(see_through()[:31, :29]),
    "t.bmp",
    lambda: see_through()[:31, :29],
)
decoded("fm39_png_called_bmp", lambda: png(see_through()), "t.bmp", see_through)
decoded("fm39_png_called_tga", lambda: png(see_through()), "t.tga", see_through)
decoded("fm39_bmp_called_png", lambda: encoded(pattern(), "BMP", "RGB"), "t.png")
decoded("fm39_tga_called_png", lambda: encoded(see_through(), "TGA"), "t.png", see_through)
decoded(
    "fm39_jpeg_called_png", lambda: encoded(pattern(), "JPEG", "RGB", quality=100, subsampling=0), "t.png", tolerance=9
)
decoded("fm39_tif", lambda: encoded(see_through(), "TIFF"), "t.tif", see_through)
decoded("fm39_gif_called_spa", lambda: encoded(pattern()[:16], "GIF", "RGB"), "t.spa", lambda: pattern()[:16])
decoded("fm39_webp", lambda: encoded(see_through(), "WEBP", lossless=True, exact=True), "t.webp", see_through)
decoded("fm40_dds", lambda: encoded(see_through(), "DDS"), "t.dds", see_through)


def flat_dxt1() -> bytes:
    """A DDS with DXT1 of 8 x 8 red pixels: 0xF800 in 5-6-5 bits, in every block."""
    pixel_format = struct.pack("<2I4s5I", 32, 4, b"DXT1", 0, 0, 0, 0, 0)
    header = struct.pack("<7I44x", 124, 0x81007, 8, 8, 32, 0, 0) + pixel_format + struct.pack("<4I4x", 0x1000, 0, 0, 0)
    return b"DDS " + header + struct.pack("<HHI", 0xF800, 0, 0) * 4


decoded("fm40_dxt1", flat_dxt1, "t.dds", lambda: np.full((8, 8, 4), (255, 0, 0, 255), np.uint8))


def half_clear(alpha: int) -> np.ndarray:
    """32 x 64: the pattern on the left, and on the right what no face uses."""
    unused = np.full((32, 32, 4), (255, 255, 0, alpha), np.uint8)
    return np.concatenate([np.concatenate([pattern()[:, :24], pattern()[:, 16:24]], axis=1), unused], axis=1)


LEFT = tuple((0.05 + 0.3 * u, v) for u, v in UV)  # away from the seam, where filtering repeats the texture
TEXTURES["fm42_alpha_where_no_face_is"] = TextureCase(
    lambda folder: textured(folder, "t.png", {"t.png": png(half_clear(0))}, uv=LEFT),
    lambda folder: textured(folder, "t.png", {"t.png": png(half_clear(255))}, uv=LEFT),
    tolerance=1,
)


def shadow(kind: str) -> Callable[[Path], Path]:
    texels = np.full((8, 8, 4), (0, 0, 0, 102), np.uint8)
    return lambda folder: textured(folder, f"s.{kind}", {f"s.{kind}": encoded(texels, kind.upper())})


def shadow_by_material(folder: Path) -> Path:
    return textured(folder, "", {}, texture_index=-1, diffuse=(0, 0, 0, 102 / 255), ambient=(0, 0, 0))


TEXTURES["fm43_hair_shadow_png"] = TextureCase(shadow("png"), shadow_by_material, tolerance=1)
TEXTURES["fm43_hair_shadow_tga"] = TextureCase(shadow("tga"), shadow_by_material, tolerance=1)


def shifted(u: float, v: float) -> tuple[tuple[float, float], ...]:
    return tuple((a + u, b + v) for a, b in UV)


for _name, _shift in {"beyond_1": (3, 2), "below_0": (-2, -4), "both": (5, -1)}.items():
    TEXTURES[f"fm44_uv_{_name}"] = TextureCase(plain(uv=shifted(*_shift)), plain(), tolerance=2)


def veiled(behind: bool) -> Callable[[Path], Path]:
    """A translucent square, and behind it one that comes later in the file: hidden by depth, as in MMD."""

    def change(toy: ToyBuilder) -> None:
        if behind:
            toy.quad((0, 18, -1.7), (0.5, 0, 0), (0, 0.5, 0))
            toy.material("later", RED)

    return lambda folder: textured(folder, "", {}, texture_index=-1, diffuse=(0, 1, 0, 0.5), change=change)


TEXTURES["fm45_later_materials_behind_translucent_ones"] = TextureCase(veiled(True), veiled(False))


def coplanar(both: bool) -> Callable[[Path], Path]:
    """Two squares in one plane, red and then blue, or the blue one alone: of equal depths the later one wins."""

    def change(toy: ToyBuilder) -> None:
        for name, color in (("red", (1.0, 0.0, 0.0)), ("blue", (0.0, 0.0, 1.0)))[0 if both else 1 :]:
            toy.quad((0, 18, -2.5), (0.5, 0, 0), (0, 0.5, 0))
            toy.material(name, color)

    return lambda folder: textured(folder, "", {}, texture_index=-1, change=change)


TEXTURES["fm45_equal_depths_in_file_order"] = TextureCase(coplanar(True), coplanar(False))

QUAD = 108  # the first vertex of the square


def uv_moved(parts: int) -> Callable[[Path], Path]:
    """The square's UVs are moved by the mouth's parameter: by one UV morph, or by a group of `parts` that share it."""

    def change(toy: ToyBuilder) -> None:
        rows = np.zeros(4, pmx.UV_OFFSET)
        rows["vertex"], rows["offset"] = np.arange(QUAD, QUAD + 4), (0.5 / parts, 0.25 / parts, 9, 9)
        mouth = toy.morphs[2]
        if parts == 1:
            toy.morphs[2] = pmx.PmxMorph(mouth.name, "", 3, pmx.MORPH_UV, rows)
            return
        group = np.zeros(parts, pmx.GROUP_OFFSET)
        group["morph"], group["weight"] = 3 + np.arange(parts), 1.0
        toy.morphs[2] = pmx.PmxMorph(mouth.name, "", 3, pmx.MORPH_GROUP, group)
        toy.morphs += [pmx.PmxMorph(f"u{number}", "", 4, pmx.MORPH_UV, rows) for number in range(parts)]

    return plain(uv=((0.25, 0.25),) * 4, change=change)


def is_green(image: np.ndarray) -> None:
    """At rest the mouth is open, its parameter 1: u went from 0.25 to 0.75, v from 0.25 to 0.5."""
    assert tuple(image[44, 48]) != (200, 30, 60, 255)
    assert image[44, 48, 1] > image[44, 48, 0]


TEXTURES["fm49_uv_morphs"] = TextureCase(uv_moved(2), uv_moved(1), tolerance=1, check=is_green)


def grey(value: int) -> np.ndarray:
    return np.full((8, 8, 4), (value, value, value, 255), np.uint8)


def is_as_painted(image: np.ndarray) -> None:
    np.testing.assert_allclose(image[44, 48].astype(int), (128, 128, 128, 255), atol=1)


TEXTURES["fm50_colours_are_not_washed_out"] = TextureCase(
    plain(lambda: grey(128)), plain(lambda: grey(128)), check=is_as_painted
)


def grey_16_bit() -> bytes:
    values = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


def grey_16_bit_pixels() -> np.ndarray:
    values = np.rint(np.arange(32 * 32).reshape(32, 32) * 64 / 257).astype(np.uint8)
    return np.dstack([values, values, values, np.full_like(values, 255)])


decoded("fm99_16_bit_png", grey_16_bit, "t.png", grey_16_bit_pixels)
decoded("fm99_palette_png", lambda: encoded(pattern(), "PNG", "P"), "t.png", lambda: palette_pixels())


def palette_pixels() -> np.ndarray:
    return np.array(Image.fromarray(pattern()).convert("P").convert("RGBA"))
