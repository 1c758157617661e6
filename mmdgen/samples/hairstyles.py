"""Whole hair styles: the cap, what hangs behind, and tails, put together by style."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmdgen import rng
from mmdgen.samples.curves import lerp
from mmdgen.samples.fringe import build_ahoge, build_fringe, build_side_locks
from mmdgen.samples.hair import HairForm, Locks, build_cap, curtain
from mmdgen.samples.mesh import Part, mirrored
from mmdgen.samples.tails import braid, bun, drill, hair_tie, smooth_path, tail
from mmdgen.samples.traits import Traits

BACK = np.pi


@dataclass(slots=True)
class Hair:
    """`parts` in any order; `chains` maps a bone name's stem to its joints f64 [n, 3]; `top_y` is the flat hair's top."""

    parts: list[Part]
    top_y: float
    form: HairForm
    chains: dict[str, np.ndarray] = field(default_factory=dict)
    ties: list[tuple[np.ndarray, np.ndarray, float]] = field(
        default_factory=list
    )  # centre, axis, radius of each tail's root


def _back(
    traits: Traits,
    form: HairForm,
    end_y: float,
    *,
    first: float = 1.42,
    count: int = 13,
    width: float = 0.40,
    spread: float = 0.05,
    flick: float = 0.0,
    wave: float = 0.0,
    blunt: float = 0.0,
    jagged: float = 0.10,
    layers: int = 2,
    bulge: float = 0.03,
    sides_up: float = 0.0,
) -> list[Part]:
    """Return hair that hangs down from ear to ear around the back, with its inner side.

    `sides_up` raises the ends at the sides (shorter in front).
    """
    stream = rng.generator(traits.seed, "samples", "back locks")
    parts = []
    for layer in range(layers):
        number = count - layer
        theta = np.linspace(first + 0.06 * layer, 2 * np.pi - first - 0.06 * layer, number)
        theta = theta + stream.uniform(-0.03, 0.03, number)
        side = np.abs(theta - BACK) / (BACK - first)
        end = end_y + stream.uniform(-jagged, jagged, number) + sides_up * side**2 + 0.12 * layer
        locks = Locks(
            BACK + (theta - BACK) * 0.92,
            theta,
            0.22 + 0.08 * layer,
            form.s_at(end),
            width * stream.uniform(0.9, 1.15, number),
            0.035 + 0.035 * (1 - layer) + 0.014 * (np.arange(number) % 2),
            thickness=0.06,
            bulge=bulge,
            flick=flick + stream.uniform(-0.02, 0.02, number),
            spread=spread,
            blunt=blunt,
            sway=stream.uniform(-0.05, 0.05, number),
            wave=wave,
            waves=1.1 + 1.1 * max(-end_y, 0.4),
            phase=stream.uniform(0, 1, number) if wave else 0.0,
            fullness=0.62,
        )
        parts.append(locks.build("hair", form, stream.integers(0, 8, number), rings=20 if end_y < -0.9 else 15))
    inside = end_y + 0.20 + 0.4 * sides_up
    parts.append(
        curtain(
            form,
            (first + 0.05, 2 * np.pi - first - 0.05),
            (0.5, float(form.s_at(inside))),
            0.0,
            spread,
            tuck=max(-flick, 0.0),
        )
    )
    return parts


def _chain(part: Part, name: str, path: np.ndarray) -> np.ndarray:
    """Bind a tail to three bones along its path, by the texture's v; return their joints f64 [4, 3]."""
    t = np.clip((part.uv[:, 1] - 0.40) / 0.59, 0, 1) * 3
    joints = path[np.linspace(0, len(path) - 1, 4).astype(int)]
    part.weights = {}
    for k in range(3):
        part.weights[f"{name}{k + 1}"] = np.clip(1 - np.abs(t - (k + 0.5)), 0, 1)
    part.weights[f"{name}1"] = np.where(t < 0.5, 1.0, part.weights[f"{name}1"])
    part.weights[f"{name}3"] = np.where(t > 2.5, 1.0, part.weights[f"{name}3"])
    return joints


def _pair(hair: Hair, part: Part, path: np.ndarray, stem: str, tie: float) -> None:
    """Add a left tail and its mirror image, with bones and ties."""
    hair.chains[f"左{stem}"] = _chain(part, f"左{stem}", path)
    hair.chains[f"右{stem}"] = hair.chains[f"左{stem}"] * [-1, 1, 1]
    hair.parts += [part, mirrored(part)]
    if tie:
        axis = path[2] - path[0]
        for sign in (1.0, -1.0):
            flip = np.array([sign, 1, 1])
            hair.ties.append((path[1] * flip, axis * flip, tie))
            hair.parts.append(hair_tie(path[1] * flip, axis * flip, tie))


def _single(hair: Hair, part: Part, path: np.ndarray, stem: str, tie: float) -> None:
    hair.chains[stem] = _chain(part, stem, path)
    hair.parts.append(part)
    if tie:
        axis = path[2] - path[0]
        hair.ties.append((path[1], axis, tie))
        hair.parts.append(hair_tie(path[1], axis, tie))


def build_hair(traits: Traits) -> Hair:
    """Return all of the hair of one character."""
    t = traits.hair
    full = 0.5 + 0.5 * t.volume
    form = HairForm(
        width=0.80 + 0.035 * full,
        front=0.845 + 0.01 * full,
        back=0.90 + 0.05 * full,
        flat=0.10 + 0.55 * traits.face.flat,
    )
    stream = rng.generator(traits.seed, "samples", "tails")
    tied_up = t.style in ("twin_tails", "ponytail", "side_tail", "braids", "buns", "drills", "low_twin")
    cap = build_cap(form, nape_y=-0.66 if tied_up else -0.55)
    hair = Hair([cap, build_fringe(traits, form)], float(cap.position[:, 1].max()), form)
    ahoge = build_ahoge(traits, form) if traits.extras.headwear in ("", "maid", "crown", "flower_crown") else None
    for extra in (build_side_locks(traits, form), ahoge):
        if extra is not None:
            hair.parts.append(extra)
    long = t.length
    style = t.style
    if style == "short_bob":
        hair.parts += _back(
            traits,
            form,
            -0.72 - 0.25 * long,
            first=1.30,
            flick=-0.16 if t.wave < 0.6 else 0.10,
            bulge=0.03,
            jagged=0.05,
            blunt=0.12,
        )
    elif style == "long_straight":
        hair.parts += _back(traits, form, -1.9 - 1.1 * long, first=1.42, count=15, spread=0.03, jagged=0.18)
    elif style == "hime":
        hair.parts += _back(traits, form, -2.0 - 0.9 * long, first=1.50, count=15, spread=0.02, blunt=0.85, jagged=0.02)
    elif style == "wavy_long":
        hair.parts += _back(
            traits,
            form,
            -1.5 - 1.0 * long,
            first=1.38,
            count=13,
            width=0.46,
            spread=0.14,
            wave=0.05 + 0.04 * t.wave,
            flick=0.06,
            jagged=0.14,
        )
    elif style == "medium_layered":
        hair.parts += _back(
            traits,
            form,
            -0.95 - 0.35 * long,
            first=1.32,
            count=13,
            spread=0.03,
            flick=0.13,
            jagged=0.15,
            layers=3,
            bulge=0.03,
        )
    elif style == "spiky_short":
        hair.parts += _spikes(traits, form)
    elif style == "boy_short":
        hair.parts += _back(
            traits,
            form,
            -0.50 - 0.16 * long,
            first=1.38,
            count=12,
            width=0.34,
            flick=-0.05 + 0.10 * t.wave,
            jagged=0.10,
            sides_up=0.30,
            spread=-0.22,
        )
    elif style == "curly_short":
        hair.parts += _curls(traits, form)
    elif style == "twin_tails":
        hair.parts += _nape(traits, form)
        out = stream.uniform(0.25, 0.5)
        high = stream.uniform(0.30, 0.62)
        drop = -1.1 - 1.2 * long
        path = smooth_path([(0.66, high, 0.22), (0.86, high + 0.10, 0.24), (1.02 + 0.3 * out, high - 0.25, 0.24), (1.08 + out * 0.6, 0.4 * drop, 0.20), (0.96 + out * 0.5, drop, 0.15)])  # fmt: skip
        body = tail(path, 0.20 + 0.06 * t.volume, stream, 0.06 * (t.wave > 0.5), 7)
        _pair(hair, body, path, "ツインテ", 0.10)
    elif style == "low_twin":
        hair.parts += _nape(traits, form)
        drop = -1.5 - 0.7 * long
        path = smooth_path(
            [(0.50, -0.52, 0.48), (0.66, -0.68, 0.40), (0.76, -1.0, 0.10), (0.70, -1.3, -0.24), (0.60, drop, -0.30)]
        )
        _pair(hair, tail(path, 0.16 + 0.04 * t.volume, stream, 0.05 * (t.wave > 0.5), 6), path, "おさげ", 0.085)
    elif style == "braids":
        hair.parts += _nape(traits, form)
        drop = -1.5 - 0.7 * long
        path = smooth_path(
            [(0.50, -0.48, 0.46), (0.68, -0.70, 0.34), (0.76, -1.0, 0.02), (0.70, -1.3, -0.26), (0.62, drop, -0.32)]
        )
        part = braid(path, 0.135)
        _pair(hair, part, path, "三つ編み", 0.0)
        for sign in (1.0, -1.0):
            flip = np.array([sign, 1, 1])
            hair.parts.append(hair_tie(path[-1] * flip, (path[-1] - path[-3]) * flip, 0.085, 0.035))
    elif style == "ponytail":
        hair.parts += _nape(traits, form)
        drop = -0.9 - 1.3 * long
        sway = stream.uniform(-0.5, 0.5)
        path = smooth_path([(0.0, 0.66, 0.68), (0.02 * sway, 0.86, 0.98), (0.35 * sway, 0.75, 1.28), (0.8 * sway, 0.0, 1.36), (0.7 * sway, drop, 1.10)])  # fmt: skip
        _single(hair, tail(path, 0.30 + 0.08 * t.volume, stream, 0.07 * (t.wave > 0.5), 8), path, "ポニテ", 0.15)
    elif style == "side_tail":
        hair.parts += _nape(traits, form)
        side = float(np.sign(t.part))
        drop = -1.0 - 0.9 * long
        path = smooth_path(
            [(0.62, 0.36, 0.34), (0.84, 0.50, 0.36), (1.08, 0.30, 0.32), (1.10, -0.4, 0.16), (0.98, drop, 0.0)]
        )
        part = tail(path, 0.24 + 0.05 * t.volume, stream, 0.07 * (t.wave > 0.4), 8)
        if side < 0:
            path, part = path * [-1, 1, 1], mirrored(part)
        _single(hair, part, path, "サイドテール", 0.12)
    elif style == "buns":
        hair.parts += _nape(traits, form)
        radius = 0.25 + 0.07 * t.volume
        if stream.uniform() < 0.72:
            high = stream.uniform(0.62, 0.80)
            place = (0.60, high, 0.12)
            for sign in (1.0, -1.0):
                hair.parts.append(bun((place[0] * sign, place[1], place[2]), radius))
                hair.parts.append(
                    hair_tie(
                        np.array([0.52 * sign, place[1] - 0.13, 0.12]),
                        np.array([0.62 * sign, 0.72, 0.0]),
                        radius * 0.72,
                        0.035,
                    )
                )
            if stream.uniform() < 0.4:
                path = smooth_path(
                    [(0.74, 0.5, 0.25), (0.90, 0.1, 0.28), (0.95, -0.5, 0.2), (0.86, -1.1 - 0.7 * long, 0.1)]
                )
                _pair(hair, tail(path, 0.12, stream, 0.04, 5), path, "お団子", 0.0)
        else:
            hair.parts.append(bun((0.0, 0.96, 0.42), radius * 1.15))
            hair.parts.append(hair_tie(np.array([0.0, 0.80, 0.36]), np.array([0.0, 0.8, 0.35]), radius * 0.8, 0.045))
    elif style == "drills":
        hair.parts += _nape(traits, form)
        drop = -1.0 - 0.5 * long
        high = stream.uniform(-0.1, 0.4)
        path = smooth_path(
            [(0.66, high, 0.20), (0.90, high - 0.10, 0.20), (1.02, 0.4 * drop, 0.15), (0.98, drop, 0.05)], 30
        )
        _pair(hair, drill(path, 0.24 + 0.05 * t.volume, 4 + 2 * long), path, "ドリル", 0.12)
    return hair


def _nape(traits: Traits, form: HairForm) -> list[Part]:
    """Return the hair of a tied-up style: short locks drawn close to the neck."""
    return _back(traits, form, -0.58, first=1.62, count=11, width=0.36, spread=-0.45, layers=1, jagged=0.06, bulge=0.01)


def _spikes(traits: Traits, form: HairForm) -> list[Part]:
    """Return spikes all over, ends standing off."""
    stream = rng.generator(traits.seed, "samples", "spikes")
    parts = _back(
        traits,
        form,
        -0.52,
        first=1.40,
        count=11,
        width=0.36,
        spread=-0.25,
        layers=1,
        jagged=0.1,
        flick=0.06,
        sides_up=0.2,
    )
    stand = 0.10 + 0.22 * traits.hair.volume
    for s_root, s_tip, count, lift in ((0.10, 0.62, 8, 0.05), (0.25, 0.88, 12, 0.04), (0.45, 1.18, 13, 0.03)):
        theta = np.linspace(-np.pi, np.pi, count, endpoint=False) + stream.uniform(-0.12, 0.12, count) + 0.2
        keep = np.abs(theta) > (0.9 if s_tip > 0.7 else 0.0)
        theta = theta[keep]
        number = len(theta)
        locks = Locks(
            theta - 0.05, theta, s_root, s_tip + stream.uniform(-0.08, 0.08, number), 0.34 * stream.uniform(0.85, 1.15, number),
            lift, thickness=0.07, flick=stand * stream.uniform(0.6, 1.2, number), sway=stream.uniform(-0.3, 0.3, number),
            fullness=0.4, bulge=0.03,
        )  # fmt: skip
        parts.append(locks.build("hair", form, stream.integers(0, 8, number), rings=11))
    return parts


def _curls(traits: Traits, form: HairForm) -> list[Part]:
    """Return short fluffy curls: many bent locks in rows."""
    stream = rng.generator(traits.seed, "samples", "curls")
    end = lerp(-0.55, -0.95, traits.hair.length)
    parts = _back(
        traits,
        form,
        float(end),
        first=1.30,
        count=12,
        width=0.40,
        spread=0.0,
        layers=1,
        wave=0.07,
        flick=0.05,
        jagged=0.10,
    )
    for s_root, s_tip, count in ((0.06, 0.55, 9), (0.30, 0.85, 13), (0.55, 1.15, 14), (0.8, 1.45, 14)):
        theta = np.linspace(-np.pi, np.pi, count, endpoint=False) + stream.uniform(-0.15, 0.15, count)
        theta = theta[np.abs(theta) > (1.25 if s_tip > 0.9 else 1.0 if s_tip > 0.6 else 0.35)]
        number = len(theta)
        locks = Locks(
            theta, theta, s_root, s_tip, 0.34 * stream.uniform(0.8, 1.2, number), 0.06, thickness=0.09, bulge=0.06, flick=-0.05,
            sway=stream.choice([-1.0, 1.0], number) * stream.uniform(0.25, 0.5, number), wave=0.06, waves=1.3,
            phase=stream.uniform(0, 1, number), fullness=0.6,
        )  # fmt: skip
        parts.append(locks.build("hair", form, stream.integers(0, 8, number), rings=13))
    return parts
