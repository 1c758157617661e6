"""The losses against straightforward computations, and VGG16's weight file, real in form and damaged in every way."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (tools/run brings it)")

from torch.nn import functional as F  # noqa: E402

from mmdgen import rng  # noqa: E402
from mmdgen.errors import ConfigError  # noqa: E402
from mmdgen.train import losses, vgg  # noqa: E402
from mmdgen.train.networks import warp  # noqa: E402

pytestmark = pytest.mark.train

# Torchvision's positions of the convolutions in `features`, and the channels of each.
POSITIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
WIDTHS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


@pytest.fixture(autouse=True)
def one_thread():
    """Pictures this small only lose by sharing their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(*shape: int, seed: int = 0):
    return torch.from_numpy(rng.generator(seed, "losses", *shape).uniform(-1, 1, shape).astype("f4"))


def flat_state() -> dict:
    """Return a complete state dict that is quick to write: every tensor repeats one stored number."""
    state = {}
    for position, inputs, outputs in zip(POSITIONS, WIDTHS, WIDTHS[1:], strict=False):
        state[f"features.{position}.weight"] = torch.full((1,), 0.01).expand(outputs, inputs, 3, 3)
        state[f"features.{position}.bias"] = torch.full((1,), 0.1).expand(outputs)
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in torchvision's layout with random numbers, the last layers included."""
    state = {}
    drawn = torch.Generator().manual_seed(4)
    for key, value in flat_state().items():
        scale = math.sqrt(2 / value[0].numel()) if value.ndim == 4 else 0.1
        state[key] = torch.randn(value.shape, generator=drawn) * scale
    state["classifier.0.weight"], state["classifier.0.bias"] = torch.zeros(8, 8), torch.zeros(8)
    path = tmp_path_factory.mktemp("vgg") / "vgg16-397923af.pth"
    torch.save(state, path)
    return path


def write(tmp_path: Path, state) -> Path:
    path = tmp_path / "vgg16.pth"
    torch.save(state, path)
    return path


def plain_vgg(state: dict, images, last: int) -> dict[str, object]:
    """VGG16 by the book: names to activations, of the first `last` convolutions."""
    names = ["1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3"]
    found = {}
    for name, position in list(zip(names, POSITIONS, strict=True))[:last]:
        if name.endswith("_1") and name != "1_1":
            images = F.max_pool2d(images, 2)
        images = F.conv2d(images, state[f"features.{position}.weight"], state[f"features.{position}.bias"], padding=1)
        images = images.clamp(min=0)
        found[f"relu{name}"] = images
    return found


# --- VGG16 ------------------------------------------------------------------------------------------------------------


def test_vgg_gives_the_activations_of_all_its_relus(weights: Path) -> None:
    network = vgg.load_vgg16(weights)
    state = torch.load(weights, weights_only=True)
    images = noise(2, 3, 32, 16)
    expected = plain_vgg(state, images, 13)
    names = ("relu5_3", "relu1_2", "relu4_3", "relu3_3", "relu2_2")
    for name, found in zip(names, network(images, names), strict=True):
        torch.testing.assert_close(found, expected[name], atol=1e-5, rtol=1e-4)
    assert tuple(expected) == vgg.RELUS
    assert network(images, ("relu5_3",))[0].shape == (2, 512, 2, 1)


def test_vgg_is_frozen_and_reads_no_more_than_it_needs(weights: Path) -> None:
    network = vgg.load_vgg16(weights, "relu3_3")
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert {str(parameter.device) for parameter in network.parameters()} == {"cpu"}
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_735_488  # the article's three stages
    with pytest.raises(ConfigError, match="relu4_1 lies behind"):
        network(noise(1, 3, 16, 16), ("relu4_1",))
    with pytest.raises(ConfigError, match="relu6_1"):
        network(noise(1, 3, 16, 16), ("relu6_1",))
    with pytest.raises(ConfigError, match="relu1_1"):
        vgg.Vgg16("conv1")
    assert sum(parameter.numel() for parameter in vgg.Vgg16().parameters()) == 14_714_688


def test_pictures_are_normalised_as_for_imagenet() -> None:
    mean = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None].expand(2, 3, 4, 4)
    assert vgg.normalise(mean).abs().max() < 1e-6
    one = vgg.normalise(mean + torch.tensor([0.229, 0.224, 0.225])[None, :, None, None])
    torch.testing.assert_close(one, torch.ones(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("features.28.bias"), "1 tensors missing"),
        (lambda state: state.update({"features.1.weight": torch.zeros(3)}), "1 unknown"),
        (lambda state: state.update({"features.0.weight": torch.zeros(64, 3, 5, 5)}), "features.0.weight"),
        (lambda state: state.update({"features.2.bias": torch.zeros(64, dtype=torch.int32)}), "int32"),
        (lambda state: state.update({"features.2.bias": [1.0] * 64}), "list"),
        (lambda state: state.update({"features.2.bias": torch.full((64,), float("nan"))}), "not finite"),
        (lambda state: state.clear(), "26 tensors missing"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, change, message: str) -> None:
    state = flat_state()
    vgg.load_vgg16(write(tmp_path, state), "relu1_2")
    change(state)
    with pytest.raises(ConfigError, match=message):
        vgg.load_vgg16(write(tmp_path, state), "relu1_2")


class Runs:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_what_is_no_weight_file_is_refused_and_never_runs(tmp_path: Path) -> None:
    path = write(tmp_path, flat_state())
    whole = path.read_bytes()
    evil = tmp_path / "evil"
    for content in (b"", b"<html>404</html>", whole[: len(whole) // 2], pickle.dumps(Runs(evil)), pickle.dumps(3)):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"vgg16\.pth"):
            vgg.load_vgg16(path)
    torch.save({"features.0.weight": Runs(evil)}, path)
    with pytest.raises(ConfigError, match="cannot be read"):
        vgg.load_vgg16(path)
    assert not evil.exists()
    with pytest.raises(ConfigError, match="holds a list"):
        vgg.load_vgg16(write(tmp_path, [1, 2]))
    with pytest.raises(ConfigError, match="no such file"):
        vgg.load_vgg16(tmp_path / "nothing.pth")


def test_the_weight_file_is_found_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    with pytest.raises(ConfigError) as caught:
        losses.vgg16_weights()
    assert str(cache) in str(caught.value)
    assert "vgg16-397923af.pth" in str(caught.value)
    with pytest.raises(ConfigError, match=r"other\.pth"):
        losses.vgg16_weights(tmp_path / "other.pth")
    cache.mkdir(parents=True)
    (cache / "vgg16_bn-6c64b313.pth").touch()  # another network
    with pytest.raises(ConfigError, match="missing"):
        losses.vgg16_weights(None)
    (cache / "vgg16-00b39a1b.pth").touch()
    assert losses.vgg16_weights() == cache / "vgg16-00b39a1b.pth"
    (cache / "vgg16-11111111.pth").touch()
    with pytest.raises(ConfigError, match=r"00b39a1b.*11111111"):
        losses.vgg16_weights()
    (cache / "vgg16-397923af.pth").touch()
    assert losses.vgg16_weights() == cache / "vgg16-397923af.pth"
    assert losses.vgg16_weights(str(cache / "vgg16-11111111.pth")) == cache / "vgg16-11111111.pth"


# --- the losses -------------------------------------------------------------------------------------------------------


def test_l1_is_the_mean_absolute_difference() -> None:
    first, second = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    assert abs(float(losses.l1(first, second)) - np.abs(first.numpy() - second.numpy()).mean()) < 1e-6
    assert losses.l1(first.to(torch.bfloat16), second).dtype == torch.float32


def test_the_perceptual_loss_is_the_articles(weights: Path) -> None:
    """Sums with lambda_j, as the article writes them, over the size of the picture: what a mean L1 stands beside."""
    loss = losses.Perceptual(weights)
    state = torch.load(weights, weights_only=True)
    size, count = 32, 3
    first, second = noise(count, 4, size, size), noise(count, 4, size, size, seed=1)
    total = 0.0
    for one, other in zip(first, second, strict=True):
        for channels in ([0, 1, 2], [3, 3, 3]):
            sides = []
            for image in (one, other):
                value = ((image + 1) / 2)[channels]
                mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
                value = (value.numpy() - mean[:, None, None]) / deviation[:, None, None]
                sides.append(plain_vgg(state, torch.from_numpy(value.astype("f4"))[None], 7))
            for name in ("relu1_2", "relu2_2", "relu3_3"):
                _, depth, height, width = sides[0][name].shape
                weight = (4 * size * size) / (depth * height * width)
                total += weight * float((sides[0][name] - sides[1][name]).abs().sum())
    expected = total / (4 * size * size) / count
    assert float(loss(first, second)) == pytest.approx(expected, rel=1e-4)
    assert losses.ROTATOR_WEIGHT == 0.2
    assert losses.COMBINER_WEIGHT == 0.04


def test_the_perceptual_loss_teaches_the_image_and_nothing_else(weights: Path) -> None:
    loss = losses.Perceptual(weights).train()
    assert not loss.training
    assert not loss.vgg.training
    image, target = noise(2, 4, 16, 16).requires_grad_(), noise(2, 4, 16, 16, seed=1).requires_grad_()
    loss(image, target).backward()
    assert image.grad is not None
    assert all(image.grad[:, channel].abs().sum() > 0 for channel in range(4))
    assert target.grad is None
    assert all(parameter.grad is None for parameter in loss.parameters())
    # A small step against the gradient makes it smaller: the gradient is this value's and has the right sign.
    with torch.no_grad():
        assert float(loss(image, image)) == 0
        before = float(loss(image, target))
        assert float(loss(image - 1e-3 * image.grad / image.grad.abs().max(), target)) < before


def test_several_images_share_one_target(weights: Path) -> None:
    loss = losses.Perceptual(weights)
    first, second, target = (noise(2, 4, 16, 16, seed=seed) for seed in range(3))
    with torch.no_grad():
        features = loss.features(target)
    shared = loss.between(first, features) + loss.between(second, features)
    torch.testing.assert_close(shared, loss(first, target) + loss(second, target))
    with pytest.raises(ConfigError, match=r"\[N, 4, H, W\]"):
        loss(noise(2, 3, 16, 16), target)


# --- flow -------------------------------------------------------------------------------------------------------------


def test_the_flow_loss_is_the_mean_over_visible_pixels() -> None:
    height, width = 6, 9
    offset, flow = noise(2, 2, height, width), 4 * noise(2, height, width, 2)
    visibility = torch.from_numpy(rng.generator(1, "visibility").integers(0, 3, (2, height, width)).astype("u1"))
    terms = []
    for n in range(2):
        for y in range(height):
            for x in range(width):
                if visibility[n, y, x] == 2:
                    terms.append(abs(float(offset[n, 0, y, x]) - float(flow[n, y, x, 0]) * 2 / (width - 1)))
                    terms.append(abs(float(offset[n, 1, y, x]) - float(flow[n, y, x, 1]) * 2 / (height - 1)))
    assert 20 < len(terms) < 2 * visibility.numel()
    assert float(losses.flow_loss(offset, flow, visibility)) == pytest.approx(np.mean(terms), rel=1e-5)


def test_the_offset_that_undoes_a_shift_costs_nothing() -> None:
    """The units of the offset are those in which the rotator reads its input."""
    size, dx, dy = 16, 3, -2
    image = noise(1, 4, size, size)
    flow = torch.tensor([float(dx), float(dy)]).expand(1, size, size, 2)
    offset = torch.tensor([dx * 2 / (size - 1), dy * 2 / (size - 1)])[None, :, None, None].expand(1, 2, size, size)
    visible = torch.full((1, size, size), 2, dtype=torch.uint8)
    assert float(losses.flow_loss(offset, flow, visible)) < 1e-7
    posed = warp(image, offset)
    torch.testing.assert_close(posed[0, :, 8, 8], image[0, :, 8 + dy, 8 + dx], atol=1e-5, rtol=0)
    wrong = losses.flow_loss(offset.flip(1), flow, visible)
    assert float(wrong) == pytest.approx(5 * 2 / (size - 1), rel=1e-5)


def test_what_is_not_visible_reaches_neither_loss_nor_gradient() -> None:
    offset = noise(1, 2, 4, 4).requires_grad_()
    flow = torch.full((1, 4, 4, 2), float("nan"))
    visibility = torch.ones((1, 4, 4), dtype=torch.uint8)
    loss = losses.flow_loss(offset, flow, visibility)
    loss.backward()
    assert float(loss.detach()) == 0
    assert offset.grad is not None
    assert not offset.grad.any()
    offset.grad = None
    flow[0, 1, 2], visibility[0, 1, 2] = 0.0, 2
    losses.flow_loss(offset, flow, visibility).backward()
    assert offset.grad is not None
    assert torch.isfinite(offset.grad).all()
    assert offset.grad.nonzero().tolist() == [[0, 0, 1, 2], [0, 1, 1, 2]]


def test_batches_that_do_not_belong_together_are_refused() -> None:
    visibility = torch.zeros((1, 4, 4), dtype=torch.uint8)
    with pytest.raises(ConfigError, match="one batch"):
        losses.flow_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), visibility)
    with pytest.raises(ConfigError, match="one batch"):
        losses.flow_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, 2), visibility[:, :2])
