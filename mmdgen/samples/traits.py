"""What one character is like: every choice, drawn from keyed streams before anything is built.

Each feature draws from its own stream, so that a new feature, or a new draw inside one, leaves the others as they were.
Lengths are design units (see `mesh`), colours are sRGB in [0, 1].
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from mmdgen import rng
from mmdgen.samples.palette import EYE_COLORS, HAIR_COLORS, SKIN_TONES, Color, jitter

BUILDS = ("girl", "girl", "girl", "woman", "woman", "boy", "boy", "man", "chibi", "chibi")
EYE_STYLES = ("round", "tareme", "tsurime", "cat", "narrow", "doe", "half")
IRIS_PATTERNS = ("rays", "ring", "gem", "plain", "star", "heart", "slit", "double")
HIGHLIGHTS = ("two", "three", "soft", "bar", "big")
HAIR_STYLES = (
    "short_bob",
    "long_straight",
    "twin_tails",
    "ponytail",
    "side_tail",
    "spiky_short",
    "braids",
    "wavy_long",
    "hime",
    "buns",
    "drills",
    "medium_layered",
    "boy_short",
    "low_twin",
    "curly_short",
    "two_side_up",
    "side_braid",
    "wolf_long",
)
FRINGES = ("straight", "parted", "side_swept", "spiky", "m_shape", "center_lock", "heavy")
SIDE_LOCKS = ("none", "thin", "wide", "long", "curled")
CLOTHES = ("sailor", "shirt_tie", "blazer", "hoodie", "dress", "kimono", "armour", "sweater", "tee", "idol")
HEADWEAR = ("beret", "witch", "cap", "crown", "maid", "beanie", "flower_crown")
ANIMALS = ("cat", "fox", "bunny", "bear", "wolf")
HORNS = ("oni", "ram", "dragon")


@dataclass(frozen=True, slots=True)
class FaceTraits:
    """`width` scales the cheeks, `chin` is the pointedness (1.4 round to 3 pointed), `flat` flattens the front."""

    width: float
    chin: float
    jaw: float
    flat: float
    nose: float
    eye_line: float
    blush: float
    mole: int  # 0 none, 1 under the left eye, 2 under the right eye, 3 beside the mouth
    freckles: bool
    fang: bool


@dataclass(frozen=True, slots=True)
class EyeTraits:
    """Half width and heights of the opening; `tilt` raises the outer corner; sizes of the iris relative to them."""

    style: str
    center_x: float
    half_width: float
    up: float
    low: float
    tilt: float
    box_up: float
    box_low: float
    peak: float
    iris_width: float
    iris_height: float
    pattern: str
    highlight: str
    left_color: Color
    right_color: Color
    lash: float
    lash_wings: int
    lower_lash: float
    fold: bool
    lash_tint: float


@dataclass(frozen=True, slots=True)
class HairTraits:
    style: str
    fringe: str
    side: str
    ahoge: int
    root: Color
    middle: Color
    tip: Color
    streak: Color | None
    length: float
    volume: float
    locks: float
    wave: float
    ring: float
    part: float
    fringe_length: float


@dataclass(frozen=True, slots=True)
class ClothesTraits:
    kind: str
    main: Color
    second: Color
    accent: Color
    pattern: str


@dataclass(frozen=True, slots=True)
class ExtraTraits:
    headwear: str
    animal: str
    horns: str
    elf: float
    glasses: str
    ribbon: str
    clip: str
    headphones: bool
    earrings: bool
    choker: bool
    color: Color
    second: Color


@dataclass(frozen=True, slots=True)
class Traits:
    """Everything that `character.build_character` needs to know. `head_height` is in MU (chin to hair top)."""

    seed: int
    build: str
    head_height: float
    body: float
    shoulder: float
    skin: Color
    face: FaceTraits
    eyes: EyeTraits
    hair: HairTraits
    clothes: ClothesTraits
    extras: ExtraTraits
    brow_weight: float
    brow_tilt: float
    brow_arch: float
    brow_gap: float
    brow_maro: bool
    mouth_width: float
    mouth_curve: float
    mouth_gap: float


def variant(traits: Traits, name: str, count: int) -> int:
    """Return a number below `count` for a small choice that has no field of its own."""
    return int(rng.fraction(traits.seed, "samples", "variant", name) * count)


def _pick(stream: np.random.Generator, items: tuple[str, ...], weights: tuple[float, ...] | None = None) -> str:
    chance = None if weights is None else np.array(weights) / sum(weights)
    return items[int(stream.choice(len(items), p=chance))]


def _face(seed: int, build: str) -> FaceTraits:
    s = rng.generator(seed, "samples", "face")
    u = s.uniform
    grown = build in ("woman", "man")
    return FaceTraits(
        width=u(0.95, 1.04) * {"chibi": 1.06, "man": 0.93, "woman": 0.96}.get(build, 1.0),
        chin=u(1.65, 2.45) if build != "chibi" else u(1.35, 1.75),
        jaw=u(0.92, 1.04) + (0.05 if build == "man" else 0.0),
        flat=u(0.16, 0.30),
        nose=u(0.6, 1.1) * (1.35 if grown else 1.0) * (0.5 if build == "chibi" else 1.0),
        eye_line=-0.27 + u(-0.03, 0.03) + (0.05 if grown else 0.0) - (0.04 if build == "chibi" else 0.0),
        blush=u(0.25, 1.0) * (0.35 if build == "man" else 1.0),
        mole=int(s.choice(4, p=[0.82, 0.07, 0.07, 0.04])),
        freckles=bool(u() < 0.05),
        fang=bool(u() < 0.12),
    )


def _eyes(seed: int, build: str) -> EyeTraits:
    s = rng.generator(seed, "samples", "eye shape")
    u = s.uniform
    style = _pick(s, EYE_STYLES, (4, 3, 3, 1.6, 2.0 if build in ("man", "boy", "woman") else 0.5, 2.5, 0.8))
    size = {"girl": 1.13, "woman": 1.04, "boy": 1.03, "man": 0.88, "chibi": 1.27}[build] * u(0.94, 1.06)
    up, low, tilt, box_up, box_low, peak = {
        "round": (0.215, 0.150, 0.005, 0.78, 0.85, 0.0),
        "tareme": (0.200, 0.145, -0.040, 0.78, 0.85, -0.10),
        "tsurime": (0.190, 0.140, 0.055, 0.80, 0.90, 0.12),
        "cat": (0.200, 0.145, 0.070, 0.72, 0.95, 0.18),
        "narrow": (0.140, 0.105, 0.030, 0.75, 0.90, 0.05),
        "doe": (0.225, 0.160, -0.012, 0.70, 0.75, 0.0),
        "half": (0.135, 0.140, 0.010, 0.50, 0.85, 0.05),
    }[style]
    half_width = 0.197 * size * u(0.96, 1.08) * (1.04 if style in ("narrow", "half") else 1.0)
    up, low = up * size * u(0.94, 1.07), low * size * u(0.94, 1.07)
    c = rng.generator(seed, "samples", "eye colour")
    left = jitter(EYE_COLORS[int(c.integers(len(EYE_COLORS)))], c)
    right = jitter(EYE_COLORS[int(c.integers(len(EYE_COLORS)))], c) if c.uniform() < 0.07 else left
    i = rng.generator(seed, "samples", "iris")
    round_ratio = {"narrow": 0.80, "half": 0.80}.get(style, 0.80)
    male = build in ("man", "boy")
    return EyeTraits(
        style=style,
        center_x=0.335 * u(0.97, 1.05) + 0.25 * (half_width - 0.197),
        half_width=half_width,
        up=up,
        low=low,
        tilt=tilt + u(-0.012, 0.012),
        box_up=box_up,
        box_low=box_low,
        peak=peak,
        iris_width=half_width * round_ratio * i.uniform(0.93, 1.08),
        iris_height=max(0.55 * (up + low) * i.uniform(0.98, 1.10), half_width * 0.62),
        pattern=_pick(i, IRIS_PATTERNS, (4, 3, 3, 4, 0.4, 0.25, 0.7, 2)),
        highlight=_pick(i, HIGHLIGHTS, (4, 3, 2, 1, 2)),
        left_color=left,
        right_color=right,
        lash=u(0.85, 1.25) * (0.72 if male else 1.0),
        lash_wings=0 if build == "man" else int(s.integers(0, 2) if male else s.integers(1, 5)),
        lower_lash=u(0.2, 1.0) * (0.4 if male else 1.0),
        fold=bool(u() < 0.8),
        lash_tint=u(0.0, 0.35),
    )


def _hair(seed: int, build: str) -> HairTraits:
    s = rng.generator(seed, "samples", "hair style")
    male = build in ("boy", "man")
    #        bob long twin pony side spiky braid wavy hime buns drill layer boy low curly up sbraid wolf
    weights = (
        (0.6, 0.25, 0, 0.5, 0.1, 5, 0.1, 0.2, 0, 0, 0, 1.6, 5, 0, 1.3, 0, 0.2, 1.8)
        if male
        else (2.7, 3, 3, 2.5, 2.6, 0.8, 2, 2.6, 2.4, 2, 2, 2.2, 0.3, 2.4, 1.0, 2.4, 1.6, 0.7)
    )
    style = _pick(s, HAIR_STYLES, weights)
    f = rng.generator(seed, "samples", "fringe")
    fringe = (
        "straight" if style == "hime" else _pick(f, FRINGES, (1.5 if male else 3, 2, 3, 3 if male else 1.5, 2.5, 2, 2))
    )
    k = rng.generator(seed, "samples", "side locks")
    side = "hime" if style == "hime" else _pick(k, SIDE_LOCKS, (3, 3, 1, 0, 0) if male else (0.8, 3, 3, 2.5, 1.4))
    c = rng.generator(seed, "samples", "hair colour")
    names = tuple(HAIR_COLORS)
    name = _pick(c, names, tuple(HAIR_COLORS[key][1] for key in names))
    root = jitter(HAIR_COLORS[name][0], c)
    tip = root
    chance = c.uniform()
    if chance < 0.22:  # two-coloured ends
        other = _pick(c, names, tuple(HAIR_COLORS[key][1] for key in names))
        tip = jitter(HAIR_COLORS[other][0], c)
    elif chance < 0.55:  # a lighter or warmer end of the same colour
        h, light, sat = colorsys.rgb_to_hls(*root)
        tip = colorsys.hls_to_rgb((h + c.uniform(-0.05, 0.05)) % 1, min(light + c.uniform(0.05, 0.18), 0.93), sat)
    middle = root if chance < 0.7 else tuple(0.5 * (a + b) for a, b in zip(root, tip, strict=True))
    streak = jitter(HAIR_COLORS[_pick(c, names)][0], c) if c.uniform() < 0.10 else None
    z = rng.generator(seed, "samples", "hair size")
    return HairTraits(
        style=style,
        fringe=fringe,
        side=side,
        ahoge=int(z.choice(4, p=[0.56, 0.25, 0.11, 0.08])),
        root=root,
        middle=middle,  # type: ignore[arg-type]
        tip=tip,
        streak=streak,
        length=z.uniform(0.0, 1.0),
        volume=z.uniform(0.0, 1.0),
        locks=z.uniform(0.85, 1.2),
        wave=z.uniform(0.0, 1.0),
        ring=z.uniform(0.35, 1.0),
        part=float(z.choice([-1, 1])) * z.uniform(0.12, 0.45),
        fringe_length=z.uniform(-0.07, 0.07),
    )


def _clothes(seed: int, build: str, eye: Color, skin: Color) -> ClothesTraits:
    s = rng.generator(seed, "samples", "clothes")
    male = build in ("boy", "man")
    kind = _pick(
        s, CLOTHES, (0.3, 3, 3, 2.5, 0, 1.2, 1.2, 2, 2, 0) if male else (3.2, 2, 2, 1.8, 2.2, 1.6, 0.9, 1.8, 1.2, 2)
    )
    c = rng.generator(seed, "samples", "clothes colour")
    hue = c.uniform()
    light = bool(c.uniform() < 0.45)
    main = colorsys.hls_to_rgb(hue, c.uniform(0.78, 0.96) if light else c.uniform(0.18, 0.5), c.uniform(0.15, 0.6))
    if float(np.linalg.norm(np.subtract(main, skin))) < 0.42:  # never the colour of skin
        hue = (hue + 0.5) % 1
        main = colorsys.hls_to_rgb(hue, 0.32, 0.45)
    shift = float(c.choice([0.0, 0.08, -0.08, 0.5, 0.33])) + c.uniform(-0.03, 0.03)
    second = colorsys.hls_to_rgb(
        (hue + shift) % 1, c.uniform(0.2, 0.42) if light else c.uniform(0.75, 0.95), c.uniform(0.2, 0.7)
    )
    accent = colorsys.hls_to_rgb(c.uniform(), c.uniform(0.36, 0.56), c.uniform(0.40, 0.75))
    if c.uniform() < 0.45:  # what is chosen to go with the eyes
        accent = jitter(eye, c)
    pattern = _pick(s, ("plain", "dots", "stripes", "check", "flowers"), (5, 1, 1.2, 1, 0.8))
    return ClothesTraits(kind, main, second, accent, pattern)


def _extras(seed: int, build: str, style: str) -> ExtraTraits:
    def stream(name: str) -> np.random.Generator:
        return rng.generator(seed, "samples", "extra", name)

    male = build in ("boy", "man")
    a, h, g, r = stream("animal"), stream("headwear"), stream("glasses"), stream("ribbon")
    animal = _pick(a, ANIMALS, (4, 2, 1.3, 0.8, 1.2)) if a.uniform() < (0.06 if male else 0.15) else ""
    headwear = ""
    if not animal and style not in ("buns",) and h.uniform() < 0.15:
        headwear = _pick(h, HEADWEAR, (0.7, 1, 1.5, 1, 0, 1.2, 0) if male else (2, 1.2, 1, 0.8, 1.3, 1, 1.2))
        if style in ("spiky_short", "curly_short") and headwear in ("beret", "witch", "cap", "beanie"):
            headwear = "crown"  # such hair does not go under a hat
    horns = ""
    if not animal and not headwear and (n := stream("horns")).uniform() < 0.08:
        horns = _pick(n, HORNS)
    e, c, p, j = stream("elf"), stream("clip"), stream("headphones"), stream("jewellery")
    color = colorsys.hls_to_rgb(j.uniform(), j.uniform(0.42, 0.62), j.uniform(0.5, 0.95))
    second = colorsys.hls_to_rgb(j.uniform(), j.uniform(0.7, 0.9), j.uniform(0.3, 0.9))
    return ExtraTraits(
        headwear=headwear,
        animal=animal,
        horns=horns,
        elf=float(e.uniform(0.5, 1.0)) if e.uniform() < 0.08 else 0.0,
        glasses=_pick(g, ("round", "square", "half")) if g.uniform() < 0.12 else "",
        ribbon=_pick(r, ("top", "side", "back", "pair")) if not headwear and not male and r.uniform() < 0.22 else "",
        clip=_pick(c, ("pins", "star", "flower", "cross")) if c.uniform() < (0.05 if male else 0.22) else "",
        headphones=not headwear and not animal and not horns and bool(p.uniform() < 0.06),
        earrings=bool(j.uniform() < 0.10),
        choker=not male and bool(j.uniform() < 0.12),
        color=color,
        second=second,
    )


def draw_traits(seed: int) -> Traits:
    """Draw everything about the character `seed`. The same seed gives the same traits."""
    b = rng.generator(seed, "samples", "build")
    build = _pick(b, BUILDS)
    body = {"girl": 1.0, "woman": 1.12, "boy": 1.03, "man": 1.25, "chibi": 0.80}[build] * b.uniform(0.96, 1.05)
    shoulder = body * {"man": 1.12, "boy": 1.02}.get(build, 0.96) * b.uniform(0.96, 1.04)
    head_height = b.uniform(2.05, 2.45) + (0.15 if build == "chibi" else 0.0)
    skin_stream = rng.generator(seed, "samples", "skin")
    tones = tuple(SKIN_TONES)
    skin = jitter(SKIN_TONES[_pick(skin_stream, tones, tuple(SKIN_TONES[t][1] for t in tones))][0], skin_stream, 0.01)
    w = rng.generator(seed, "samples", "brow")
    m = rng.generator(seed, "samples", "mouth")
    hair, eyes = _hair(seed, build), _eyes(seed, build)
    male = build in ("boy", "man")
    return Traits(
        seed=seed,
        build=build,
        head_height=head_height,
        body=body,
        shoulder=shoulder,
        skin=skin,
        face=_face(seed, build),
        eyes=eyes,
        hair=hair,
        clothes=_clothes(seed, build, eyes.left_color, skin),
        extras=_extras(seed, build, hair.style),
        brow_weight=w.uniform(0.7, 1.15) * (1.45 if male else 1.0),
        brow_tilt=w.uniform(-0.035, 0.03) + (0.03 if male else 0.0),
        brow_arch=w.uniform(0.01, 0.04),
        brow_gap=w.uniform(0.085, 0.125) - (0.03 if male else 0.0),
        brow_maro=bool(w.uniform() < 0.04),
        mouth_width=m.uniform(0.085, 0.15),
        mouth_curve=m.uniform(0.002, 0.036),
        mouth_gap=m.uniform(-0.025, 0.02),
    )
