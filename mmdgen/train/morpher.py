"""The face morpher: (rest image; left eye, right eye, mouth) -> the same head with that expression.

In: the character's rest image and the three numbers of its expression. Out: `MorpherOutput.image`, to be the
dataset's expression image, in which the head has not moved. Loss: the mean absolute difference, nothing else (the
article, appendix A.1: batch 25, 3,000,000 examples).
"""

from __future__ import annotations

from torch import Tensor

from mmdgen.train.losses import l1
from mmdgen.train.networks import MorpherOutput
from mmdgen.train.recipe import Example, Recipe


class MorpherRecipe(Recipe):
    name = "morpher"
    given = "rest"
    target = "expression"

    def losses(self, output: MorpherOutput, example: Example, perceptual: bool) -> dict[str, Tensor]:
        return {"l1": l1(output.image, example.target)}

    def pictures(self, output: MorpherOutput) -> dict[str, Tensor]:
        return {"image": output.image}
