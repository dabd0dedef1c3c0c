"""What a network forecasts, made ``believable``: bones stay as long, feet that stand stay there, and things fall."""

from __future__ import annotations

import numpy as np

from posekernels.pose.skeleton import H36M_17

from .steady import ANKLES, planted, steadied

LOOKED = 0.4  # seconds of the past that say where feet stand
SLOW, SLOWER = 2.0, 0.9  # m/s, and of the other foot's speed: a foot that is slower than both stands
STILL = 0.05  # m/s: whatever the other does
FADES = 0.3  # seconds in which what is new at the last frame seen goes away
STEPS = 0.12  # seconds before and after in which one foot comes to stand for the other
GRAVITY = 9.81  # m/s^2
WATCHED = 0.16  # seconds: the last ones tell whether somebody is in the air
CLEAR = 0.08  # metres: ankles of somebody on tiptoe are hardly higher
GIVES = 0.08  # seconds: knees of somebody who lands give way most after so long


def believable(past: np.ndarray, future: np.ndarray, fps: float) -> np.ndarray:
    """[T, 17, 3] ``future`` whose bones are as long as in the last frame seen, and whose feet do not slide.

    A network that is not sure where legs are forecasts their mean, which hardly moves, on a body that walks on, or that
    stays in mid-air: whoever is there in the last frame seen falls to the floor that they stood on before.

    Args:
        past, future: [P, 17, 3], [T, 17, 3] metres, z up; the one follows the other.
    """
    seen, found = past.astype(np.float64), as_long(future.astype(np.float64), past[-1])
    flight = in_the_air(seen, fps)
    return (held(seen, found, fps) if flight is None else fallen(seen, found, fps, *flight)).astype(future.dtype)


def held(past: np.ndarray, future: np.ndarray, fps: float) -> np.ndarray:
    """``future`` whose feet stand where they stand."""
    past = past[-max(2, round(LOOKED * fps)) :]
    now = len(past) - 1
    whole = np.concatenate((past, future))
    speed = blurred(np.linalg.norm(np.diff(whole[:, ANKLES], axis=0), axis=-1) * fps, STEPS, fps)
    still = (speed < SLOW) & (speed < SLOWER * speed[:, ::-1] + STILL)
    poses, path = whole - whole[:, :1], whole[:, 0]
    sure = np.where(np.arange(len(whole)) <= now, 1e4, 1.0)  # of what was seen
    root, places = steadied(sure[:, None, None] * np.eye(3), sure[:, None] * path, poses, still, fps)
    found = planted(poses, root, places, still, fps, stretch=1.0) + root[:, None]
    moved = (found - whole)[now:]
    moved = moved - np.exp(-np.arange(len(moved)) / (FADES * fps))[:, None, None] * moved[0]
    # a foot that glides has stood elsewhere than the other, which takes over: its leg would get there in one frame
    return as_long(future + blurred(moved, STEPS, fps)[1:], past[-1])


def blurred(values: np.ndarray, seconds: float, fps: float) -> np.ndarray:
    """[T, ...] averaged over so many seconds before and after, near frames counting more; the ends go on."""
    far = max(1, round(seconds * fps))
    weights = far + 1 - abs(np.arange(-far, far + 1.0))
    whole = np.concatenate((np.repeat(values[:1], far, 0), values, np.repeat(values[-1:], far, 0)))
    return sum(w * whole[n : n + len(values)] for n, w in enumerate(weights / weights.sum()))


def in_the_air(past: np.ndarray, fps: float) -> tuple[float, np.ndarray] | None:
    """How high ankles are on the floor, metres, and how fast the hips go [3], m/s, of somebody who flies at the end.

    Nothing of them is near the floor then, and their hips fall faster and faster; None of all others.
    """
    count = max(3, round(WATCHED * fps)) + 1
    if len(past) < 2 * count:
        return None
    floor = float(np.percentile(past[:, ANKLES, 2].min(1), 10))
    last, times = past[-count:], np.arange(1 - count, 1) / fps
    clear = last[..., 2].min(1) > floor + CLEAR
    falls = -2 * np.polyfit(times, last[:, 0, 2], 2)[0]
    if not clear[-2:].all() or falls < GRAVITY / 2:
        return None
    some = np.flatnonzero(~clear)[-1] + 1 if not clear.all() else 0  # since when nothing touches the floor
    some = min(some, count - 3)
    way = last[some:, 0].copy()
    way[:, 2] += GRAVITY / 2 * times[some:] ** 2
    return floor, np.polyfit(times[some:], way, 1)[0]


def fallen(past: np.ndarray, future: np.ndarray, fps: float, floor: float, speed: np.ndarray) -> np.ndarray:
    """``future`` of somebody who flies: they go on as gravity has it until they meet the floor, where knees give.

    Args:
        floor, speed: of ``in_the_air``.
    """
    times = np.arange(1, len(future) + 1)[:, None] / fps
    way = past[-1, 0] + speed * times
    way[:, 2] -= GRAVITY / 2 * times[:, 0] ** 2
    # how high hips are while the lowest joint, usually a foot, is on the floor: one may be in a somersault
    stood = floor + future[:, 0, 2] - future[..., 2].min(1)
    low = np.flatnonzero(way[:, 2] <= stood)
    land = int(low[0]) if len(low) else len(future)
    flown = future[:land] + (way[:land] - future[:land, 0])[:, None]
    if land == len(future):
        return flown
    rest = future[land:].copy()
    rest[..., :2] += way[land, :2] - rest[0, 0, :2]
    rest[..., 2] += (stood[land:] - rest[:, 0, 2])[:, None]
    before = np.concatenate((past, flown))
    before[..., 2] += (stood[land] - before[:, 0, 2])[:, None]  # as if they had come on level ground
    rest = held(before, rest, fps)
    since, hits = np.arange(0.5, len(rest)) / fps, speed[2] - GRAVITY * times[land, 0]
    root, places = rest[:, 0].copy(), rest[:, ANKLES].copy()
    if future[land].argmin(0)[2] in ANKLES:
        root[:, 2] += hits * since * np.exp(-since / GIVES)
    places[..., 2] = np.maximum(places[..., 2], floor)
    stands = np.ones((len(rest) - 1, 2), bool)
    rest = planted(rest - rest[:, :1], root, places, stands, fps, stretch=1.0) + root[:, None]
    return np.concatenate((flown, rest))


def as_long(poses: np.ndarray, like: np.ndarray) -> np.ndarray:
    """[T, 17, 3] with bones as long as those of ``like`` [17, 3], in the directions that they have."""
    found = poses.copy()
    for joint, parent in enumerate(H36M_17.parents):
        if parent >= 0:
            bone, length = poses[:, joint] - poses[:, parent], np.linalg.norm(like[joint] - like[parent])
            found[:, joint] = found[:, parent] + bone * (
                length / np.maximum(np.linalg.norm(bone, axis=-1, keepdims=True), 1e-9)
            )
    return found
