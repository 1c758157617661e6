"""The combiner: (both pictures of the rotator; head_x, head_y, neck_z) -> one picture of the turned head.

In: what a trained rotator, frozen, makes of the dataset's expression image, and the rotation. (The article stored the
rotator's pictures beforehand; here they are made anew in each step, which gives the same.) Out: `CombinerOutput.image`,
to be the posed image. Loss: the mean absolute difference and 1/25 of the perceptual loss (the article, appendix A.3:
1,500,000 examples, batch 12; with L1 alone batch 20).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mmdgen.train.config import PERCEPTUAL, TrainOptions
from mmdgen.train.loader import Batch
from mmdgen.train.losses import COMBINER_WEIGHT, Perceptual, l1
from mmdgen.train.networks import CombinerOutput
from mmdgen.train.recipe import Example, Recipe
from mmdgen.train.runs import Loaded


class CombinerRecipe(Recipe):
    """`rotator` is the trained one; `weights` names its file ``rotator``, and ``vgg`` with the perceptual loss."""

    name = "combiner"
    given = "expression"
    target = "posed"

    def __init__(self, options: TrainOptions, rotator: Loaded, weights: Mapping[str, Path] | None = None) -> None:
        super().__init__(options, weights)
        self.rotator = rotator.network.requires_grad_(False)
        self.perceptual = Perceptual(self.weights["vgg"]) if options.loss == PERCEPTUAL else None

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        return (self.rotator,) if self.perceptual is None else (self.rotator, self.perceptual)

    def example(self, batch: Batch) -> Example:
        turned = super().example(batch)
        with torch.no_grad():
            direct, warped, *_ = self.rotator(*turned.inputs)
        return turned._replace(inputs=(direct, warped, turned.inputs[1]))

    def losses(self, output: CombinerOutput, example: Example, perceptual: bool) -> dict[str, Tensor]:
        parts = {"l1": l1(output.image, example.target)}
        if perceptual and self.perceptual is not None:
            parts["perceptual"] = COMBINER_WEIGHT * self.perceptual(output.image, example.target)
        return parts

    def pictures(self, output: CombinerOutput) -> dict[str, Tensor]:
        return {"image": output.image}
