"""How one model file is written: the habits that differ between real models, drawn by seed.

None of them changes what the character looks like; all of them change how a program must read the file.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmdgen import rng

WINKS = ("standard", "reversed", "bracket", "half_width", "explicit", "none", "english")
WINK_WEIGHTS = (0.37, 0.16, 0.10, 0.12, 0.09, 0.10, 0.06)
REVERSIBLE = ("bracket", "half_width")


@dataclass(frozen=True, slots=True)
class Conventions:
    """`winks` names the spelling of the one-sided eye morphs; `reversed_side`: the plain name closes the right eye."""

    winks: str
    reversed_side: bool
    group_blink: bool
    mouth: str  # "vertex", "group" or "jaw"
    head_d: bool
    eye_ratio: float
    eyes_high: bool  # 両目 above the head, as in many models, or between the eyes
    separators: bool
    repeated_names: bool
    hidden_blush: bool
    extra_uvs: int
    utf8: bool
    wide_indices: bool
    bdef4_shoulders: bool
    sdef_neck: bool
    toon: str  # "shared", "own" or "none"
    sphere: int  # 0 none, 1 multiply, 2 add
    legacy_sphere: bool  # the sphere map is a BMP called .sph or .spa, as in older models
    edges: float
    edge_tint: float
    ambient: float
    extra_morphs: bool
    texture_folder: str
    backslashes: bool
    has_smile: bool
    all_parent: bool
    version: float


def draw_conventions(seed: int) -> Conventions:
    """Draw the habits of the file of character `seed`."""
    s = rng.generator(seed, "samples", "morph habits")
    winks = WINKS[int(s.choice(len(WINKS), p=WINK_WEIGHTS))]
    flipped = winks == "reversed" or (winks in REVERSIBLE and s.uniform() < 0.22)
    group_blink = winks not in ("none", "english") and s.uniform() < 0.22
    mouth = ("vertex", "group", "jaw")[int(s.choice(3, p=(0.68, 0.22, 0.10)))]
    r = rng.generator(seed, "samples", "rig habits")
    f = rng.generator(seed, "samples", "file habits")
    d = rng.generator(seed, "samples", "drawing habits")
    return Conventions(
        winks=winks,
        reversed_side=bool(flipped),
        group_blink=bool(group_blink),
        mouth=mouth,
        head_d=bool(r.uniform() < 0.08),
        eye_ratio=float(r.choice([1.0, 1.0, 0.3, 0.5, 0.8])),
        eyes_high=bool(r.uniform() < 0.7),
        separators=bool(s.uniform() < 0.25),
        repeated_names=bool(s.uniform() < 0.08),
        hidden_blush=bool(s.uniform() < 0.6),
        extra_uvs=int(f.choice([0, 1, 2], p=[0.8, 0.13, 0.07])),
        utf8=bool(f.uniform() < 0.15),
        wide_indices=bool(f.uniform() < 0.2),
        bdef4_shoulders=bool(r.uniform() < 0.5),
        sdef_neck=bool(r.uniform() < 0.2),
        toon=str(d.choice(["shared", "own", "none"], p=[0.45, 0.4, 0.15])),
        sphere=int(d.choice([0, 1, 2], p=[0.45, 0.2, 0.35])),
        legacy_sphere=bool(d.uniform() < 0.5),
        edges=float(d.uniform(0.4, 1.0)),
        edge_tint=float(d.uniform(0.15, 1.0)),
        ambient=float(d.choice([0.6, 0.75, 0.85, 0.95, 1.0])),
        extra_morphs=bool(s.uniform() < 0.8),
        texture_folder="tex",
        backslashes=bool(f.uniform() < 0.5),
        has_smile=bool(s.uniform() < 0.95),
        all_parent=bool(r.uniform() < 0.85),
        version=2.1 if f.uniform() < 0.06 else 2.0,
    )
