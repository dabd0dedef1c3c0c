"""Bodies, not points: what a person's keypoints and poses must keep over time.

``unswapped`` decides, before lifting, in which frames a detector took left for right; ``one_skeleton`` gives lifted
poses the same bones in every frame.
"""

from __future__ import annotations

import numpy as np

from posekernels.pose.skeleton import H36M_17

LEGS, ARMS = ((1, 2, 3), (4, 5, 6)), ((11, 12, 13), (14, 15, 16))
EXCHANGED = 0.03  # cost of a frame with left and right exchanged, units of the person for each joint
CHANGE = 0.1  # cost of beginning or ending that
FAR = 0.5  # units: a joint that leaps farther costs no more
RIGID = (1, 2, 3, 4, 5, 6, 12, 13, 15, 16)  # hips and limbs; the back bends, and shoulders go up and down
DEPTH = 2.0  # how much rather a bone gives way in depth, which an image does not show


def unswapped(points: np.ndarray) -> np.ndarray:
    """Keypoints with left and right as they were before and after, where a detector exchanged them for some frames.

    Legs and arms are decided apart, and each over all frames at once (Viterbi): joints go on at the speed they have, so
    limbs that pass each other stay who they are. Most of the frames stay as they are.

    Args:
        points: [T, 17, 2] pixels, H36M-17; NaN where not seen.
    Returns:
        [T, 17, 2], a copy.
    """
    points = points.copy()
    size = np.linalg.norm(points - points[:, :1], axis=-1)
    if len(points) < 3 or not np.isfinite(size).any():
        return points
    unit = max(float(np.nanmedian(size)), 1e-6)
    for right, left in (LEGS, ARMS):
        order = np.array([*right, *left])
        exchanged = _exchanged(points[:, order] / unit)
        points[np.ix_(exchanged, order)] = points[np.ix_(exchanged, np.array([*left, *right]))]
    return points


def _exchanged(limbs: np.ndarray) -> np.ndarray:
    """[T] bool: the frames in which [T, 6, 2], right limb then left, are to be exchanged."""
    T = len(limbs)
    ways = np.stack((limbs, np.roll(limbs, 3, 1)))  # [2, T, 6, 2]: as they are, exchanged
    # cost[a, b, c, t]: how far frame t in way c is from where frames t - 2 and t - 1 in ways a and b lead
    leads = 2 * ways[None, :, 1:-1] - ways[:, None, :-2]
    off = np.linalg.norm(ways[None, None, :, 2:] - leads[:, :, None], axis=-1)
    off = np.minimum(np.where(np.isfinite(off), off, 0), FAR).mean(-1)
    price = np.array([0, EXCHANGED])
    best = np.array([[0.0, CHANGE + EXCHANGED], [CHANGE + EXCHANGED, 2 * EXCHANGED]])  # of ways (t - 1, t)
    back = np.zeros((T, 2, 2), np.int64)
    turn = CHANGE * (1 - np.eye(2))
    for t in range(2, T):
        options = best[:, :, None] + off[..., t - 2] + turn[None] + price  # [a, b, c]
        back[t] = options.argmin(0)
        best = options.min(0)
    found = np.zeros(T, bool)
    b, c = np.unravel_index(best.argmin(), (2, 2))
    found[-1], found[-2] = c, b
    for t in range(T - 1, 1, -1):
        b, c = back[t, b, c], b
        found[t - 2] = b
    return found if found.mean() <= 0.5 else ~found


def bone_lengths(poses: np.ndarray) -> np.ndarray:
    """[17] the person's bones, from each joint's parent, over [T, 17, 3] poses in camera axes; left as right.

    Frames in which a bone lies across the view tell its length, those in which it points at the camera do not.
    """
    bones = poses - poses[:, [max(parent, 0) for parent in H36M_17.parents]]
    lengths = np.linalg.norm(bones, axis=-1)
    across = (np.linalg.norm(bones[..., :2], axis=-1) / np.maximum(lengths, 1e-9)) ** 4 + 1e-6
    found = (across * lengths).sum(0) / across.sum(0)
    return (found + found[list(H36M_17.mirrored)]) / 2


def one_skeleton(poses: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Poses [T, 17, 3] metres in camera axes, root at 0, with hips and limbs as long in every frame.

    Each bone becomes the nearest one of its length, where a way in depth counts less than one across the image.

    Args:
        lengths: [17] of the bones; by default ``bone_lengths``.
    """
    lengths = bone_lengths(poses) if lengths is None else lengths
    found = poses.astype(np.float64)
    for joint, parent in enumerate(H36M_17.parents):
        if parent >= 0:
            bone = poses[:, joint].astype(np.float64) - poses[:, parent]
            found[:, joint] = found[:, parent] + (_as_long(bone, float(lengths[joint])) if joint in RIGID else bone)
    return found.astype(poses.dtype)


def _as_long(bones: np.ndarray, length: float) -> np.ndarray:
    """[T, 3] vectors of one length nearest to ``bones``: |x|, |y| and |z| / DEPTH of the difference count.

    They are (x / (1 + l), y / (1 + l), z / (1 + l DEPTH^2)) for the l that makes them as long; found by halving.
    """
    weight = np.array([1, 1, DEPTH**2])
    low, high = np.full((len(bones), 1), -1 / DEPTH**2 + 1e-6), np.full((len(bones), 1), 20.0)
    for _ in range(40):
        middle = (low + high) / 2
        long = np.linalg.norm(bones / (1 + middle * weight), axis=-1, keepdims=True) > length
        low, high = np.where(long, middle, low), np.where(long, high, middle)
    found = bones / (1 + high * weight)
    return found * (length / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-9))
