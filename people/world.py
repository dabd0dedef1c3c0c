"""Lifted people standing in one world, z up: where they are, which way is up, where the floor is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from posekernels.pose.smoothing import savitzky_golay

from .bodies import path_equations, root_path
from .lifter import LONGEST, MARGIN, Person, focal_of, pieces, runs
from .rows import cuts

STILL = 0.3  # m/s: an ankle that is slower in the image, and not much faster in space, stands
FOOT = 0.07  # m/s: how still feet that stand are
OFF = 0.06  # metres: how far a lifted joint is from where the image shows it
PUSH = 5.0  # m/s^2: accelerations of the root
ANKLES = [3, 6]
LEAN = 0.1  # about 6 degrees: how far people lean on average
UNEVEN = 0.2  # metres: of footholds, errors that many of them share included


def still_feet(points: np.ndarray, placed: np.ndarray, focal: float, fps: float) -> np.ndarray:
    """[T - 1, 2] bool: which ankles (right, left) stand from a frame to the next.

    Args:
        points: [T, 17, 2] pixels. placed: [T, 17, 3] metres, camera axes. focal: pixels.
    """
    span = 2 * max(1, round(0.08 * fps)) + 1
    seen = savitzky_golay(points[:, ANKLES].astype(np.float32), span, 1)
    space = savitzky_golay(placed[:, ANKLES].astype(np.float32), span, 1)
    across = np.linalg.norm(np.diff(seen, axis=0), axis=-1) / focal * placed[:-1, ANKLES, 2] * fps
    speed = np.linalg.norm(np.diff(space, axis=0), axis=-1) * fps
    return (across < STILL) & (speed < 3 * STILL)


def steadied(normal: np.ndarray, right: np.ndarray, poses: np.ndarray, still: np.ndarray, fps: float) -> np.ndarray:
    """[T, 3] metres: the smooth way of the root that agrees with the image and with feet that stand.

    A Kalman smoother (Rauch, Tung and Striebel) over place and speed.

    Args:
        normal, right: of ``path_equations``.
        poses: [T, 17, 3] metres, root at 0. still: [T - 1, 2], of ``still_feet``.
    """
    T = len(poses)
    step = np.eye(6)
    step[:3, 3:] = np.eye(3)
    push = (PUSH / fps**2) ** 2 * np.kron(np.array([[1 / 3, 1 / 2], [1 / 2, 1]]), np.eye(3))
    moved = -np.diff(poses[:, ANKLES], axis=0)  # of the root, if the foot stands
    means, spreads, ahead = np.zeros((T, 6)), np.zeros((T, 6, 6)), np.zeros((T, 6, 6))
    mean, spread = np.zeros(6), np.diag([1e4] * 3 + [(3 / fps) ** 2] * 3)
    for t in range(T):
        if t:
            mean, spread = step @ means[t - 1], step @ spreads[t - 1] @ step.T + push
        ahead[t] = spread
        gain = np.zeros((6, 6))
        pull = np.zeros(6)
        gain[:3, :3], pull[:3] = normal[t] / OFF**2, right[t] / OFF**2
        if t < T - 1 and still[t].any():
            weight = still[t].sum() / (FOOT / fps) ** 2
            gain[3:, 3:] += weight * np.eye(3)
            pull[3:] += weight * moved[t, still[t]].mean(0)
        before = np.linalg.inv(spread)
        spreads[t] = np.linalg.inv(before + gain)
        means[t] = spreads[t] @ (before @ mean + pull)
    for t in range(T - 2, -1, -1):
        back = spreads[t] @ step.T @ np.linalg.inv(ahead[t + 1])
        means[t] = means[t] + back @ (means[t + 1] - step @ means[t])
    return means[:, :3]


def upright(people: Sequence[Person], footholds: list[np.ndarray] | None = None) -> np.ndarray:
    """[3, 3] rotation from camera axes to z-up axes, so that people stand upright on average and face as filmed.

    Up is the median direction from ankles to neck, which gravity decides for whoever walks or stands, to within some
    degrees; the places where feet stood, which lie on one level for each person, then decide as far as they spread.

    Args:
        footholds: [N, 3] metres, camera axes, for each person.
    """
    spine = np.concatenate([_spine(p) for p in people])
    up = np.median(spine / np.maximum(np.linalg.norm(spine, axis=-1, keepdims=True), 1e-9), axis=0)
    if up[1] > -0.5:  # lying or upside down on average: no telling; a level camera then
        up = np.array([0.0, -1, 0])
    turn = _facing(up / np.linalg.norm(up))
    if footholds and any(len(f) > 2 for f in footholds):
        turn = _facing(turn[2] + _slope(footholds, turn) @ turn[:2])
    return turn


def _spine(person: Person) -> np.ndarray:
    """[T, 3] from the middle of the ankles to the neck, in the frames with a pose."""
    there, found = person.present, [np.zeros((0, 3), np.float32)]
    for rows in cuts(len(there)):
        poses = person.poses[rows][there[rows]]
        found.append(poses[:, 8] - (poses[:, 3] + poses[:, 6]) / 2)
    return np.concatenate(found)


def _facing(up: np.ndarray) -> np.ndarray:
    """[3, 3] rotation to z-up axes in which the camera looks along y, of up in camera axes."""
    up = up / np.linalg.norm(up)
    away = np.array([0.0, 0, 1]) - up[2] * up
    away /= np.linalg.norm(away)
    return np.stack((np.cross(away, up), away, up))


def _slope(footholds: list[np.ndarray], turn: np.ndarray) -> np.ndarray:
    """[2] how far up leans along x and y of ``turn``, so that every person's footholds are on one level.

    Least squares with the spine's verdict as a prior; footholds on a stair or a box count less and less (Cauchy).
    """
    at = np.concatenate(footholds) @ turn.T
    rows, heights = at[:, :2], at[:, 2]
    owners = np.repeat(
        np.arange(len(footholds)), [len(places) for places in footholds]
    )  # each has a level of their own

    def of_each(values: np.ndarray) -> np.ndarray:
        return np.bincount(owners, values, len(footholds))

    # height + lean . place = level: the equations of lean and levels, of which no two levels meet in one
    weight, found = np.ones(len(at)), np.zeros(2 + len(footholds))
    for _ in range(10):
        pull = weight / UNEVEN**2
        normal = np.diag(np.r_[0, 0, of_each(pull)] + 1e-9)
        normal[:2, :2] += (rows.T * pull) @ rows + np.eye(2) / LEAN**2
        normal[:2, 2:] = -np.stack([of_each(pull * rows[:, axis]) for axis in (0, 1)])
        normal[2:, :2] = normal[:2, 2:].T
        right = np.r_[-(rows.T * pull) @ heights, of_each(pull * heights)]
        found = np.linalg.solve(normal, right)
        weight = 1 / (1 + ((heights + rows @ found[:2] - found[2:][owners]) / (2 * UNEVEN)) ** 2)
    return found[:2]


def footholds_of(placed: np.ndarray, still: np.ndarray) -> np.ndarray:
    """[N, 3] metres: where an ankle stood, once for each time that it stood for three frames or more.

    Args:
        placed: [T, 17, 3], of one stretch of frames. still: [T - 1, 2], of ``still_feet``.
    """
    found = []
    for side, ankle in enumerate(ANKLES):
        edges = np.flatnonzero(np.diff(np.r_[0, still[:, side], 0]))
        found += [np.median(placed[a : b + 1, ankle], 0) for a, b in zip(edges[::2], edges[1::2]) if b - a >= 2]
    return np.array(found).reshape(-1, 3)


def stand(
    people: Sequence[Person],
    size: tuple[int, int] | None,
    focal: float | None = None,
    *,
    ground: str = "clip",
    tilt: str | float = "auto",
    smooth: int = 1,
    fps: float | None = None,
) -> None:
    """Give every person ``world``, metres, z up, floor at 0, everybody in the same world; and ``off``.

    Args:
        ground: "clip" puts the lowest points of each person's whole path on the floor, "frame" those of every frame,
            "none" keeps heights relative to the camera.
        tilt: of the camera, degrees downwards; "auto" decides by the people and where they stand (``upright``).
        smooth: frames of the Savitzky-Golay window over the path, which is rougher than the pose; 1 for none.
        fps: frames per second. Where they are known and the path is to be smooth, feet that stand keep it still.
    """
    reach = focal_of(size, focal)
    paths, footholds = [], []
    for person in people:
        path, stood = np.zeros((len(person.frames), 3)), [np.zeros((0, 3))]
        person.off = None

        def seen(rows: slice, person: Person = person) -> tuple:
            return person.poses[rows], person.points[rows], person.scores[rows], size, reach

        if size is not None and reach is not None:
            for rows in cuts(len(path)):
                path[rows] = root_path(*seen(rows))
            for part in _parts(person):
                path[part] = savitzky_golay(path[part], smooth, 1)
                if not fps or smooth <= 1:
                    continue
                steady = np.empty_like(path[part])
                for whole, own in pieces(part, LONGEST, MARGIN):
                    poses = person.poses[whole]
                    still = still_feet(person.points[whole], poses + path[whole][:, None], reach, fps)
                    found = steadied(*path_equations(*seen(whole)), poses, still, fps)
                    keep = slice(own.start - whole.start, own.stop - whole.start)
                    steady[own.start - part.start : own.stop - part.start] = found[keep]
                    stood.append(footholds_of((poses + found[:, None])[keep], still[keep][: own.stop - own.start - 1]))
                path[part] = steady
            path[..., 2] = np.maximum(path[..., 2], 0.5)
            person.off = _off(person, path, size, reach)
        paths.append(path)
        footholds.append(np.concatenate(stood))
    if tilt == "auto":
        turn = upright(people, footholds)
    else:
        a = np.radians(float(tilt))
        turn = np.array([[1, 0, 0], [0, -np.sin(a), np.cos(a)], [0, -np.cos(a), -np.sin(a)]])
    for person, path in zip(people, paths):
        parts = cuts(len(path))

        def placed(own: slice, person: Person = person, path: np.ndarray = path) -> np.ndarray:
            return (person.poses[own] + path[own, None]) @ turn.T

        lowest = np.concatenate([placed(own)[..., 2].min(-1) for own in parts])
        floor = lowest if ground == "frame" else np.full(len(path), np.nanpercentile(lowest, 10))
        person.begin_world()
        for own in parts:
            world = placed(own)
            if ground != "none":
                world[..., 2] -= floor[own, None]
            person.world[own] = world


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
        projected = placed[..., :2] / placed[..., 2:] * focal + np.array(size) / 2
        seen = (person.scores[own] > 0) & np.isfinite(person.poses[own]).all((1, 2))[:, None]
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
