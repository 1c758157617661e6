"""How far a picture is from the one it should be: per picture, in two spaces and under three masks.

Spaces, both with values in [0, 1]:

* ``linear``: what the networks work on, linear light R, G, B and straight alpha, all four channels alike. The networks'
  own range is [-1, 1], twice as wide: there MAE and RMSE are twice, MSE four times what is written here.
* ``srgb``: what a person sees, the picture put over white as viewers do (in sRGB values); three channels. Colours
  that alpha hides do not count here, while they do in ``linear``.

Masks: ``all`` pixels; ``head``, the middle half of the rows and columns, where chin and skull top lie at rest;
``changed``, the pixels where given and wanted picture differ in any of their four stored bytes.

Measures, each per picture: ``mae`` and ``mse`` are means over the mask's pixels and the channels, ``rmse`` is the root
of that picture's ``mse``, ``ssim`` the mean over the mask's pixels and the channels of torchmetrics' SSIM map. SSIM's
windows (Gaussian, sigma 1.5, 11 x 11, mirrored at the borders; K1 0.01, K2 0.03, data range 1) look at the whole
picture, also near a mask's border. A picture in which a mask has no pixel has NaN there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mmdgen.errors import ConfigError
from mmdgen.train.images import linear_to_srgb

LINEAR, SRGB = "linear", "srgb"
SPACES = (LINEAR, SRGB)
ALL, HEAD, CHANGED = "all", "head", "changed"
MASKS = (ALL, HEAD, CHANGED)
MEASURES = ("mae", "mse", "rmse", "ssim")
LPIPS = "lpips"

SSIM_SIGMA, SSIM_WINDOW, SSIM_K1, SSIM_K2, DATA_RANGE = 1.5, 11, 0.01, 0.03, 1.0
LEAST_SIZE = SSIM_WINDOW // 2 + 1  # a mirrored border must be narrower than the picture

DEFINITIONS = {
    "linear": "linear light R, G, B and straight alpha in [0, 1], all four channels alike; in the networks' own range "
    "[-1, 1] MAE and RMSE are twice and MSE four times as large",
    "srgb": "sRGB in [0, 1], put over white in sRGB values as viewers do, channels R, G, B",
    "all": "every pixel",
    "head": "rows and columns from a quarter to three quarters of the picture: 64 to 192 of 256",
    "changed": "pixels where the given and the wanted picture differ in any of their four stored bytes",
    "mae": "mean absolute difference of a picture, averaged over the pictures",
    "mse": "mean squared difference of a picture, averaged over the pictures",
    "rmse": "root of each picture's own MSE, averaged over the pictures",
    "root_mse": "root of the averaged MSE",
    "ssim": "torchmetrics structural_similarity_index_measure, Gaussian windows of 11 pixels (sigma 1.5), K1 0.01, "
    "K2 0.03, data range 1, per channel, averaged over channels and a mask's pixels, then over the pictures",
    "lpips": "LPIPS 0.1 with VGG16 on the srgb pictures, all pixels, averaged over the pictures",
}

Key = tuple[str, str, str]  # space, mask, measure
Scores = dict[Key, np.ndarray]  # f64 [N], one number a picture


def linear_space(images: Tensor) -> Tensor:
    """Return network images f32 [N, 4, H, W] in [-1, 1] as ``linear`` in [0, 1]; what is outside is clipped."""
    return ((images.to(torch.float32) + 1) / 2).clamp(0, 1)


def seen(linear: Tensor) -> Tensor:
    """Return ``linear`` pictures [N, 4, H, W] as a person sees them over white: ``srgb`` f32 [N, 3, H, W] in [0, 1]."""
    alpha = linear[:, 3:]
    return linear_to_srgb(linear[:, :3]) * alpha + (1 - alpha)


def head_box(height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns of the mask ``head``."""
    return slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)


def make_masks(given: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Return the masks, bool [N, H, W], of stored pictures u8 [N, H, W, 4]: what a network is given and what it should
    make of it."""
    if given.shape != wanted.shape:
        raise ConfigError(f"pictures to compare must be of one shape, found {list(given.shape)}, {list(wanted.shape)}")
    count, height, width, _ = wanted.shape
    head = torch.zeros((count, height, width), dtype=torch.bool, device=wanted.device)
    rows, columns = head_box(height, width)
    head[:, rows, columns] = True
    return {ALL: torch.ones_like(head), HEAD: head, CHANGED: (given != wanted).any(3)}


class Judge:
    """Scores any number of outputs against the same wanted pictures.

    `wanted` is f32 [N, 4, H, W] in [-1, 1], `masks` come from `make_masks`, `lpips` is a function of two batches
    f32 [N, 3, H, W] in [0, 1] that returns [N], or None. Raises `ConfigError` for pictures that SSIM is not defined on.
    """

    def __init__(self, wanted: Tensor, masks: Mapping[str, Tensor], lpips: torch.nn.Module | None = None) -> None:
        if min(wanted.shape[2:]) < LEAST_SIZE:
            raise ConfigError(f"SSIM needs pictures of at least {LEAST_SIZE} pixels, found {list(wanted.shape[2:])}")
        linear = linear_space(wanted)
        self._wanted = {LINEAR: linear, SRGB: seen(linear)}
        self._masks = {name: mask.to(torch.float64) for name, mask in masks.items()}
        self._lpips = lpips

    def __call__(self, output: Tensor) -> Scores:
        """Return the scores of `output`, f32 [N, 4, H, W] in [-1, 1]; LPIPS under (``srgb``, ``all``, ``lpips``)."""
        linear = linear_space(output)
        scores: dict[Key, Tensor] = {}
        for space, value in ((LINEAR, linear), (SRGB, seen(linear))):
            wanted = self._wanted[space]
            difference = value - wanted
            maps = {"mae": difference.abs(), "mse": difference.square(), "ssim": ssim_map(value, wanted)}
            for measure, pixels in maps.items():
                pixels = pixels.mean(1).to(torch.float64)  # in float64: a sum must not depend on the batch around it
                for mask, weight in self._masks.items():
                    scores[space, mask, measure] = (pixels * weight).sum((1, 2)) / weight.sum((1, 2))
            for mask in self._masks:
                scores[space, mask, "rmse"] = scores[space, mask, "mse"].sqrt()
            if space == SRGB and self._lpips is not None:
                scores[space, ALL, LPIPS] = self._lpips(value, wanted).to(torch.float64)
        numbers = torch.stack(list(scores.values())).cpu().numpy()  # one transfer
        return dict(zip(scores, numbers, strict=True))


def ssim_map(output: Tensor, wanted: Tensor) -> Tensor:
    """Return the SSIM of every pixel and channel of two batches f32 [N, C, H, W] in [0, 1], same shape."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, pixels = structural_similarity_index_measure(
        output,
        wanted,
        sigma=SSIM_SIGMA,
        kernel_size=SSIM_WINDOW,
        reduction="none",
        data_range=DATA_RANGE,
        k1=SSIM_K1,
        k2=SSIM_K2,
        return_full_image=True,
    )
    return pixels


def summarise(scores: Mapping[Key, np.ndarray]) -> dict[str, object]:
    """Return per-picture scores as means: {space: {mask: {pictures, mae, mse, rmse, root_mse, ssim}}, lpips}.

    Pictures with NaN (a mask without pixels, a baseline that does not exist) are left out and `pictures` says how many
    were counted; a mean of none is None.
    """
    summary: dict[str, object] = {}
    for space in SPACES:
        summary[space] = {}
        for mask in MASKS:
            values = {measure: scores[space, mask, measure] for measure in MEASURES}
            known = ~np.isnan(values["mse"])
            means: dict[str, float | int | None] = {"pictures": int(known.sum())}
            means |= {measure: _mean(value[known]) for measure, value in values.items()}
            means["root_mse"] = None if means["mse"] is None else float(np.sqrt(means["mse"]))
            summary[space][mask] = means  # pyright: ignore[reportIndexIssue]
    lpips = scores.get((SRGB, ALL, LPIPS))
    summary[LPIPS] = None if lpips is None else _mean(lpips[~np.isnan(lpips)])
    return summary


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
