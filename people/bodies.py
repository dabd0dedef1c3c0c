"""Bodies, not points: what a person's keypoints and poses must keep over time.

``unswapped`` decides, before lifting, in which frames a detector took left for right. ``one_skeleton`` gives lifted
poses the same bones in every frame, and ``agreeing`` makes them agree with the image too.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from posekernels.pose.skeleton import H36M_17
from posekernels.pose.smoothing import savitzky_golay

LEGS, ARMS = ((1, 2, 3), (4, 5, 6)), ((14, 15, 16), (11, 12, 13))  # right, left
EXCHANGED = 0.03  # cost of a frame with left and right exchanged, units of the person for each joint
CHANGE = 0.1  # cost of beginning or ending that
FAR = 0.5  # units: a joint that leaps farther costs no more
TWIST = 0.5  # cost of hips that face the other way than shoulders, for each unit that the narrower of them is wide
TURNED = 25  # frames: where they do in most of so many, somebody turns, and it costs nothing
ROUNDS = 3  # of agreeing with the image, then with the skeleton
AGREE = 0.6  # of the way from where a joint is to where the image shows it
ASTRAY = 0.12  # metres: what is farther off is more and more held for the detector's error
PIECE = 16384  # frames that are measured at once
DEPTH = 2.0  # how much rather a bone gives way in depth, which an image does not show


def unswapped(points: np.ndarray) -> np.ndarray:
    """Keypoints with left and right as they were before and after, where a detector exchanged them for some frames.

    Legs and arms are decided over all frames at once (Viterbi): joints go on at the speed they have, so limbs that pass
    each other stay who they are, and hips face the way that shoulders do. Most of the frames stay as they are.

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
    orders = [np.array([*right, *left]) for right, left in (LEGS, ARMS)]
    for exchanged, order in zip(_exchanged(*(points[:, order] / unit for order in orders)), orders):
        points[np.ix_(exchanged, order)] = points[np.ix_(exchanged, np.roll(order, 3))]
    return points


def _exchanged(legs: np.ndarray, arms: np.ndarray) -> np.ndarray:
    """[2, T] bool: the frames in which legs, and arms, [T, 6, 2], right limb then left, are to be exchanged."""
    T, ways = len(legs), np.array([[0, 0], [1, 0], [0, 1], [1, 1]])  # of both, which are exchanged
    # off[a, b, c, t]: how far frame t + 2 in way c is from where frames t and t + 1 in ways a and b lead
    off = sum(_leaps(limbs)[np.ix_(way, way, way)] for limbs, way in ((legs, ways[:, 0]), (arms, ways[:, 1])))
    hips, shoulders = legs[:, 0, 0] - legs[:, 3, 0], arms[:, 0, 0] - arms[:, 3, 0]  # how wide, in the image
    wide = np.nan_to_num(np.minimum(abs(hips), abs(shoulders)))
    same = hips * shoulders > 0
    around = np.convolve(hips * shoulders < 0, np.ones(TURNED))[TURNED // 2 :][:T]
    wide[around > TURNED / 2] = 0
    apart, along = np.where(same, 0, wide), np.where(same, wide, 0)
    twisted = TWIST * np.where((ways[:, 0] == ways[:, 1])[:, None], apart, along)  # [way, T]
    price = EXCHANGED * ways.sum(1)[:, None] + twisted
    turn = CHANGE * abs(ways[:, None] - ways[None]).sum(-1)
    best = price[:, None, 0] + price[None, :, 1] + turn  # of ways (t - 1, t)
    back = np.zeros((T, 4, 4), np.int64)
    for t in range(2, T):
        options = best[:, :, None] + off[..., t - 2] + turn[None] + price[:, t]  # [a, b, c]
        back[t] = options.argmin(0)
        best = options.min(0)
    path = np.zeros(T, np.int64)
    b, c = np.unravel_index(best.argmin(), (4, 4))
    path[-1], path[-2] = c, b
    for t in range(T - 1, 1, -1):
        b, c = back[t, b, c], b
        path[t - 2] = b
    found = ways[path].T == 1
    return found if found.mean() <= 0.5 else ~found


def _leaps(limbs: np.ndarray) -> np.ndarray:
    """[2, 2, 2, T - 2]: how far [T, 6, 2] is, for each joint, from where the two frames before lead; each of the three
    as it is or exchanged."""
    ways = np.stack((limbs, np.roll(limbs, 3, 1)))
    leads = 2 * ways[None, :, 1:-1] - ways[:, None, :-2]
    off = np.linalg.norm(ways[None, None, :, 2:] - leads[:, :, None], axis=-1)
    return np.minimum(np.where(np.isfinite(off), off, 0), FAR).mean(-1)


class Bones:
    """The lengths of a person's bones by all poses so far: ``add`` poses, read ``lengths``.

    Frames in which a bone lies across the view tell its length, those in which it points at the camera do not.
    """

    def __init__(self):
        self.total, self.weight = np.zeros(17), np.full(17, 1e-12)

    def add(self, poses: np.ndarray) -> None:
        """Poses [T, 17, 3] in camera axes."""
        bones = poses - poses[:, [max(parent, 0) for parent in H36M_17.parents]]
        lengths = np.linalg.norm(bones, axis=-1)
        across = (np.linalg.norm(bones[..., :2], axis=-1) / np.maximum(lengths, 1e-9)) ** 4 + 1e-6
        self.total = self.total + (across * lengths).sum(0)
        self.weight = self.weight + across.sum(0)

    @property
    def lengths(self) -> np.ndarray:
        """[17] from each joint's parent; left as right."""
        found = self.total / self.weight
        return (found + found[list(H36M_17.mirrored)]) / 2


def bone_lengths(poses: np.ndarray | Iterable[np.ndarray]) -> np.ndarray:
    """[17] the person's bones (``Bones``) over [T, 17, 3] poses in camera axes.

    Args:
        poses: all of them, or piece by piece.
    """
    found = Bones()
    if isinstance(poses, np.ndarray):
        poses = [poses[start : start + PIECE] for start in range(0, len(poses), PIECE)]
    for some in poses:
        found.add(some)
    return found.lengths


def one_skeleton(poses: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Poses [T, 17, 3] metres in camera axes, root at 0, with every bone as long in every frame.

    Each bone becomes the nearest one of its length, where a way in depth counts less than one across the image.

    Args:
        lengths: [17] of the bones; by default ``bone_lengths``.
    """
    lengths = bone_lengths(poses) if lengths is None else lengths
    poses, dtype = poses.astype(np.float64), poses.dtype
    across = (poses[:, 4] - poses[:, 1]) / 2  # the root is the middle of the hips
    poses = poses.copy()
    poses[:, 1], poses[:, 4] = poses[:, 0] - across, poses[:, 0] + across
    bones = poses - poses[:, [max(parent, 0) for parent in H36M_17.parents]]
    bones[:, 1:] = _as_long(bones[:, 1:], np.asarray(lengths)[1:, None])
    found = poses.copy()
    for joint, parent in enumerate(H36M_17.parents):
        if parent >= 0:
            found[:, joint] = found[:, parent] + bones[:, joint]
    return found.astype(dtype)


def _as_long(bones: np.ndarray, length: np.ndarray) -> np.ndarray:
    """[T, B, 3] vectors as long as ``length`` [B, 1] nearest to ``bones``: |x|, |y| and |z| / DEPTH of the difference
    count.

    They are (x / (1 + l), y / (1 + l), z / (1 + l DEPTH^2)) for the l that makes them as long; found by halving.
    """
    weight = np.array([1, 1, DEPTH**2])
    low, high = (np.full((*bones.shape[:-1], 1), value) for value in (-1 / DEPTH**2 + 1e-6, 20.0))
    for _ in range(40):
        middle = (low + high) / 2
        long = np.linalg.norm(bones / (1 + middle * weight), axis=-1, keepdims=True) > length
        low, high = np.where(long, middle, low), np.where(long, high, middle)
    found = bones / (1 + high * weight)
    return found * (length / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-9))


# -- pose and image --------------------------------------------------------------------------------------------------
def path_equations(
    poses: np.ndarray, points: np.ndarray, scores: np.ndarray, size: tuple[int, int], focal: float
) -> tuple[np.ndarray, np.ndarray]:
    """[T, 3, 3] and [T, 3] of the normal equations for the root's place, metres, camera axes.

    Least squares over the joints, weighted by their scores: f (X + x) = u (Z + z) and the same with y; a joint without
    a place in the image, or a score, does not count. NaN in frames without a pose.

    Args:
        poses: [T, 17, 3] metres, camera axes, root at 0. points, scores: [T, 17, 2] pixels and [T, 17].
    """
    if len(poses) > PIECE:
        cuts = range(0, len(poses), PIECE)
        parts = [path_equations(*(a[i : i + PIECE] for a in (poses, points, scores)), size, focal) for i in cuts]
        return tuple(np.concatenate(of) for of in zip(*parts))
    seen = np.isfinite(points).all(-1) & np.isfinite(scores)
    ray = (np.where(seen[..., None], points, 0) - np.array(size) / 2) / focal  # [T, 17, 2]
    weight = np.sqrt(np.where(seen, np.maximum(scores, 0.05), 0))[..., None]
    zero = np.zeros_like(ray[..., 0])
    rows_x = np.stack((zero + 1, zero, -ray[..., 0]), -1) * weight
    rows_y = np.stack((zero, zero + 1, -ray[..., 1]), -1) * weight
    right = (ray * poses[..., 2:] - poses[..., :2]) * weight
    matrix, right = np.concatenate((rows_x, rows_y), 1), np.concatenate((right[..., 0], right[..., 1]), 1)
    normal = np.einsum("tni,tnj->tij", matrix, matrix) + 1e-9 * np.eye(3)
    return normal, np.einsum("tni,tn->ti", matrix, right)


def root_path(
    poses: np.ndarray, points: np.ndarray, scores: np.ndarray, size: tuple[int, int], focal: float
) -> np.ndarray:
    """[T, 3] metres, camera axes: where the root must be for each frame's pose to project onto its keypoints.

    With a pose and no keypoint it is between where it was before and after.
    """
    normal, right = path_equations(poses, points, scores, size, focal)
    path, present = np.full((len(right), 3), np.nan), np.isfinite(right).all(-1)
    path[present] = np.linalg.solve(normal[present], right[present][..., None])[..., 0]
    shown = normal[:, 0, 0] > 1e-6
    known, missing = np.flatnonzero(present & shown), np.flatnonzero(present & ~shown)
    if len(known) and len(missing):
        path[missing] = np.stack([np.interp(missing, known, axis) for axis in path[known].T], -1)
    path[..., 2] = np.maximum(path[..., 2], 0.5)  # in front of the camera, whatever the fit says
    return path


def agreeing(
    poses: np.ndarray,
    points: np.ndarray,
    scores: np.ndarray,
    size: tuple[int, int],
    focal: float,
    smooth: int = 1,
    lengths: np.ndarray | None = None,
) -> np.ndarray:
    """Poses that agree with the image, and have the same bones in every frame.

    A network knows an image's two axes less well than the image does. By turns, joints go most of the way to where
    they are seen, across the view, and bones become as long as they are, which turns them in depth.

    Args:
        poses: [T, 17, 3] metres, camera axes, root at 0, of one stretch of frames. points, scores: its keypoints; a
            joint with a score of 0 was not seen. smooth: frames of the Savitzky-Golay window; 1 for none.
        lengths: [17] of the bones, where earlier frames tell them; by default of these frames.
    """
    found = one_skeleton(poses.astype(np.float64), lengths)
    ray = (savitzky_golay(points.astype(np.float64), smooth) - np.array(size) / 2) / focal
    for _ in range(ROUNDS):
        path = savitzky_golay(root_path(found, points, scores, size, focal), smooth, 1)
        placed = found + path[:, None]
        off = ray * placed[..., 2:] - placed[..., :2]
        trust = AGREE * np.clip(scores, 0, 1)[..., None] / (1 + (off**2).sum(-1, keepdims=True) / ASTRAY**2)
        placed[..., :2] += trust * off
        found = one_skeleton(placed - placed[:, :1], lengths)
    found = one_skeleton(savitzky_golay(found, smooth), lengths)
    return found.astype(poses.dtype)
