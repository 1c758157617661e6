"""Textures of the clothes: garment, sleeves, collar, ribbon, metal, and the skin of neck and arms."""

from __future__ import annotations

import numpy as np

from mmdgen import rng
from mmdgen.samples.clothes import neckline
from mmdgen.samples.curves import smoothstep
from mmdgen.samples.paint import Canvas, disc, polygon_mask
from mmdgen.samples.palette import Color, glaze, luminance, mix, scaled, shade, tint
from mmdgen.samples.traits import Traits, variant


def _pattern(
    c: Canvas, kind: str, color: Color, mask: np.ndarray | float, stream: np.random.Generator, repeat: float = 18.0
) -> None:
    u, v = c.u * repeat * 1.6, c.v * repeat
    if kind == "dots":
        row = np.floor(v)
        distance = np.hypot((u + 0.5 * (row % 2)) % 1 - 0.5, v % 1 - 0.5)
        c.blend(color, 0.9 * smoothstep(0.27, 0.20, distance) * mask)
    elif kind == "stripes":
        c.blend(color, 0.85 * smoothstep(0.06, 0.0, np.abs(v % 1 - 0.5) - 0.2) * mask)
    elif kind == "check":
        a = smoothstep(0.06, 0.0, np.abs(u % 1 - 0.5) - 0.2)
        b = smoothstep(0.06, 0.0, np.abs(v % 1 - 0.5) - 0.2)
        c.blend(color, 0.40 * (a + b) * mask)
    elif kind == "flowers":
        for _ in range(26):
            x, y, size = stream.uniform(0, 1), stream.uniform(0.2, 1), stream.uniform(0.018, 0.034)
            for k in range(5):
                angle = 2 * np.pi * k / 5 + x * 9
                c.blend(
                    color,
                    disc(
                        c.u,
                        c.v,
                        (x + 0.6 * size * np.cos(angle), y + size * np.sin(angle)),
                        (0.36 * size, 0.6 * size),
                        0.15,
                    )
                    * mask,
                )
            c.blend(tint(color, 0.6), disc(c.u, c.v, (x, y), (0.22 * size, 0.36 * size), 0.15) * mask)


def _base(traits: Traits) -> tuple[Color, Color]:
    """Return the garment's and the collar's colours: uniforms are lighter and calmer."""
    clothes = traits.clothes
    kind = clothes.kind
    if kind in ("shirt_tie", "sailor"):
        light = tint(clothes.main, 0.75) if luminance(clothes.main) < 0.6 else clothes.main
        dark = clothes.second if luminance(clothes.second) < 0.6 else shade(clothes.main, 0.55)
        if kind == "sailor" and variant(traits, "dark sailor", 4) == 1:
            light, dark = dark, light
        if float(np.linalg.norm(np.subtract(light, traits.skin))) < 0.30:
            light = (0.86, 0.90, 0.98)  # not the colour of skin
        return light, dark if kind == "sailor" else light
    if kind == "blazer":
        return (clothes.main if luminance(clothes.main) < 0.6 else shade(clothes.main, 0.6)), (0.97, 0.97, 0.98)
    return clothes.main, clothes.second


def paint_cloth(traits: Traits) -> bytes:
    """Return the torso's texture: u around (0.5 in front), v from the neck down; skin above the neckline."""
    clothes, kind = traits.clothes, traits.clothes.kind
    stream = rng.generator(traits.seed, "samples", "cloth paint")
    main, second = _base(traits)
    c = Canvas(256, 256, main)
    theta = (c.u - 0.5) * 2 * np.pi
    turn = np.abs(theta)
    dark = shade(main, 0.22)
    if kind in ("tee", "dress", "kimono", "hoodie", "sweater") and clothes.pattern != "plain":
        _pattern(
            c,
            "stripes" if kind == "sweater" else clothes.pattern,
            mix(main, second, 0.55 if kind in ("hoodie", "sweater") else 0.9),
            1.0,
            stream,
        )
    if kind == "blazer":
        opening = smoothstep(-0.006, 0.006, neckline("idol", theta) - c.v + 0.10 * smoothstep(0.5, 0.1, turn))
        c.blend((0.97, 0.97, 0.98), opening)
        for v in (0.60, 0.72, 0.84):
            c.blend(
                clothes.accent if variant(traits, "buttons", 2) else (0.9, 0.78, 0.4),
                disc(c.u, c.v, (0.503, v), (0.011, 0.014), 0.2),
            )
        c.blend(dark, 0.7 * smoothstep(0.004, 0.001, np.abs(c.u - 0.5)) * (c.v > 0.5))
    if kind in ("shirt_tie",):
        c.blend(dark, 0.6 * smoothstep(0.004, 0.001, np.abs(np.abs(c.u - 0.5) - 0.022)))
        for v in np.arange(0.2, 1, 0.1):
            c.blend(shade(main, 0.3), disc(c.u, c.v, (0.5, float(v)), (0.007, 0.009), 0.2))
    if kind == "hoodie":
        c.blend(dark, 0.8 * smoothstep(0.005, 0.002, np.abs(c.u - 0.5)))
        pocket = [(0.39, 0.70), (0.61, 0.70), (0.66, 0.88), (0.34, 0.88)]
        c.blend(shade(main, 0.14), polygon_mask((256, 256), [pocket], 2))
    if kind == "kimono":
        c.blend(second, smoothstep(0.70, 0.71, c.v) * smoothstep(0.93, 0.92, c.v))
        c.blend(clothes.accent, smoothstep(0.79, 0.795, c.v) * smoothstep(0.835, 0.83, c.v))
        seam = c.v - 0.42 - 0.5 * theta
        c.blend(dark, 0.7 * smoothstep(0.012, 0.004, np.abs(seam)) * (theta > -0.1) * (c.v < 0.7))
    if kind == "tee":
        shape = [
            (
                0.5 + 0.055 * (0.45 if k % 2 else 1) * np.sin(np.pi * k / 5),
                0.50 - 0.075 * (0.45 if k % 2 else 1) * np.cos(np.pi * k / 5),
            )
            for k in range(10)
        ]
        c.blend(clothes.accent, polygon_mask((256, 256), [shape], 3) * float(clothes.pattern == "plain"))
    if kind == "idol":
        c.blend(second, smoothstep(0.12, 0.10, turn) * 0.9)
        for v in (0.58, 0.68, 0.78):
            c.blend((0.95, 0.82, 0.40), disc(c.u, c.v, (0.5, v), (0.012, 0.015), 0.2))
    if kind == "dress":
        c.blend(mix(main, second, 0.5), 0.8 * smoothstep(0.80, 0.82, c.v))
        c.blend(dark, 0.35 * (0.5 + 0.5 * np.cos(theta * 22)) * smoothstep(0.45, 0.75, c.v))
    if kind == "armour":
        c.blend(shade(main, 0.15), (0.5 + 0.5 * np.cos(theta * 40)) * 0.4)
    # folds and shadow below the head, then the skin above the neckline
    c.multiply((0.86, 0.84, 0.90), 0.85 * smoothstep(0.34, 0.10, c.v + 0.05 * np.cos(theta)))
    c.multiply((0.90, 0.88, 0.93), 0.6 * smoothstep(0.35, 0.8, turn / np.pi) * smoothstep(0.4, 0.6, c.v))
    edge = neckline(kind, theta)
    skin = smoothstep(0.004, -0.004, c.v - edge)
    shadow = mix(traits.skin, shade(traits.skin, 0.20), 0.8)
    c.blend(traits.skin, skin)
    c.blend(shadow, skin * smoothstep(0.34, 0.12, c.v))
    if kind == "dress":
        c.blend(
            shade(traits.skin, 0.22),
            skin
            * 0.7
            * smoothstep(0.012, 0.003, np.abs(c.v - 0.20 - 0.13 * np.maximum(turn - 0.16, 0) ** 0.5 * (turn > 0.16)))
            * (turn > 0.2)
            * (turn < 1.0),
        )
    return c.png()


def paint_sleeve(traits: Traits) -> bytes:
    clothes = traits.clothes
    main, second = _base(traits)
    c = Canvas(128, 128, main)
    stream = rng.generator(traits.seed, "samples", "sleeve paint")
    if clothes.kind in ("tee", "dress", "kimono", "hoodie", "sweater") and clothes.pattern != "plain":
        _pattern(
            c,
            "stripes" if clothes.kind == "sweater" else clothes.pattern,
            mix(main, second, 0.55 if clothes.kind in ("hoodie", "sweater") else 0.9),
            1.0,
            stream,
            7,
        )
    cuff = second if clothes.kind not in ("shirt_tie", "blazer") else tint(main, 0.3)
    c.blend(cuff, smoothstep(0.86, 0.87, c.v))
    c.blend(
        (1, 1, 1) if luminance(cuff) < 0.6 else shade(cuff, 0.4),
        smoothstep(0.012, 0.004, np.abs(c.v - 0.91)) * float(clothes.kind in ("sailor", "idol")),
    )
    c.multiply((0.88, 0.86, 0.92), 0.6 * smoothstep(0.15, 0.0, c.v))
    return c.png()


def paint_collar(traits: Traits) -> bytes:
    """Return the collar's texture: v from the neck to the outer edge."""
    clothes = traits.clothes
    _, second = _base(traits)
    c = Canvas(64, 128, second)
    line = (0.98, 0.98, 0.98) if luminance(second) < 0.62 else shade(second, 0.5)
    if clothes.kind in ("sailor", "idol"):
        for v in (0.80, 0.90) if variant(traits, "collar lines", 3) else (0.84,):
            c.blend(line, smoothstep(0.026, 0.014, np.abs(c.v - v)))
    elif clothes.kind == "sweater":
        c.blend(shade(second, 0.2), 0.6 * (0.5 + 0.5 * np.cos(c.u * 2 * np.pi * 32)))
    elif clothes.kind == "kimono":
        c.blend(clothes.accent, 0.9 * smoothstep(0.05, 0.03, np.abs(c.v - 0.88)))
    c.multiply((0.90, 0.88, 0.93), 0.7 * smoothstep(0.25, 0.0, c.v))
    return c.png()


def paint_ribbon(traits: Traits) -> bytes:
    """Return the ribbon's texture: left half plain (bows, hair ties), right half tails and neckties."""
    color = traits.clothes.accent if traits.clothes.kind not in ("dress",) else tint(traits.clothes.second, 0.2)
    c = Canvas(64, 64, color)
    c.blend(shade(color, 0.25), 0.6 * smoothstep(0.4, 1.0, np.abs(2 * ((c.u * 2) % 1) - 1)))
    if variant(traits, "striped ribbon", 3) == 1:
        stripe = ((c.u + c.v) * 5) % 1
        c.blend(tint(color, 0.55), 0.85 * smoothstep(0.05, 0.0, np.abs(stripe - 0.5) - 0.12) * (c.u > 0.5))
    c.blend((1.0, 0.95, 0.75), ((c.u > 0.95) & (c.v > 0.95)).astype(float))
    return c.png()


def paint_metal(traits: Traits) -> bytes:
    """Return gold, silver or coloured metal with painted reflections."""
    color = ((0.93, 0.78, 0.42), (0.80, 0.83, 0.90), mix(traits.extras.color, (0.8, 0.8, 0.85), 0.4))[
        variant(traits, "metal", 3)
    ]
    c = Canvas(64, 64, color)
    c.blend(tint(color, 0.6), 0.8 * smoothstep(0.10, 0.02, np.abs(c.v - 0.30)))
    c.blend(shade(color, 0.35), 0.7 * smoothstep(0.45, 0.95, c.v))
    return c.png()


def paint_neck(traits: Traits) -> bytes:
    """Return the neck's texture: the head's shadow on top."""
    c = Canvas(64, 64, traits.skin)
    low = glaze(traits.skin, 0.24)
    edge = 0.80 + 0.035 * np.cos((c.u - 0.5) * 2 * np.pi)
    c.multiply(low, smoothstep(edge + 0.03, edge - 0.02, c.v))
    if traits.extras.choker:
        c.blend(
            mix(scaled(traits.extras.color, 0.35), (0.1, 0.08, 0.1), 0.5), smoothstep(0.035, 0.028, np.abs(c.v - 0.83))
        )
    return c.png()


def paint_fur(traits: Traits) -> bytes:
    """Return animal ears' texture: the outside in the hair's colour on the left half, the inside on the right one."""
    color = traits.hair.root
    c = Canvas(64, 64, color)
    c.blend(
        traits.hair.tip if variant(traits, "fur tips", 2) else shade(color, 0.25), 0.8 * smoothstep(0.55, 0.95, c.v)
    )
    inside = mix(traits.skin, (0.98, 0.66, 0.70), 0.55)
    c.blend(inside, (c.u > 0.5).astype(np.float32))
    c.blend(shade(inside, 0.2), (c.u > 0.5) * smoothstep(0.4, 0.0, c.v))
    c.blend(tint(color, 0.55), (c.u > 0.5) * smoothstep(0.32, 0.48, np.abs(c.u - 0.75) * 2) * 0.9)
    return c.png()


def paint_hat(traits: Traits) -> bytes:
    """Return the texture of hats and horns: v 0-0.78 the body, 0.8-1 band, cuff, visor."""
    extras = traits.extras
    if extras.horns:
        color = ((0.93, 0.88, 0.80), (0.28, 0.24, 0.27), mix(extras.color, (0.3, 0.2, 0.25), 0.5))[
            variant(traits, "horns", 3)
        ]
        c = Canvas(32, 64, shade(color, 0.2))
        c.blend(tint(color, 0.15), smoothstep(0.1, 0.8, c.v))
        c.blend(shade(color, 0.3), 0.5 * smoothstep(0.3, 0.1, np.abs((c.v * 9) % 1 - 0.5)))
        return c.png()
    color, band = extras.color, extras.second
    if extras.headwear == "witch":
        color = shade(color, 0.55)
    if extras.headwear == "maid":
        color = band = (0.98, 0.98, 0.99)
    c = Canvas(128, 128, color)
    if extras.headwear in ("beanie",):
        c.blend(shade(color, 0.18), 0.7 * (0.5 + 0.5 * np.cos(c.u * 2 * np.pi * 28)))
    if extras.headwear == "cap":
        c.blend(band, smoothstep(0.13, 0.12, np.abs(c.u - 0.5)) * (c.v < 0.79))
        c.blend(shade(color, 0.3), smoothstep(0.004, 0.001, np.abs(((c.u * 6) % 1) - 0.5) / 6))
    c.multiply((0.88, 0.86, 0.92), 0.8 * smoothstep(0.45, 0.8, c.v) * (c.v < 0.79))
    c.blend(band, (c.v > 0.79).astype(np.float32))
    if extras.headwear == "beanie":
        c.blend(shade(band, 0.15), (c.v > 0.79) * (0.5 + 0.5 * np.cos(c.u * 2 * np.pi * 30)))
    return c.png()


def paint_lens(traits: Traits) -> bytes:
    """Return a glass: faintly blue, with a bright diagonal streak."""
    c = Canvas(64, 64, (0.80, 0.90, 1.0), 0.05)
    streak = smoothstep(0.10, 0.05, np.abs(c.u - 0.30 + 0.6 * (c.v - 0.5)))
    streak = np.maximum(streak, smoothstep(0.04, 0.02, np.abs(c.u - 0.50 + 0.6 * (c.v - 0.5))))
    c.blend((1, 1, 1), streak)
    return c.alpha(
        np.maximum(0.05, 0.24 * streak * smoothstep(1.0, 0.7, np.hypot(2 * c.u - 1, 2 * c.v - 1))).astype(np.float32)
    ).png()


def paint_plain_skin(traits: Traits) -> bytes:
    return Canvas(16, 16, traits.skin).png()


def paint_clothes(traits: Traits) -> dict[str, bytes]:
    """Return all textures of clothes and accessories by key."""
    return {
        "cloth": paint_cloth(traits),
        "sleeve": paint_sleeve(traits),
        "collar": paint_collar(traits),
        "ribbon": paint_ribbon(traits),
        "metal": paint_metal(traits),
        "neck": paint_neck(traits),
        "skin_plain": paint_plain_skin(traits),
        **({"fur": paint_fur(traits)} if traits.extras.animal else {}),
        **({"hat": paint_hat(traits)} if traits.extras.headwear or traits.extras.horns else {}),
        **({"lens": paint_lens(traits)} if traits.extras.glasses else {}),
    }
