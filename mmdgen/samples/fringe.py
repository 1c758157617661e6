"""The hair in front: fringes, side locks and cowlicks."""

from __future__ import annotations

import numpy as np

from mmdgen import rng
from mmdgen.samples.hair import HairForm, Locks
from mmdgen.samples.mesh import Part
from mmdgen.samples.traits import Traits

Array = np.ndarray


def _tiles(stream: np.random.Generator, count: int) -> Array:
    return (stream.integers(0, 8) + np.arange(count) * 3) % 8


def _even(stream: np.random.Generator, low: float, high: float, count: int, noise: float = 0.2) -> Array:
    """Return `count` values spread from `low` to `high`, each moved by up to `noise` of the spacing."""
    value = np.linspace(low, high, count)
    return value + stream.uniform(-noise, noise, count) * (high - low) / max(count - 1, 1)


def build_fringe(traits: Traits, form: HairForm) -> Part:
    """Return the locks over the forehead."""
    hair = traits.hair
    stream = rng.generator(traits.seed, "samples", "fringe locks")
    kind = hair.fringe
    tip_y = traits.face.eye_line + 0.62 * traits.eyes.up + 0.06 - hair.fringe_length
    if kind in ("straight", "heavy"):
        count = round((9 if kind == "straight" else 8) * hair.locks)
        tip = _even(stream, -1.08, 1.08, count, 0.12)
        y = tip_y + 0.02 + stream.uniform(-0.02, 0.02, count) - 0.10 * np.abs(tip) ** 3
        if kind == "heavy":
            y = y - 0.07 + stream.uniform(-0.05, 0.03, count)
        locks = Locks(
            0.62 * tip, tip, 0.16, form.s_at(y), 2.6 / count * 0.85 * 1.22, 0.035 + 0.018 * (np.arange(count) % 2),
            blunt=0.80 if kind == "straight" else 0.30, bulge=0.045, flick=-0.045, fullness=0.7, thickness=0.05,
        )  # fmt: skip
    elif kind == "parted":
        side = hair.part * 0.6
        half = max(round(4 * hair.locks), 3)
        left = _even(stream, side + 0.22, 1.18, half + (side < 0), 0.15)
        right = _even(stream, side - 0.22, -1.18, half + (side > 0), 0.15)
        tip = np.concatenate([left, right])
        away = np.abs(tip - side)
        root = side + np.sign(tip - side) * (0.03 + 0.16 * away)
        y = tip_y + 0.14 - 0.34 * np.clip(away - 0.2, 0, 1.2) + stream.uniform(-0.05, 0.05, len(tip))
        locks = Locks(
            root, tip, 0.20, form.s_at(y), 0.30, 0.03 + 0.016 * (np.arange(len(tip)) % 3), bulge=0.085,
            flick=-0.035, fullness=0.5, sway=0.12 * np.sign(tip - side), gravity=0.8, thickness=0.055,
        )  # fmt: skip
    elif kind == "side_swept":
        side = np.sign(hair.part)
        count = round(7 * hair.locks)
        tip = _even(stream, -1.0 * side, 1.12 * side, count, 0.18)
        root = 0.42 * side * -1 + 0.38 * tip + 0.12 * side
        y = tip_y + 0.10 - 0.12 * (tip * side + 1) / 2 + stream.uniform(-0.06, 0.04, count)
        y[0] -= 0.12
        locks = Locks(
            root, tip, 0.17, form.s_at(y), 0.34, 0.03 + 0.014 * np.arange(count), bulge=0.06, flick=-0.03,
            fullness=0.55, sway=0.30 * side, gravity=1.2, thickness=0.05,
        )  # fmt: skip
    elif kind == "spiky":
        count = round(8 * hair.locks)
        tip = _even(stream, -1.12, 1.12, count, 0.3)
        y = tip_y - 0.03 + stream.uniform(-0.10, 0.08, count)
        lean = stream.choice([-1.0, 1.0])
        locks = Locks(
            0.6 * tip - 0.08 * lean, tip, 0.18, form.s_at(y), 0.30 * stream.uniform(0.8, 1.15, count),
            0.03 + 0.02 * stream.permutation(count) / count, bulge=0.06, flick=stream.uniform(-0.03, 0.05, count),
            fullness=0.45, sway=lean * stream.uniform(0.0, 0.22, count), thickness=0.055,
        )  # fmt: skip
    elif kind == "m_shape":
        tip = np.array([0.0, 0.36, -0.36, 0.66, -0.66, 0.98, -0.98]) + stream.uniform(-0.03, 0.03, 7)
        y = tip_y + np.array([-0.16, 0.09, 0.09, 0.0, 0.0, -0.16, -0.16]) + stream.uniform(-0.02, 0.02, 7)
        width = np.array([0.27, 0.30, 0.30, 0.33, 0.33, 0.32, 0.32])
        locks = Locks(
            0.5 * tip, tip, 0.16, form.s_at(y), width, np.array([0.065, 0.035, 0.035, 0.05, 0.05, 0.03, 0.03]),
            bulge=0.06,
            flick=-0.02, fullness=0.45, sway=0.10 * np.sign(np.round(tip, 1)), thickness=0.055,
        )  # fmt: skip
    else:  # center_lock: one long lock between the eyes, the rest to the sides
        tip = np.array([0.02, 0.30, -0.30, 0.55, -0.55, 0.82, -0.82, 1.08, -1.08])
        tip = tip + stream.uniform(-0.04, 0.04, 9)
        y = (
            tip_y
            + np.array([-0.30, 0.06, 0.06, 0.00, 0.00, -0.05, -0.05, -0.20, -0.20])
            + stream.uniform(-0.04, 0.03, 9)
        )
        width = np.array([0.15, 0.24, 0.24, 0.29, 0.29, 0.30, 0.30, 0.28, 0.28])
        locks = Locks(
            0.5 * tip, tip, 0.16, form.s_at(y), width,
            np.array([0.075, 0.035, 0.035, 0.05, 0.05, 0.03, 0.03, 0.045, 0.045]),
            bulge=0.06, flick=-0.025, fullness=0.45, sway=0.12 * np.sign(np.round(tip, 1)), thickness=0.05,
        )  # fmt: skip
    count = len(np.atleast_1d(locks.theta_root))
    return locks.build("hair_front", form, _tiles(stream, count))


def build_side_locks(traits: Traits, form: HairForm) -> Part | None:
    """Return the locks before the ears, or None."""
    hair = traits.hair
    stream = rng.generator(traits.seed, "samples", "side lock shapes")
    kind = hair.side
    if kind == "none":
        return None
    short = hair.style in ("spiky_short", "boy_short", "curly_short", "short_bob")
    reach = {"thin": -0.62, "wide": -0.78, "long": -1.45, "curled": -1.15, "hime": -0.74}[kind]
    if short:
        reach = max(reach, -0.72)
    reach += stream.uniform(-0.08, 0.08)
    if kind == "hime":
        turn = np.array([1.12, 1.30, 1.46])
        locks = Locks(
            turn - 0.2, turn, 0.45, form.s_at(reach), 0.27, np.array([0.03, 0.05, 0.035]), blunt=1.0, fullness=0.5,
            spread=-0.05, thickness=0.05,
        )  # fmt: skip
    else:
        pairs = {"thin": 1, "wide": 2, "long": 2, "curled": 2}[kind]
        turn = np.array([1.20, 1.38])[:pairs] + stream.uniform(-0.04, 0.04)
        width = {"thin": 0.17, "wide": 0.27, "long": 0.25, "curled": 0.24}[kind]
        locks = Locks(
            turn - 0.22, turn, 0.42, form.s_at(reach + np.array([0.0, 0.16])[:pairs]), width,
            np.array([0.045, 0.025])[:pairs], flick=0.05 if kind == "wide" else -0.02, fullness=0.55,
            spread=0.05 if kind == "long" else -0.06, thickness=0.055, sway=stream.uniform(-0.16, 0.02),
            wave=0.05 if kind == "curled" else 0.0, waves=1.6, phase=0.25,
        )  # fmt: skip
    count = len(np.atleast_1d(locks.theta_root))
    twin = Locks(**{name: getattr(locks, name) for name in locks.__dataclass_fields__})
    tiles = _tiles(stream, count)
    for name in ("theta_root", "theta_tip", "sway", "wave"):
        value = getattr(locks, name)
        setattr(locks, name, np.concatenate([np.broadcast_to(value, (count,)), -np.broadcast_to(value, (count,))]))
    for name in ("s_root", "s_tip", "width", "lift"):
        value = np.broadcast_to(getattr(twin, name), (count,))
        setattr(locks, name, np.concatenate([value, value]))
    return locks.build("hair_front", form, np.concatenate([tiles, tiles]), rings=18)


def build_ahoge(traits: Traits, form: HairForm) -> Part | None:
    """Return up to three cowlicks at the whorl, or None."""
    count = traits.hair.ahoge
    if not count:
        return None
    from mmdgen.samples.hair import tile_range
    from mmdgen.samples.mesh import sweep

    stream = rng.generator(traits.seed, "samples", "ahoge")
    t = np.linspace(0, 1, 16)
    spines, outs, widths, thicks = [], [], [], []
    for k in range(count):
        lean = stream.uniform(-0.9, 0.9) if count > 1 else stream.choice([-1.0, 1.0]) * stream.uniform(0.4, 1.0)
        tall = stream.uniform(0.26, 0.44) * (1.0 if count == 1 else 0.75)
        curl = stream.uniform(1.2, 2.7)
        angle = 0.5 * np.pi + lean * 0.45 - lean * (curl * 1.15 * t**1.15)
        step = np.stack([np.cos(angle), np.sin(angle), -0.25 + 0 * t], -1) * (tall * 1.5 / len(t))
        start = np.array([0.05 * (k - (count - 1) / 2), 0.965, -0.10])
        spines.append(start + np.cumsum(step, 0))
        outs.append(np.tile([0.0, 0.0, -1.0], (len(t), 1)))
        shape = (0.35 + 0.65 * np.sin(np.pi * np.clip(t * 1.25, 0, 1) ** 0.8)) * np.clip((1 - t) * 2.2, 0.02, 1)
        widths.append(np.maximum(0.08 * shape, 0.004))
        thicks.append(np.maximum(0.035 * shape, 0.003))
    v = np.tile(np.linspace(0.16, 0.48, len(t)), (count, 1))
    part = sweep("hair_front", np.stack(spines), np.stack(outs), np.stack(widths), np.stack(thicks), 8, 1.0,
                 tile_range(stream.integers(0, 8, count)), v)  # fmt: skip
    return part
