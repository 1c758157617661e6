"""The three networks of *Talking Head Anime from a Single Image*: face morpher, two-algorithm rotator and combiner.

Layers, sizes, initialisation and output formulas are those of the article's appendix A and of its released code (where
the two differ the code counts). Images are f32 [N, 4, H, W] in [-1, 1] as `mmdgen.train.images` makes them, poses
f32 [N, 3] in the order of `POSES`. Height and width are any multiples of 8 from 16 on.

The preset ``article`` has the article's widths; ``small`` is the same design with a quarter of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdgen import rng
from mmdgen.errors import ConfigError
from mmdgen.train.images import CHANNELS

NETWORKS = ("morpher", "rotator", "combiner")
EXPRESSION = ("left_eye", "right_eye", "mouth")
ROTATION = ("head_x", "head_y", "neck_z")
POSES = {"morpher": EXPRESSION, "rotator": ROTATION, "combiner": ROTATION}
SIZE_STEP = 8
SIZE_MINIMUM = 16
_HALVINGS = 3


@dataclass(frozen=True, slots=True)
class Preset:
    """Widths of a network: `base` channels at full size, doubled at each halving up to `most`; `blocks` in the middle.

    Raises `ConfigError` when a number is not a whole one from 1 on.
    """

    name: str
    base: int
    most: int
    blocks: int

    def __post_init__(self) -> None:
        for field in ("base", "most", "blocks"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"preset {self.name!r}: {field} must be a whole number from 1 on, found {value!r}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at full, half, quarter and eighth size."""
        return tuple(min(self.base << level, self.most) for level in range(_HALVINGS + 1))


PRESETS = {preset.name: preset for preset in (Preset("article", 64, 512, 6), Preset("small", 16, 128, 3))}


class MorpherOutput(NamedTuple):
    """`image` = mask * input + (1 - mask) * change, all [N, 4, H, W]; `change` in [-1, 1], `mask` in [0, 1]."""

    image: Tensor
    change: Tensor
    mask: Tensor


class RotatorOutput(NamedTuple):
    """Two pictures of the same turned head, [N, 4, H, W], and what they were made from.

    `direct` = mask * input + (1 - mask) * change. `warped` is the input read at identity + `offset`, bilinear, beyond
    the border its nearest pixel. `offset` is [N, 2, H, W], x right then y down, in units where the centres of the first
    and last pixel are at -1 and 1: offset * (W - 1) / 2 (for y: H - 1) is in pixels.
    """

    direct: Tensor
    warped: Tensor
    offset: Tensor
    change: Tensor
    mask: Tensor


class CombinerOutput(NamedTuple):
    """`image` = retouch_mask * c + (1 - retouch_mask) * retouch with c = combine_mask * direct + (1 - that) * warped.

    All are [N, 4, H, W]; the masks in [0, 1], `retouch` in [-1, 1].
    """

    image: Tensor
    combine_mask: Tensor
    retouch_mask: Tensor
    retouch: Tensor


class ResidualBlock(nn.Module):
    """x + IN(Conv3(ReLU(IN(Conv3 x)))) on [N, C, H, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.InstanceNorm2d(width, affine=True),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.InstanceNorm2d(width, affine=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)


class EncoderDecoder(nn.Module):
    """[N, inputs, H, W] -> [N, base, H, W]: three halvings, residual blocks, three doublings."""

    def __init__(self, inputs: int, preset: Preset) -> None:
        super().__init__()
        full, half, quarter, eighth = preset.widths
        self.body = nn.Sequential(
            _same(inputs, full),
            _halve(full, half),
            _halve(half, quarter),
            _halve(quarter, eighth),
            *(ResidualBlock(eighth) for _ in range(preset.blocks)),
            _double(eighth, quarter),
            _double(quarter, half),
            _double(half, full),
        )

    def forward(self, planes: Tensor) -> Tensor:
        return self.body(planes)


class UNet(nn.Module):
    """As `EncoderDecoder`, but each size on the way up also sees the features of that size on the way down."""

    def __init__(self, inputs: int, preset: Preset) -> None:
        super().__init__()
        full, half, quarter, eighth = preset.widths
        self.down0 = _same(inputs, full)
        self.down1 = _halve(full, half)
        self.down2 = _halve(half, quarter)
        self.down3 = _halve(quarter, eighth)
        self.middle = nn.Sequential(*(ResidualBlock(eighth) for _ in range(preset.blocks)))
        self.up2 = _double(eighth, quarter)
        self.up1 = _double(2 * quarter, half)
        self.up0 = _double(2 * half, full)
        self.last = _same(2 * full, full)

    def forward(self, planes: Tensor) -> Tensor:
        down0 = self.down0(planes)
        down1 = self.down1(down0)
        down2 = self.down2(down1)
        up2 = self.up2(self.middle(self.down3(down2)))
        up1 = self.up1(torch.cat((up2, down2), dim=1))
        up0 = self.up0(torch.cat((up1, down1), dim=1))
        return self.last(torch.cat((up0, down0), dim=1))


class FaceMorpher(nn.Module):
    """(rest image, pose of `EXPRESSION`) -> the same head with that expression."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.body = EncoderDecoder(CHANNELS + len(EXPRESSION), preset)
        self.change = _head(preset.base, CHANNELS)
        self.mask = _head(preset.base, CHANNELS)

    def forward(self, image: Tensor, pose: Tensor) -> MorpherOutput:
        features = self.body(_with_pose((image,), pose))
        change, mask = _colour(self.change, features), _mask(self.mask, features)
        return MorpherOutput(_blend(mask, image, change), change, mask)


class TwoAlgorithmRotator(nn.Module):
    """(expression image, pose of `ROTATION`) -> the head turned, painted directly and by moving pixels."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.body = EncoderDecoder(CHANNELS + len(ROTATION), preset)
        self.change = _head(preset.base, CHANNELS)
        self.mask = _head(preset.base, CHANNELS)
        self.offset = _head(preset.base, 2)

    def forward(self, image: Tensor, pose: Tensor) -> RotatorOutput:
        features = self.body(_with_pose((image,), pose))
        change, mask = _colour(self.change, features), _mask(self.mask, features)
        offset = _exact(self.offset, features)
        return RotatorOutput(_blend(mask, image, change), warp(image, offset), offset, change, mask)


class Combiner(nn.Module):
    """(both images of the rotator, pose of `ROTATION`) -> one retouched image."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.body = UNet(2 * CHANNELS + len(ROTATION), preset)
        self.combine_mask = _head(preset.base, CHANNELS)
        self.retouch_mask = _head(preset.base, CHANNELS)
        self.retouch = _head(preset.base, CHANNELS)

    def forward(self, direct: Tensor, warped: Tensor, pose: Tensor) -> CombinerOutput:
        features = self.body(_with_pose((direct, warped), pose))
        combine_mask, retouch_mask = _mask(self.combine_mask, features), _mask(self.retouch_mask, features)
        retouch = _colour(self.retouch, features)
        combined = _blend(combine_mask, direct, warped)
        return CombinerOutput(_blend(retouch_mask, combined, retouch), combine_mask, retouch_mask, retouch)


def warp(image: Tensor, offset: Tensor) -> Tensor:
    """Return `image` [N, C, H, W] read at identity + `offset` [N, 2, H, W] (units as in `RotatorOutput`), f32.

    Bilinear, border pixels beyond the edge; the centres of the corner pixels are at -1 and 1. Always computed in f32:
    16-bit coordinates would be off by whole pixels.
    """
    height, width = _sides(offset)
    x = torch.linspace(-1, 1, width, dtype=torch.float32, device=offset.device)
    y = torch.linspace(-1, 1, height, dtype=torch.float32, device=offset.device)
    identity = torch.stack((x[None, :].expand(height, width), y[:, None].expand(height, width)), dim=2)
    grid = identity + offset.to(torch.float32).permute(0, 2, 3, 1)
    return functional.grid_sample(
        image.to(torch.float32), grid, mode="bilinear", padding_mode="border", align_corners=True
    )


def find_preset(preset: Preset | str) -> Preset:
    """Return the preset of a name, or the preset itself. Raises `ConfigError` with the known names."""
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
    return PRESETS[preset]


def check_size(size: int) -> int:
    """Return `size` if it can be the side of a picture for these networks. Raises `ConfigError` otherwise."""
    if size < SIZE_MINIMUM or size % SIZE_STEP:
        raise ConfigError(f"pictures must be {SIZE_MINIMUM} or more pixels, in steps of {SIZE_STEP}; found {size}")
    return size


def empty_network(name: str, preset: Preset | str) -> nn.Module:
    """Return a network whose parameters have shapes but no values (device ``meta``): free at any size.

    Raises `ConfigError` for unknown names.
    """
    classes = {"morpher": FaceMorpher, "rotator": TwoAlgorithmRotator, "combiner": Combiner}
    if name not in classes:
        raise ConfigError(f"unknown network {name!r}; there are {', '.join(NETWORKS)}")
    with torch.device("meta"):
        return classes[name](find_preset(preset))


def build_network(name: str, preset: Preset | str, seed: int = 0) -> nn.Module:
    """Return a new network on the CPU with the article's initial values, a function of (name, preset, seed) alone.

    Convolutions: He's normal distribution (`kaiming_normal_` with its defaults), the heads too; instance norms: scale 1
    and shift 0. torch's global generator is neither read nor moved. Raises `ConfigError` for unknown names.
    """
    network = empty_network(name, preset).to_empty(device="cpu")
    for path, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            stream = int(rng.generator(seed, "train", "weights", name, path).integers(2**63))
            nn.init.kaiming_normal_(layer.weight, generator=torch.Generator().manual_seed(stream))
        elif isinstance(layer, nn.InstanceNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


def parameter_count(network: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def example_inputs(name: str, size: int, device: str = "cpu", batch: int = 1) -> dict[str, Tensor]:
    """Return zeros of the shapes that a network's `forward` takes, by argument name and in its order."""
    images = ("direct", "warped") if name == "combiner" else ("image",)
    shapes = dict.fromkeys(images, (batch, CHANNELS, size, size)) | {"pose": (batch, len(POSES[name]))}
    return {argument: torch.zeros(shape, device=device) for argument, shape in shapes.items()}


def describe(name: str, preset: Preset | str, size: int) -> dict[str, Any]:
    """Return what a network consists of, ready for JSON; nothing is allocated and no weight is needed.

    Keys: ``network``, ``preset`` (name and numbers), ``image_size``, ``parameters``, ``pose`` (names in order),
    ``inputs`` and ``outputs`` (name to shape of one example) and ``layers`` in the order of the computation, each with
    ``name``, ``type``, ``input`` and ``output`` shape and ``parameters``. Raises `ConfigError` for unknown names and
    sizes.
    """
    preset, network, size = find_preset(preset), empty_network(name, preset), check_size(size)
    layers: list[dict[str, Any]] = []

    def note(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            shapes = {"input": list(given[0].shape[1:]), "output": list(result.shape[1:])}
            layers.append({"name": path, "type": type(layer).__name__, **shapes, "parameters": parameter_count(layer)})

        return hook

    for path, layer in network.named_modules():
        if not any(True for _ in layer.children()):
            layer.register_forward_hook(note(path))
    inputs = example_inputs(name, size, "meta")
    with torch.no_grad():
        outputs = network(**inputs)
    return {
        "network": name,
        "preset": asdict(preset),
        "image_size": size,
        "parameters": parameter_count(network),
        "pose": list(POSES[name]),
        "inputs": {key: list(value.shape[1:]) for key, value in inputs.items()},
        "outputs": {key: list(value.shape[1:]) for key, value in outputs._asdict().items()},
        "layers": layers,
    }


def _same(inputs: int, outputs: int) -> nn.Sequential:
    return _block(nn.Conv2d(inputs, outputs, 7, padding=3, bias=False), outputs)


def _halve(inputs: int, outputs: int) -> nn.Sequential:
    return _block(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False), outputs)


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return _block(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False), outputs)


def _block(convolution: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.InstanceNorm2d(width, affine=True), nn.ReLU(inplace=True))


def _head(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 7, padding=3, bias=False)


def _sides(images: Tensor) -> tuple[int, int]:
    """Return (H, W) as numbers, also while a graph is recorded: only the batch may vary in it."""
    return int(images.shape[2]), int(images.shape[3])


def _with_pose(images: tuple[Tensor, ...], pose: Tensor) -> Tensor:
    """Return images [N, 4, H, W] and the pose [N, P] as constant planes, in one tensor [N, 4 I + P, H, W]."""
    height, width = _sides(images[0])
    check_size(height)
    check_size(width)
    planes = pose.to(images[0].dtype)[:, :, None, None].expand(-1, -1, height, width)
    return torch.cat((*images, planes), dim=1)


# Under autocast the bodies and heads run in 16 bits, but what becomes a picture is computed in 32: near 1 a bfloat16
# has steps of 1/128, coarser than the pictures' own.
def _colour(head: nn.Module, features: Tensor) -> Tensor:
    return torch.tanh(head(features).to(torch.float32))


def _mask(head: nn.Module, features: Tensor) -> Tensor:
    return torch.sigmoid(head(features).to(torch.float32))


def _blend(mask: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return mask * first + (1 - mask) * second


def _exact(head: nn.Module, features: Tensor) -> Tensor:
    """Return head(features) in f32 even under autocast: a coordinate needs more digits than a bfloat16 has."""
    device = features.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return head(features).to(torch.float32)
    with torch.autocast(device, enabled=False):
        return head(features.to(torch.float32))
