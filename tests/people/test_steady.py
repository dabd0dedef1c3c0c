"""The way of the root: somebody who stands stays, feet that stand are still, and somebody who walks gets there."""

import numpy as np
import pytest

from posekernels.people.lifter import Person
from posekernels.people.world import footholds_of, stand, still_feet, upright
from posekernels.pose.keypoints import STANDING

SIZE, FOCAL, FPS = (1280, 720), 1000.0, 30.0


def standing(frames: int) -> np.ndarray:
    """[T, 17, 3] metres, camera axes, root at 0: somebody who waves an arm."""
    pose = np.pad(0.5 * STANDING.numpy(), ((0, 0), (0, 1)))
    pose[[2, 5], 2] -= 0.03  # knees are not quite straight
    poses = np.repeat(pose[None], frames, 0).astype(np.float64)
    wave = 0.2 * np.sin(np.arange(frames) / 4)
    poses[:, 13] += np.stack((wave, 0 * wave, wave), -1)
    return poses


def seen(poses: np.ndarray, path: np.ndarray) -> Person:
    """As a detector and a lifter find somebody: keypoints and depths are a little off, for some frames alike."""
    random = np.random.default_rng(0)
    placed = poses + path[:, None]
    pixels = placed[..., :2] / placed[..., 2:] * FOCAL + np.array(SIZE) / 2
    slow = random.normal(0, 1, (len(poses) // 6 + 2, 17, 2)).repeat(6, 0)[: len(poses)]
    knots = np.arange(0, len(poses) + 9, 9)
    size = np.interp(np.arange(len(poses)), knots, 1 + random.normal(0, 0.03, len(knots)))
    found = poses * size[:, None, None] + random.normal(0, 0.003, poses.shape)
    found[:, 0] = 0
    return Person(1, pixels + 1.5 * slow, np.ones(poses.shape[:2], np.float32), found.astype(np.float32))


def test_somebody_who_stands_stays():
    poses = standing(150)
    person = seen(poses, np.repeat([[0.3, 0.2, 4.0]], 150, 0))
    stand([person], SIZE, FOCAL, tilt=0, smooth=15)
    before = np.linalg.norm(person.world[:, 0] - person.world[0, 0], axis=-1).max()
    stand([person], SIZE, FOCAL, tilt=0, smooth=15, fps=FPS)
    assert np.linalg.norm(person.world[:, 0] - np.median(person.world[:, 0], 0), axis=-1).max() < 0.1 < before
    speed = np.linalg.norm(np.diff(person.world[:, [0, 3, 6]], axis=0), axis=-1) * FPS
    assert np.percentile(speed[:, 0], 95) < 0.5
    assert np.median(speed[:, 1:]) < 0.3


def test_somebody_who_walks_gets_there():
    """Feet stand by turns, half a step each; the hips go on evenly."""
    frames, step = 180, 30
    poses, path = standing(frames), np.zeros((frames, 3))
    path[:, 0] = np.linspace(-1.5, 1.5, frames)
    path[:, 2] = 5
    phase = (np.arange(frames) % step) / step
    for ankle, shift in ((3, 0.0), (6, 0.5)):
        at = (phase + shift) % 1
        half = 3 / frames * step / 4  # of the way that the hips go while a foot stands
        poses[:, ankle, 0] += np.where(at < 0.5, half - 4 * half * at, -half + 4 * half * (at - 0.5))
    person = seen(poses, path)
    still = still_feet(person.points, poses + path[:, None], FOCAL, FPS)
    stands = np.stack([((phase + s) % 1 < 0.4) & ((phase + s) % 1 > 0.1) for s in (0, 0.5)], -1)[:-1]
    assert still[stands].mean() > 0.7 and still[~stands].mean() < 0.5
    stand([person], SIZE, FOCAL, tilt=0, smooth=15, fps=FPS)
    way = person.world[-1, 0] - person.world[0, 0]
    assert way[0] == pytest.approx(3, abs=0.3) and abs(way[1]) < 0.4 and abs(way[2]) < 0.2


def test_frames_without_anybody_stay_empty_and_no_smoothing_leaves_the_image_alone():
    person = seen(standing(60), np.repeat([[0.0, 0, 4.0]], 60, 0))
    person.poses[20:30], person.points[20:30] = np.nan, np.nan
    stand([person], SIZE, FOCAL, tilt=0, smooth=15, fps=FPS)
    assert np.isnan(person.world[20:30]).all() and np.isfinite(np.delete(person.world, np.s_[20:30], 0)).all()
    stand([person], SIZE, FOCAL, tilt=0, smooth=1, fps=FPS)
    plain = person.world
    stand([person], SIZE, FOCAL, tilt=0, smooth=1)
    np.testing.assert_array_equal(plain, person.world)


@pytest.mark.parametrize("pitch", [0, 25, 40])
def test_footholds_tell_which_way_is_up(pitch):
    """Somebody who leans forwards by 8 degrees walks 5 m away, left and right; once more with a box to step on."""
    a = np.radians(pitch)
    turn = np.array([[1, 0, 0], [0, -np.sin(a), np.cos(a)], [0, -np.cos(a), -np.sin(a)]])  # camera axes to z up
    lean = np.radians(8)
    straight = standing(100) @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]).T @ np.diag([1, -1, 1])  # z up
    bent = straight @ np.array([[1, 0, 0], [0, np.cos(lean), np.sin(lean)], [0, -np.sin(lean), np.cos(lean)]]).T
    person = Person(1, np.zeros((100, 17, 2)), np.ones((100, 17)), (bent @ turn).astype(np.float32))
    places = np.stack((np.sin(np.arange(16)), np.linspace(4, 9, 16), np.full(16, -1.5)), -1)
    places[:, 2] += np.random.default_rng(0).normal(0, 0.03, 16)

    def off(footholds: list[np.ndarray] | None) -> float:
        up = upright([person], footholds)[2]
        return float(np.degrees(np.arccos(np.clip(up @ turn[2], -1, 1))))

    assert off(None) > 6
    assert off([places @ turn]) < 3
    places[7:9, 2] += 0.4
    assert off([places @ turn]) < 3
    assert off([places[:2] @ turn]) == off(None), "two places tell nothing"
    upstairs = places + (0, 0, 2.5)  # somebody else, a floor higher
    both = upright([person, person], [places @ turn, upstairs @ turn])[2]
    assert np.degrees(np.arccos(both @ turn[2])) < 3


def test_footholds_are_counted_once_each():
    placed = np.zeros((30, 17, 3))
    placed[:, 3, 0] = np.repeat([0.0, 1.0, 2.0], 10)
    still = np.zeros((29, 2), bool)
    still[:9, 0], still[10:19, 0], still[20:22, 0], still[25, 0] = True, True, True, True
    np.testing.assert_array_equal(footholds_of(placed, still)[:, 0], [0, 1, 2])
    assert footholds_of(placed, still[:, ::-1] & False).shape == (0, 3)
