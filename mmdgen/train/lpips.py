"""LPIPS: how different two pictures look, by the activations of VGG16 (Zhang et al., 2018, version 0.1, linear).

VGG16 is our own (`mmdgen.train.vgg`, its weights a file of the user's); the five heads, one non-negative number a
channel, are the file that torchmetrics brings along; torchvision is not needed. Equal pictures have distance 0 exactly.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mmdgen.errors import ConfigError
from mmdgen.train.vgg import Vgg16, load_vgg16, vgg16_weights

RELUS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
WIDTHS = (64, 128, 256, 512, 512)
LEAST_SIZE = 16  # four halvings
AUTO, OFF = "auto", "off"
# LPIPS has its own normalisation of RGB in [-1, 1], nearly but not exactly ImageNet's.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
_LITTLE = 1e-8  # under the root of a length, so that a pixel without any activation can be divided by it
_HEADS_FILE = "functional/image/lpips_models/vgg.pth"


class Lpips(nn.Module):
    """Two batches of RGB pictures f32 [N, 3, H, W] in [0, 1] -> their distances f32 [N], 0 or more.

    `backbone` gives the activations of `RELUS`, `heads` are f32 [C] for each of them.
    """

    def __init__(self, backbone: Vgg16, heads: Sequence[Tensor]) -> None:
        super().__init__()
        self.backbone = backbone
        for number, head in enumerate(heads):
            self.register_buffer(f"head{number}", head)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.requires_grad_(False)
        self.eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        if min(first.shape[2:]) < LEAST_SIZE:
            raise ConfigError(f"LPIPS needs pictures of at least {LEAST_SIZE} pixels, found {list(first.shape[2:])}")
        sides = [self.backbone(self._scaled(picture), RELUS) for picture in (first, second)]
        total = torch.zeros(len(first), device=first.device)
        for number, pair in enumerate(zip(*sides, strict=True)):
            difference = _unit(pair[0]) - _unit(pair[1])
            head = self.get_buffer(f"head{number}")
            total = total + (difference.square() * head[:, None, None]).sum(1).mean((1, 2))
        return total

    def _scaled(self, picture: Tensor) -> Tensor:
        return (2 * picture - 1 - self.get_buffer("shift")) / self.get_buffer("scale")


def load_lpips(weights: Path, device: str | torch.device = "cpu") -> Lpips:
    """Return LPIPS with VGG16's weights from a torchvision file (.pth).

    Raises `ConfigError` when the file is missing or not VGG16, or torchmetrics' heads are not what they should be.
    """
    return Lpips(load_vgg16(vgg16_weights(weights), RELUS[-1]), load_heads()).to(device)


def find_lpips(option: str, device: str | torch.device = "cpu") -> tuple[Lpips | None, str]:
    """Return LPIPS for an option of the command line, or None and the reason.

    `OFF`: None. `AUTO`: with the weights in torchvision's cache, None when there are none. Else the weights' path.
    Raises `ConfigError` when a named file, or the one found, cannot be used.
    """
    if option == OFF:
        return None, "switched off"
    if option != AUTO:
        return load_lpips(Path(option), device), ""
    try:
        weights = vgg16_weights(None)
    except ConfigError as error:
        return None, str(error)
    return load_lpips(weights, device), ""


def load_heads() -> list[Tensor]:
    """Return the heads of LPIPS-VGG, f32 [C] for each of `RELUS`, from torchmetrics' own file.

    Raises `ConfigError` when this torchmetrics does not have them.
    """
    file = importlib.resources.files("torchmetrics") / _HEADS_FILE
    try:
        with importlib.resources.as_file(file) as path:
            state = torch.load(path, map_location="cpu", weights_only=True)
        heads = [state[f"lin{number}.model.1.weight"].reshape(-1).to(torch.float32) for number in range(len(RELUS))]
    except (OSError, KeyError, RuntimeError, AttributeError) as error:
        raise ConfigError(
            f"torchmetrics' heads of LPIPS cannot be read ({error}): install torchmetrics anew"
        ) from error
    if tuple(len(head) for head in heads) != WIDTHS or any(bool((head < 0).any()) for head in heads):
        raise ConfigError(
            f"torchmetrics' heads of LPIPS are not those of VGG16: {[len(head) for head in heads]} channels"
        )
    return heads


def _unit(features: Tensor) -> Tensor:
    """Return features [N, C, H, W] with every pixel's vector divided by its length."""
    return features / (features.square().sum(1, keepdim=True) + _LITTLE).sqrt()
