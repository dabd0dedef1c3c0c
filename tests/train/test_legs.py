"""Knees of motion capture, straightened as far as the performer's are never straight."""

import numpy as np
import pytest

from posekernels.pose.angles import LEGS, knee_angles
from posekernels.train.data.legs import MOST, straight_legs
from posekernels.train.data.motion import load_starter
from posekernels.train.recipes.any_camera import motions


def walker(offset: float, frames: int = 3000) -> np.ndarray:
    """[T, 17, 3] of somebody who walks and turns, knees bent by 2 to 62 degrees; right ones by ``offset`` more."""
    phase = np.linspace(0, 60, frames)
    points = np.zeros((frames, 17, 3))
    for side, (hip, knee, ankle), more in ((-1, LEGS[0], offset), (1, LEGS[1], 0.0)):
        bend = np.radians(32 + 30 * np.sin(phase + side) + more)
        swing = 0.3 * np.cos(phase + side)  # of the thigh; forward is y, left is -x
        points[:, hip] = (-0.1 * side, 0, 0.9)
        thigh = np.stack((0 * swing, np.sin(swing), -np.cos(swing)), -1)
        shin = np.stack((0 * swing, np.sin(swing - bend), -np.cos(swing - bend)), -1)
        points[:, knee] = points[:, hip] + 0.42 * thigh
        points[:, ankle] = points[:, knee] + 0.4 * shin
    turn = phase / 10
    c, s, zero, one = np.cos(turn), np.sin(turn), 0 * turn, 1 + 0 * turn
    return np.einsum("tij,tkj->tki", np.stack((c, -s, zero, s, c, zero, zero, zero, one), -1).reshape(-1, 3, 3), points)


def test_what_a_knee_lacks_is_taken_off_every_bend():
    true, found = walker(0.0), straight_legs([walker(12.0)])[0]
    assert np.abs(knee_angles(walker(12.0)) - knee_angles(true))[:, 0].min() > 11, "the test's own legs are bent"
    off = np.abs(knee_angles(found) - knee_angles(true))[knee_angles(true) < 170]
    assert np.median(off) < 3.5 and np.abs(knee_angles(found)[:, 1] - knee_angles(true)[:, 1]).max() < 0.5, (
        "the left ones are well"
    )
    lengths = [np.linalg.norm(found[:, a] - found[:, b], axis=-1) for leg in LEGS for a, b in zip(leg, leg[1:])]
    assert np.ptp(lengths, axis=1).max() < 1e-4 and np.array_equal(
        found[:, [1, 4]], walker(12.0)[:, [1, 4]].astype("f")
    )
    side = found[:, 4] - found[:, 1]
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    assert np.abs(((found[:, 3] - found[:, 1]) * side).sum(-1)).max() < 0.01, "ankles stay below their hips"


def test_straight_knees_and_short_recordings_stay():
    true = walker(0.0)
    assert np.abs(straight_legs([true])[0] - true).max() < 1e-6
    crouching = walker(40.0)
    assert np.median(knee_angles(straight_legs([crouching])[0])[:, 0] - knee_angles(crouching)[:, 0]) == pytest.approx(
        MOST, abs=0.5
    )
    short = walker(40.0, 150)
    assert np.abs(knee_angles(straight_legs([short])[0])[:, 0] - knee_angles(short)[:, 0]).max() == pytest.approx(
        MOST / 10, abs=0.1
    )


def test_no_frame_leaps():
    """Of real motion: the axis of a straight leg, which it does not show, does not shake the foot."""
    recording = max(motions(load_starter().train), key=len).astype(np.float32)
    found = straight_legs([recording])[0]
    assert np.abs(found - recording).max() > 0.01
    before, after = (np.abs(np.diff(p[:, [3, 6]], 2, axis=0)) for p in (recording, found))
    assert after.max() < 1.1 * before.max() + 1e-3 and after.mean() < 1.1 * before.mean()
