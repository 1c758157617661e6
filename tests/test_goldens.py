"""Stored pictures, compared on the software renderer only. `python tools/regen_goldens.py` makes them anew.

Tolerance: Mesa's versions round differently, so a mean difference of 1/255 and 0.5 % of the pixels beyond 16/255 pass.
What fails is written as stored | drawn | difference x 8 beside the other output, under out/goldens.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_cases import CHARACTERS, FOLDER, draw_cases
from PIL import Image

from mmdgen.render.renderer import Renderer

MEAN, FAR, FAR_SHARE = 1.0, 16, 0.005
NAMES = ("toy", *(f"character-{seed}" for seed in CHARACTERS))

pytestmark = [pytest.mark.gl, pytest.mark.goldens]


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    with Renderer(tiles=(1, 1)) as renderer:
        if not renderer.report()["software"]:
            pytest.skip("goldens are compared on the software renderer only; this machine draws on a GPU")
        return dict(draw_cases(renderer))


def premultiplied(picture: np.ndarray) -> np.ndarray:
    """Return f64 [H, W, 4]: colours weigh as much as they can be seen."""
    return np.concatenate([picture[..., :3] * (picture[..., 3:] / 255), picture[..., 3:]], axis=-1)


def faults(stored: np.ndarray, picture: np.ndarray) -> str:
    """Return what is wrong with `picture`, or an empty string."""
    if stored.shape != picture.shape:
        return f"shape {picture.shape}, stored {stored.shape}"
    difference = np.abs(premultiplied(stored) - premultiplied(picture))
    far = (difference > FAR).any(axis=-1).mean()
    if difference.mean() > MEAN or far > FAR_SHARE:
        return f"mean difference {difference.mean():.2f} (at most {MEAN}), {far:.2%} of the pixels beyond {FAR}"
    return ""


@pytest.mark.parametrize("name", NAMES)
def test_picture(drawn: dict[str, np.ndarray], name: str, checkout: Path) -> None:
    stored = np.asarray(Image.open(FOLDER / f"{name}.png").convert("RGBA"))
    fault = faults(stored, drawn[name])
    if fault:
        folder = checkout / "out" / "goldens"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [stored, drawn[name]]
        if stored.shape == drawn[name].shape:
            difference = np.abs(stored.astype(int) - drawn[name]).clip(0, 31).astype(np.uint8) * 8
            difference[..., 3] = 255
            rows.append(difference)
        Image.fromarray(np.concatenate(rows)).save(folder / f"{name}.png")
        pytest.fail(f"{name}: {fault}; see {folder / f'{name}.png'}")


def test_the_comparison_notices_a_closed_eye_and_a_shift(drawn: dict[str, np.ndarray]) -> None:
    """The tolerance must not swallow real faults."""
    toy = drawn["toy"]
    width = toy.shape[1] // 3
    assert faults(toy[:, :width], toy[:, width : 2 * width])
    assert faults(toy, np.roll(toy, 1, axis=1))
    assert not faults(toy, toy)
