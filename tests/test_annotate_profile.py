"""Cuts of meshes, and the chin on profiles drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmdgen.annotate import head
from mmdgen.annotate.slices import front_depth, layer_heights, slice_mesh

COORDINATE = st.floats(-10, 10, allow_nan=False, width=32)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float64, (7, 3, 3), elements=COORDINATE), st.floats(-9, 9))
def test_a_cut_lies_in_its_triangles(triangles: np.ndarray, x: float):
    segments, source = slice_mesh(triangles, x)
    beyond = (triangles[:, :, 0] > x).sum(axis=1)
    assert source.tolist() == np.flatnonzero((beyond > 0) & (beyond < 3)).tolist()
    for segment, number in zip(segments, source, strict=True):
        corners = triangles[number]
        for y, z in segment:
            point = np.array([x, y, z])
            low, high = corners.min(axis=0), corners.max(axis=0)
            assert (point >= low - 1e-6).all()
            assert (point <= high + 1e-6).all()
            # On the triangle's plane: the determinant with two edges vanishes (scaled by their lengths).
            normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
            assert abs(normal @ (point - corners[0])) < 1e-5 * (1 + np.linalg.norm(normal) * np.ptp(corners))


def test_layers_are_sorted_from_the_top_and_know_their_owners():
    flat = np.array([[[1.0, -1.0], [1.0, 1.0]], [[3.0, 0.0], [3.0, 2.0]], [[2.0, -1.0], [2.0, 0.5]]])
    height, owner = layer_heights(flat, np.array([-0.5, 0.25, 1.5, 5.0]), 2)
    np.testing.assert_array_equal(height, [[2, 3, 3, -np.inf], [1, 2, -np.inf, -np.inf]])
    np.testing.assert_array_equal(owner, [[2, 1, 1, -1], [0, 2, -1, -1]])
    np.testing.assert_array_equal(front_depth(flat, np.array([1.0, 2.5])), [-1, np.inf])
    empty, none = layer_heights(flat[:0], np.array([0.0]), 3)
    assert np.isneginf(empty).all()
    assert (none == -1).all()


def profile(*points: tuple[float, float]) -> np.ndarray:
    """Segments of a polyline through (y, z)."""
    line = np.array(points, float)
    return np.stack([line[:-1], line[1:]], axis=1)


HEIGHTS = -head.STEP * np.arange(int(head.BELOW / head.STEP))  # from the mouth at 0 down, the unit is 1
CHIN = -0.4


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        # lip, chin, jaw, neck
        (((0.2, 0.0), (-0.05, -0.05), (-0.3, 0.02), (CHIN, 0.05), (CHIN + 0.05, 0.6), (-1.4, 0.6)), CHIN),
        # the underside of the jaw sinks on its way to the neck
        (((0.2, 0.0), (CHIN, 0.05), (CHIN - 0.1, 0.6), (-1.4, 0.65)), CHIN),
        # nothing of the neck turns with the head
        (((0.2, 0.0), (CHIN, 0.05), (CHIN + 0.01, 0.4)), CHIN),
        # a round chin: the tip of the arc
        (((0.2, 0.0), *((CHIN + 0.1 - 0.1 * np.sin(t), 0.1 - 0.1 * np.cos(t)) for t in np.linspace(0, 1.57, 9)),
          (CHIN + 0.02, 0.6), (-1.4, 0.6)), CHIN),
        # an open mouth: the surface falls back into it and comes forward again at the lower lip
        (((0.2, 0.0), (-0.02, 0.0), (-0.03, 0.7), (-0.14, 0.7), (-0.15, 0.0), (CHIN, 0.05), (CHIN + 0.02, 0.6),
          (-1.4, 0.6)), CHIN),
    ],
)  # fmt: skip
def test_the_chin_of_a_profile(points: tuple[tuple[float, float], ...], expected: float):
    found = head._chin_of_cut(profile(*points), HEIGHTS, 1.0, head.BREAK)
    assert found is not None
    assert found[0] == pytest.approx(expected, abs=0.03)


def test_a_thick_neck_is_only_a_weak_break():
    thick = profile((0.2, 0.0), (CHIN, 0.02), (CHIN + 0.01, 0.22), (-1.4, 0.22))
    assert head._chin_of_cut(thick, HEIGHTS, 1.0, head.BREAK) is None
    found = head._chin_of_cut(thick, HEIGHTS, 1.0, head.WEAK_BREAK)
    assert found is not None
    assert found[0] == pytest.approx(CHIN, abs=0.01)


def test_a_straight_front_has_no_chin():
    assert head._chin_of_cut(profile((0.2, 0.0), (-1.5, 0.1)), HEIGHTS, 1.0, head.WEAK_BREAK) is None
    assert head._chin_of_cut(profile((9.0, 0.0), (8.0, 0.1)), HEIGHTS, 1.0, head.BREAK) is None
