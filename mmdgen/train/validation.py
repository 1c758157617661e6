"""Validation during training: how well the network does on fixed samples of the validation split.

The samples are evenly spaced over the split, so they show as many characters as they can, and are the same each time.
Scores are those of `mmdgen evaluate` on ``linear`` pictures and ``all`` pixels (see `mmdgen.train.metrics`): mean
absolute difference and RMSE of each picture in [0, 1], averaged over the pictures. Beside them stands the identity's
score: that of the picture which the network was given, unchanged.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmdgen.train.grids import grid_png
from mmdgen.train.images import from_network
from mmdgen.train.loader import Batch, make_loader
from mmdgen.train.recipe import Recipe

SPLIT = "validation"
IDENTITY = "identity"
GRID_ROWS = 8
_BATCH = 8


class Validation:
    """Up to `count` samples of the validation split, kept decoded on the host. Raises what the loader raises."""

    def __init__(self, data: Path, recipe: Recipe, count: int) -> None:
        self._recipe = recipe
        loader = make_loader(
            data,
            SPLIT,
            batch=_BATCH,
            seed=0,
            workers=0,
            fields=recipe.fields,
            shuffle=False,
            limit=count,
            spread=True,
        )
        with loader:
            self._batches = list(loader)
        total = sum(len(batch) for batch in self._batches)
        self.samples = total
        self._shown = set(np.unique(np.linspace(0, total - 1, min(GRID_ROWS, total)).round().astype(int)).tolist())

    def run(
        self, network: nn.Module, device: torch.device, autocast: AbstractContextManager[Any], *, pictures: bool
    ) -> tuple[dict[str, dict[str, float]], bytes]:
        """Return the scores by output's name (and `IDENTITY`), and with `pictures` the PNG of the sample grid.

        A row of the grid is one sample: what was given, what was wanted, then the network's outputs in order. The
        network stays in the mode that it is in; `autocast` is entered once.
        """
        sums: dict[str, np.ndarray] = {}
        columns: dict[str, list[np.ndarray]] = {}
        start = 0
        with torch.no_grad(), autocast:
            for batch in self._batches:
                named = self._answers(network, batch, device)
                target = named.pop("target")
                for name, image in named.items():
                    sums[name] = sums.get(name, np.zeros(2)) + _errors(image, target)
                rows = [row for row in range(len(batch)) if start + row in self._shown]
                start += len(batch)
                if pictures and rows:
                    for name, image in {IDENTITY: named.pop(IDENTITY), "target": target, **named}.items():
                        columns.setdefault(name, []).append(from_network(image[rows]).cpu().numpy())
        scores = {
            name: {"mae": float(total[0] / self.samples), "rmse": float(total[1] / self.samples)}
            for name, total in sums.items()
        }
        return scores, grid_png([np.concatenate(parts) for parts in columns.values()]) if pictures else b""

    def _answers(self, network: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        example = self._recipe.example(batch.to(device))
        outputs = self._recipe.pictures(network(*example.inputs))
        return {IDENTITY: example.given, "target": example.target, **outputs}


def _errors(image: Tensor, target: Tensor) -> np.ndarray:
    """Return the sums over pictures of MAE and RMSE in [0, 1], f64 [2]; what is outside the range is clipped."""
    difference = (image.float().clamp(-1, 1) - target).flatten(1) / 2
    mae, rmse = difference.abs().mean(1), difference.square().mean(1).sqrt()
    return torch.stack((mae, rmse)).double().sum(1).cpu().numpy()
