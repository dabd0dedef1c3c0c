"""Lifted people standing in one world, z up: where they are, which way is up, where the floor is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from posekernels.pose.smoothing import savitzky_golay

from .bodies import path_equations, root_path
from .lifter import MARGIN, Person, focal_of, pieces, runs
from .rows import cuts
from .steady import footholds_of, planted, steadied, still_feet

LEAN = (0.05, 0.07)  # 3 and 4 degrees: how far "up" by the bodies is off, sideways and along the view
ROLL = 0.06  # 3 degrees: how far cameras are turned about their view; one that is far more hardly counts
NEARER = 0.08  # of its pitch that a camera seems to be pitched less: lifters answer nearer to what is usual
UNEVEN, BOBBING = 0.04, 0.15  # metres: how far footholds, and hips, are off a level
SLOPED = 1.5  # times the squared heights that these and LEAN explain: from there on, the ground is held for uneven
DEEP = 0.015  # of its distance, how far a place is off along the view
ERECT = 0.9  # of how high somebody's mass stands above the feet at most: in such frames it tells which way is up
SWAY = 0.15  # radians: lines from feet to mass that are farther off the others count less and less
LASTS = 0.1  # seconds that a foot stands at least
APART = 0.5  # seconds between the frames in which the hips' height counts
SEGMENTS = (  # of a body: from joint, to joint, share of its weight, how far along (Winter, 2009)
    *((0, 8, 0.497, 0.5), (8, 10, 0.081, 0.7), (1, 2, 0.1, 0.433), (4, 5, 0.1, 0.433), (2, 3, 0.061, 0.606)),
    *((5, 6, 0.061, 0.606), (11, 12, 0.028, 0.436), (14, 15, 0.028, 0.436), (12, 13, 0.022, 0.682)),
    (15, 16, 0.022, 0.682),
)
SOLVED = 2048  # frames at once, of which each takes 10 kB
FASTEST = 1000  # frames per second; beyond, the equations of feet that stand lose their digits
LEGS = [2, 3, 5, 6]  # what may move, to where feet stand
ARCH = 0.05  # metres: how far ahead of the ankles people stand
Levels = Sequence[np.ndarray]


def upright(people: Sequence[Person], footholds: Levels = (), hips: Levels = ()) -> np.ndarray:
    """[3, 3] rotation from camera axes to z-up axes, so that people stand upright on average and face as filmed.

    Up is the way from the feet to the body's centre of mass, which gravity decides for whoever walks or stands, to
    within some degrees, and cameras are hardly turned about their view; the places where feet stood, and the hips,
    which lie on one level each for each person, then decide as far as they spread. Where nobody stands upright, and
    nothing else tells, the camera is level.

    Args:
        footholds, hips: [N, 3] metres, camera axes, for each person.
    """
    lines = np.concatenate([np.zeros((0, 3)), *(_unit(_balance(p)) for p in people)])
    up = np.median(lines, axis=0) if len(lines) else np.zeros(3)
    for _ in range(5):
        weight = 1 / (1 + ((lines - up) ** 2).sum(-1) / SWAY**2)
        up = weight @ lines / max(weight.sum(), 1e-9)
    if up[1] > -0.5:  # lying or upside down on average: no telling; a level camera then
        up = np.array([0.0, -1, 0])
    pitch = (1 + NEARER) * np.arctan2(-up[2], np.hypot(up[0], up[1]))
    up = np.r_[up[:2] / np.hypot(up[0], up[1]) * np.cos(pitch), -np.sin(pitch)]
    turn = facing(up)
    levels = [(places, off) for of, off in ((footholds, UNEVEN), (hips, BOBBING)) for places in of if len(places) > 2]
    return facing(turn[2] + _slope(levels, turn) @ turn[:2])


def _balance(person: Person) -> np.ndarray:
    """[T, 3] from between the feet to the centre of mass, in the frames with a pose in which it is about as high as
    when the person stands.

    Of those who crouch, jump or kneel it tells less.
    """
    there, found = person.present, [np.zeros((0, 3), np.float32)]
    for rows in cuts(len(there)):
        poses = person.poses[rows][there[rows]]
        ankles = (poses[:, 3] + poses[:, 6]) / 2
        ahead = np.cross(_unit(poses[:, 4] - poses[:, 1]), _unit(poses[:, 8] - ankles))
        mass = sum(share * (poses[:, a] + along * (poses[:, b] - poses[:, a])) for a, b, share, along in SEGMENTS)
        found.append(mass - ankles - ARCH * ahead)
    lines = np.concatenate(found)
    heights = np.linalg.norm(lines, axis=-1)
    return lines[heights >= ERECT * np.quantile(heights, 0.95)] if len(lines) else lines


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def facing(up: np.ndarray) -> np.ndarray:
    """[3, 3] rotation to z-up axes in which the camera looks along y, of up in camera axes."""
    up = up / np.linalg.norm(up)
    away = np.array([0.0, 0, 1]) - up[2] * up
    away /= np.linalg.norm(away)
    return np.stack((np.cross(away, up), away, up))


def _slope(levels: Sequence[tuple[np.ndarray, float]], turn: np.ndarray) -> np.ndarray:
    """[2] how far up leans along x and y of ``turn``, so that places that belong together are on one level.

    Least squares with the bodies' verdict and a camera that is not turned about its view as priors; footholds on a box
    count less and less (Cauchy), and so do all of somebody who climbs: of whom they differ more than the bodies' errors
    explain. A place is off most along the view, so its height is the less sure the steeper the view, and up must not
    lean to where views are less steep: errors are measured in how sure a height is with up as it leans (Gauss-Newton).

    Args:
        levels: [N, 3] metres, camera axes, and how far these are off their level, metres.
    """
    counts = [len(places) for places, _ in levels]
    owners, ends = np.repeat(np.arange(len(levels)), counts), np.cumsum(counts)[:-1].astype(int)
    at = np.concatenate([np.zeros((0, 3)), *(places for places, _ in levels)]) @ turn.T
    uneven = np.array([off for _, off in levels])[owners] if levels else np.zeros(0)
    rows, lean = at[:, :2], np.zeros(2)
    level = np.array([np.median(heights) for heights in np.split(at[:, 2], ends)]) if levels else np.zeros(0)

    def of_each(values: np.ndarray) -> np.ndarray:
        return np.bincount(owners, values, len(levels))

    def varies(values: np.ndarray) -> np.ndarray:
        each = np.maximum(np.bincount(owners, minlength=len(levels)), 1)
        return of_each((values - (of_each(values) / each)[owners]) ** 2) / each

    leaning = sum(off**2 * varies(axis) for off, axis in zip(LEAN, rows.T))
    expected = leaning[owners] + uneven**2 + (DEEP * at[:, 2]) ** 2
    uneven = uneven * np.sqrt(1 + (varies(at[:, 2])[owners] / (SLOPED * expected)) ** 3)
    for _ in range(20):
        heights = at[:, 2] + rows @ lean  # of the camera above the place, negative
        sure = np.sqrt(uneven**2 + (DEEP * heights) ** 2)
        off = (heights - level[owners]) / sure
        weight = 1 / (1 + (off / 2) ** 2)
        tips = 1 / sure - off * DEEP**2 * heights / sure**2  # what ``off`` changes with the lean, for each metre
        roll = turn[2, 0] + lean @ turn[:2, 0]
        upright = 1 / (ROLL**2 + (roll / 2) ** 2)
        normal = (rows.T * (weight * tips**2)) @ rows + np.diag(1 / np.square(LEAN))
        normal += upright * np.outer(turn[:2, 0], turn[:2, 0])
        right = -rows.T @ (weight * tips * off) - lean / np.square(LEAN) - upright * roll * turn[:2, 0]
        # a level meets no other: each is taken out, and found again when the lean is
        firm = of_each(weight / sure**2) + 1e-9
        meets = -np.stack([of_each(weight * tips / sure * axis) for axis in rows.T])
        pulls = of_each(weight * off / sure)
        step = np.linalg.solve(normal - (meets / firm) @ meets.T, right - meets @ (pulls / firm))
        lean = lean + step
        level = level + (pulls - step @ meets) / firm
        if abs(step).max() < 1e-6:
            break
    return lean


def stand(
    people: Sequence[Person],
    size: tuple[int, int] | None,
    focal: float | None = None,
    *,
    ground: str = "clip",
    tilt: str | float = "auto",
    smooth: int = 1,
    fps: float | None = None,
) -> np.ndarray:
    """Give every person ``world``, metres, z up, floor at 0, everybody in the same world; and ``off``.

    Whatever the poses are, ``world`` is finite where they are: joints at one point stand there upright.

    Args:
        ground: "clip" puts the lowest points of each person's whole path on the floor, "frame" those of every frame,
            "none" keeps heights relative to the camera.
        tilt: of the camera, degrees downwards; "auto" decides by the people and where they stand (``upright``).
        smooth: frames of the Savitzky-Golay window over the path, which is rougher than the pose; 1 for none.
        fps: frames per second. Where they are known, at most ``FASTEST``, and the path is to be smooth, feet that stand
            keep their place, and ``poses`` get legs that reach there. That is done once: legs would bend again.
    Returns:
        [3, 3] rotation from camera axes to those of the world.
    Raises:
        ValueError: somebody whose feet would be held a second time; a tilt or a size that is none.
    """
    if tilt != "auto" and (isinstance(tilt, str) or not -90 <= tilt <= 90):
        raise ValueError(f'stand: tilt: expected "auto" or degrees between -90 and 90, got {tilt!r}')
    if size is not None and min(size) <= 0:
        raise ValueError(f"stand: size: expected a width and a height in pixels, got {tuple(size)}")
    reach = focal_of(size, focal)
    camera = None if size is None or reach is None else (size, reach)
    steady = fps if fps and fps <= FASTEST and smooth > 1 and camera else None
    for person in people if steady else ():
        if person.planted:
            raise ValueError(
                f"stand: the legs of person {person.identity} reach for where the feet stand already; lift them anew, "
                "or give no fps"
            )
    paths, footholds = [], []
    for person in people:
        path, stood = _way(person, camera, smooth, steady)
        paths.append(path)
        footholds.append(stood)
    if tilt == "auto":
        hips = [path[:: max(1, round(APART * steady))] if steady else path[:0] for path in paths]
        turn = upright(people, footholds, [at[np.isfinite(at).all(-1)] for at in hips])
    else:
        a = np.radians(float(tilt))
        turn = np.array([[1, 0, 0], [0, -np.sin(a), np.cos(a)], [0, -np.cos(a), -np.sin(a)]])
    for person, path, stood in zip(people, paths, footholds):
        if steady and len(stood):
            level = float(np.median(stood @ turn[2]))
            path[:], _ = _way(person, camera, smooth, steady, (turn[2], level))
            person.planted = True
        person.off = _off(person, path, *camera) if camera else None
        parts = cuts(len(path))

        def placed(own: slice, person: Person = person, path: np.ndarray = path) -> np.ndarray:
            return (person.poses[own] + path[own, None]) @ turn.T

        lowest = np.concatenate([np.zeros(0), *(placed(own)[..., 2].min(-1) for own in parts)])
        there = lowest[np.isfinite(lowest)]
        floor = lowest if ground == "frame" else np.full(len(path), np.percentile(there, 10) if len(there) else 0.0)
        person.begin_world()
        for own in parts:
            world = placed(own)
            if ground != "none":
                world[..., 2] -= floor[own, None]
            person.world[own] = world
    return turn


def tilt_of(turn: np.ndarray) -> float:
    """Degrees that a camera looks down whose axes ``turn`` [3, 3] turns into those of the world."""
    return float(np.degrees(np.arcsin(np.clip(-turn[2, 2], -1, 1))))


def _way(
    person: Person,
    camera: tuple[tuple[int, int], float] | None,
    smooth: int,
    fps: float | None,
    ground: tuple[np.ndarray, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The root's way [N, 3] and, with ``fps``, where feet stood [M, 3]; metres, camera axes.

    Args:
        camera: size and focal length, pixels; None where unknown, and everybody stays at 0.
        ground: of ``steadied``; with it, the person's legs are made to reach where the feet stand.
    """
    path, stood = np.zeros((len(person.frames), 3)), [np.zeros((0, 3))]
    if camera is None:
        return path, stood[0]

    def seen(rows: slice) -> tuple:
        return person.poses[rows], person.points[rows], person.scores[rows], *camera

    for rows in cuts(len(path)):
        path[rows] = root_path(*seen(rows))
    for part in _parts(person):
        path[part] = savitzky_golay(path[part], smooth, 1)
        if not fps:
            continue
        steady, legs = np.empty_like(path[part]), np.empty((part.stop - part.start, len(LEGS), 3), np.float32)
        for whole, own in pieces(part, SOLVED, MARGIN):
            poses = person.poses[whole]
            still = still_feet(person.points[whole], poses + path[whole][:, None], camera[1], fps)
            found, places = steadied(*path_equations(*seen(whole)), poses, still, fps, ground)
            keep = slice(own.start - whole.start, own.stop - whole.start)
            into = slice(own.start - part.start, own.stop - part.start)
            steady[into] = found[keep]
            steps = still[keep][: own.stop - own.start - 1]
            stood.append(footholds_of(places[keep], steps, max(2, round(LASTS * fps))))
            if ground is not None:
                legs[into] = planted(poses, found, places, still, fps)[keep][:, LEGS]
        path[part] = steady
        if ground is not None:  # now that no piece needs the legs as they were lifted
            person.poses[part][:, LEGS] = legs
    path[..., 2] = np.maximum(path[..., 2], 0.5)
    return path, np.concatenate(stood)


def _parts(person: Person) -> list[slice]:
    """Of the person's frames, those that follow each other with a pose in each."""
    rows = np.flatnonzero(person.present)
    parts = []
    for part in runs(person.frames[rows], 0):
        first, last = np.searchsorted(person.frames, (part.start, part.stop))
        parts.append(slice(int(first), int(last)))
    return parts


def _off(person: Person, path: np.ndarray, size: tuple[int, int], focal: float) -> float | None:
    """Pixels: the median distance of the joints seen from the pose projected back."""
    off, count = np.empty(len(path) * 17), 0
    for own in cuts(len(path)):
        placed = person.poses[own] + path[own, None]
        projected = placed[..., :2] / np.maximum(placed[..., 2:], 1e-3) * focal + np.array(size) / 2
        seen = (person.scores[own] > 0) & np.isfinite(person.points[own]).all(-1)
        seen &= np.isfinite(placed).all((1, 2))[:, None]
        some = np.linalg.norm(projected - person.points[own], axis=-1)[seen]
        off[count : count + len(some)] = some
        count += len(some)
    return float(np.median(off[:count], overwrite_input=True)) if count else None


@dataclass
class Lifted:
    """All that a run of ``posekernels lift`` found out, as files hold it; a notebook shows it as a page that plays.

    Args:
        length: frames of the video; where it is None, those of the first person.
        now: of a forecast, how many frames were seen; the others are what may come. None where all were seen.
        detected_layout: of the joints that people's ``detected`` holds; None where nobody has any.
    """

    people: Sequence[Person]
    fps: float
    size: tuple[int, int] | None
    source: str = ""
    notes: list[str] = field(default_factory=list)
    now: int | None = None
    length: int | None = None
    detected_layout: str | None = None

    @property
    def frames(self) -> int:
        return len(self.people[0].poses) if self.length is None else self.length

    def over(self, name: str, start: int = 0, step: int = 1) -> list[np.ndarray]:
        """Of each person points, scores, poses or world, [frames, 17, ...], from a frame on, every ``step``-th."""
        return [person.over(name, self.frames, start)[::step] for person in self.people]

    def _repr_html_(self) -> str:
        from .player import film_of  # which knows what is here

        start = 0 if self.now is None else max(0, self.now - round(2 * self.fps))
        return film_of(self, start=start, now=self.now)._repr_html_()
