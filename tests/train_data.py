"""A tiny dataset that can be learned from: coloured discs that move and change with the pose; no GL is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def head(model: int, pose: dict[str, float], size: int = SIZE, vivid: bool = False) -> np.ndarray:
    """u8 [size, size, 4]: a head of the model's colour, moved by the rotation, with eyes and a mouth as in `pose`.

    A `vivid` one stands before coloured waves that move with it and change with the mouth, so that the picture which a
    network is given is wrong nearly everywhere.
    """
    right, down = shift(pose)
    x, y = 0.5 + right, 0.5 + down
    image = np.zeros((size, size, 4), np.uint8)
    colour = rng.generator(11, "colour", model).integers(90, 250, 3)
    if vivid:
        row, column = (np.indices((size, size)) + 0.5) / size
        for channel, tone in enumerate(colour / 250):
            wave = np.sin(5 * (column - x) + channel + model) * np.cos(4 * (row - y) - channel) + 2 * pose["mouth"] - 1
            image[..., channel] = 128 + 60 * tone * wave
        image[..., 3] = 255
    image[disc(size, x, y, 0.33)] = (*colour.tolist(), 255)
    for side, name in ((0.12, "left_eye"), (-0.12, "right_eye")):
        shade = int(30 + 180 * pose[name])
        image[disc(size, x + side, y - 0.08, 0.07)] = (shade, shade, 40, 255)
    image[disc(size, x, y + 0.16, 0.04 + 0.07 * pose["mouth"])] = (150, 20, 30, 255)
    return image


def shift(pose: dict[str, float]) -> tuple[float, float]:
    """How far right and down the rotation moves the head, in units of the picture's side."""
    return -0.12 * pose["head_y"] - 0.06 * pose["neck_z"], -0.12 * pose["head_x"]


def flow_of(pose: dict[str, float], size: int = SIZE) -> dict[str, np.ndarray]:
    """The exact flow f32 [size, size, 2] of the posed head, and its visibility: 2 on the head, else 0."""
    right, down = shift(pose)
    inside = disc(size, 0.5 + right, 0.5 + down, 0.33)
    flow = np.where(inside[..., None], np.array([-right, -down]) * size, 0).astype(np.float32)
    return {"flow": flow, "visibility": np.where(inside, 2, 0).astype(np.uint8)}


def write_dataset(
    out: Path,
    *,
    train: int = 24,
    validation: int = 6,
    size: int = SIZE,
    seed: int = 5,
    vivid: bool = False,
    flow: bool = False,
) -> Path:
    """Write a finished dataset with so many samples of two models a split; return its folder."""
    out.mkdir(parents=True)
    config = DatasetConfig(Vocabulary.of(THA1), size, flow=flow)
    infos, names = [], {}
    for split, count, first in (("train", train, 0), ("validation", validation, 2)):
        if not count:
            continue
        builder = ShardBuilder(ShardHeader(config, split, 0, ""))
        for model in (first, first + 1):
            names[entry(model).sha256] = (entry(model).name, entry(model).source)
            rest = {parameter.name: parameter.rest for parameter in THA1.parameters}
            row = builder.add_model(entry(model), head(model, rest, size, vivid))
            for index in range(count // 2):
                random = rng.generator(seed, split, model, index)
                pose = {p.name: float(random.uniform(p.low, p.high)) for p in THA1.parameters}
                face = {**pose, "head_x": 0.0, "head_y": 0.0, "neck_z": 0.0}
                values = np.array([pose[name] for name in NAMES], np.float32)
                extra: dict[str, Any] = flow_of(pose, size) if flow else {}
                images = (head(model, each, size, vivid) for each in (face, pose))
                builder.add_sample(row, values, *images, **extra)
        infos.append(builder.write(out))
    write_manifest(out, make_manifest(config, infos, names))
    return out


def lines(run: Path, network: str, event: str = "") -> list[dict[str, Any]]:
    """The lines of a run's log, those of one event or all."""
    found = map(json.loads, (run / network / "log.jsonl").read_text("utf-8").splitlines())
    return [line for line in found if not event or line["event"] == event]


def files(folder: Path) -> dict[str, bytes]:
    """The weights that a run has, by file: of the network, and of its checkpoint."""
    found = [folder / "weights.safetensors", *folder.glob("checkpoint/*/weights.safetensors")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
