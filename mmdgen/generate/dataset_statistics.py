"""Numbers that show what is wrong with a dataset: poses against their densities, pictures that cannot be right."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmdgen.pose.vocabulary import VOCABULARIES, PoseParameter

BINS = 40
CELLS = 20  # of equal probability, for chi-square
SUSPECT = 0.001  # a probability below which a histogram is marked

NEAR_EMPTY = 0.02  # share of the picture that is covered
NEAR_FULL = 0.98
MOVED = 0.25  # of a parameter's range: a picture must show that
CASES = 12  # that are named
COLOR_SIDE = 64  # pixels a side, at least, that the mean color is taken of


def parameter_of(vocabulary: str, name: str) -> PoseParameter | None:
    """Return a parameter whose density is known, None for vocabularies of other versions."""
    found = VOCABULARIES.get(vocabulary)
    return next((p for p in found.parameters if p.name == name), None) if found else None


def distribution(values: np.ndarray, low: float, high: float, rotation: bool) -> np.ndarray:
    """Return the theoretical distribution function at `values`: uniform, or of a rotation (see `pose.sampling`)."""
    unit = np.clip((np.asarray(values, np.float64) - low) / (high - low), 0, 1)
    if not rotation:
        return unit
    x = 2 * unit - 1
    return 0.5 + np.sign(x) * (0.3 * np.abs(x) + 0.7 * x * x) / 2


def density(values: np.ndarray, low: float, high: float, rotation: bool) -> np.ndarray:
    """Return the theoretical density at `values`, per unit of the parameter."""
    if not rotation:
        return np.full(np.shape(values), 1 / (high - low))
    x = 2 * (np.asarray(values, np.float64) - low) / (high - low) - 1
    return (0.15 + 0.70 * np.abs(x)) * 2 / (high - low)


def kolmogorov(probabilities: np.ndarray) -> tuple[float, float]:
    """Return the Kolmogorov-Smirnov distance of values, given by their distribution function, and its probability.

    The probability is that of at least such a distance if the values are drawn from that distribution: the asymptotic
    series with Stephens' correction for small samples (Stephens, 1970).
    """
    count = len(probabilities)
    if not count:
        return 0.0, 1.0
    ordered = np.sort(probabilities)
    steps = np.arange(count + 1) / count
    distance = float(max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))
    scaled = (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count)) * distance
    if scaled < 0.3:  # the series does not converge there, and the probability is 1 to 5 digits
        return distance, 1.0
    terms = [(-1) ** (j - 1) * math.exp(-2 * (j * scaled) ** 2) for j in range(1, 30)]
    return distance, min(1.0, max(0.0, 2 * math.fsum(terms)))


def chi_square(probabilities: np.ndarray) -> float:
    """Return chi-square over `CELLS` cells of equal probability: `CELLS` - 1 is expected, give or take 6.2."""
    counts = np.histogram(probabilities, CELLS, (0.0, 1.0))[0]
    expected = len(probabilities) / CELLS
    return float(((counts - expected) ** 2).sum() / expected) if expected else 0.0


def pose_statistics(poses: np.ndarray, vocabulary: Any) -> list[dict[str, Any]]:
    """Return for each column of `poses` f32 [N, K] its histogram and how far it is from the density.

    `vocabulary` is a `dataset.schema.Vocabulary`. Where the density is not known, there is only the histogram.
    """
    rows: list[dict[str, Any]] = []
    for column, parameter in enumerate(vocabulary.parameters):
        low, high, values = parameter.low, parameter.high, poses[:, column]
        row: dict[str, Any] = {
            "name": parameter.name,
            "meaning": parameter.meaning,
            "low": low,
            "high": high,
            "bins": np.histogram(values, BINS, (low, high))[0].tolist(),
            "mean": float(values.mean(dtype=np.float64)) if len(values) else 0.0,
        }
        known = parameter_of(vocabulary.name, parameter.name)
        if known is not None and high > low:
            rotation = known.kind == "rotation"
            inside = distribution(values, low, high, rotation)
            distance, probability = kolmogorov(inside)
            middles = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
            row |= {
                "kind": "rotation" if rotation else "uniform",
                "density": density(middles, low, high, rotation).tolist(),
                "distance": distance,
                "probability": probability,
                "chi_square": chi_square(inside),
                "suspect": len(values) > 0 and probability < SUSPECT,
            }
        rows.append(row)
    return rows


@dataclass(slots=True)
class PictureStatistics:
    """What pictures of one kind (rest, expression, posed) look like. `cases` name what cannot be right."""

    looked_at: int = 0
    coverages: list[float] = field(default_factory=list)
    color: np.ndarray = field(default_factory=lambda: np.zeros(3))
    weight: float = 0.0
    cut: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    cases: dict[str, list[str]] = field(default_factory=dict)
    seen: dict[bytes, str] = field(default_factory=dict)

    def add(self, image: np.ndarray, name: str) -> None:
        """Look at a picture u8 [S, S, 4]; `name` says which one it is."""
        coverage = int(image[..., 3].sum(dtype=np.int64)) / (255 * image.shape[0] * image.shape[1])
        self.looked_at += 1
        self.coverages.append(coverage)
        step = max(1, len(image) // COLOR_SIDE)
        thinned = image[::step, ::step].reshape(-1, 4).astype(np.float64)
        self.color += thinned[:, 3] @ thinned[:, :3]
        self.weight += float(thinned[:, 3].sum())
        if not image[..., 3].any():
            self.note("empty", name)
        elif coverage < NEAR_EMPTY:
            self.note("nearly empty", name)
        elif coverage > NEAR_FULL:
            self.note("nearly full", name)
        if (image[0, :, 3] >= 128).mean() > 0.02:
            self.cut += 1
        digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
        first = self.seen.setdefault(digest, name)
        if first != name:
            self.note("the same as another one", f"{name} = {first}")

    def note(self, what: str, name: str) -> None:
        """Count something that is wrong with a picture."""
        self.counts[what] += 1
        cases = self.cases.setdefault(what, [])
        if len(cases) < CASES:
            cases.append(name)

    def to_json(self) -> dict[str, Any]:
        covered = np.array(self.coverages or [0.0])
        color = self.color / self.weight if self.weight else np.zeros(3)
        return {
            "looked_at": self.looked_at,
            "coverage": {
                "mean": float(covered.mean()),
                "min": float(covered.min()),
                "max": float(covered.max()),
                "bins": np.histogram(self.coverages, BINS, (0.0, 1.0))[0].tolist(),
            },
            "mean_color": [round(float(value)) for value in color],
            "cut_at_the_top": self.cut,
            "faults": {
                what: {"count": count, "cases": self.cases[what]} for what, count in sorted(self.counts.items())
            },
        }


def has_moved(pose: np.ndarray, vocabulary: Any) -> tuple[bool, bool]:
    """Return whether the face, and the head, of a pose f32 [K] are clearly not at rest."""
    face = head = False
    for value, parameter in zip(pose, vocabulary.parameters, strict=True):
        known = parameter_of(vocabulary.name, parameter.name)
        if known is None or abs(float(value) - parameter.rest) <= MOVED * (parameter.high - parameter.low):
            continue
        head |= known.kind == "rotation"
        face |= known.kind != "rotation"
    return face, head


def smaller(image: np.ndarray, most: int) -> np.ndarray:
    """Return a picture u8 [S, S, 4] with at most about `most` pixels a side, by averaging boxes with alpha."""
    size = image.shape[0]
    factor = -(-size // most)
    if factor == 1:
        return image
    side = size // factor
    cut = image[: side * factor, : side * factor].astype(np.float32)
    cut[..., :3] *= cut[..., 3:] / 255
    mean = cut.reshape(side, factor, side, factor, 4).mean((1, 3))
    mean[..., :3] *= 255 / np.maximum(mean[..., 3:], 1e-6)
    mean[mean[..., 3] < 0.5] = 0
    return np.clip(np.rint(mean), 0, 255).astype(np.uint8)
