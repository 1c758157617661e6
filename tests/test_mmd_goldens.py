"""Pictures by MikuMikuDance 9.32 itself, beside ours: tests/goldens/mmd932 (MIT, from yohawing/three-mmd-loader).

Drawn by the command as a user gives it. Bounds are of full scale (255). What is left is anti-aliasing along edges, and
in the TGA scene the border of texels with alpha 0 and 1, which MikuMikuDance enlarges to a power of two first.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mmdgen.cli.draw import command

FOLDER = Path(__file__).parent / "goldens" / "mmd932"
CASES = {case["name"]: case for case in json.loads((FOLDER / "manifest.json").read_text("utf-8"))["cases"]}
MEAN, P95 = 0.0025, 0.0045
WIDER_MEAN = {"mmd-tga-regular-hair-alpha-opaque": 0.0055}

pytestmark = [pytest.mark.gl, pytest.mark.goldens]


def draw(name: str, tmp_path: Path, *options: str) -> np.ndarray:
    """Return what `mmdgen draw` makes of a scene, u8 [1024, 1024, 3]."""
    camera, out = tmp_path / "camera.json", tmp_path / "x.png"
    camera.write_text(json.dumps(CASES[name]["camera"]), "utf-8")
    arguments = [str(FOLDER / f"{name}.pmx"), "--camera", str(camera), "--size", "1024", "--background", "#ffffff"]
    result = CliRunner().invoke(command, [*arguments, "--out", str(out), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return np.asarray(Image.open(out))


def difference(name: str, picture: np.ndarray) -> tuple[float, float]:
    """Return the mean and the 95th percentile of the absolute difference from MikuMikuDance, of full scale."""
    stored = np.asarray(Image.open(FOLDER / f"{name}.png").convert("RGB"))
    assert picture.shape == stored.shape
    off = np.abs(picture.astype(int) - stored) / 255
    return float(off.mean()), float(np.percentile(off, 95))


@pytest.mark.parametrize("name", CASES)
def test_scene(name: str, tmp_path: Path, checkout: Path) -> None:
    picture = draw(name, tmp_path, "--shading", "mmd")
    mean, p95 = difference(name, picture)
    if mean > WIDER_MEAN.get(name, MEAN) or p95 > P95:
        stored = np.asarray(Image.open(FOLDER / f"{name}.png").convert("RGB"))
        off = np.clip(np.abs(picture.astype(int) - stored) * 4, 0, 255).astype(np.uint8)
        folder = checkout / "out" / "goldens"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate([stored, picture, off], axis=1)).save(folder / f"{name}.png")
        pytest.fail(f"{name}: mean {mean:.5f}, p95 {p95:.4f}; see {folder / f'{name}.png'}")


@pytest.mark.parametrize("name", ["mmd-toon-ramp-lit-box", "mmd-sphere-texture-multiply"])
def test_the_bounds_notice_another_shading(name: str, tmp_path: Path) -> None:
    mean, p95 = difference(name, draw(name, tmp_path, "--shading", "phong"))
    assert mean > 5 * MEAN
    assert p95 > 5 * P95


def test_the_bounds_notice_missing_outlines(tmp_path: Path) -> None:
    name = "mmd-outline-normal-silhouette"
    assert difference(name, draw(name, tmp_path, "--shading", "mmd", "--outline", "0"))[0] > 1.5 * MEAN
