"""What the networks are trained to make small.

All losses are means: over examples, channels and pixels. With sums instead, as the article writes them, its weights
lambda_j = c (4 * 256 * 256) / (C_j H_j W_j) turn each perceptual term into c times a mean beside a mean pixel
difference; so here c alone is the weight, at any picture size.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdgen.errors import ConfigError
from mmdgen.train import vgg
from mmdgen.train.vgg import vgg16_weights

__all__ = ["COMBINER_WEIGHT", "LAYERS", "ROTATOR_WEIGHT", "Perceptual", "flow_loss", "l1", "vgg16_weights"]

LAYERS = ("relu1_2", "relu2_2", "relu3_3")
# The article's c of each network.
ROTATOR_WEIGHT = 1 / 5
COMBINER_WEIGHT = 1 / 25
# Values of a sample's visibility: only there is the displacement visible in both pictures.
_VISIBLE = 2


def l1(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of two tensors of one shape, a scalar in f32."""
    return functional.l1_loss(image.to(torch.float32), target.to(torch.float32))


class Perceptual(nn.Module):
    """Sum over VGG16's relu1_2, relu2_2 and relu3_3 of mean |phi(I) - phi(J)|, of colour and of alpha shown as grey.

    The caller multiplies by c (`ROTATOR_WEIGHT`, `COMBINER_WEIGHT`). The article does not say how pictures enter VGG16.
    Here: network images [N, 4, H, W] in [-1, 1] are mapped to [0, 1] as they are (linear light, straight alpha), then
    normalised as for ImageNet (`vgg.normalise`); alpha is repeated in three channels and treated alike. Sides must be
    multiples of 4. Weights are frozen; move the module to the device of the images.
    """

    def __init__(self, weights: Path | str) -> None:
        """Read VGG16's weights from a file (see `vgg16_weights`). Raises `ConfigError`."""
        super().__init__()
        self.vgg = vgg.load_vgg16(weights, last=LAYERS[-1])

    def train(self, mode: bool = True) -> Perceptual:
        """Stay in evaluation mode: nothing here is trained."""
        return super().train(False)

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the activations of `LAYERS` for images [N, 4, H, W]: [2 N, C, H', W'], colours first, then alpha."""
        if images.ndim != 4 or images.shape[1] != 4:
            raise ConfigError(f"the perceptual loss takes images [N, 4, H, W], found {list(images.shape)}")
        value = (images.to(torch.float32) + 1) / 2
        planes = torch.cat((value[:, :3], value[:, 3:].expand(-1, 3, -1, -1)))
        return self.vgg(vgg.normalise(planes), LAYERS)

    def between(self, image: Tensor, target: tuple[Tensor, ...]) -> Tensor:
        """Return the loss of images against the `features` of their targets (several images may share a target)."""
        total = torch.zeros((), device=image.device)
        for own, other in zip(self.features(image), target, strict=True):
            # Half of the 2 N are colours and half alpha: twice the common mean is the sum of the two means.
            total = total + 2 * l1(own, other)
        return total

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the loss of images against targets, both [N, 4, H, W]; no gradient goes into the targets."""
        with torch.no_grad():
            features = self.features(target)
        return self.between(image, features)


def flow_loss(offset: Tensor, flow: Tensor, visibility: Tensor) -> Tensor:
    """Return how far the rotator's offsets are from the renderer's displacements, where both pictures show the point.

    `offset` is [N, 2, H, W] in the units of `RotatorOutput`, `flow` [N, H, W, 2] in pixels (x right, y down, from posed
    to expression image), `visibility` u8 [N, H, W], 2 where the point is visible in both. The mean absolute difference
    over those pixels and both axes, in units of `offset` (2 / (W - 1) a pixel), so that its size does not depend on
    the picture's; 0 if there are none. Raises `ConfigError` when the shapes do not belong together.
    """
    count, _, height, width = offset.shape
    if flow.shape != (count, height, width, 2) or visibility.shape != (count, height, width) or offset.shape[1] != 2:
        raise ConfigError(
            f"offset {list(offset.shape)}, flow {list(flow.shape)} and visibility {list(visibility.shape)} are not of "
            "one batch: expected [N, 2, H, W], [N, H, W, 2] and [N, H, W]"
        )
    # Plain numbers: a new tensor of them on a GPU would make the caller wait for it.
    x, y = flow.to(torch.float32).unbind(dim=3)
    wanted = torch.stack((x * (2 / (width - 1)), y * (2 / (height - 1))), dim=1)
    visible = (visibility == _VISIBLE)[:, None]
    # Chosen before the difference: whatever stands in `flow` elsewhere can reach neither value nor gradient.
    difference = (offset.to(torch.float32) - torch.where(visible, wanted, 0)).abs() * visible
    return difference.sum() / (2 * visible.sum()).clamp(min=1)
