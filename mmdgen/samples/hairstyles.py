"""Whole hair styles: the cap, fringe and side locks, and what the style adds to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmdgen import rng
from mmdgen.samples.backhair import Hair, back_hair
from mmdgen.samples.curves import lerp
from mmdgen.samples.fringe import build_ahoge, build_fringe, build_side_locks
from mmdgen.samples.hair import HairForm, Locks, build_cap
from mmdgen.samples.mesh import Part
from mmdgen.samples.traits import Traits
from mmdgen.samples.updos import TIED

Loose = Callable[[Traits, HairForm], list[Part]]


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
    cap = build_cap(form, nape_y=-0.66 if t.style in TIED else -0.55)
    hair = Hair([cap, build_fringe(traits, form)], float(cap.position[:, 1].max()), form)
    bare = traits.extras.headwear in ("", "maid", "crown", "flower_crown")
    for extra in (build_side_locks(traits, form), build_ahoge(traits, form) if bare else None):
        if extra is not None:
            hair.parts.append(extra)
    if t.style in TIED:
        TIED[t.style](traits, hair, rng.generator(traits.seed, "samples", "tails"))
    else:
        hair.parts += LOOSE[t.style](traits, form)
    return hair


def _bob(traits: Traits, form: HairForm) -> list[Part]:
    t = traits.hair
    flick = -0.16 if t.wave < 0.6 else 0.10
    return back_hair(traits, form, -0.72 - 0.25 * t.length, first=1.30, flick=flick, jagged=0.05, blunt=0.12)


def _long_straight(traits: Traits, form: HairForm) -> list[Part]:
    return back_hair(traits, form, -1.9 - 1.1 * traits.hair.length, count=15, spread=0.03, jagged=0.18)


def _hime(traits: Traits, form: HairForm) -> list[Part]:
    end = -2.0 - 0.9 * traits.hair.length
    return back_hair(traits, form, end, first=1.50, count=15, spread=0.02, blunt=0.85, jagged=0.02)


def _wavy_long(traits: Traits, form: HairForm) -> list[Part]:
    t = traits.hair
    return back_hair(
        traits, form, -1.5 - t.length, first=1.38, width=0.46, spread=0.14, wave=0.05 + 0.04 * t.wave,
        flick=0.06, jagged=0.14,
    )  # fmt: skip


def _medium_layered(traits: Traits, form: HairForm) -> list[Part]:
    end = -0.95 - 0.35 * traits.hair.length
    return back_hair(traits, form, end, first=1.32, spread=0.03, flick=0.13, jagged=0.15, layers=3)


def _boy_short(traits: Traits, form: HairForm) -> list[Part]:
    t = traits.hair
    return back_hair(
        traits, form, -0.50 - 0.16 * t.length, first=1.38, count=12, width=0.34, flick=-0.05 + 0.10 * t.wave,
        sides_up=0.30, spread=-0.22,
    )  # fmt: skip


def _wolf_long(traits: Traits, form: HairForm) -> list[Part]:
    """Spikes on top, thin long ends on the shoulders."""
    end = -1.05 - 0.5 * traits.hair.length
    parts = back_hair(
        traits, form, end, first=1.36, count=12, width=0.30, spread=-0.08, flick=0.10, jagged=0.18, sides_up=0.25
    )
    return parts + _spike_rows(traits, form, 0.6)


def _spikes(traits: Traits, form: HairForm) -> list[Part]:
    """Return spikes all over, ends standing off."""
    parts = back_hair(
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
    return parts + _spike_rows(traits, form, 1.0)


def _spike_rows(traits: Traits, form: HairForm, strength: float) -> list[Part]:
    """Return rows of spikes over the top and sides, standing off by the hair's volume."""
    stream = rng.generator(traits.seed, "samples", "spike rows")
    parts = []
    stand = strength * (0.10 + 0.22 * traits.hair.volume)
    for s_root, s_tip, count, lift in ((0.10, 0.62, 8, 0.05), (0.25, 0.88, 12, 0.04), (0.45, 1.18, 13, 0.03)):
        theta = np.linspace(-np.pi, np.pi, count, endpoint=False) + stream.uniform(-0.12, 0.12, count) + 0.2
        keep = np.abs(theta) > (0.9 if s_tip > 0.7 else 0.0)
        theta = theta[keep]
        number = len(theta)
        locks = Locks(
            theta - 0.05, theta, s_root, s_tip + stream.uniform(-0.08, 0.08, number),
            0.40 * stream.uniform(0.85, 1.15, number), lift, thickness=0.07,
            flick=stand * stream.uniform(0.6, 1.2, number), sway=stream.uniform(-0.3, 0.3, number),
            fullness=0.4, bulge=0.03,
        )  # fmt: skip
        parts.append(locks.build("hair", form, stream.integers(0, 8, number), rings=11))
    return parts


def _curls(traits: Traits, form: HairForm) -> list[Part]:
    """Return short fluffy curls: many bent locks in rows."""
    stream = rng.generator(traits.seed, "samples", "curls")
    end = lerp(-0.55, -0.95, traits.hair.length)
    parts = back_hair(
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
            theta, theta, s_root, s_tip, 0.34 * stream.uniform(0.8, 1.2, number), 0.035, thickness=0.075, bulge=0.04,
            flick=-0.05,
            sway=stream.choice([-1.0, 1.0], number) * stream.uniform(0.25, 0.5, number), wave=0.06, waves=1.3,
            phase=stream.uniform(0, 1, number), fullness=0.6,
        )  # fmt: skip
        parts.append(locks.build("hair", form, stream.integers(0, 8, number), rings=13))
    return parts


LOOSE: dict[str, Loose] = {
    "short_bob": _bob,
    "long_straight": _long_straight,
    "hime": _hime,
    "wavy_long": _wavy_long,
    "medium_layered": _medium_layered,
    "spiky_short": _spikes,
    "boy_short": _boy_short,
    "curly_short": _curls,
    "wolf_long": _wolf_long,
}
