"""The sampled poses have the article's densities and every sample stands alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmdgen.errors import ConfigError
from mmdgen.pose.sampling import BLOCK, joint_value, sample_ambient, sample_poses
from mmdgen.pose.vocabulary import THA1

MODEL = "ab" * 32
COUNT = 40_000
JOINTS, MORPHS = (0, 1, 2), (3, 4, 5)


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """40,000 poses of one model and seed: the draws are fixed, so these tests cannot flicker."""
    return sample_poses(THA1, 7, MODEL, 0, COUNT)


def joint_cdf(x: np.ndarray) -> np.ndarray:
    """The integral of 0.15 + 0.70 |x| from -1, written from the density and not from the sampler's inverse."""
    return 0.5 + 0.15 * x + 0.35 * x * np.abs(x)


@pytest.mark.parametrize("column", JOINTS)
def test_joints_have_the_linear_density(many, column):
    values = many[:, column].astype(np.float64)
    assert stats.kstest(values, joint_cdf).pvalue > 0.001
    counts, edges = np.histogram(values, bins=20, range=(-1, 1))
    expected = np.diff(joint_cdf(edges)) * COUNT
    assert stats.chisquare(counts, expected).pvalue > 0.001
    # the two numbers in reference/talking-head-anime.md
    assert np.abs(values).mean() == pytest.approx(0.6167, abs=0.005)
    assert (values**2).mean() == pytest.approx(0.45, abs=0.005)


@pytest.mark.parametrize("column", MORPHS)
def test_morphs_are_uniform(many, column):
    assert stats.kstest(many[:, column].astype(np.float64), "uniform").pvalue > 0.001
    counts, _ = np.histogram(many[:, column], bins=20, range=(0, 1))
    assert stats.chisquare(counts).pvalue > 0.001


def test_the_tests_above_can_tell_the_densities_apart(many):
    """A uniform joint, or the |x| density that the figure is often taken for, would not pass."""
    uniform = 2 * many[:, 3].astype(np.float64) - 1
    triangle = np.copysign(np.sqrt(np.abs(uniform)), uniform)
    assert stats.kstest(uniform, joint_cdf).pvalue < 1e-9
    assert stats.kstest(triangle, joint_cdf).pvalue < 1e-9


def test_components_are_independent(many):
    correlation = np.corrcoef(many.T.astype(np.float64))
    assert np.abs(correlation - np.eye(6)).max() < 5 / np.sqrt(COUNT)
    magnitudes = np.corrcoef(np.abs(many[:, :3].astype(np.float64)).T)  # signs and magnitudes share one uniform
    assert np.abs(magnitudes - np.eye(3)).max() < 5 / np.sqrt(COUNT)
    for first in range(6):
        for second in range(first):
            edges = [np.quantile(many[:, column], np.linspace(0, 1, 5)) for column in (first, second)]
            table, _, _ = np.histogram2d(many[:, first], many[:, second], bins=edges)
            # the statistic of independence in a 4 x 4 table has 9 degrees of freedom
            expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
            statistic = float(((table - expected) ** 2 / expected).sum())
            assert stats.chi2.sf(statistic, 9) > 1e-4


def test_neighbours_are_independent(many):
    for column in range(6):
        values = many[:, column].astype(np.float64)
        for lag in (1, BLOCK):
            assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < 5 / np.sqrt(COUNT)


def test_inverse_at_known_points():
    np.testing.assert_allclose(joint_value(np.array([0.0, 0.5, 1.0])), [-1, 0, 1], atol=1e-12)
    uniform = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(joint_cdf(joint_value(uniform)), uniform, atol=1e-12)


@given(start=st.integers(0, 400), count=st.integers(0, 200), seed=st.integers(-5, 2**40))
@settings(max_examples=60, deadline=None)
def test_any_slice_has_the_same_samples(start, count, seed):
    whole = sample_poses(THA1, seed, MODEL, 0, 600)
    part = sample_poses(THA1, seed, MODEL, start, count)
    assert part.dtype == np.float32
    assert part.shape == (count, 6)
    np.testing.assert_array_equal(part, whole[start : start + count])


def test_values_stay_in_range(many):
    for column, parameter in enumerate(THA1.parameters):
        assert many[:, column].min() >= parameter.low
        assert many[:, column].max() <= parameter.high


def test_seed_model_and_vocabulary_are_all_part_of_the_key():
    base = sample_poses(THA1, 0, MODEL, 0, 8)
    renamed = dataclasses.replace(THA1, name="other")
    for other in (
        sample_poses(THA1, 1, MODEL, 0, 8),
        sample_poses(THA1, 0, "cd" * 32, 0, 8),
        sample_poses(renamed, 0, MODEL, 0, 8),
    ):
        assert not np.isclose(base, other).any()


def test_values_of_the_first_release_stay():
    """Changing the stream would silently change every dataset: this is the pose (seed 0, model ab.., sample 0)."""
    expected = [-0.5298124, 0.4996372, -0.8269758, 0.0193978, 0.0268845, 0.1364129]
    np.testing.assert_allclose(sample_poses(THA1, 0, MODEL, 0, 1)[0], expected, atol=1e-6)


def test_bad_counts_are_refused():
    with pytest.raises(ConfigError, match="start -1"):
        sample_poses(THA1, 0, MODEL, -1, 3)


def test_ambient_is_one_value_per_model_and_uniform_over_models():
    values = [sample_ambient(0.5, 1.2, 3, f"{index:064x}") for index in range(4000)]
    assert stats.kstest(values, stats.uniform(0.5, 0.7).cdf).pvalue > 0.001
    assert sample_ambient(0.5, 1.2, 3, MODEL) == sample_ambient(0.5, 1.2, 3, MODEL)
    assert sample_ambient(0.5, 1.2, 3, MODEL) != sample_ambient(0.5, 1.2, 4, MODEL)
    assert sample_ambient(0.5, 0.5, 3, MODEL) == 0.5
    for low, high in ((1.2, 0.5), (-0.1, 0.5)):
        with pytest.raises(ConfigError, match="ambient"):
            sample_ambient(low, high, 0, MODEL)
