"""Parts of whole hair styles: the record of a character's hair, what hangs behind, tails with their bones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmdgen import rng
from mmdgen.samples.hair import HairForm, Locks, curtain
from mmdgen.samples.mesh import Part, mirrored
from mmdgen.samples.tails import hair_tie
from mmdgen.samples.traits import Traits

BACK = np.pi


@dataclass(slots=True)
class Hair:
    """All hair of a character.

    `parts` in any order; `top_y` is the flat hair's top; `chains` maps a bone name's stem to its joints f64 [n, 3];
    `ties` gives centre, axis and radius of each tail's root.
    """

    parts: list[Part]
    top_y: float
    form: HairForm
    chains: dict[str, np.ndarray] = field(default_factory=dict)
    ties: list[tuple[np.ndarray, np.ndarray, float]] = field(default_factory=list)


def back_hair(
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
    short = end_y > -0.75
    inside = end_y + (0.04 if short else 0.10) + 0.4 * sides_up
    parts.append(
        curtain(
            form,
            (first + 0.05, 2 * np.pi - first - 0.05),
            (0.5, float(form.s_at(inside))),
            -0.9 * wave,
            spread,
            tuck=max(-flick, 0.0),
            teeth=0.05 if short else 0.16,
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


def add_pair(hair: Hair, part: Part, path: np.ndarray, stem: str, tie: float) -> None:
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


def add_single(hair: Hair, part: Part, path: np.ndarray, stem: str, tie: float) -> None:
    """Add one tail, with bones and tie."""
    hair.chains[stem] = _chain(part, stem, path)
    hair.parts.append(part)
    if tie:
        axis = path[2] - path[0]
        hair.ties.append((path[1], axis, tie))
        hair.parts.append(hair_tie(path[1], axis, tie))


def nape(traits: Traits, form: HairForm) -> list[Part]:
    """Return the hair of a tied-up style: short locks drawn close to the neck."""
    return back_hair(
        traits, form, -0.58, first=1.62, count=11, width=0.36, spread=-0.45, layers=1, jagged=0.06, bulge=0.01
    )
