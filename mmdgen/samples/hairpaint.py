"""Textures of the hair: strands with a gradient from root to tip and the ring of gloss; sphere and toon pictures."""

from __future__ import annotations

import numpy as np

from mmdgen import rng
from mmdgen.samples.curves import smoothstep
from mmdgen.samples.hair import HEAD_S, HEAD_SHARE, TILES
from mmdgen.samples.paint import Canvas, glow, noise_1d
from mmdgen.samples.palette import glaze, luminance, mix, scaled, shade, tint
from mmdgen.samples.traits import Traits


def paint_hair(traits: Traits, *, inside: bool = False) -> bytes:
    """Return a square hair texture: eight strands side by side, root on top (see `hair.texture_v`).

    `inside` is the darker one for hair seen from within.
    """
    hair = traits.hair
    stream = rng.generator(traits.seed, "samples", "hair paint")
    size = 320 if not inside else 64
    c = Canvas(size, size, hair.root)
    v, u = c.v, c.u
    head = HEAD_SHARE / HEAD_S  # v of one s
    c.blend(hair.middle, smoothstep(0.5 * head, 1.3 * head, v))
    c.blend(hair.tip, smoothstep(0.62, 0.97, v))
    dark = shade(mix(hair.root, hair.middle, 0.5), 0.30)
    if inside:
        c.blend(shade(hair.root, 0.42), 0.85)
        c.multiply((0.8, 0.78, 0.85), smoothstep(0.4, 1.0, v))
        return c.png()
    across = (u * TILES) % 1.0
    edge = np.abs(2 * across - 1)
    fine = noise_1d(stream, size, (48, 96, 170))[None, :]
    broad = noise_1d(stream, size, (16, 24))[None, :]
    shaded = np.zeros_like(u)
    shaded += 0.60 * smoothstep(0.72, 1.0, edge)  # between strands
    shaded += 0.40 * np.clip(broad, 0, 1) * smoothstep(0.15, 0.45, v)
    shaded += 0.30 * smoothstep(0.20, 0.75, fine) * (0.35 + 0.65 * np.abs(np.sin(3.1 * v + 6 * broad)))
    root = smoothstep(0.10, 0.0, v) * 0.35
    darker = shade(hair.middle, 0.26)
    low = shade(mix(hair.middle, hair.tip, 0.6), 0.28)
    tone = np.where(v[..., None] < 0.6, np.array(dark, np.float32), np.array(low, np.float32))
    c.blend(tone, np.clip(shaded + root, 0, 0.85))
    c.blend(darker, 0.25 * smoothstep(0.85, 1.0, v) * smoothstep(0.5, 1.0, edge))
    # the ring of gloss: a band with a ragged lower edge, broken between the strands
    jag = noise_1d(stream, size, (32, 64, 128))[None, :]
    top = head * (0.52 + 0.03 * jag)
    bottom = head * (0.655 + 0.07 * jag - 0.05 * edge)
    band = smoothstep(top - 0.008, top + 0.006, v) * smoothstep(bottom + 0.006, bottom - 0.010, v)
    band = band * smoothstep(1.0, 0.72, edge)
    bright = luminance(hair.root)
    gloss = tint(hair.root, 0.55 if bright < 0.75 else 0.9)
    c.blend(gloss, band * hair.ring * (0.75 if bright > 0.35 else 0.55))
    thin = smoothstep(0.012, 0.0, np.abs(v - head * (0.74 + 0.03 * jag))) * smoothstep(0.8, 0.5, edge)
    c.blend(gloss, 0.45 * hair.ring * thin)
    c.blend(
        tint(hair.middle, 0.35), 0.30 * smoothstep(0.35, 0.0, edge) * smoothstep(0.55, 0.75, v)
    )  # light on long strands
    if hair.streak is not None:
        lock = ((u * TILES).astype(int) % TILES == 3).astype(np.float32)
        c.blend(hair.streak, 0.85 * lock * smoothstep(0.02, 0.08, v) * (1 - 0.4 * shaded))
    return c.png()


def paint_sphere(traits: Traits, mode: int) -> Canvas:
    """Return a sphere map: for adding (mode 2) a dim glow on black, for multiplying (1) a faint rim on white."""
    c = Canvas(64, 64, (0, 0, 0))
    if mode == 1:
        c.blend((1.0, 1.0, 1.0), 1.0)
        return c.multiply(glaze(traits.hair.root, 0.25), 0.8 * smoothstep(0.34, 0.5, np.hypot(c.u - 0.5, c.v - 0.5)))
    warm = mix((1, 1, 1), tint(traits.hair.root, 0.3), 0.5)
    return c.blend(scaled(warm, 0.22), glow(c.u, c.v, (0.42, 0.30), (0.22, 0.12)))


def paint_toon(traits: Traits, skin: bool) -> bytes:
    """Return a toon ramp: light above, the painter's shadow colour below."""
    c = Canvas(32, 32, (1, 1, 1))
    color = traits.skin if skin else (0.8, 0.8, 0.84)
    return c.multiply(glaze(color, 0.2), smoothstep(0.45, 0.62, c.v)).png()
