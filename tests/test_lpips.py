"""LPIPS against a plain computation of it in float64, with random weights in the place of VGG16's."""

from __future__ import annotations

import importlib.resources
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdgen import rng
from mmdgen.errors import ConfigError

torch = pytest.importorskip("torch", reason="needs torch: the extra `train`")

from torch.nn import functional  # noqa: E402

from mmdgen.train import lpips as module  # noqa: E402
from mmdgen.train.lpips import AUTO, OFF, RELUS, WIDTHS, find_lpips, load_heads, load_lpips  # noqa: E402

pytestmark = pytest.mark.train

# torchvision's layer numbers of VGG16's convolutions, by stage, and their widths (Simonyan and Zisserman, table 1, D)
CONVOLUTIONS = (
    ((0, 64), (2, 64)),
    ((5, 128), (7, 128)),
    ((10, 256), (12, 256), (14, 256)),
    ((17, 512), (19, 512), (21, 512)),
    ((24, 512), (26, 512), (28, 512)),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like torchvision's, with random values of a scale that keeps activations alive."""
    generator = torch.Generator().manual_seed(int(rng.generator(3, "vgg").integers(2**31)))
    state, width = {}, 3
    for stage in CONVOLUTIONS:
        for number, outputs in stage:
            scale = (2 / (9 * width)) ** 0.5
            state[f"features.{number}.weight"] = torch.randn((outputs, width, 3, 3), generator=generator) * scale
            state[f"features.{number}.bias"] = torch.randn(outputs, generator=generator) * 0.1
            width = outputs
    path = tmp_path_factory.mktemp("lpips") / "hub" / "checkpoints" / "vgg16-397923af.pth"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return path


def pictures(*key: int | str, count: int = 3, size: int = 32) -> Any:
    return torch.from_numpy(rng.generator(5, *key).random((count, 3, size, size), np.float32))


def plain_lpips(weights: Path, first: Any, second: Any) -> list[float]:
    """The definition (Zhang et al., 2018, equation 1), one picture and stage at a time, in float64."""
    state = torch.load(weights, weights_only=True)
    file = importlib.resources.files("torchmetrics") / "functional/image/lpips_models/vgg.pth"
    heads = torch.load(str(file), map_location="cpu", weights_only=True)
    distances = []
    for pair in zip(first.double(), second.double(), strict=True):
        features = []
        for picture in pair:
            scaled = torch.stack(
                [
                    (2 * picture[channel] - 1 - shift) / scale
                    for channel, (shift, scale) in enumerate(((-0.030, 0.458), (-0.088, 0.448), (-0.188, 0.450)))
                ]
            )[None]
            stages = []
            for number, stage in enumerate(CONVOLUTIONS):
                if number:
                    scaled = functional.max_pool2d(scaled, 2)
                for layer, _ in stage:
                    weight, bias = (state[f"features.{layer}.{name}"].double() for name in ("weight", "bias"))
                    scaled = functional.conv2d(scaled, weight, bias, padding=1).clamp(min=0)
                stages.append(scaled[0].numpy())
            features.append(stages)
        total = 0.0
        for number, (one, other) in enumerate(zip(*features, strict=True)):
            unit = [value / np.sqrt((value**2).sum(0) + 1e-8) for value in (one, other)]
            head = heads[f"lin{number}.model.1.weight"].double().numpy().reshape(-1)
            total += float(np.einsum("chw,c->hw", (unit[0] - unit[1]) ** 2, head).mean())
        distances.append(total)
    return distances


def test_it_is_the_definition(weights: Path) -> None:
    first, second = pictures("a"), pictures("b")
    found = load_lpips(weights)(first, second)
    assert found.shape == (3,)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), plain_lpips(weights, first, second), rtol=1e-4)


def test_it_is_a_distance(weights: Path) -> None:
    measure = load_lpips(weights)
    first, second = pictures("a"), pictures("b")
    assert (measure(first, second) > 0).all()
    torch.testing.assert_close(measure(first, second), measure(second, first))
    assert measure(first, first).tolist() == [0, 0, 0]
    black = torch.zeros((1, 3, 16, 16))
    assert measure(black, black).tolist() == [0]
    nearer = measure(first, 0.95 * first + 0.05 * second)
    assert (nearer < measure(first, second)).all()


def test_it_does_not_depend_on_the_batch(weights: Path) -> None:
    measure = load_lpips(weights)
    first, second = pictures("a"), pictures("b")
    alone = torch.cat([measure(first[i : i + 1], second[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(measure(first, second), alone)


def test_the_heads_are_torchmetrics_own() -> None:
    heads = load_heads()
    assert tuple(len(head) for head in heads) == WIDTHS == (64, 128, 256, 512, 512)
    assert len(RELUS) == len(heads)
    assert all(bool((head >= 0).all()) for head in heads)


def test_nothing_is_learned_and_nothing_moves(weights: Path) -> None:
    measure = load_lpips(weights)
    assert not any(value.requires_grad for value in measure.parameters())
    assert not measure.training
    before = pictures("a")
    kept = before.clone()
    measure(before, pictures("b"))
    assert torch.equal(before, kept)  # VGG's relus work in place, on copies


def test_where_the_weights_come_from(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_lpips(OFF) == (None, "switched off")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    none, reason = find_lpips(AUTO)
    assert none is None
    assert "vgg16-397923af.pth" in reason
    with pytest.raises(ConfigError, match=r"absent\.pth"):
        find_lpips(str(tmp_path / "absent.pth"))
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(ConfigError, match=r"bad\.pth"):
        find_lpips(str(tmp_path / "bad.pth"))
    monkeypatch.setenv("TORCH_HOME", str(weights.parents[2]))
    measure, reason = find_lpips(AUTO)
    assert measure is not None
    assert reason == ""
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    shutil.copy(tmp_path / "bad.pth", tmp_path / "hub" / "checkpoints" / weights.name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read"):  # there, but damaged: not passed over in silence
        find_lpips(AUTO)


def test_too_small_pictures_and_strange_heads_are_refused(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="at least 16 pixels"):
        load_lpips(weights)(pictures("a", size=15), pictures("b", size=15))
    monkeypatch.setattr(module, "_HEADS_FILE", "functional/image/lpips_models/alex.pth")
    with pytest.raises(ConfigError, match="not those of VGG16"):
        load_heads()
    monkeypatch.setattr(module, "_HEADS_FILE", "functional/image/lpips_models/none.pth")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_heads()
