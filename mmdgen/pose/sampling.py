"""Which poses a dataset has: keyed draws from a vocabulary's densities.

Sample i of a model depends on (seed, model, i) alone: not on how many samples there are, on which shard asks for it or
on which other models exist. The draws come in blocks of `BLOCK` samples, each with a stream of its own, and from the
raw 64-bit outputs of the bit generator, whose stream numpy promises to keep (the distributions on top carry no such
promise).
"""

from __future__ import annotations

import numpy as np

from mmdgen import rng
from mmdgen.errors import ConfigError
from mmdgen.pose.vocabulary import PoseVocabulary

BLOCK = 64  # samples with one key: most models have 20-100, so a model costs one or two SHA-256


def _uniform_block(vocabulary: PoseVocabulary, seed: int, model_id: str, block: int) -> np.ndarray:
    """Return f64 [BLOCK, K] uniform in [0, 1), the 53 high bits of the raw stream."""
    width = len(vocabulary.parameters)
    raw = rng.generator(seed, "pose", vocabulary.name, model_id, block).bit_generator.random_raw(BLOCK * width)
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(BLOCK, width)


def joint_value(uniform: np.ndarray) -> np.ndarray:
    """Map uniforms in [0, 1) to the density 0.15 + 0.70 |x| on [-1, 1]; same shape.

    The magnitude t has the distribution function 0.3 t + 0.7 t^2, whose inverse is (-0.3 + sqrt(0.09 + 2.8 u)) / 1.4
    (article, figure 5A: 0.15 in the middle and 0.85 at the ends). One uniform gives both: which half it lies in is the
    sign, how far from the middle it is the u of the magnitude.
    """
    centred = 2.0 * uniform - 1.0
    return np.copysign((-0.3 + np.sqrt(0.09 + 2.8 * np.abs(centred))) / 1.4, centred)


def sample_poses(vocabulary: PoseVocabulary, seed: int, model_id: str, start: int, count: int) -> np.ndarray:
    """Return samples `start` .. `start + count` of a model, f32 [count, K] in the vocabulary's order.

    Rotations have the density of `joint_value` over their range, morphs are uniform over theirs; all components are
    independent. The same sample has the same value in every slice that contains it. Raises `ConfigError` for a negative
    `start` or `count`.
    """
    if start < 0 or count < 0:
        raise ConfigError(f"samples must be counted from 0, found start {start} and count {count}")
    parameters = vocabulary.parameters
    first, last = start // BLOCK, -(-(start + count) // BLOCK)
    blocks = [_uniform_block(vocabulary, seed, model_id, block) for block in range(first, last)] if count else []
    uniform = np.concatenate(blocks) if blocks else np.empty((0, len(parameters)))
    uniform = uniform[start - first * BLOCK :][:count]
    result = np.empty((count, len(parameters)), np.float32)
    for column, parameter in enumerate(parameters):
        low, high = parameter.low, parameter.high
        unit = (joint_value(uniform[:, column]) + 1.0) / 2.0 if parameter.kind == "rotation" else uniform[:, column]
        result[:, column] = low + (high - low) * unit
    return result


def sample_ambient(low: float, high: float, seed: int, model_id: str) -> float:
    """Return a model's ambient light, uniform in [low, high]: drawn once, so that all its images share it.

    The value is rounded to 6 decimals so that it reads the same wherever it is stored. Raises `ConfigError` unless
    0 <= low <= high.
    """
    if not 0.0 <= low <= high:
        raise ConfigError(f"the ambient light must be A or A:B with 0 <= A <= B, found {low:g}:{high:g}")
    return round(low + (high - low) * rng.fraction(seed, "ambient", model_id), 6)
