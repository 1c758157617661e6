"""Textures of the face: skin, eyeball, iris, highlights, lashes, brows, blush, mouth."""

from __future__ import annotations

import numpy as np

from mmdgen import rng
from mmdgen.samples.curves import smoothstep
from mmdgen.samples.paint import Canvas, disc, glow, line_mask, polygon_mask
from mmdgen.samples.palette import Color, glaze, luminance, mix, scaled, shade, tint
from mmdgen.samples.skull import NOSE_Y
from mmdgen.samples.traits import EyeTraits, Traits

SKIN_SIZE = 320


def line_color(traits: Traits) -> Color:
    """Return the colour of drawn lines on the skin: a dark, warm version of it."""
    return scaled(shade(traits.skin, 0.55), 0.55)


def lash_color(traits: Traits) -> Color:
    """Return the lashes' colour: nearly black, tinted by the hair."""
    return mix((0.13, 0.09, 0.11), scaled(traits.hair.root, 0.55), traits.eyes.lash_tint + 0.08)


def brow_color(traits: Traits) -> Color:
    """Return the brows' colour: the hair's, darkened until it is visible on the skin."""
    color = shade(traits.hair.root, 0.30)
    if luminance(color) > luminance(traits.skin) - 0.22:
        color = shade(traits.hair.root, 0.48)
    return color if luminance(color) < luminance(traits.skin) - 0.12 else scaled(traits.skin, 0.55)


def paint_skin(traits: Traits, eye_y: float, mouth_y: float) -> bytes:
    """Return the square face texture, mapped from the front (`head.skin_uv`)."""
    c = Canvas(SKIN_SIZE, SKIN_SIZE, traits.skin)
    x, y = (c.u - 0.5) * 2.0, 1.0 - c.v * 2.2
    side = np.abs(x)
    warm = shade(traits.skin, 0.16)
    shadow = glaze(traits.skin, 0.18)
    deep = glaze(traits.skin, 0.30)
    ragged = 0.02 * np.sin(x * 23) + 0.015 * np.sin(x * 41 + 1)
    c.multiply(shadow, 0.75 * smoothstep(0.16, 0.36, y + ragged - 0.10 * side))  # under the fringe
    c.multiply(shadow, 0.55 * smoothstep(0.50, 0.68, side + 0.10 * (y + 0.3)))  # before the ears
    c.multiply(deep, 0.9 * smoothstep(-0.955, -1.01, y + 0.35 * side**2 - 0.0))  # below the chin
    eye = traits.eyes
    for sign in (-1.0, 1.0):
        c.multiply(shadow, 0.35 * glow(x, y, (sign * eye.center_x, eye_y + 0.9 * eye.up), (0.24, 0.08)))
        cheek = (sign * (eye.center_x + 0.07), eye_y - eye.low - 0.115)
        pink = mix((1.0, 0.62, 0.60), warm, 0.1)
        c.multiply(pink, 0.42 * traits.face.blush * glow(x, y, cheek, (0.135, 0.075)))
        if traits.face.blush > 0.72:  # drawn strokes on the cheeks
            lines = [
                [
                    ((cheek[0] + d - 0.018 * 1 + 1.0) / 2.0, (1 - cheek[1] + 0.028) / 2.2),
                    ((cheek[0] + d + 0.018 + 1.0) / 2.0, (1 - cheek[1] - 0.028) / 2.2),
                ]
                for d in (-0.055, 0.0, 0.055)
            ]
            c.blend(
                mix(shade(traits.skin, 0.3), (0.9, 0.35, 0.35), 0.55),
                0.45 * line_mask((SKIN_SIZE, SKIN_SIZE), lines, 2.0, 2, 0.4),
            )
        c.blend(
            tint(traits.skin, 0.5),
            0.35 * glow(x, y, (sign * eye.center_x * 0.95, eye_y - eye.low - 0.055), (0.10, 0.02)),
        )
    if traits.face.freckles:
        stream = rng.generator(traits.seed, "samples", "freckles")
        for _ in range(16):
            spot = (stream.choice([-1, 1]) * stream.uniform(0.1, 0.42), -0.50 + stream.normal() * 0.035)
            c.multiply(deep, 0.8 * disc(x, y, spot, (0.009, 0.008), 0.4))
    mole = {
        1: (eye.center_x + 0.10, eye_y - eye.low - 0.075),
        2: (-eye.center_x - 0.10, eye_y - eye.low - 0.075),
        3: (0.17, mouth_y - 0.035),
    }
    if traits.face.mole:
        c.blend(line_color(traits), 0.9 * disc(x, y, mole[traits.face.mole], (0.0125, 0.0125), 0.3))
    # the nose: a small shadow below its tip and a spot of light
    c.multiply(deep, 0.75 * disc(x, y, (0.012, NOSE_Y - 0.032), (0.028, 0.010), 0.6))
    c.blend(line_color(traits), 0.28 * disc(x, y, (0.014, NOSE_Y - 0.034), (0.016, 0.005), 0.6))
    c.blend((1, 1, 1), 0.45 * glow(x, y, (-0.006, NOSE_Y + 0.028), (0.012, 0.018)))
    c.multiply(deep, 0.35 * glow(x, y, (0.0, mouth_y - 0.075), (0.055, 0.012)))  # below the lower lip
    lip = (1.0, 0.72, 0.72)
    c.multiply(lip, 0.38 * glow(x, y, (0.0, mouth_y - 0.018), (0.085, 0.022)))
    return c.png()


def paint_sclera(traits: Traits) -> bytes:
    """Return the eyeball's texture: white, with the lid's shadow on top."""
    c = Canvas(64, 64, (0.985, 0.975, 0.985))
    tone = mix((0.72, 0.72, 0.84), shade(traits.skin, 0.2), 0.25)
    c.blend(tone, 0.95 * (1 - smoothstep(0.30, 0.47, c.v + 0.10 * (c.u - 0.5) ** 2)))
    c.blend(tone, 0.35 * smoothstep(0.32, 0.48, np.abs(c.u - 0.5)))
    return c.png()


def _iris(c: Canvas, eye: EyeTraits, color: Color, stream: np.random.Generator) -> None:
    """Paint one iris into a square canvas."""
    x, y = 2 * c.u - 1, 2 * c.v - 1
    radius = np.hypot(x, y)
    angle = np.arctan2(y, x)
    dark = mix(scaled(shade(color, 0.55), 0.62), (0.08, 0.04, 0.10), 0.25)
    deep, light = shade(color, 0.35), tint(color, 0.42)
    c.blend(color, 1.0)
    c.blend(light, smoothstep(-0.05, 0.85, y) * 0.95)
    c.blend(deep, smoothstep(0.10, -0.45, y))
    if eye.pattern in ("rays", "star", "heart", "double"):
        ray = np.zeros_like(radius)
        for cells, weight in ((17, 0.6), (31, 0.4)):
            ray += weight * np.cos(cells * angle + stream.uniform(0, 6.3))
        c.blend(
            tint(color, 0.6),
            np.clip(ray, 0, 1)
            * 0.40
            * smoothstep(0.30, 0.6, radius)
            * smoothstep(0.95, 0.75, radius)
            * smoothstep(-0.4, 0.5, y),
        )
    if eye.pattern in ("ring", "double"):
        c.blend(tint(color, 0.65), 0.65 * np.exp(-(((radius - 0.62) / 0.07) ** 2)) * smoothstep(-0.3, 0.5, y))
    if eye.pattern == "gem":
        facet = np.floor((angle / (2 * np.pi) + 0.5) * 12)
        tone = ((facet * 7) % 5) / 5
        c.blend(tint(color, 0.55), 0.45 * tone * smoothstep(0.28, 0.4, radius) * smoothstep(-0.6, 0.4, y))
    # the bottom glows like light that falls through glass
    c.blend(tint(color, 0.72), 0.85 * disc(x, y, (0.0, 0.62), (0.56, 0.24), 0.5))
    c.blend(dark, smoothstep(0.80, 0.955, radius + 0.05 * (-y)))
    c.blend(dark, 0.88 * smoothstep(-0.30, -0.80, y))
    pupil = {"slit": disc(x, y, (0, 0.02), (0.14, 0.52), 0.15)}.get(
        eye.pattern, disc(x, y, (0, 0.02), (0.30, 0.36), 0.12)
    )
    if eye.pattern in ("star", "heart"):
        turn = np.linspace(0, 2 * np.pi, 61)[:-1]
        if eye.pattern == "star":
            turn = np.linspace(0, 2 * np.pi, 11)[:-1]
            reach = np.where(np.arange(10) % 2 == 0, 0.42, 0.19)
            shape = [(0.5 + 0.5 * r * np.sin(a), 0.5 - 0.5 * r * np.cos(a)) for r, a in zip(reach, turn, strict=True)]
        else:
            hx = 16 * np.sin(turn) ** 3
            hy = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
            shape = [(0.5 + 0.0105 * a, 0.5 - 0.0105 * b) for a, b in zip(hx, hy, strict=True)]
        c.blend(tint(color, 0.8), polygon_mask((c.u.shape[1], c.u.shape[0]), [shape], 3, 0.6))
    else:
        c.blend(scaled(dark, 0.7), 0.95 * pupil)
        c.blend(color, 0.30 * disc(x, y, (0.0, 0.22), (0.17, 0.12), 0.6) * pupil)


def paint_iris(traits: Traits) -> bytes:
    """Return the irises' texture: one square, or two side by side (left, right) where the colours differ."""
    eye = traits.eyes
    colors = [eye.left_color] if eye.left_color == eye.right_color else [eye.left_color, eye.right_color]
    squares = []
    for color in colors:
        c = Canvas(160, 160, color)
        _iris(c, eye, color, rng.generator(traits.seed, "samples", "iris paint"))
        squares.append(c.data)
    wide = Canvas(1, 1)
    wide.data = np.concatenate(squares, 1)
    return wide.png()


def paint_highlight(traits: Traits) -> bytes:
    """Return the transparent layer of reflections."""
    c = Canvas(128, 128, (1, 1, 1), 0.0)
    x, y = 2 * c.u - 1, 2 * c.v - 1
    kind = traits.eyes.highlight
    spots = {
        "two": [(-0.36, -0.34, 0.25, 0.26, 1.0), (0.36, 0.40, 0.13, 0.12, 0.9)],
        "three": [(-0.36, -0.32, 0.25, 0.24, 1.0), (0.40, -0.10, 0.10, 0.11, 0.9), (0.28, 0.46, 0.15, 0.11, 0.85)],
        "soft": [(-0.30, -0.34, 0.30, 0.24, 0.9), (0.30, 0.48, 0.22, 0.12, 0.5)],
        "bar": [(-0.20, -0.36, 0.46, 0.13, 0.95), (0.42, 0.34, 0.11, 0.13, 0.8)],
        "big": [(-0.30, -0.28, 0.34, 0.34, 1.0), (0.38, 0.44, 0.15, 0.14, 0.9)],
    }[kind]
    mask = np.zeros_like(x)
    for sx, sy, rx, ry, strength in spots:
        mask = np.maximum(mask, strength * disc(x + 0.25 * (y - sy), y, (sx, sy), (rx, ry), 0.14))
    return c.alpha(mask.astype(np.float32)).png()


def paint_lash(traits: Traits) -> bytes:
    """Return the lashes' texture with alpha: upper lash (v 0-0.5), lower lash (0.5-0.7), fold (0.72-1); u outwards."""
    eye = traits.eyes
    width, height = 320, 128
    color = lash_color(traits)
    c = Canvas(width, height, color, 0.0)
    u, v = c.u, c.v
    # upper lash: a solid band (v towards the eye) that ends in spikes outside
    upper = v < 0.49
    band = v / 0.49
    edge = 0.40 - 0.16 * smoothstep(0.2, 0.9, u)
    mask = smoothstep(edge - 0.05, edge + 0.05, band)
    shapes = []
    for k in range(eye.lash_wings):
        at = 0.965 - 0.095 * k
        shapes.append([(at - 0.075, 0.30), (at + 0.03, 0.30), (min(at + 0.052, 0.995), 0.005 + 0.03 * k)])
    if eye.lash_wings > 1:
        shapes.append([(0.04, 0.34), (0.10, 0.34), (0.025, 0.14)])
    if shapes:
        mask = np.maximum(mask, polygon_mask((width, height), shapes, 2, 0.7))
    mask = mask * smoothstep(0.0, 0.04, u) * smoothstep(1.0, 0.985, u)
    alpha = np.where(upper, mask, 0.0)
    warm = mix(color, scaled(shade(traits.skin, 0.5), 0.75), 0.75)
    c.blend(warm, np.where(upper, 0.75 * smoothstep(0.22, 0.02, u), 0))
    low = (v > 0.51) & (v < 0.69)
    t = (v - 0.52) / 0.16
    line = (
        np.exp(-(((t - 0.35) / 0.26) ** 2))
        * smoothstep(0.02, 0.55, u)
        * smoothstep(1.0, 0.90, u)
        * (0.45 + 0.45 * eye.lower_lash)
    )
    alpha = np.where(low, line, alpha)
    if eye.lower_lash > 0.75:
        spikes = [[(p, 0.565), (p + 0.035, 0.565), (p + 0.05, 0.672)] for p in (0.70, 0.78, 0.86)]
        alpha = np.maximum(alpha, np.where(low, polygon_mask((width, height), spikes, 2, 0.6), 0))
    fold = v > 0.72
    t = (v - 0.74) / 0.22
    crease = np.exp(-(((t - 0.5) / 0.25) ** 2)) * smoothstep(0.0, 0.3, u) * smoothstep(1.0, 0.75, u) * 0.62
    c.blend(line_color(traits), np.where(fold, 1.0, 0.0))
    return c.alpha(np.where(fold, crease, alpha).astype(np.float32)).png()


def paint_brow(traits: Traits) -> bytes:
    """Return the brow's texture with alpha; u from the inner end outwards."""
    c = Canvas(128, 32, brow_color(traits), 0.0)
    across = np.abs(2 * c.v - 1)
    mask = smoothstep(1.0, 0.70, across) * smoothstep(0.0, 0.05, c.u) * smoothstep(1.0, 0.94, c.u)
    c.blend(shade(brow_color(traits), 0.2), 0.5 * smoothstep(0.4, 1.0, c.u))
    return c.alpha(mask.astype(np.float32)).png()


def paint_blush(traits: Traits) -> bytes:
    """Return the hidden blush that 照れ shows: two thirds soft spot, one third strokes."""
    c = Canvas(128, 64, (1.0, 0.45, 0.45), 0.0)
    mask = 0.62 * glow(c.u, c.v, (0.5, 0.5), (0.27, 0.24))
    lines = [[(0.30 + d, 0.70), (0.36 + d, 0.30)] for d in (0.0, 0.14, 0.28)]
    mask = np.maximum(mask, 0.75 * line_mask((128, 64), lines, 2.5, 3, 0.6))
    return c.alpha(mask.astype(np.float32)).png()


def paint_mouth(traits: Traits) -> bytes:
    """Return the mouth's inside: cavity on the left, teeth above and tongue below on the right."""
    c = Canvas(64, 64, (0.48, 0.14, 0.17))
    c.blend((0.34, 0.08, 0.12), smoothstep(0.2, 0.7, c.v) * (c.u < 0.5))
    c.blend((0.99, 0.985, 0.975), ((c.u > 0.5) & (c.v < 0.5)).astype(np.float32))
    tongue = (c.u > 0.5) & (c.v >= 0.5)
    c.blend((0.93, 0.50, 0.50), tongue.astype(np.float32))
    return c.png()
