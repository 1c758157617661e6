"""The networks are the article's, layer for layer; pictures come back from their form as they went in."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch (tools/run brings it)")

from torch.nn import functional as F  # noqa: E402

from mmdgen import rng  # noqa: E402
from mmdgen.errors import ConfigError  # noqa: E402
from mmdgen.pose.vocabulary import THA1  # noqa: E402
from mmdgen.train import images, networks  # noqa: E402

pytestmark = pytest.mark.train

TINY = networks.Preset("tiny", 4, 16, 2)
COUNTS = {"morpher": 33_878_720, "rotator": 33_884_992, "combiner": 34_960_704}


@pytest.fixture(autouse=True)
def one_thread():
    """Layers this small only lose by sharing their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made_up(name: str, height: int, width: int, batch: int = 2) -> dict:
    stream = rng.generator(7, name, height, width, batch)
    result = {}
    for key, value in networks.example_inputs(name, 16, batch=batch).items():
        shape = (batch, 4, height, width) if value.ndim == 4 else value.shape
        result[key] = torch.from_numpy(stream.uniform(-1, 1, shape).astype("f4"))
    return result


# --- what they consist of ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_the_article_counts_as_many_parameters(name: str) -> None:
    network = networks.empty_network(name, "article")
    assert all(parameter.is_meta for parameter in network.parameters())
    assert networks.parameter_count(network) == COUNTS[name]
    assert sum(COUNTS.values()) == 102_724_416


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_the_small_preset_is_the_same_design(name: str) -> None:
    small, article = (networks.describe(name, preset, 256) for preset in ("small", "article"))
    assert small["parameters"] < article["parameters"] / 20
    blocks = networks.PRESETS["article"].blocks - networks.PRESETS["small"].blocks
    assert len(article["layers"]) - len(small["layers"]) == 5 * blocks
    assert small["outputs"] == article["outputs"]


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_the_description_follows_the_computation(name: str) -> None:
    found = networks.describe(name, "article", 256)
    assert json.loads(json.dumps(found)) == found
    assert found["parameters"] == COUNTS[name] == sum(layer["parameters"] for layer in found["layers"])
    layers = found["layers"]
    assert layers[0]["input"] == [11 if name == "combiner" else 7, 256, 256]
    sizes = [layer["output"] for layer in layers if layer["type"] in ("Conv2d", "ConvTranspose2d")]
    assert sizes[:4] == [[64, 256, 256], [128, 128, 128], [256, 64, 64], [512, 32, 32]]
    assert sizes[4:16] == [[512, 32, 32]] * 12  # six blocks of two
    assert sizes[16:19] == [[256, 64, 64], [128, 128, 128], [64, 256, 256]]
    heads = {"morpher": [4, 4], "rotator": [4, 4, 2], "combiner": [4, 4, 4]}[name]
    assert [size[0] for size in sizes[19:]] == ([64] if name == "combiner" else []) + heads
    ups = [layer["input"][0] for layer in layers if layer["type"] == "ConvTranspose2d"]
    assert ups == ([512, 512, 256] if name == "combiner" else [512, 256, 128])
    assert tuple(found["pose"]) == networks.POSES[name]
    assert found["inputs"]["pose"] == [3]


def test_the_poses_are_the_vocabularys() -> None:
    assert {*networks.EXPRESSION, *networks.ROTATION} == set(THA1.names)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_the_first_values_are_hes(name: str) -> None:
    network = networks.build_network(name, "small", seed=3)
    convolutions = 0
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            convolutions += 1
            assert layer.bias is None
            weight = layer.get_parameter("weight").detach().double()
            deviation = (2 / (weight.shape[1] * weight.shape[2] * weight.shape[3])) ** 0.5
            count = weight.numel()
            assert abs(weight.std() / deviation - 1) < 5 / (2 * count) ** 0.5
            assert abs(weight.mean()) < 5 * deviation / count**0.5
            # A normal distribution, not a uniform one of the same width (whose fourth moment is 1.8).
            assert abs(((weight / deviation) ** 4).mean() - 3) < 5 * (96 / count) ** 0.5
        elif isinstance(layer, torch.nn.InstanceNorm2d):
            assert layer.affine
            assert not layer.track_running_stats
            assert torch.equal(layer.get_parameter("weight"), torch.ones(layer.num_features))
            assert torch.equal(layer.get_parameter("bias"), torch.zeros(layer.num_features))
    blocks = networks.PRESETS["small"].blocks
    assert convolutions == 7 + 2 * blocks + {"morpher": 2, "rotator": 3, "combiner": 4}[name]


def test_the_first_values_depend_on_the_seed_alone() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = networks.build_network("morpher", TINY, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    again = networks.build_network("morpher", TINY, seed=1).state_dict()
    other = networks.build_network("morpher", TINY, seed=2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["change.weight"], other["change.weight"])
    assert not torch.equal(first["change.weight"], first["mask.weight"])


# --- what they compute ------------------------------------------------------------------------------------------------


def norm(x, scale, shift):
    """Instance normalisation, written out."""
    mean = x.mean((2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((2, 3), keepdim=True)
    return (x - mean) / (variance + 1e-5) ** 0.5 * scale[:, None, None] + shift[:, None, None]


class Plain:
    """The article's computation over a list of weights in the order in which a network holds them, in f64."""

    def __init__(self, network) -> None:
        self.weights = iter([value.double() for value in network.state_dict().values()])

    def block(self, x, kind, relu=True):
        weight = next(self.weights)
        if kind == "up":
            x = F.conv_transpose2d(x, weight, stride=2, padding=1)
        else:
            x = F.conv2d(x, weight, stride=2 if kind == "down" else 1, padding={"same": 3, "down": 1, "block": 1}[kind])
        x = norm(x, next(self.weights), next(self.weights))
        return x.clamp(min=0) if relu else x

    def down(self, x):
        sizes = [self.block(x, "same")]
        for _ in range(3):
            sizes.append(self.block(sizes[-1], "down"))
        return sizes

    def middle(self, x, blocks):
        for _ in range(blocks):
            x = x + self.block(self.block(x, "block"), "block", relu=False)
        return x

    def head(self, x):
        return F.conv2d(x, next(self.weights), padding=3)


def planes(inputs, size):
    pictures = [value.double() for key, value in inputs.items() if key != "pose"]
    pose = inputs["pose"].double()
    return torch.cat([*pictures, pose[:, :, None, None] * torch.ones(1, 1, *size, dtype=torch.float64)], 1)


def bilinear(image: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Read [C, H, W] at each pixel plus offset [2, H, W] of half sides, clamped to the picture: loops over pixels."""
    channels, height, width = image.shape
    result = np.empty((channels, height, width))
    for row in range(height):
        for column in range(width):
            x = np.clip(column + offset[0, row, column] * (width - 1) / 2, 0, width - 1)
            y = np.clip(row + offset[1, row, column] * (height - 1) / 2, 0, height - 1)
            left, top = min(int(x), width - 2), min(int(y), height - 2)
            u, v = x - left, y - top
            result[:, row, column] = (
                image[:, top, left] * (1 - u) * (1 - v)
                + image[:, top, left + 1] * u * (1 - v)
                + image[:, top + 1, left] * (1 - u) * v
                + image[:, top + 1, left + 1] * u * v
            )
    return result


@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_morpher_and_rotator_compute_the_articles_formulas(size: tuple[int, int]) -> None:
    for name in ("morpher", "rotator"):
        network = networks.build_network(name, TINY, seed=5)
        inputs = made_up(name, *size)
        with torch.no_grad():
            found = network(**inputs)
        plain = Plain(network)
        x = plain.middle(plain.down(planes(inputs, size))[-1], TINY.blocks)
        for _ in range(3):
            x = plain.block(x, "up")
        change, mask = torch.tanh(plain.head(x)), torch.sigmoid(plain.head(x))
        image = inputs["image"].double()
        expected = {"change": change, "mask": mask, "direct": mask * image + (1 - mask) * change}
        if name == "rotator":
            expected["offset"] = plain.head(x)
        assert next(plain.weights, None) is None
        assert set(found._fields) == {"morpher": {"image", "change", "mask"}, "rotator": {*expected, "warped"}}[name]
        for key, value in expected.items():
            own = found.image if name == "morpher" and key == "direct" else getattr(found, key)
            torch.testing.assert_close(own.double(), value, atol=2e-4, rtol=1e-4)
        # And from the masks that it returned, without a difference that the layers could hide.
        own = found[0].double()
        torch.testing.assert_close(own, found.mask.double() * image + (1 - found.mask.double()) * found.change.double())
        if name == "rotator":
            warped = [bilinear(a, b) for a, b in zip(image.numpy(), found.offset.double().numpy(), strict=True)]
            np.testing.assert_allclose(found.warped.numpy(), np.array(warped), atol=2e-5)


def test_the_combiner_computes_the_articles_formula() -> None:
    network = networks.build_network("combiner", TINY, seed=5)
    inputs = made_up("combiner", 16, 24)
    with torch.no_grad():
        found = network(**inputs)
    plain = Plain(network)
    sizes = plain.down(planes(inputs, (16, 24)))
    x = plain.block(plain.middle(sizes[3], TINY.blocks), "up")
    x = plain.block(torch.cat((x, sizes[2]), 1), "up")
    x = plain.block(torch.cat((x, sizes[1]), 1), "up")
    x = plain.block(torch.cat((x, sizes[0]), 1), "same")
    combine, retouch_mask, retouch = (plain.head(x) for _ in range(3))
    assert next(plain.weights, None) is None
    combine, retouch_mask, retouch = combine.sigmoid(), retouch_mask.sigmoid(), retouch.tanh()
    first, second = inputs["direct"].double(), inputs["warped"].double()
    image = retouch_mask * (combine * first + (1 - combine) * second) + (1 - retouch_mask) * retouch
    for own, value in zip(found, (image, combine, retouch_mask, retouch), strict=True):
        torch.testing.assert_close(own.double(), value, atol=2e-4, rtol=1e-4)
    own = found.combine_mask * inputs["direct"] + (1 - found.combine_mask) * inputs["warped"]
    torch.testing.assert_close(found.image, found.retouch_mask * own + (1 - found.retouch_mask) * found.retouch)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_parameter_learns(name: str) -> None:
    network = networks.build_network(name, TINY)
    result = network(**made_up(name, 16, 16))
    # The value of a normalised layer's mean alone is fixed: squares, so that every layer matters.
    torch.stack([(value**2).mean() for value in result]).sum().backward()
    assert [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("size", [(12, 16), (16, 20), (8, 8), (16, 8)])
def test_other_sizes_are_refused(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="steps of 8"):
        networks.empty_network(name, TINY)(**{k: v.to("meta") for k, v in made_up(name, *size).items()})


def test_unknown_names_and_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="morpher, rotator, combiner"):
        networks.build_network("eyebrows", "small")
    with pytest.raises(ConfigError, match="article, small"):
        networks.build_network("morpher", "large")
    with pytest.raises(ConfigError, match="blocks"):
        networks.Preset("x", 4, 8, 0)
    with pytest.raises(ConfigError, match="base"):
        networks.Preset("x", True, 8, 1)
    with pytest.raises(ConfigError, match="found 100"):
        networks.describe("morpher", "small", 100)


# --- moving pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (256, 256)])
def test_no_offset_leaves_the_picture(size: tuple[int, int]) -> None:
    image = made_up("morpher", *size)["image"]
    # Coordinates are f32 in [-1, 1], so off by up to 1.2e-7 sides on each axis; neighbours here differ by up to 2.
    atol = 5e-7 * max(size)
    torch.testing.assert_close(networks.warp(image, torch.zeros(2, 2, *size)), image, atol=atol, rtol=0)


@given(st.integers(-20, 20), st.integers(-20, 20))
@settings(max_examples=20)
def test_whole_pixels_shift_and_the_border_repeats(dx: int, dy: int) -> None:
    height, width = 16, 24
    image = made_up("morpher", height, width)["image"]
    offset = torch.empty(2, 2, height, width)
    offset[:, 0], offset[:, 1] = 2 * dx / (width - 1), 2 * dy / (height - 1)
    rows = np.clip(np.arange(height) + dy, 0, height - 1)
    columns = np.clip(np.arange(width) + dx, 0, width - 1)
    torch.testing.assert_close(networks.warp(image, offset), image[:, :, rows][:, :, :, columns], atol=2e-5, rtol=0)


def test_under_autocast_coordinates_and_pictures_keep_their_digits() -> None:
    network = networks.build_network("rotator", TINY, seed=1)
    inputs = made_up("rotator", 32, 32)
    seen = {}
    network.get_submodule("body").register_forward_hook(lambda layer, given, result: seen.update(features=result))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(**inputs)
    assert all(value.dtype == torch.float32 for value in found)
    with torch.no_grad():
        torch.testing.assert_close(found.offset, network.get_submodule("offset")(seen["features"].float()))
        exact = network(**inputs)
    assert 0 < (found.direct - exact.direct).abs().max() < 0.2  # the bodies did run in 16 bits
    torch.testing.assert_close(found.direct, found.mask * inputs["image"] + (1 - found.mask) * found.change)
    torch.testing.assert_close(found.warped, networks.warp(inputs["image"], found.offset))


# --- pictures ---------------------------------------------------------------------------------------------------------


def all_values() -> np.ndarray:
    """Return u8 [1, 256, 256, 4]: every colour value with every alpha."""
    value, alpha = np.meshgrid(np.arange(256), np.arange(256))
    return np.stack((value, 255 - value, value // 2, alpha), 2).astype(np.uint8)[None]


def test_every_value_comes_back() -> None:
    pictures = all_values()
    expected = np.where(pictures[..., 3:] > 0, pictures, 0)
    assert (expected != pictures).any()
    found = images.from_network(images.to_network(torch.from_numpy(pictures)))
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    np.testing.assert_array_equal(found.numpy(), expected)


def test_network_values_are_linear_light_in_minus_one_to_one() -> None:
    pictures = all_values()
    found = images.to_network(torch.from_numpy(pictures))
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    value = pictures.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) * (pictures[..., 3:] > 0)
    expected = 2 * np.concatenate((linear[..., :3], value[..., 3:]), 3) - 1
    np.testing.assert_allclose(found.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)
    assert found.min() == -1
    assert found.max() == 1
    # By hand: 188 is half the light, and what is transparent has none.
    assert abs(found[0, 0, 255, 188] - 0.0058) < 1e-4
    assert found[0, :, 0, 200].tolist() == [-1, -1, -1, -1]


def test_what_is_outside_the_range_is_clipped() -> None:
    values = torch.tensor([-3.0, -1.0, 1.0, 7.0])
    found = images.from_network(values[None, None, None, :].expand(1, 4, 1, 4))
    assert found[0, 0, :, 0].tolist() == [0, 0, 255, 255]
    assert found[0, 0, :, 3].tolist() == [0, 0, 255, 255]
    clear = torch.tensor([1.0, 1.0, 1.0, -0.999])[None, :, None, None]
    assert images.from_network(clear).flatten().tolist() == [0, 0, 0, 0]
    bright = torch.tensor([1.0, 1.0, 1.0, -0.99])[None, :, None, None]
    assert images.from_network(bright.to(torch.bfloat16)).flatten().tolist() == [255, 255, 255, 1]


def test_the_curve_has_a_gradient_everywhere() -> None:
    value = torch.tensor([0.0, 0.001, 0.0031308, 0.5, 1.0], requires_grad=True)
    images.linear_to_srgb(value).sum().backward()
    assert value.grad is not None
    assert torch.isfinite(value.grad).all()
    assert (value.grad > 0).all()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 4, 8, 8), "uint8"), ((8, 8, 4), "uint8"), ((1, 8, 8, 3), "uint8"), ((1, 8, 8, 4), "float32")],
)
def test_other_pictures_are_refused(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ConfigError, match="uint8"):
        images.to_network(torch.zeros(shape, dtype=getattr(torch, dtype)))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 8, 8, 4), "float32"), ((4, 8, 8), "float32"), ((1, 4, 8, 8), "uint8")]
)
def test_other_network_images_are_refused(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ConfigError, match="float"):
        images.from_network(torch.zeros(shape, dtype=getattr(torch, dtype)))
