"""Angles of knees, against the law of cosines in float64."""

import numpy as np
import pytest
import torch

from posekernels.pose.angles import knee_angles


def test_knee_angles_are_those_of_the_triangle():
    points = np.random.default_rng(0).normal(size=(3, 50, 17, 3))
    found = knee_angles(points)
    assert found.shape == (3, 50, 2)
    for side, (hip, knee, ankle) in enumerate(((1, 2, 3), (4, 5, 6))):
        thigh, shin, whole = (
            np.linalg.norm(points[..., a, :] - points[..., b, :], axis=-1)
            for a, b in ((hip, knee), (knee, ankle), (hip, ankle))
        )
        angle = np.degrees(np.arccos((thigh**2 + shin**2 - whole**2) / (2 * thigh * shin)))
        np.testing.assert_allclose(found[..., side], angle, atol=1e-6)
    assert knee_angles(torch.from_numpy(points).float()).dtype == torch.float32


@pytest.mark.parametrize("bend", [0.0, 0.02, 5.0, 90.0, 179.0])
def test_knees_bent_by_so_much(bend):
    """Also of nearly straight legs in float32, where a cosine is 1 up to rounding."""
    points = np.zeros((17, 3), np.float32)
    points[[1, 4]] = (0, 0, 0.9)
    points[[2, 5]] = (0, 0, 0.48)
    turn = np.radians(bend)
    points[3] = points[2] + 0.4 * np.array([0, np.sin(turn), -np.cos(turn)])
    points[6] = points[5] - (0, 0, 0.4)
    np.testing.assert_allclose(knee_angles(points), [180 - bend, 180], atol=1e-3)


def test_other_skeletons_are_refused_and_what_is_not_seen_stays_unknown():
    with pytest.raises(ValueError, match=r"knee_angles: expected joints \[\.\.\., 17, 3\], got \[4, 16, 3\]"):
        knee_angles(np.zeros((4, 16, 3)))
    points = np.random.default_rng(0).normal(size=(17, 3))
    points[3] = np.nan
    right, left = knee_angles(points)
    assert np.isnan(right) and np.isfinite(left)
