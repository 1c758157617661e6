"""Things on the head: animal ears, horns, glasses, headphones, ribbons, clips, earrings. Hats are in `hats`."""

from __future__ import annotations

import numpy as np

from mmdgen.samples.backhair import Hair
from mmdgen.samples.curves import smoothstep, unit
from mmdgen.samples.eyeshape import EyeShape
from mmdgen.samples.hair import HairForm
from mmdgen.samples.hats import build_hat
from mmdgen.samples.head import COVERING
from mmdgen.samples.mesh import Part, ellipsoid, grid_part, merge, mirrored, oriented, tube
from mmdgen.samples.ornaments import basis, bow, flower, place, star
from mmdgen.samples.tails import smooth_path
from mmdgen.samples.traits import Traits

FRONT = np.array([0.0, 0.0, -1.0])
# kind -> height, width, depth, x, y, outward lean, roundness of the outline
_EARS = {
    "cat": (0.42, 0.40, 0.10, 0.50, 0.74, 0.40, 0.95),
    "fox": (0.56, 0.42, 0.11, 0.50, 0.74, 0.32, 1.00),
    "wolf": (0.46, 0.38, 0.12, 0.52, 0.74, 0.45, 0.85),
    "bunny": (1.05, 0.24, 0.09, 0.32, 0.84, 0.16, 0.0),
    "bear": (0.34, 0.36, 0.12, 0.58, 0.66, 0.60, -1.0),
}


def _ear_outline(t: np.ndarray, roundness: float) -> np.ndarray:
    """Return the half width f64 [n] of an ear along its height, about 1 at its widest."""
    if roundness < 0:
        return np.sqrt(np.clip(1 - (1.25 * t - 0.25) ** 2, 0, 1))
    if roundness == 0:
        return (0.62 + 0.42 * np.sin(np.pi * np.clip(t * 1.05, 0, 1))) * np.sqrt(np.clip(1 - t**5, 0, 1))
    return (1 - t**1.12) ** roundness * (1 + 0.18 * np.sin(np.pi * t))


def _animal_ear(kind: str, lift: float) -> Part:
    """Return the left ear: a closed outer shell and a smaller, lighter inside on its front."""
    height, width, depth, x, y, lean, roundness = _EARS[kind]
    t = np.linspace(0, 0.995, 16)
    angle = np.linspace(0, 2 * np.pi, 17)
    half = 0.5 * width * np.maximum(_ear_outline(t, roundness), 0.02)
    thick = depth * (1 - 0.75 * t)
    shell = np.stack(
        [
            half[:, None] * np.cos(angle),
            (height * t)[:, None] + 0 * angle,
            thick[:, None] * np.where(np.sin(angle) > 0, 0.35, 1.0) * -np.sin(angle),
        ],
        -1,
    )
    outer = grid_part("fur", shell, wrap=True)
    oriented(outer, outer.position * np.array([1, 0, 1]))
    outer.uv = np.stack([0.05 + 0.4 * outer.uv[:, 0], np.repeat(t, 17)], -1)
    s = np.linspace(0.0, 0.86, 12)
    across = np.linspace(-1, 1, 9)
    inside = 0.5 * width * 0.66 * np.maximum(_ear_outline(s / 0.88, roundness), 0.02)
    dish = -(np.interp(s, t, thick) * 0.35 + 0.012)[:, None] + 0.02 * (1 - across**2)[None] * (1 - s)[:, None]
    inner_point = np.stack(np.broadcast_arrays(inside[:, None] * across, (height * s + 0.02)[:, None], dish), -1)
    inner = grid_part("fur", inner_point)
    oriented(inner, FRONT)
    inner.uv = np.stack([0.55 + 0.4 * inner.uv[:, 0], np.repeat(s, 9)], -1)
    inner.edge[:] = 0
    ear = merge([outer, inner])
    c, sn = np.cos(lean), np.sin(lean)
    turn = np.array([[c, sn, 0], [-sn, c, 0], [0, 0, 1]]) @ np.array([[0.95, 0, -0.31], [0, 1, 0], [0.31, 0, 0.95]])
    if kind == "bunny":  # the tips fall outwards a little
        bend = smoothstep(0.45, 1.05, ear.position[:, 1])
        ear.position[:, 0] += 0.16 * bend
        ear.position[:, 1] -= 0.05 * bend
    return place(ear, turn, np.array([x, y + lift, 0.02]))


def _horn(kind: str) -> Part:
    """Return the left horn."""
    if kind == "oni":
        path = smooth_path([(0.36, 0.80, -0.34), (0.42, 1.02, -0.42), (0.46, 1.26, -0.40)], 18)
        thick = 0.10
    elif kind == "dragon":
        path = smooth_path([(0.55, 0.62, -0.10), (0.80, 0.88, 0.02), (0.90, 1.12, 0.24), (0.84, 1.32, 0.48)], 24)
        thick = 0.095
    else:
        turn = np.linspace(0, 1.75 * np.pi, 40)
        reach = 0.30 - 0.12 * turn / turn[-1]
        path = np.stack(
            [0.74 + 0.10 * turn / 5, 0.42 + reach * np.cos(turn) - 0.05 * turn / 5, 0.10 + reach * np.sin(turn)], -1
        )
        thick = 0.13
    t = np.linspace(0, 1, len(path))
    ridge = 1 + 0.06 * np.cos(2 * np.pi * 9 * t) * (kind != "oni")
    horn = tube("hat", path, thick * np.maximum((1 - t) ** 0.8, 0.03) * ridge, 12, (0.0, 0.3, -1.0))
    horn.uv = np.stack([0.1 + 0.1 * horn.uv[:, 0], horn.uv[:, 1]], -1)
    return horn


def _glasses(traits: Traits, shape: EyeShape) -> list[Part]:
    """Return frames with bridge and temples, and the two glasses."""
    eye = traits.eyes
    kind = traits.extras.glasses
    power = {"round": 1.0, "square": 0.55, "half": 0.7}[kind]
    wide, high = eye.half_width * 1.18 + 0.02, 0.5 * (eye.up + eye.low) * 1.12 + 0.02
    x, y = eye.center_x, shape.center_y - 0.02 - (0.03 if kind == "half" else 0.0)

    def around(angle: np.ndarray, size: float) -> np.ndarray:
        """Return the glass's outline f64 [n, 3], bent around the face."""
        c, s = np.cos(angle), np.sin(angle)
        across = x + size * wide * np.sign(c) * np.abs(c) ** power
        up = y + size * high * np.sign(s) * np.abs(s) ** power
        return np.stack([across, up, -0.845 + 0.16 * np.clip(across, 0, 1) ** 2], -1)

    # a half frame has no upper rim
    angle = np.linspace(np.pi - 0.3, 2 * np.pi + 0.3, 33) if kind == "half" else np.linspace(0, 2 * np.pi, 41)
    parts = [tube("frame", around(angle, 1.0), np.full(len(angle), 0.0135), 7)]
    outer = around(np.array([0.3]), 1.0)[0]
    ear = np.array([0.80, y + 0.06, 0.05])
    temple = smooth_path([tuple(outer), tuple(0.5 * (outer + ear) + np.array([0.06, 0.0, -0.06])), tuple(ear)], 10)
    parts.append(tube("frame", temple, np.full(10, 0.012), 6, (0.0, 1.0, 0.0)))
    full = np.linspace(0, 2 * np.pi, 41)
    lens = oriented(grid_part("lens", np.stack([around(full, 0.02), around(full, 1.0)]), wrap=True), FRONT)
    lens.uv = 0.5 + 0.5 * (lens.position[:, :2] - np.array([x, y])) / np.array([wide, -high])
    lens.edge[:] = 0
    parts.append(lens)
    gap = x - wide
    along = np.linspace(-gap, gap, 9)
    arch = y + 0.25 * high + 0.03 * np.cos(1.4 * along / max(gap, 0.02))
    bridge = np.stack([along, arch, np.full(9, -0.85)], -1)
    result = [tube("frame", bridge, np.full(9, 0.0125), 7)]
    for part in parts:
        result += [part, mirrored(part)]
    return result


def _headphones(form: HairForm) -> list[Part]:
    """Return the band over the head and the two cups."""
    s = np.concatenate([np.linspace(1.25, 0, 20), np.linspace(0, 1.25, 20)[1:]])
    theta = np.concatenate([np.full(20, np.pi / 2), np.full(19, -np.pi / 2)])
    path = form.point(theta, s, 0.13)
    band = tube("metal", path, np.full(39, 0.05), 8, (0.0, 0.0, -1.0))
    parts = [band]
    for sign in (-1.0, 1.0):
        cup = ellipsoid("ribbon", (sign * 0.90, -0.20, 0.05), (0.11, 0.22, 0.21), 10, 18)
        cup.uv = 0.05 + 0.35 * cup.uv
        plate = ellipsoid("metal", (sign * 0.985, -0.20, 0.05), (0.045, 0.14, 0.13), 8, 16)
        parts += [cup, plate]
    return parts


def _on_hair(form: HairForm, part: Part, theta: float, s: float, lift: float) -> Part:
    """Fix an ornament in its own frame on the hair."""
    normal = form.normal(np.array(theta), np.array(s)) + np.array([0.0, 0.0, -0.9])
    return place(part, basis(normal, np.array([0.0, 1.0, 0.15])), form.point(np.array(theta), np.array(s), lift))


def _clip(kind: str, form: HairForm, side: float) -> list[Part]:
    """Return hair clips beside the fringe."""
    if kind in ("pins", "cross"):
        parts = []
        for k, tilt in enumerate((0.25, -0.05) if kind == "pins" else (0.75, -0.75)):
            pin = ellipsoid("metal", (0, 0, 0), (0.115, 0.02, 0.016), 6, 12)
            c, s = np.cos(tilt), np.sin(tilt)
            pin = place(
                pin,
                np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]),
                np.array([0, 0.055 * k if kind == "pins" else 0.0, 0.012 * k]),
            )
            parts.append(pin)
        return [_on_hair(form, merge(parts), side * 0.82, 0.86, 0.155)]
    piece = star(0.19) if kind == "star" else flower(0.26)
    return [_on_hair(form, piece, side * 0.88, 0.80, 0.165)]


def build_accessories(traits: Traits, shape: EyeShape, hair: Hair) -> list[Part]:
    """Return everything that the character wears on the head, all on the head bone."""
    extras, form = traits.extras, hair.form
    parts: list[Part] = []
    fluffy = 0.08 if traits.hair.style in ("spiky_short", "curly_short") else 0.0
    if extras.animal:
        ear = _animal_ear(extras.animal, fluffy)
        parts += [ear, mirrored(ear)]
    if extras.horns:
        horn = _horn(extras.horns)
        parts += [horn, mirrored(horn)]
    if extras.headwear:
        parts += build_hat(traits, form)
    if extras.glasses:
        parts += _glasses(traits, shape)
    if extras.headphones:
        parts += _headphones(form)
    side = -float(np.sign(traits.hair.part))
    if extras.ribbon == "top":
        parts.append(_on_hair(form, bow(0.66, tails=0.35), 0.60 * side, 0.42, 0.14 + fluffy))
    elif extras.ribbon == "side":
        parts.append(_on_hair(form, bow(0.46, tails=0.9), 1.15 * side, 0.62, 0.12 + fluffy))
    elif extras.ribbon == "back":
        big = bow(1.05, tails=0.5)
        parts.append(place(big, np.diag([-1.0, 1.0, -1.0]), np.array([0.0, 0.80, 0.98])))
    elif extras.ribbon == "pair":
        if len(hair.ties) == 2:
            for center, axis, radius in hair.ties:
                out = unit(np.array([0.45 * np.sign(center[0]), 0.35, -1.0]))
                parts.append(
                    place(
                        bow(0.46, tails=0.8),
                        basis(out, np.array([0, 1.0, 0])),
                        center + out * (radius + 0.06) + 0 * axis,
                    )
                )
        else:
            for sign in (-1.0, 1.0):
                parts.append(_on_hair(form, bow(0.36, tails=0.7), 1.05 * sign, 0.55, 0.11 + fluffy))
    if extras.clip and extras.headwear not in ("beanie", "cap", "witch"):
        parts += _clip(extras.clip, form, side)
    if extras.earrings and not extras.headphones and traits.hair.style not in COVERING:
        drop = ellipsoid("metal", (0.775 * traits.face.width, -0.44, 0.03), (0.035, 0.05, 0.035), 7, 9)
        parts += [drop, mirrored(drop)]
    return parts
