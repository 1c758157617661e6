"""A picture grid of an evaluation: samples drawn by lot and the worst, with what was given, wanted and answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmdgen import rng
from mmdgen.dataset.reader import Dataset
from mmdgen.png import encode_png
from mmdgen.train import baselines
from mmdgen.train.evaluate import IDENTITY, NEAREST, Evaluation, Predictor, Result, exact_convolutions
from mmdgen.train.images import to_network
from mmdgen.train.metrics import linear_space, seen
from mmdgen.train.networks import EXPRESSION, ROTATION

RANDOM_ROWS, WORST_ROWS = 6, 6
SMALLEST_TILE = 128  # smaller pictures are shown enlarged by a whole number
GAP, BAR, PART_GAP = 2, 6, 12
PAPER, RANDOM_COLOR, WORST_COLOR = (250, 249, 247), (150, 150, 155), (214, 69, 65)
AMPLIFIED = 2  # differences are shown so many times as strong


def columns(result: Result) -> tuple[str, ...]:
    """Return what the grid's columns show, from left to right."""
    names = ["given", "wanted"]
    for method in (*result.methods, IDENTITY, NEAREST):
        names += [method, f"{method} - wanted"] if method != IDENTITY else ["given - wanted"]
    return tuple(names)


def chosen_rows(evaluation: Evaluation, result: Result) -> tuple[np.ndarray, np.ndarray]:
    """Return which samples are shown, places in `evaluation.samples`: some by lot, and the worst of the last method.

    The lot is fixed: the same for every task and run on the same samples.
    """
    count = len(evaluation.samples)
    order = rng.generator(0, "evaluate", "grid").permutation(count)
    return order[:RANDOM_ROWS], evaluation.worst(result, result.methods[-1], WORST_ROWS)


def comparison_png(
    predictor: Predictor, data: str | Path, evaluation: Evaluation, result: Result, device: str | torch.device = "cpu"
) -> bytes:
    """Return a PNG file: one row a sample, the `columns` side by side, everything as seen over white.

    A grey bar marks samples drawn by lot, a red one the worst. Differences are the mean over R, G and B, `AMPLIFIED`
    times, white where there is none; black from 0.5 on. Without a neighbour its two tiles are empty.
    """
    dataset = Dataset(data, evaluation.split_name)
    parts = zip(chosen_rows(evaluation, result), (RANDOM_COLOR, WORST_COLOR), strict=True)
    blocks = []
    for places, color in parts:
        tiles = _tiles(predictor, dataset, evaluation, result, places, device)
        blocks.append(_block(tiles, color))
    paper = np.broadcast_to(np.array(PAPER, np.uint8), (PART_GAP, blocks[0].shape[1], 3))
    return encode_png(np.concatenate([paper, blocks[0], paper, blocks[1], paper]))


def _tiles(
    predictor: Predictor,
    dataset: Dataset,
    evaluation: Evaluation,
    result: Result,
    places: np.ndarray,
    device: str | torch.device,
) -> list[np.ndarray]:
    """Return the columns of the samples at `places`: u8 [n, H, W, 3] each."""
    numbers = evaluation.samples[places]
    samples = [dataset[int(number)] for number in numbers]

    def network(pictures: Sequence[np.ndarray]) -> Tensor:
        return to_network(torch.from_numpy(np.stack(pictures)).to(device))

    pictures = {name: network([getattr(s, name) for s in samples]) for name in ("rest", "expression", "posed")}
    poses = torch.from_numpy(np.stack([sample.pose for sample in samples])).to(device)
    names = list(evaluation.split.names)
    expression, rotation = (poses[:, [names.index(name) for name in wanted]] for wanted in (EXPRESSION, ROTATION))
    with torch.inference_mode(), exact_convolutions():
        outputs = predictor.outputs(pictures, expression, rotation)
    given, wanted = (seen(linear_space(pictures[name])) for name in (result.task.given, result.task.wanted))
    tiles = [_bytes(given), _bytes(wanted)]
    for method in result.methods:
        output = seen(linear_space(outputs[method]))
        tiles += [_bytes(output), _difference(output, wanted)]
    tiles.append(_difference(given, wanted))
    neighbours = result.neighbour[places]
    known = neighbours != baselines.NONE
    found = [dataset[int(n)] if n != baselines.NONE else sample for n, sample in zip(neighbours, samples, strict=True)]
    nearest = seen(linear_space(network([getattr(sample, result.task.wanted) for sample in found])))
    for tile in (_bytes(nearest), _difference(nearest, wanted)):
        tile[~known] = PAPER
        tiles.append(tile)
    return tiles


def _bytes(picture: Tensor) -> np.ndarray:
    return (picture.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).cpu().numpy().copy()


def _difference(output: Tensor, wanted: Tensor) -> np.ndarray:
    strength = ((output - wanted).abs().mean(1, keepdim=True) * AMPLIFIED).clamp(0, 1)
    return _bytes((1 - strength).expand(-1, 3, -1, -1))


def _block(tiles: list[np.ndarray], color: tuple[int, int, int]) -> np.ndarray:
    """Return the rows with the bar at their left, u8 [H, W, 3]."""
    count, size = tiles[0].shape[:2]
    factor = max(1, SMALLEST_TILE // size)
    step = size * factor + GAP
    block = np.empty((count * step, BAR + GAP + len(tiles) * step, 3), np.uint8)
    block[:] = PAPER
    block[:, :BAR] = color
    for row in range(count):
        for column, tile in enumerate(tiles):
            large = tile[row].repeat(factor, 0).repeat(factor, 1)
            top, left = row * step, BAR + GAP + column * step
            block[top : top + size * factor, left : left + size * factor] = large
    return block
