"""Batch quaternions against scipy, projections against arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mmdgen import geometry as g

unit = st.integers(0, 2**32 - 1).map(lambda seed: Rotation.random(7, rng=np.random.default_rng(seed)).as_quat())
angles = st.floats(-3, 3)


@given(unit, unit)
def test_product_and_matrix_agree_with_scipy(a, b):
    product = g.quaternion_multiply(a, b)
    expected = (Rotation.from_quat(a) * Rotation.from_quat(b)).as_matrix()
    np.testing.assert_allclose(g.quaternion_matrix(product), expected, atol=1e-12)


@given(unit, unit)
def test_rotation_of_vectors(q, other):
    vectors = other[:, :3] * 5
    np.testing.assert_allclose(g.quaternion_rotate(q, vectors), Rotation.from_quat(q).apply(vectors), atol=1e-12)


@given(unit, st.floats(-2, 2))
def test_power_scales_the_angle(q, exponent):
    vector = Rotation.from_quat(q).as_rotvec()
    expected = Rotation.from_rotvec(vector * exponent).as_matrix()
    np.testing.assert_allclose(g.quaternion_matrix(g.quaternion_power(q, exponent)), expected, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
@given(angle=angles)
def test_axis_rotations_are_the_plain_positive_ones(axis, angle):
    expected = Rotation.from_rotvec(np.eye(3)[axis] * angle).as_matrix()
    np.testing.assert_allclose(
        g.quaternion_matrix(g.quaternion_about_axis(axis, np.array(angle))), expected, atol=1e-12
    )


def test_orthographic_maps_the_box_and_looks_along_plus_z():
    matrix = g.orthographic(-2, 4, 10, 16, -5, 7)
    corners = np.array([[-2, 10, -5, 1], [4, 16, 7, 1], [1, 13, 1, 1]], float)
    np.testing.assert_allclose(corners @ matrix.T, [[-1, -1, -1, 1], [1, 1, 1, 1], [0, 0, 0, 1]], atol=1e-6)
