"""Pictures as files hold them to pictures as networks see them, and back.

The article's networks work on linear light (reference: the first version's released code): channels R, G, B, A, each
mapped from [0, 1] to [-1, 1], colours linear, alpha straight. Everything runs on the device of the tensor it is given.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdgen.errors import ConfigError

CHANNELS = 4
# Where the two branches of the sRGB curve meet, on the encoded and on the linear side.
_ENCODED_KNEE = 0.04045
_LINEAR_KNEE = 0.0031308049535603713


def srgb_to_linear(value: Tensor) -> Tensor:
    """Return linear light in [0, 1] of sRGB values in [0, 1], any shape (IEC 61966-2-1)."""
    return torch.where(value <= _ENCODED_KNEE, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: Tensor) -> Tensor:
    """Return sRGB values in [0, 1] of linear light, any shape; what is outside [0, 1] is clipped first."""
    value = value.clamp(0, 1)
    # The power's slope is infinite at 0: clamped there, so that a gradient through this stays finite.
    power = 1.055 * value.clamp(min=_LINEAR_KNEE) ** (1 / 2.4) - 0.055
    return torch.where(value <= _LINEAR_KNEE, value * 12.92, power)


def to_network(pictures: Tensor) -> Tensor:
    """Return f32 [N, 4, H, W] in [-1, 1], linear, straight alpha, of u8 [N, H, W, 4] sRGB pictures.

    Colours are 0 light (-1) wherever alpha is 0, whatever the picture holds there. Raises `ConfigError` for another
    shape or type.
    """
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[3] != CHANNELS:
        raise ConfigError(
            f"pictures for a network must be uint8 [N, H, W, {CHANNELS}], found {_name(pictures)}: add the missing "
            "axis or convert the picture to RGBA"
        )
    value = pictures.permute(0, 3, 1, 2).to(torch.float32) / 255
    colour, alpha = value[:, :3], value[:, 3:]
    colour = srgb_to_linear(colour) * (alpha > 0)
    return (2 * torch.cat((colour, alpha), dim=1) - 1).contiguous()


def from_network(images: Tensor) -> Tensor:
    """Return u8 [N, H, W, 4] sRGB pictures of network images [N, 4, H, W] in [-1, 1], any float type.

    Values outside the range are clipped and rounded to the nearest step; RGB is 0 where the stored alpha is 0. The
    exact inverse of `to_network` for pictures that keep that rule. Raises `ConfigError` for another shape or type.
    """
    if not images.is_floating_point() or images.ndim != 4 or images.shape[1] != CHANNELS:
        raise ConfigError(f"network images must be float [N, {CHANNELS}, H, W], found {_name(images)}")
    value = (images.to(torch.float32) + 1) / 2
    colour, alpha = linear_to_srgb(value[:, :3]), value[:, 3:].clamp(0, 1)
    stored = (torch.cat((colour, alpha), dim=1) * 255).round()
    stored[:, :3] *= stored[:, 3:] > 0
    return stored.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _name(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
