"""A contact sheet: triples of rest, expression and posed image from several models, in poses as different as possible.

Datasets with flow show it as a fourth picture: the hue is the direction, the strength the length, grey what is hidden.

The choice and the picture are functions of the dataset alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmdgen.dataset.manifest import Manifest
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.remote import RemotePath
from mmdgen.dataset.schema import HIDDEN, NO_SURFACE, SPLITS
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.png import encode_png

TILE = 256  # larger images are reduced to about this
GAP, TRIPLE_GAP, MARGIN = 2, 14, 18
PAPER = np.array((250, 249, 247), np.float32)  # between the tiles
CHECKS = np.array(((236, 235, 232), (228, 227, 224)), np.float32)  # behind transparent pixels
CHECK = 16
MOST_TRIPLES = 1000

_POOL_SHARDS = 24  # so many shards are looked at, evenly spaced: enough variety, and quick for any size of dataset
_POOL_POSES = 200  # and so many poses of a model


def contact_sheet(
    path: str | Path | RemotePath,
    *,
    rows: int = 8,
    columns: int = 2,
    split: str | None = None,
    manifest: Manifest | None = None,
) -> bytes:
    """Return a PNG file of `rows` x `columns` triples rest | expression | posed (| flow) over a light checkerboard.

    `split` is by default the first one that has samples. `manifest` serves while manifest.json is not written yet.
    Raises `DatasetError` when there is no sample to show or a shard cannot be read, `ConfigError` for odd counts.
    """
    if rows < 1 or columns < 1 or rows * columns > MOST_TRIPLES:
        raise ConfigError(f"a sheet has 1 to {MOST_TRIPLES} triples, found {rows} rows and {columns} columns")
    dataset = Dataset(path, split or SPLITS[0], manifest=manifest)
    if split is None:
        filled = [name for name in SPLITS if dataset.manifest.samples(name)]
        if filled and filled[0] != dataset.split:
            dataset = Dataset(path, filled[0], manifest=dataset.manifest)
    if len(dataset) == 0:
        raise DatasetError(f"{path}: there is no sample to show" + (f" in the split {split}" if split else ""))
    return encode_png(_sheet(dataset, choose_samples(dataset, rows * columns), columns))


def choose_samples(dataset: Dataset, count: int) -> list[int]:
    """Return up to `count` sample numbers of the split: models in turn, each with the pose farthest from those before.

    Distances are Euclidean with every parameter's range scaled to 1; the rest pose counts as chosen.
    """
    candidates = _candidates(dataset)
    models = _spread(sorted(candidates), count)
    low, high = (np.array([getattr(p, name) for p in dataset.config.vocabulary.parameters]) for name in ("low", "high"))
    scale = 1 / np.maximum(high - low, 1e-9)
    rest = np.array([p.rest for p in dataset.config.vocabulary.parameters]) * scale
    seen = [rest]
    chosen: dict[int, list[int]] = {model: [] for model in models}
    # Distances to everything seen so far are kept up to date, so each turn costs one subtraction a candidate.
    scaled = {model: candidates[model][1] * scale for model in models}
    nearest = {model: np.linalg.norm(scaled[model] - rest, axis=1) for model in models}
    total = 0
    while total < count and any((nearest[model] >= 0).any() for model in models):
        for model in models:
            if total == count or not (nearest[model] >= 0).any():
                continue
            best = int(np.argmax(nearest[model]))
            chosen[model].append(int(candidates[model][0][best]))
            seen.append(scaled[model][best])
            for other in models:
                distance = np.linalg.norm(scaled[other] - seen[-1], axis=1)
                nearest[other] = np.where(nearest[other] < 0, -1, np.minimum(nearest[other], distance))
            nearest[model][best] = -1  # taken
            total += 1
    return [index for model in models for index in chosen[model]]


def _candidates(dataset: Dataset) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return (sample numbers, poses) of each model found in some evenly spaced shards, keyed in order of appearance."""
    found: dict[str, tuple[list[int], list[np.ndarray]]] = {}
    for start, shard in dataset.shards(_POOL_SHARDS):
        for row, entry in enumerate(shard.models):
            members = np.flatnonzero(shard.model == row)
            members = members[_even(len(members), _POOL_POSES)]
            if len(members):
                numbers, poses = found.setdefault(entry.sha256, ([], []))
                numbers.extend((start + members).tolist())
                poses.extend(shard.pose[members])
    return {
        place: (np.array(numbers), np.array(poses, np.float64)) for place, (numbers, poses) in enumerate(found.values())
    }


def _even(length: int, count: int) -> np.ndarray:
    """Return up to `count` evenly spaced positions in `length`."""
    return np.unique(np.linspace(0, length - 1, min(length, count)).round().astype(int)) if length else np.arange(0)


def _spread(items: list[int], count: int) -> list[int]:
    return [items[position] for position in _even(len(items), count)]


def _sheet(dataset: Dataset, chosen: list[int], columns: int) -> np.ndarray:
    """Return the picture of the chosen samples' triples, u8 [H, W, 3]."""
    factor = max(1, dataset.config.image_size // TILE)
    tile = dataset.config.image_size // factor
    columns = min(columns, len(chosen))
    rows = -(-len(chosen) // columns)
    pictures = 4 if dataset.config.flow else 3
    width = pictures * tile + (pictures - 1) * GAP
    sheet = np.empty(
        (
            2 * MARGIN + rows * tile + (rows - 1) * TRIPLE_GAP,
            2 * MARGIN + columns * width + (columns - 1) * TRIPLE_GAP,
            3,
        ),
        np.uint8,
    )
    sheet[:] = PAPER.astype(np.uint8)
    ground = _checkerboard(tile)
    for place, index in enumerate(chosen):
        sample = dataset[index]
        row, column = divmod(place, columns)
        top, left = MARGIN + row * (tile + TRIPLE_GAP), MARGIN + column * (width + TRIPLE_GAP)
        shown = [sample.rest, sample.expression, sample.posed]
        if sample.flow is not None and sample.visibility is not None:
            shown.append(flow_picture(sample.flow, sample.visibility))
        for image in shown:
            sheet[top : top + tile, left : left + tile] = _over(_reduced(image, factor), ground)
            left += tile + GAP
    return sheet


def flow_picture(flow: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Return a picture u8 [S, S, 4] of a flow f32 [S, S, 2] and visibility u8 [S, S]; an eighth of S is full strength.

    To the right is red, down yellow-green, left cyan, up violet; no displacement is white, what is hidden dark grey.
    """
    angle = np.arctan2(flow[..., 1], flow[..., 0])
    strength = np.minimum(np.hypot(flow[..., 0], flow[..., 1]) / (len(flow) / 8), 1)[..., None]
    hue = 0.5 + 0.5 * np.cos(angle[..., None] - np.array([0, 2, 4]) * np.pi / 3)
    color = 1 - strength * (1 - hue)
    color[visibility == HIDDEN] *= 0.35
    picture = np.concatenate([color, (visibility[..., None] != NO_SURFACE).astype(color.dtype)], axis=2)
    return np.rint(picture * picture[..., 3:] * 255).astype(np.uint8)


def _checkerboard(size: int) -> np.ndarray:
    row, column = np.indices((size, size)) // CHECK
    return CHECKS[(row + column) % 2]


def _reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the image made smaller by averaging boxes: f32 [S, S, 4], color times alpha and alpha in 0..1."""
    alpha = image[..., 3:].astype(np.float32) / 255
    premultiplied = np.concatenate([image[..., :3] * alpha, alpha], 2)
    size = image.shape[0] // factor
    cut = premultiplied[: size * factor, : size * factor]
    return cut.reshape(size, factor, size, factor, 4).mean((1, 3))


def _over(premultiplied: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Composite as image viewers do, in sRGB; u8 [S, S, 3]."""
    return (premultiplied[..., :3] + ground * (1 - premultiplied[..., 3:]) + 0.5).astype(np.uint8)
