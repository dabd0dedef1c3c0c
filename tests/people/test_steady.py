"""The way of the root: somebody who stands stays, feet that stand are still, and somebody who walks gets there."""

import numpy as np
import pytest

from posekernels.people.bodies import path_equations, root_path
from posekernels.people.lifter import Person
from posekernels.people.steady import chained, footholds_of, planted, steadied, still_feet
from posekernels.people.world import stand, tilt_of, upright
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
    """Somebody who leans forwards by 5 degrees walks 5 m away, left and right; once more with a box to step on."""
    a = np.radians(pitch)
    turn = np.array([[1, 0, 0], [0, -np.sin(a), np.cos(a)], [0, -np.cos(a), -np.sin(a)]])  # camera axes to z up
    lean = np.radians(5)
    straight = standing(100) @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]).T @ np.diag([1, -1, 1])  # z up
    bent = straight @ np.array([[1, 0, 0], [0, np.cos(lean), np.sin(lean)], [0, -np.sin(lean), np.cos(lean)]]).T
    person = Person(1, np.zeros((100, 17, 2)), np.ones((100, 17)), (bent @ turn).astype(np.float32))
    places = np.stack((np.sin(np.arange(16)), np.linspace(4, 9, 16), np.full(16, -1.5)), -1)
    places[:, 2] += np.random.default_rng(0).normal(0, 0.03, 16)

    def off(*levels: list[np.ndarray]) -> float:
        up = upright([person], *levels)[2]
        return float(np.degrees(np.arccos(np.clip(up @ turn[2], -1, 1))))

    assert off() > 5
    assert off([places @ turn]) < 3
    hips = np.stack((np.zeros(12), np.linspace(4, 9, 12), 0.05 * np.sin(np.arange(12.0))), -1)
    assert off([], [hips @ turn]) < 3, "hips that go on at one height tell it too"
    places[7:9, 2] += 0.4
    assert off([places @ turn]) < 3
    assert off([places[:2] @ turn]) == off(), "two places tell nothing"
    upstairs = places + (0, 0, 2.5)  # somebody else, a floor higher
    both = upright([person, person], [places @ turn, upstairs @ turn])[2]
    assert np.degrees(np.arccos(both @ turn[2])) < 3


def test_footholds_are_counted_once_each():
    places = np.zeros((30, 2, 3))
    places[:, 0, 0] = np.repeat([0.0, 1.0, 2.0], 10)
    still = np.zeros((29, 2), bool)
    still[:9, 0], still[10:19, 0], still[20:22, 0], still[25, 0] = True, True, True, True
    np.testing.assert_array_equal(footholds_of(places, still)[:, 0], [0, 1, 2])
    assert footholds_of(places, still[:, ::-1] & False).shape == (0, 3)


def test_a_foot_that_seems_to_move_for_a_moment_stands_all_the_while():
    """A detector's error of two frames is no step; a foot that goes elsewhere, or away for long, is not held."""
    placed = standing(90) + (0, 0, 4.0)
    moved = {"error": placed.copy(), "step": placed.copy(), "long": placed.copy()}
    moved["error"][40:42, 3, 0] += 0.12
    moved["step"][42:, 3, 0] += 0.25
    moved["long"][35:50, 3, 0] += 0.3 * np.sin(np.linspace(0, np.pi, 15))
    still = {}
    for name, there in moved.items():
        still[name] = still_feet(there[..., :2] / there[..., 2:] * FOCAL, there, FOCAL, FPS)
    assert still["error"].all()
    assert not still["step"][39:43, 0].any() and not still["long"][36:40, 0].any()
    assert still["step"][:35].all() and still["long"][60:].all() and all(s[:, 1].all() for s in still.values())


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7, 16, 33])
def test_chained_equations_are_solved(frames):
    random, n = np.random.default_rng(frames), 3
    lower = np.kron(np.eye(frames) + np.eye(frames, k=-1), np.ones((n, n))) * random.normal(
        size=(n * frames, n * frames)
    )
    whole = lower @ lower.T + np.eye(n * frames)
    blocks = whole.reshape(frames, n, frames, n).swapaxes(1, 2)
    at, wanted = np.arange(frames), random.normal(size=(frames, n))
    found = chained(blocks[at, at], blocks[at[:-1], at[1:]], wanted)
    np.testing.assert_allclose(found.ravel(), np.linalg.solve(whole, wanted.ravel()), rtol=1e-6, atol=1e-9)


def test_whoever_stands_does_not_drift_with_the_lean_of_the_pose():
    """For a second and a half the whole body is lifted leaning, and the image's scale agrees with it."""
    poses = standing(150)
    person = seen(poses, np.repeat([[0.3, 0.2, 4.0]], 150, 0))
    lean = 0.12 * np.sin(np.clip((np.arange(150) - 50) / 45, 0, 1) * np.pi)
    person.poses[..., 2] -= (lean[:, None] * poses[..., 1]).astype(np.float32)
    stand([person], SIZE, FOCAL, tilt=0, smooth=15, fps=FPS)
    assert np.linalg.norm(person.world[:, 0] - np.median(person.world[:, 0], 0), axis=-1).max() < 0.05
    ankles = person.world[:, [3, 6]]
    assert np.linalg.norm(ankles - np.median(ankles, 0), axis=-1).max() < 0.05


def test_feet_stay_where_they_stand_and_legs_keep_their_lengths():
    poses = standing(60)
    still = np.zeros((59, 2), bool)
    still[10:40, 0] = True
    path, places = np.zeros((60, 3)), poses[:, [3, 6]].copy()
    places[:, 0] += (0.02, 0, 0.1)
    found = planted(poses, path, places, still, FPS)
    np.testing.assert_allclose(np.delete(found, [2, 3], 1), np.delete(poses, [2, 3], 1), atol=1e-6)
    for a, b in ((1, 2), (2, 3)):
        long = [np.linalg.norm(p[:, a] - p[:, b], axis=-1) for p in (found, poses)]
        np.testing.assert_allclose(*long, atol=1e-9)
    off = np.linalg.norm(found[:, 3] - places[:, 0], axis=-1)
    assert off[10:41].max() < 0.02 < 0.09 < off[0]
    assert np.linalg.norm(np.diff(found[:, 3], axis=0), axis=-1).max() < 0.05, "no leap at either end"


def test_a_floor_that_is_known_holds_feet_that_are_on_it_and_lets_stairs_be():
    """Somebody who climbs 1.2 m, a foot after the other, before a camera that looks down."""
    frames, a = 160, np.radians(20)
    turn = np.array([[1, 0, 0], [0, -np.sin(a), np.cos(a)], [0, -np.cos(a), -np.sin(a)]])  # camera axes to z up
    poses = standing(frames) @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]).T @ np.diag([1, -1, 1]) @ turn

    def climbed(rise: float, known: bool) -> np.ndarray:
        stair = np.minimum(np.arange(frames) // 40, 3)
        place = np.stack((0.3 * stair, 6 + 0 * stair, -1.5 + rise * stair), -1) @ turn
        person = seen(poses, place)
        size = SIZE, FOCAL
        path = root_path(person.poses, person.points, person.scores, *size)
        equations = path_equations(person.poses, person.points, person.scores, *size)
        still = np.repeat((np.arange(frames - 1) % 40 < 38)[:, None], 2, 1)
        floor = float((place[0] + poses[0, [3, 6]]).mean(0) @ turn[2])
        assert np.isfinite(path).all()
        return steadied(*equations, person.poses, still, FPS, (turn[2], floor) if known else None)[1] @ turn[2] - floor

    flat = [np.abs(climbed(0.0, known)).mean() for known in (False, True)]
    assert flat[1] < 0.6 * flat[0]
    stairs = climbed(0.4, True)
    for number in range(4):
        assert stairs[40 * number + 10 : 40 * number + 30].mean() == pytest.approx(0.4 * number, abs=0.12)


def test_up_is_where_the_mass_stands_above_the_feet():
    """Somebody who bends at the hips, which go back, so as not to fall."""
    pose = standing(1)[0] @ np.diag([1, -1, 1])  # y up
    bend = np.radians(-50)
    turn = np.array([[1, 0, 0], [0, np.cos(bend), -np.sin(bend)], [0, np.sin(bend), np.cos(bend)]])
    upper = [7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
    pose[upper] = pose[upper] @ turn.T
    pose[[2, 3, 5, 6], 2] += (-0.08, -0.16, -0.08, -0.16)
    person = Person(1, np.zeros((30, 17, 2)), np.ones((30, 17)), np.repeat((pose * (1, -1, 1))[None], 30, 0))
    assert np.degrees(np.arccos(upright([person])[2] @ (0, -1, 0))) < 4


def test_legs_are_bent_to_the_feet_once():
    person = seen(standing(60), np.repeat([[0.0, 0, 4.0]], 60, 0))
    stand([person], SIZE, FOCAL, smooth=15, fps=FPS)
    poses, world = person.poses.copy(), person.world.copy()
    for again in (person, person.since(10)):
        with pytest.raises(ValueError, match="person 1 reach for where the feet stand already"):
            stand([again], SIZE, FOCAL, smooth=15, fps=FPS)
    np.testing.assert_array_equal(person.poses, poses)
    np.testing.assert_array_equal(person.world, world)
    stand([person], SIZE, FOCAL, smooth=15)  # the way alone
    np.testing.assert_array_equal(person.poses, poses)


def test_who_crouches_for_more_than_half_of_the_time_does_not_tilt_the_world():
    poses = np.repeat(standing(1), 60, 0)
    low = np.arange(60) % 20 < 11
    poses[np.ix_(low, [3, 6])] = (0.0, 0.2, 0.3)  # ankles near the hips, to the back
    poses[low, 3, 2] += np.linspace(0, 0.05, low.sum())
    person = Person(1, np.zeros((60, 17, 2)), np.ones((60, 17)), poses.astype(np.float32))
    alone = Person(1, np.zeros((27, 17, 2)), np.ones((27, 17)), poses[~low].astype(np.float32))
    np.testing.assert_allclose(upright([person])[2], upright([alone])[2], atol=1e-6)


@pytest.mark.parametrize("frames", [[0], [5, 6], [0, 1, 2, 3, 10, 20, 21], [*range(30), 60]])
def test_whoever_is_seen_for_a_frame_is_placed_too(frames):
    poses = standing(61)
    whole = seen(poses, np.repeat([[0.3, 0.2, 4.0]], 61, 0))
    own = {name: getattr(whole, name)[frames] for name in ("points", "scores", "poses")}
    person = Person(1, **own, frames=np.array(frames))
    stand([person], SIZE, FOCAL, smooth=7, fps=FPS)
    assert np.isfinite(person.world).all() and person.off < 5


def pitched(degrees: float, roll: float = 0.0) -> np.ndarray:
    """[3, 3] rotation from the axes of a camera that looks down, turned about its view, to z-up axes."""
    a, b = np.radians(degrees), np.radians(roll)
    level = np.array([[1, 0, 0], [0, -np.sin(a), np.cos(a)], [0, -np.cos(a), -np.sin(a)]])
    return level @ np.array([[np.cos(b), np.sin(b), 0], [-np.sin(b), np.cos(b), 0], [0, 0, 1]])


def leaning(turn: np.ndarray, side: float = 0.0, away: float = 0.0) -> Person:
    """Somebody seen by a camera whose mass is so many degrees off, to the camera's right and away from it."""
    pose = standing(1)[0] @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]).T @ np.diag([1, -1, 1])
    pose = np.repeat(pose[None], 30, 0) @ pitched(0)  # camera axes, up as the mass stands: by that it is turned
    up = upright([Person(1, np.zeros((30, 17, 2)), np.ones((30, 17)), pose)])
    meant = np.array([np.tan(np.radians(side)), np.tan(np.radians(away)), 1])
    z = meant / np.linalg.norm(meant)
    x = np.cross([0, 1, 0], z)
    x /= np.linalg.norm(x)
    found = pose @ up.T @ np.stack((x, np.cross(z, x), z)) @ turn
    return Person(1, np.zeros((30, 17, 2)), np.ones((30, 17)), found.astype(np.float32))


def off_by(up: np.ndarray, turn: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(up @ turn[2], -1, 1))))


def test_cameras_are_hardly_turned_about_their_view_but_some_are():
    level, sideways = pitched(10), pitched(10, roll=25)
    assert off_by(upright([leaning(level, side=4)])[2], level) < 3
    assert off_by(upright([leaning(sideways)])[2], sideways) < 4


def test_places_that_are_off_along_the_view_do_not_tip_the_floor():
    """Footholds on a floor seen from above, each 12 cm too near or too far: near each other, they look like a slope."""
    turn, random, found = pitched(25), np.random.default_rng(0), []
    person = leaning(turn)
    for _ in range(20):
        places = np.stack((random.uniform(-0.6, 0.6, 40), random.uniform(5.6, 6.4, 40), np.full(40, -3.3)), -1)
        far = np.linalg.norm(places, axis=-1, keepdims=True)
        found.append(upright([person], [places * (1 + random.normal(0, 0.12, (40, 1)) / far) @ turn])[2] @ turn.T)
    assert abs(np.degrees(np.arctan2(*np.mean(found, 0)[1:]))) < 1.2


def test_who_climbs_does_not_tip_the_world():
    """Stairs up a hill, 35 degrees steep: bodies say that it is the ground that is not level."""
    turn = pitched(10)
    places = np.stack((0.1 * (-1.0) ** np.arange(16), np.linspace(4, 7, 16), np.linspace(-1.5, 0.6, 16)), -1) @ turn
    assert off_by(upright([leaning(turn)], [places])[2], turn) < 3


def test_a_foot_that_is_still_in_the_air_for_a_moment_is_no_foothold():
    places, still = np.zeros((40, 2, 3)), np.zeros((39, 2), bool)
    still[2:5, 0], still[10:20, 1] = True, True
    assert len(footholds_of(places, still)) == 2 and len(footholds_of(places, still, 5)) == 1


def nonsense(name: str) -> Person:
    poses = standing(40)
    placed = poses + (0, 0, 4.0)
    points = placed[..., :2] / placed[..., 2:] * FOCAL + np.array(SIZE) / 2
    scores, line = np.ones((40, 17)), np.linspace(-0.8, 0.8, 17)[None, :, None]
    if name == "one point":
        poses, points = 0 * poses, 0 * points + 600
    elif name == "nobody":
        poses, points = poses * np.nan, points * np.nan
    elif name == "a line":
        poses = np.repeat(line * (0, 0, 1.0), 40, 0)
    elif name == "from above":
        poses = poses @ np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    elif name == "no keypoints":
        points[10:15] = np.nan
    elif name == "a joint nowhere":
        points[10:15, 3] = np.inf
    elif name == "no score":
        scores[5] = np.nan
    elif name == "a frame":
        poses, points, scores = 0 * poses[:1], 0 * points[:1], scores[:1]
    elif name == "no frame":
        poses, points, scores = poses[:0], points[:0], scores[:0]
    return Person(1, points.astype(np.float32), scores.astype(np.float32), poses.astype(np.float32))


NONSENSE = [
    *("one point", "nobody", "a line", "from above", "no keypoints", "a joint nowhere", "no score", "a frame"),
    "no frame",
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("how", [{}, {"smooth": 15, "fps": FPS}])
@pytest.mark.parametrize("name", NONSENSE)
def test_whatever_the_poses_are_they_are_placed(name, how):
    person = nonsense(name)
    turn = stand([person], SIZE, FOCAL, **how)
    there = person.present
    assert np.isfinite(person.world[there]).all() and np.isnan(person.world[~there]).all()
    assert abs(person.world[there]).max(initial=0) < 20
    assert person.off is None or np.isfinite(person.off)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    if name in ("no keypoints", "a joint nowhere", "no score"):  # what is missing moves nobody
        assert np.abs(person.world[:, 0] - person.world[0, 0]).max() < 0.05
    if name != "from above":
        assert abs(tilt_of(turn)) < 6


@pytest.mark.parametrize("fps", [30.0, 240.0, 1000.0])
@pytest.mark.parametrize("frames", [2, 5])
def test_poses_without_any_keypoints_are_placed_too(frames, fps):
    poses = standing(frames).astype(np.float32)
    person = Person(1, np.full((frames, 17, 2), np.nan, np.float32), np.ones((frames, 17), np.float32), poses)
    stand([person], SIZE, FOCAL, smooth=15, fps=fps)
    assert np.isfinite(person.world).all()


def test_a_tilt_is_told_and_what_is_none_is_refused():
    assert tilt_of(stand([nonsense("no keypoints")], SIZE, FOCAL, tilt=25)) == pytest.approx(25)
    for tilt in ("level", float("nan"), 91, -200.0):
        with pytest.raises(ValueError, match='stand: tilt: expected "auto" or degrees between -90 and 90, got'):
            stand([nonsense("no keypoints")], SIZE, FOCAL, tilt=tilt)
    with pytest.raises(ValueError, match=r"stand: size: expected a width and a height in pixels, got \(0, 0\)"):
        stand([nonsense("no keypoints")], (0, 0))


@pytest.mark.parametrize("fps", [240.0, 1000.0, 10_000.0])
def test_many_frames_a_second_lose_nobody(fps):
    poses = standing(600)
    person = seen(poses, np.repeat([[0.3, 0.2, 4.0]], 600, 0))
    stand([person], SIZE, FOCAL, smooth=2 * int(fps // 8) + 1, fps=fps)
    assert person.off < 5
