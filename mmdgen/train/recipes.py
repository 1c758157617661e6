"""From options to a recipe: which files of other weights each network's training needs, and where they are."""

from __future__ import annotations

from pathlib import Path

from mmdgen.errors import ConfigError
from mmdgen.train.combiner import CombinerRecipe
from mmdgen.train.config import PERCEPTUAL, TrainOptions
from mmdgen.train.losses import vgg16_weights
from mmdgen.train.morpher import MorpherRecipe
from mmdgen.train.recipe import Recipe
from mmdgen.train.rotator import RotatorRecipe
from mmdgen.train.runs import WEIGHTS_NAME, load_network


def make_recipe(
    options: TrainOptions, run: Path, *, image_size: int, vgg: Path | None = None, rotator: Path | None = None
) -> Recipe:
    """Return the recipe of `options.network` for a dataset of `image_size`.

    `vgg` is the file with VGG16's weights (torchvision's cache if None), `rotator` the run with the combiner's rotator
    (`run` if None). Raises `ConfigError` when the perceptual loss has no weights, `TrainError` without a rotator.
    """
    weights: dict[str, Path] = {}
    if options.loss == PERCEPTUAL:
        try:
            weights["vgg"] = vgg16_weights(vgg)
        except ConfigError as error:
            raise ConfigError(
                f"the article's loss of the {options.network} needs VGG16: {error}. Without it: --loss l1"
            ) from error
    if options.network == "morpher":
        return MorpherRecipe(options, weights)
    if options.network == "rotator":
        return RotatorRecipe(options, weights)
    source = rotator or run
    loaded = load_network(source, "rotator")
    if loaded.image_size != image_size:
        raise ConfigError(
            f"{source}: its rotator learned on pictures of {loaded.image_size} pixels, and the dataset has {image_size}"
        )
    weights["rotator"] = source / "rotator" / WEIGHTS_NAME
    return CombinerRecipe(options, loaded, weights)
