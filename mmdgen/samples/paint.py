"""Painting helpers: float canvases, masks of soft and hard shapes, PNG bytes. Colours are sRGB in [0, 1]."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mmdgen.samples.curves import smoothstep
from mmdgen.samples.palette import Color


class Canvas:
    """An sRGB picture f32 [H, W, 4] with straight alpha, painted in layers. u and v run from 0 to 1, v downwards."""

    def __init__(self, width: int, height: int, color: Color = (1.0, 1.0, 1.0), alpha: float = 1.0) -> None:
        self.data = np.empty((4, height, width), np.float32).transpose(1, 2, 0)  # planes: painting goes by channel
        self.data[..., :3] = color
        self.data[..., 3] = alpha
        self.v, self.u = np.meshgrid(
            (np.arange(height, dtype=np.float32) + 0.5) / height,
            (np.arange(width, dtype=np.float32) + 0.5) / width,
            indexing="ij",
        )

    def blend(self, color: Color | np.ndarray, mask: np.ndarray | float) -> Canvas:
        """Lay a colour (or f32 [H, W, 3]) over the picture where `mask` f32 [H, W] says; alpha stays as it is."""
        mask = np.broadcast_to(np.asarray(mask, np.float32), self.u.shape)
        color = np.asarray(color, np.float32)
        for k in range(3):
            channel = self.data[..., k]
            channel += (color[..., k] - channel) * mask
        return self

    def multiply(self, color: Color | np.ndarray, mask: np.ndarray | float = 1.0) -> Canvas:
        """Multiply by a colour where `mask` says: a glaze, for shadows and blushes."""
        mask = np.broadcast_to(np.asarray(mask, np.float32), self.u.shape)
        color = np.asarray(color, np.float32)
        for k in range(3):
            self.data[..., k] *= 1 + (color[..., k] - 1) * mask
        return self

    def cover(self, color: Color, mask: np.ndarray) -> Canvas:
        """Lay an opaque colour over a transparent picture: alpha grows too."""
        self.blend(color, mask)
        self.data[..., 3] = np.maximum(self.data[..., 3], mask)
        return self

    def alpha(self, mask: np.ndarray) -> Canvas:
        self.data[..., 3] = mask
        return self

    def png(self) -> bytes:
        """Return the picture as PNG bytes, without alpha where all of it is opaque."""
        pixels = (np.clip(self.data, 0, 1) * 255 + 0.5).astype(np.uint8)
        return png_bytes(pixels if (pixels[..., 3] < 255).any() else pixels[..., :3])


def bmp_bytes(canvas: Canvas) -> bytes:
    """Return a picture as an uncompressed BMP of 24 bits, what most .sph and .spa files are."""
    stream = io.BytesIO()
    pixels = (np.clip(canvas.data[..., :3], 0, 1) * 255 + 0.5).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "BMP")
    return stream.getvalue()


def png_bytes(pixels: np.ndarray) -> bytes:
    """Return u8 [H, W, 3 or 4] as PNG bytes. The same pixels give the same bytes."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=2)
    return stream.getvalue()


def disc(
    u: np.ndarray, v: np.ndarray, center: tuple[float, float], radii: tuple[float, float], soft: float = 0.08
) -> np.ndarray:
    """Return the mask of an ellipse; `soft` is the width of its edge as a share of the radius."""
    distance = np.hypot((u - center[0]) / radii[0], (v - center[1]) / radii[1])
    return 1 - smoothstep(1 - soft, 1 + soft, distance)


def glow(u: np.ndarray, v: np.ndarray, center: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """Return a soft spot."""
    return np.exp(-(((u - center[0]) / radii[0]) ** 2 + ((v - center[1]) / radii[1]) ** 2))


def polygon_mask(
    size: tuple[int, int], shapes: list[list[tuple[float, float]]], scale: int = 4, blur: float = 0.0
) -> np.ndarray:
    """Return the anti-aliased mask f32 [H, W] of polygons given in u, v; `size` is (width, height)."""
    width, height = size
    picture = Image.new("L", (width * scale, height * scale), 0)
    draw = ImageDraw.Draw(picture)
    for shape in shapes:
        draw.polygon([(u * width * scale, v * height * scale) for u, v in shape], fill=255)
    picture = picture.resize((width, height), Image.Resampling.BOX)
    if blur:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    return np.asarray(picture, np.float32) / 255


def line_mask(
    size: tuple[int, int], lines: list[list[tuple[float, float]]], width: float, scale: int = 4, blur: float = 0.0
) -> np.ndarray:
    """Return the anti-aliased mask f32 [H, W] of polylines in u, v; `width` in pixels of the result."""
    w, h = size
    picture = Image.new("L", (w * scale, h * scale), 0)
    draw = ImageDraw.Draw(picture)
    for line in lines:
        points = [(u * w * scale, v * h * scale) for u, v in line]
        draw.line(points, fill=255, width=max(round(width * scale), 1), joint="curve")
    picture = picture.resize((w, h), Image.Resampling.BOX)
    if blur:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    return np.asarray(picture, np.float32) / 255


def noise_1d(stream: np.random.Generator, size: int, octaves: tuple[int, ...]) -> np.ndarray:
    """Return smooth periodic noise f32 [size] in about [-1, 1], the sum of `octaves` of random cells."""
    x = np.arange(size) / size
    total = np.zeros(size)
    for cells in octaves:
        value = stream.uniform(-1, 1, cells)
        at = x * cells
        low = at.astype(int) % cells
        t = at - np.floor(at)
        t = t * t * (3 - 2 * t)
        total += (value[low] * (1 - t) + value[(low + 1) % cells] * t) * (octaves[0] / cells) ** 0.5
    return total.astype(np.float32)
