"""What a network forecasts, on bones that stay as long and feet that stand where they stand: ``believable``."""

from __future__ import annotations

import numpy as np

from posekernels.pose.skeleton import H36M_17

from .steady import ANKLES, planted, steadied

LOOKED = 0.4  # seconds of the past that say where feet stand
SLOW, SLOWER = 2.0, 0.9  # m/s, and of the other foot's speed: a foot that is slower than both stands
STILL = 0.05  # m/s: whatever the other does
FADES = 0.3  # seconds in which what is new at the last frame seen goes away


def believable(past: np.ndarray, future: np.ndarray, fps: float) -> np.ndarray:
    """[T, 17, 3] ``future`` whose bones are as long as in the last frame seen, and whose feet do not slide.

    A network that is not sure where legs are forecasts their mean, which hardly moves, on a body that walks on.

    Args:
        past, future: [P, 17, 3], [T, 17, 3] metres, z up; the one follows the other.
    """
    past = past[-max(2, round(LOOKED * fps)) :].astype(np.float64)
    now = len(past) - 1
    whole = np.concatenate((past, as_long(future.astype(np.float64), past[-1])))
    speed = np.linalg.norm(np.diff(whole[:, ANKLES], axis=0), axis=-1) * fps
    still = (speed < SLOW) & (speed < SLOWER * speed[:, ::-1] + STILL)
    poses, path = whole - whole[:, :1], whole[:, 0]
    sure = np.where(np.arange(len(whole)) <= now, 1e4, 1.0)  # of what was seen
    root, places = steadied(sure[:, None, None] * np.eye(3), sure[:, None] * path, poses, still, fps)
    found = planted(poses, root, places, still, fps, stretch=1.0) + root[:, None]
    fading = np.exp(-np.arange(1, len(future) + 1) / (FADES * fps))[:, None, None]
    return as_long(found[now + 1 :] - fading * (found[now] - whole[now]), past[-1]).astype(future.dtype)


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
