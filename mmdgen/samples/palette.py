"""Colours: the palettes that traits draw from, and helpers to vary, shade and mix them. sRGB in [0, 1]."""

from __future__ import annotations

import colorsys

import numpy as np

Color = tuple[float, float, float]


def _hex(code: str) -> Color:
    return tuple(int(code[k : k + 2], 16) / 255 for k in (0, 2, 4))  # type: ignore[return-value]


# name -> (colour, how often)
HAIR_COLORS: dict[str, tuple[Color, float]] = {
    "black": (_hex("3a3644"), 3.0),
    "blue black": (_hex("39415c"), 2.0),
    "dark brown": (_hex("5a3f37"), 3.0),
    "brown": (_hex("8a5f48"), 3.0),
    "chestnut": (_hex("a9714c"), 2.5),
    "caramel": (_hex("c79a66"), 1.8),
    "blonde": (_hex("f0d389"), 3.0),
    "pale blonde": (_hex("f6e7bd"), 2.0),
    "silver": (_hex("d3d8e4"), 2.2),
    "white": (_hex("f2eff4"), 1.2),
    "ash": (_hex("9c97a4"), 1.2),
    "pink": (_hex("f4a6c0"), 2.2),
    "rose": (_hex("d9708f"), 1.2),
    "red": (_hex("c8453f"), 1.6),
    "crimson": (_hex("8f2f42"), 1.1),
    "orange": (_hex("ee9a53"), 1.6),
    "green": (_hex("72b183"), 1.0),
    "mint": (_hex("a7e0cc"), 1.1),
    "teal": (_hex("4fa5ab"), 1.0),
    "sky": (_hex("93c8ee"), 1.6),
    "blue": (_hex("5b83cf"), 1.6),
    "navy": (_hex("3f4f8c"), 1.2),
    "lavender": (_hex("bfaee6"), 1.6),
    "purple": (_hex("8a63b5"), 1.4),
    "plum": (_hex("6a3f6c"), 0.9),
}

EYE_COLORS: tuple[Color, ...] = tuple(
    _hex(code)
    for code in [
        "3f7fd0",
        "2f9fd8",
        "35b5a5",
        "46a857",
        "7cbf3f",
        "c99a2b",
        "e0a53a",
        "b5622f",
        "8a4a35",
        "5f3d35",
        "c23b4a",
        "e0507a",
        "a14fc4",
        "6f55c8",
        "4b57b0",
        "6f7f96",
        "d8728e",
        "3c5a8c",
        "d2452f",
        "9a6ad8",
    ]
)

SKIN_TONES: dict[str, tuple[Color, float]] = {
    "porcelain": (_hex("fff0e6"), 3.0),
    "fair": (_hex("ffe7d8"), 4.0),
    "peach": (_hex("fddcc6"), 3.0),
    "warm": (_hex("f6cfb0"), 1.6),
    "tan": (_hex("e3b088"), 1.0),
    "brown": (_hex("c08862"), 0.8),
    "deep": (_hex("96664a"), 0.5),
    "pale": (_hex("f5ecf0"), 0.5),
}


def jitter(color: Color, stream: np.random.Generator, amount: float = 0.03) -> Color:
    """Return the colour with hue, lightness and saturation moved a little."""
    h, light, s = colorsys.rgb_to_hls(*color)
    dh, dl, ds = stream.uniform(-1, 1, 3) * amount
    return colorsys.hls_to_rgb(
        (h + 0.5 * dh) % 1, float(np.clip(light + dl, 0.04, 0.97)), float(np.clip(s + 2 * ds, 0, 1))
    )


def mix(a: Color, b: Color, t: float) -> Color:
    """Return the colour that is `t` of the way from `a` to `b`."""
    return tuple(x + (y - x) * t for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def scaled(color: Color, factor: float) -> Color:
    """Return the colour made darker (factor < 1) or lighter, clipped."""
    return tuple(min(max(x * factor, 0.0), 1.0) for x in color)  # type: ignore[return-value]


def shade(color: Color, amount: float = 0.25) -> Color:
    """Return the painter's shadow colour: darker, more saturated, turned towards red-violet."""
    h, light, s = colorsys.rgb_to_hls(*color)
    target = 0.92 if 0.0 <= h < 0.17 or h > 0.75 else 0.68
    turn = ((target - h + 0.5) % 1 - 0.5) * 0.18 * min(1.0, 3 * amount)
    # a nearly white colour may have full saturation in HLS: its shadow must not glow
    dark = light * (1 - amount)
    chroma = s * (1 - abs(2 * light - 1)) * (1 + 1.2 * amount) + 0.10 * amount
    span = 1 - abs(2 * dark - 1)
    return colorsys.hls_to_rgb((h + turn) % 1, dark, min(s * (1 + 0.2 * amount), chroma / max(span, 1e-3), 1.0))


def glaze(color: Color, amount: float) -> Color:
    """Return the factors that turn a colour into its `shade` when it is multiplied by them."""
    dark = shade(color, amount)
    return tuple(a / max(b, 1e-3) for a, b in zip(dark, color, strict=True))  # type: ignore[return-value]


def tint(color: Color, amount: float = 0.3) -> Color:
    """Return the colour nearer to white, keeping its hue."""
    h, light, s = colorsys.rgb_to_hls(*color)
    return colorsys.hls_to_rgb(h, light + (1 - light) * amount, s)


def luminance(color: Color) -> float:
    """Return the perceived brightness of the sRGB values, 0 to 1."""
    return 0.2126 * color[0] + 0.7152 * color[1] + 0.0722 * color[2]
