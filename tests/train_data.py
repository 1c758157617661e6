"""A tiny dataset that can be learned from: coloured discs that move and change with the pose; no GL is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dataset_fixtures import entry

from mmdgen import rng
from mmdgen.dataset.manifest import make_manifest, write_manifest
from mmdgen.dataset.schema import DatasetConfig, ShardHeader, Vocabulary
from mmdgen.dataset.writer import ShardBuilder
from mmdgen.pose.vocabulary import THA1

SIZE = 32
NAMES = tuple(parameter.name for parameter in THA1.parameters)


def disc(size: int, x: float, y: float, radius: float) -> np.ndarray:
    """bool [size, size]: the pixels whose centre is in the disc; all in units of the picture's side."""
    row, column = (np.indices((size, size)) + 0.5) / size
    return (column - x) ** 2 + (row - y) ** 2 < radius**2


def head(model: int, pose: dict[str, float], size: int = SIZE) -> np.ndarray:
    """u8 [size, size, 4]: a head of the model's colour, moved by the rotation, with eyes and a mouth as in `pose`."""
    x = 0.5 - 0.12 * pose["head_y"] - 0.06 * pose["neck_z"]
    y = 0.5 - 0.12 * pose["head_x"]
    image = np.zeros((size, size, 4), np.uint8)
    colour = rng.generator(11, "colour", model).integers(90, 250, 3)
    image[disc(size, x, y, 0.33)] = (*colour.tolist(), 255)
    for side, name in ((0.12, "left_eye"), (-0.12, "right_eye")):
        shade = int(30 + 180 * pose[name])
        image[disc(size, x + side, y - 0.08, 0.07)] = (shade, shade, 40, 255)
    image[disc(size, x, y + 0.16, 0.04 + 0.07 * pose["mouth"])] = (150, 20, 30, 255)
    return image


def write_dataset(out: Path, *, train: int = 24, validation: int = 6, size: int = SIZE, seed: int = 5) -> Path:
    """Write a finished dataset with so many samples of two models a split; return its folder."""
    out.mkdir(parents=True)
    config = DatasetConfig(Vocabulary.of(THA1), size)
    infos, names = [], {}
    for split, count, first in (("train", train, 0), ("validation", validation, 2)):
        if not count:
            continue
        builder = ShardBuilder(ShardHeader(config, split, 0, ""))
        for model in (first, first + 1):
            names[entry(model).sha256] = (entry(model).name, entry(model).source)
            rest = {parameter.name: parameter.rest for parameter in THA1.parameters}
            row = builder.add_model(entry(model), head(model, rest, size))
            for index in range(count // 2):
                random = rng.generator(seed, split, model, index)
                pose = {p.name: float(random.uniform(p.low, p.high)) for p in THA1.parameters}
                face = {**pose, "head_x": 0.0, "head_y": 0.0, "neck_z": 0.0}
                values = np.array([pose[name] for name in NAMES], np.float32)
                builder.add_sample(row, values, head(model, face, size), head(model, pose, size))
        infos.append(builder.write(out))
    write_manifest(out, make_manifest(config, infos, names))
    return out
