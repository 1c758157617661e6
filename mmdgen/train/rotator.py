"""The two-algorithm rotator: (expression image; head_x, head_y, neck_z) -> the head turned, in two ways.

In: the dataset's expression image, which the morpher will make later, and the three numbers of the rotation. Out:
`RotatorOutput.direct`, painted, and `.warped`, made by moving pixels; each is to be the posed image. Loss, the sum over
both of: the mean absolute difference and, after the first 250,000 examples, 1/5 of the perceptual loss (the article,
appendix A.2: batch 25 with L1 alone, 8 with both). With `flow_weight` w also w times the mean distance of the moved
pixels' offsets to where the renderer says that they come from; the article had no such thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mmdgen.errors import ConfigError
from mmdgen.train.config import PERCEPTUAL, TrainOptions
from mmdgen.train.losses import ROTATOR_WEIGHT, Perceptual, flow_loss, l1
from mmdgen.train.networks import RotatorOutput
from mmdgen.train.recipe import Example, Recipe


class RotatorRecipe(Recipe):
    """`weights` names the file ``vgg`` when the loss is the perceptual one. Raises `ConfigError` for a bad file."""

    name = "rotator"
    given = "expression"
    target = "posed"

    def __init__(self, options: TrainOptions, weights: Mapping[str, Path] | None = None) -> None:
        super().__init__(options, weights)
        self.perceptual = Perceptual(self.weights["vgg"]) if options.loss == PERCEPTUAL else None

    @property
    def flow(self) -> bool:
        return self.options.flow_weight > 0

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        return () if self.perceptual is None else (self.perceptual,)

    def losses(self, output: RotatorOutput, example: Example, perceptual: bool) -> dict[str, Tensor]:
        images = self.pictures(output)
        parts = {f"l1_{name}": l1(image, example.target) for name, image in images.items()}
        if perceptual and self.perceptual is not None:
            with torch.no_grad():
                wanted = self.perceptual.features(example.target)  # both pictures have the same target
            for name, image in images.items():
                parts[f"perceptual_{name}"] = ROTATOR_WEIGHT * self.perceptual.between(image, wanted)
        if self.flow:
            flow, visibility = example.batch.flow, example.batch.visibility
            if flow is None or visibility is None:
                raise ConfigError("the batch was read without flow")
            parts["flow"] = self.options.flow_weight * flow_loss(output.offset, flow, visibility)
        return parts

    def pictures(self, output: RotatorOutput) -> dict[str, Tensor]:
        return {"direct": output.direct, "warped": output.warped}
