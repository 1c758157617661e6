"""Hair that is tied up: tails, braids, buns and drills at the places where people wear them.

Each style adds its parts, bones and ties to a `Hair` that has its cap and fringe already.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmdgen.samples.backhair import Hair, add_pair, add_single, back_hair, nape
from mmdgen.samples.mesh import mirrored
from mmdgen.samples.tails import braid, bun, drill, hair_tie, smooth_path, tail
from mmdgen.samples.traits import Traits

Stream = np.random.Generator
Tied = Callable[[Traits, Hair, Stream], None]


def _twin_path(stream: Stream, drop: float) -> np.ndarray:
    out, high = stream.uniform(0.25, 0.5), stream.uniform(0.30, 0.62)
    return smooth_path(
        [
            (0.70, high, 0.10),
            (0.93, high + 0.13, 0.10),
            (1.08 + 0.3 * out, high - 0.22, 0.14),
            (1.12 + 0.6 * out, 0.4 * drop, 0.14),
            (0.98 + 0.5 * out, drop, 0.12),
        ]
    )


def _twin_tails(traits: Traits, hair: Hair, stream: Stream) -> None:
    t = traits.hair
    hair.parts += nape(traits, hair.form)
    path = _twin_path(stream, -1.1 - 1.2 * t.length)
    add_pair(hair, tail(path, 0.20 + 0.06 * t.volume, stream, 0.06 * (t.wave > 0.5), 7), path, "ツインテ", 0.10)


def _two_side_up(traits: Traits, hair: Hair, stream: Stream) -> None:
    """Long hair with two small high tails."""
    t = traits.hair
    hair.parts += back_hair(traits, hair.form, -1.6 - 1.1 * t.length, count=15, spread=0.04, jagged=0.16)
    high = stream.uniform(0.50, 0.68)
    path = smooth_path(
        [
            (0.60, high, 0.08),
            (0.80, high + 0.14, 0.08),
            (0.98, high - 0.10, 0.06),
            (0.98, high - 0.75 - 0.5 * t.length, 0.0),
        ]
    )
    add_pair(hair, tail(path, 0.12 + 0.03 * t.volume, stream, 0.04 * (t.wave > 0.5), 5), path, "ツーサイド", 0.075)


def _low_twin(traits: Traits, hair: Hair, stream: Stream) -> None:
    t = traits.hair
    hair.parts += nape(traits, hair.form)
    drop = -1.5 - 0.7 * t.length
    path = smooth_path(
        [(0.50, -0.52, 0.48), (0.66, -0.68, 0.40), (0.76, -1.0, 0.10), (0.70, -1.3, -0.24), (0.60, drop, -0.30)]
    )
    add_pair(hair, tail(path, 0.16 + 0.04 * t.volume, stream, 0.05 * (t.wave > 0.5), 6), path, "おさげ", 0.085)


def _end_ties(hair: Hair, path: np.ndarray, signs: tuple[float, ...]) -> None:
    """Tie braids at their ends."""
    for sign in signs:
        flip = np.array([sign, 1, 1])
        hair.parts.append(hair_tie(path[-1] * flip, (path[-1] - path[-3]) * flip, 0.085, 0.035))


def _braids(traits: Traits, hair: Hair, stream: Stream) -> None:
    hair.parts += nape(traits, hair.form)
    drop = -1.5 - 0.7 * traits.hair.length
    path = smooth_path(
        [(0.50, -0.48, 0.46), (0.68, -0.70, 0.34), (0.76, -1.0, 0.02), (0.70, -1.3, -0.26), (0.62, drop, -0.32)]
    )
    add_pair(hair, braid(path, 0.115 + 0.04 * traits.hair.volume), path, "三つ編み", 0.0)
    _end_ties(hair, path, (1.0, -1.0))


def _side_braid(traits: Traits, hair: Hair, stream: Stream) -> None:
    """One thick braid over a shoulder."""
    hair.parts += nape(traits, hair.form)
    drop = -1.6 - 0.6 * traits.hair.length
    side = float(np.sign(traits.hair.part))
    path = smooth_path(
        [(0.30, -0.50, 0.60), (0.62, -0.72, 0.38), (0.74, -1.0, 0.0), (0.62, -1.3, -0.32), (0.50, drop, -0.40)]
    )
    part = braid(path, 0.165)
    if side < 0:
        part = mirrored(part)
    _end_ties(hair, path, (side,))
    add_single(hair, part, path * np.array([side, 1, 1]), "編み込み", 0.0)


def _ponytail(traits: Traits, hair: Hair, stream: Stream) -> None:
    t = traits.hair
    hair.parts += nape(traits, hair.form)
    drop, sway = -0.9 - 1.3 * t.length, stream.uniform(-0.6, 0.6)
    path = smooth_path(
        [
            (0.0, 0.66, 0.68),
            (0.05 * sway, 0.90, 0.96),
            (0.55 * sway, 0.86, 1.26),
            (1.25 * sway, 0.1, 1.34),
            (1.3 * sway, drop, 1.05),
        ]
    )
    add_single(hair, tail(path, 0.30 + 0.08 * t.volume, stream, 0.07 * (t.wave > 0.5), 8), path, "ポニテ", 0.15)


def _side_tail(traits: Traits, hair: Hair, stream: Stream) -> None:
    t = traits.hair
    hair.parts += nape(traits, hair.form)
    side = float(np.sign(t.part))
    path = smooth_path(
        [
            (0.66, 0.36, 0.16),
            (0.90, 0.52, 0.16),
            (1.14, 0.30, 0.16),
            (1.14, -0.4, 0.06),
            (1.0, -1.0 - 0.9 * t.length, -0.05),
        ]
    )
    part = tail(path, 0.24 + 0.05 * t.volume, stream, 0.07 * (t.wave > 0.4), 8)
    if side < 0:
        path, part = path * np.array([-1, 1, 1]), mirrored(part)
    add_single(hair, part, path, "サイドテール", 0.12)


def _buns(traits: Traits, hair: Hair, stream: Stream) -> None:
    t = traits.hair
    hair.parts += nape(traits, hair.form)
    radius = 0.25 + 0.07 * t.volume
    if stream.uniform() < 0.28:  # one on top
        hair.parts.append(bun((0.0, 0.96, 0.42), radius * 1.15))
        hair.parts.append(hair_tie(np.array([0.0, 0.80, 0.36]), np.array([0.0, 0.8, 0.35]), radius * 0.8, 0.045))
        return
    high = stream.uniform(0.62, 0.80)
    for sign in (1.0, -1.0):
        hair.parts.append(bun((0.60 * sign, high, 0.12), radius))
        root = np.array([0.52 * sign, high - 0.13, 0.12])
        hair.parts.append(hair_tie(root, np.array([0.62 * sign, 0.72, 0.0]), radius * 0.72, 0.035))
    if stream.uniform() < 0.4:
        path = smooth_path(
            [(0.74, 0.5, 0.2), (0.92, 0.1, 0.2), (0.97, -0.5, 0.15), (0.88, -1.1 - 0.7 * t.length, 0.05)]
        )
        add_pair(hair, tail(path, 0.12, stream, 0.04, 5), path, "お団子", 0.0)


def _drills(traits: Traits, hair: Hair, stream: Stream) -> None:
    t = traits.hair
    hair.parts += nape(traits, hair.form)
    drop, high = -1.0 - 0.5 * t.length, stream.uniform(-0.1, 0.4)
    path = smooth_path([(0.66, high, 0.16), (0.92, high - 0.08, 0.14), (1.02, 0.4 * drop, 0.10), (0.98, drop, 0.0)], 30)
    add_pair(hair, drill(path, 0.24 + 0.05 * t.volume, 4 + 2 * t.length), path, "ドリル", 0.12)


TIED: dict[str, Tied] = {
    "twin_tails": _twin_tails,
    "two_side_up": _two_side_up,
    "low_twin": _low_twin,
    "braids": _braids,
    "side_braid": _side_braid,
    "ponytail": _ponytail,
    "side_tail": _side_tail,
    "buns": _buns,
    "drills": _drills,
}
