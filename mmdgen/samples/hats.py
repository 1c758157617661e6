"""Hats and what else crowns a head."""

from __future__ import annotations

import numpy as np

from mmdgen import rng
from mmdgen.samples.curves import rotation, smoothstep, unit
from mmdgen.samples.hair import HairForm
from mmdgen.samples.mesh import Part, ellipsoid, grid_part, oriented, tube
from mmdgen.samples.ornaments import basis, bow, flower, frill, place
from mmdgen.samples.traits import Traits


def _shell(point: np.ndarray, uv: np.ndarray | None = None) -> Part:
    """Make a closed dome of a grid, seen from outside."""
    part = grid_part("hat", point, uv, wrap=True)
    return oriented(part, part.position - np.array([0.0, 0.2, 0.0]))


def _dome(form: HairForm, rim: float, lift: float, puff: float = 0.0) -> Part:
    """Return a cap over the hair down to s = `rim` (further down at the back)."""
    theta = np.linspace(-np.pi, np.pi, 49)[None]
    end = rim + 0.20 * (0.5 - 0.5 * np.cos(theta))
    s = end * np.linspace(0.01, 1, 14)[:, None]
    height = lift + puff * np.sin(np.pi * np.clip(s / end, 0, 1) ** 0.8)
    point = form.point(theta + 0 * s, s, height)
    uv = np.stack(np.broadcast_arrays(theta / (2 * np.pi) + 0.5, s / end * 0.78), -1)
    return _shell(point, uv)


def _ring(form: HairForm, rim: float, lift: float, thick: float, v: float) -> Part:
    theta = np.linspace(-np.pi, np.pi, 61)
    path = form.point(theta, rim + 0.20 * (0.5 - 0.5 * np.cos(theta)), lift)
    part = tube("hat", path, np.full(61, thick), 10, (0.0, 1.0, 0.0))
    part.uv = np.stack([part.uv[:, 1], v + 0.08 * part.uv[:, 0]], -1)
    return part


def _tilted(
    parts: list[Part], angle: float, axis: int = 2, pivot: tuple[float, float, float] = (0.0, 0.6, 0.0)
) -> list[Part]:
    turn, center = rotation(axis, angle), np.array(pivot)
    for part in parts:
        part.position = (part.position - center) @ turn.T + center
        part.normal = part.normal @ turn.T
    return parts


def _witch(form: HairForm) -> list[Part]:
    theta = np.linspace(-np.pi, np.pi, 49)[None]
    t = np.linspace(0, 1, 18)[:, None]
    radius = 1.10 * (1 - t) ** 0.85 + 0.02
    bend = smoothstep(0.45, 1.0, t)
    x = radius * np.sin(theta) * 0.95 + 0.30 * bend**1.5
    y = 0.60 + 1.25 * t - 0.18 * bend**2 + 0 * theta
    z = -radius * np.cos(theta) + 0.02 + 0.12 * bend
    uv = np.stack(np.broadcast_arrays(theta / (2 * np.pi) + 0.5, 0.80 - 0.75 * t), -1)
    cone = _shell(np.stack(np.broadcast_arrays(x, y, z), -1), uv)
    r = np.linspace(0.96, 1.64, 8)[:, None]
    wave = 0.05 * np.sin(3 * theta + 0.6) * (r - 0.9)
    brim_y = 0.60 - 0.20 * (r - 0.9) + wave
    rim = np.stack(np.broadcast_arrays(r * np.sin(theta), brim_y, -r * np.cos(theta) + 0.02), -1)
    uv = np.stack(np.broadcast_arrays(theta / (2 * np.pi) + 0.5, 0.05 + 0.5 * (r - 0.9)), -1)
    brim = grid_part("hat", rim, uv, wrap=True)
    oriented(brim, np.array([0.0, 1.0, 0.0]))
    angle = np.linspace(-np.pi, np.pi, 49)
    band = np.stack([1.06 * np.sin(angle) * 0.95, np.full(49, 0.68), -1.06 * np.cos(angle) + 0.02], -1)
    belt = tube("ribbon", band, np.full(49, 0.055), 8, (0.0, 1.0, 0.0))
    belt.uv = 0.05 + 0.35 * belt.uv
    return _tilted([cone, brim, belt], -0.10, 0)


def build_hat(traits: Traits, form: HairForm) -> list[Part]:
    """Return the character's hat, crown or headband."""
    kind = traits.extras.headwear
    stream = rng.generator(traits.seed, "samples", "hat shape")
    lean = float(np.sign(traits.hair.part)) * stream.uniform(0.10, 0.22)
    if kind == "beret":
        top = ellipsoid("hat", (0.0, 0.88, 0.04), (1.06, 0.36, 1.04), 17, 37)
        local = (top.position - np.array([0.0, 0.88, 0.04])) / np.array([1.06, 0.36, 1.04])
        puffed = np.sign(local[:, 1]) * np.abs(local[:, 1]) ** 0.72  # a soft edge, fuller on one side
        top.position[:, 1] = 0.86 + (0.33 + 0.09 * local[:, 0] * np.sign(lean)) * puffed
        top.normal = unit(top.normal * np.array([1.0, 0.8, 1.0]))
        top.uv = np.stack([top.uv[:, 0], 0.75 * top.uv[:, 1]], -1)
        stalk = tube(
            "hat", np.array([[0, 1.20, 0.06], [0.01, 1.27, 0.06], [0.03, 1.32, 0.06]]), np.array([0.035, 0.03, 0.02]), 6
        )
        return _tilted([top, stalk], lean)
    if kind == "witch":
        return _witch(form)
    if kind == "beanie":
        pom = ellipsoid("hat", (0.0, 1.32, 0.06), (0.18, 0.17, 0.18), 9, 14)
        pom.uv = np.stack([pom.uv[:, 0], 0.88 + 0.1 * pom.uv[:, 1]], -1)
        return [_dome(form, 0.68, 0.18, 0.06), _ring(form, 0.70, 0.19, 0.085, 0.82), pom]
    if kind == "cap":
        theta = np.linspace(-0.95, 0.95, 25)[None]
        t = np.linspace(0, 1, 8)[:, None]
        rim = form.point(theta, 0.70 + 0.05 * (1 - np.cos(theta)), 0.19)
        reach = 0.46 * np.cos(theta * 0.95) ** 0.7
        point = rim + np.stack(np.broadcast_arrays(0.10 * np.sin(theta) * t, -0.16 * t - 0.05 * t**2, -reach * t), -1)
        visor = grid_part("hat", point, np.stack(np.broadcast_arrays(0.5 + theta / 6, 0.84 + 0.14 * t), -1))
        oriented(visor, np.array([0.0, 1.0, 0.0]))
        button = ellipsoid("hat", (0.0, 1.195, 0.04), (0.05, 0.03, 0.05), 5, 9)
        button.uv[:] = (0.5, 0.9)
        return _tilted([_dome(form, 0.72, 0.18, 0.03), visor, button], 0.3 * lean)
    if kind == "crown":
        angle = np.linspace(0, 2 * np.pi, 61)
        spike = np.abs(((angle * 6 / (2 * np.pi)) % 1) - 0.5) * 2
        low = np.stack([0.34 * np.sin(angle), np.full(61, 0.98), -0.34 * np.cos(angle)], -1)
        high = np.stack([0.42 * np.sin(angle), 1.14 + 0.20 * spike, -0.42 * np.cos(angle)], -1)
        ring = grid_part("metal", np.stack([low, 0.5 * (low + high), high]), wrap=True)
        inside = grid_part("metal", np.stack([high, 0.5 * (low + high), low]) * [0.985, 1, 0.985], wrap=True)
        for part, sign in ((ring, 1.0), (inside, -1.0)):
            oriented(part, sign * part.position * np.array([1, 0, 1]))
        inside.edge[:] = 0
        gem = ellipsoid("ribbon", (0.0, 1.09, -0.39), (0.05, 0.06, 0.035), 7, 9)
        return _tilted([ring, inside, gem], lean)
    theta_side = np.linspace(-1, 1, 61)
    s = np.abs(theta_side) * 1.05
    theta = np.where(theta_side < 0, -np.pi / 2, np.pi / 2) + 0.35 * -np.sign(theta_side) * (1 - np.abs(theta_side))
    if kind == "maid":
        path = form.point(theta, np.maximum(s, 0.02), 0.07) + np.array([0, 0, -0.12])
        band = tube("hat", path, np.full(61, 0.035), 8, (0.0, 0.0, -1.0))
        band.uv = np.stack([band.uv[:, 1], 0.86 + 0.05 * band.uv[:, 0]], -1)
        up = form.normal(theta, np.maximum(s, 0.05)) + np.array([0, 0, -0.35])
        inner = slice(8, 53)
        ruffle = frill(path[inner], up[inner], 0.20, 13, 0.03, "hat")
        ruffle.uv = np.stack([0.3 + 0.02 * ruffle.uv[:, 0], 0.02 + 0.1 * ruffle.uv[:, 1]], -1)
        oriented(ruffle, np.array([0.0, 0.0, -1.0]))
        parts = [band, ruffle]
        for sign in (-1.0, 1.0):
            parts.append(
                place(
                    bow(0.26, tails=0.8),
                    basis(np.array([sign, 0.2, -0.6]), np.array([0, 1.0, 0])),
                    path[52 if sign > 0 else 8] + [0.05 * sign, 0, -0.03],
                )
            )
        return parts
    # a crown of flowers
    parts = []
    for k in range(13):
        angle = 2 * np.pi * k / 13
        where = form.point(np.array(angle), np.array(0.52), 0.12)
        normal = form.normal(np.array(angle), np.array(0.52))
        piece = flower(0.25 + 0.07 * (k % 2), "ribbon" if k % 2 else "hat")
        if not k % 2:
            piece.uv = np.stack([piece.uv[:, 0], 0.88 + 0.1 * np.clip(piece.uv[:, 1], 0, 1)], -1)
        parts.append(place(piece, basis(normal, np.array([0, 1.0, 0.1])), where))
    return parts
