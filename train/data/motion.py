"""The built-in data set: 110 s of real human motion, seen by the cameras of Human3.6M.

``starter.npz`` holds positions only (made by ``train.data.make_starter``; origins and terms in ``STARTER_NOTICE.md``).
Here the people are put where those cameras look. Figures on it are the starter set's, never Human3.6M's: two bodies,
and few kinds of motion.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from posekernels.archive import DataError, read_npz
from posekernels.checks import nearest
from posekernels.pose.camera import Camera, denormalise_screen, h36m_cameras, project, rotate, world_to_camera
from posekernels.pose.skeleton import H36M_17

from . import published
from .clips import Clip, LiftingData
from .forecasting import EVALUATED, OBSERVED, STARTER, TRAINED, ForecastData, Motion
from .h36m import TEST_SUBJECTS, TRAIN_SUBJECTS

FILE = Path(__file__).with_name("starter.npz")
FPS = 50.0
CMU_UNIT = 0.056444  # metres: CMU counts inches, divided by 0.45
SHORTEST = 9  # frames; what is left of a clip in view of a camera must be at least this long


def from_y_up(points: np.ndarray) -> np.ndarray:
    """Y-up to z-up axes: (x, y, z) -> (x, -z, y), a rotation, so left stays left."""
    return np.stack((points[..., 0], -points[..., 2], points[..., 1]), -1)


def resample(points: np.ndarray, fps: float) -> np.ndarray:
    """[T, J, 3] from ``fps`` to 50 Hz by Catmull-Rom curves through the frames."""
    at = np.arange(0, (len(points) - 1) / fps, 1 / FPS) * fps
    i = np.minimum(at.astype(int), len(points) - 2)
    u = (at - i)[:, None, None]
    p0, p1, p2, p3 = (points[np.clip(i + k, 0, len(points) - 1)] for k in (-1, 0, 1, 2))
    return p1 + u / 2 * (p2 - p0 + u * (2 * p0 - 5 * p1 + 4 * p2 - p3 + u * (3 * (p1 - p2) + p3 - p0)))


def stage(cameras: Sequence[Camera]) -> np.ndarray:
    """[2] the ground point that the cameras look at: nearest to all their optical axes, seen from above, metres."""
    normal, right = np.zeros((2, 2)), np.zeros(2)
    for camera in cameras:
        axis = rotate(np.float32([0, 0, 1]), camera.orientation)[:2].astype(np.float64)
        across = np.eye(2) - np.outer(axis, axis) / (axis @ axis)
        normal += across
        right += across @ camera.translation[:2]
    return np.linalg.solve(normal, right)


def turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """Points [..., 3] turned about the world's z axis by ``yaw`` radians."""
    c, s = np.cos(yaw), np.sin(yaw)
    return points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def inside(points: np.ndarray, camera: Camera) -> np.ndarray:
    """[T] which frames [T, J, 3] (camera space) have every joint inside the image and in front of the camera."""
    pixels = denormalise_screen(project(points, camera.intrinsics), camera.width, camera.height)
    good = (pixels > 0) & (pixels < (camera.width, camera.height)) & (points[..., 2:] > 0.5)
    return good.all((1, 2))


def longest_in_view(points: np.ndarray, camera: Camera) -> slice:
    """The longest run of frames [T, J, 3] (camera space) that are ``inside``."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], inside(points, camera), [0]))))
    if not len(edges):
        return slice(0, 0)
    starts, ends = edges[::2], edges[1::2]
    best = int(np.argmax(ends - starts))
    return slice(int(starts[best]), int(ends[best]))


def load_starter(
    keypoints: str = "gt",
    actions: str | Sequence[str] | None = None,
    downsample: int = 1,
    subset: float = 1.0,
    path: str | Path = FILE,
) -> LiftingData:
    """The starter set in the form of Human3.6M: 17 joints, 50 Hz, the same cameras, held-out clips to test on.

    Every training clip is seen by the four cameras of each of the five training subjects, turned differently for each
    subject (20 views); every test clip by those of the two test subjects (8 views). In each view the longest stretch
    with the whole person in the image is kept.

    Args:
        keypoints: "gt", projected 3D, is all there is.
        actions, downsample, subset: as for ``load_h36m``.
        path: another file of the same form.
    Returns:
        Clips whose subject is "performer/owner of the cameras", as "CMU/S9".
    Raises:
        DataError: other keypoints, an action that is not there (the nearest one is told), an unreadable file.
    """
    if keypoints != "gt":
        raise DataError(f"starter set: no keypoints {keypoints!r}{nearest(keypoints, ['gt'])} (it has: gt)")
    data = read_npz(path, "positions", "lengths", "subjects", "actions", "parts", "fps")
    positions, lengths = data["positions"], data["lengths"]
    if positions.ndim != 3 or positions.shape[1:] != (17, 3) or lengths.sum() != len(positions):
        raise DataError(
            f"{path}: expected positions [{lengths.sum()} frames, 17, 3] by its lengths, got {list(positions.shape)}"
        )
    prefixes = published.split_names(actions)
    published.check_actions(prefixes, data["actions"].tolist())
    motions = np.split(positions, lengths.cumsum()[:-1])
    rigs = {"train": TRAIN_SUBJECTS, "test": TEST_SUBJECTS}
    clips: dict[str, list[Clip]] = {"train": [], "test": []}
    for number, motion in enumerate(motions):
        performer, action, part = (str(data[k][number]) for k in ("subjects", "actions", "parts"))
        if not published.selected(action, prefixes, by_group=part == "test"):
            continue
        keep = published.kept_frames(len(motion), downsample, subset if part == "train" else 1.0)
        for turn, owner in enumerate(rigs[part]):
            cameras = h36m_cameras(owner)
            yaw = 2 * np.pi * (0.381966 * number + turn / len(rigs[part]))  # golden angle: no heading is preferred
            world = (turned(motion[keep], yaw) + (*stage(cameras), 0)).astype(np.float32)
            clips[part] += _seen(f"{performer}/{owner}", action, world, cameras, float(data["fps"]) / downsample)
    for part, found in clips.items():
        if not found:
            raise DataError(f"starter set: actions {','.join(prefixes or ['*'])} leave nothing to {part} on")
    return LiftingData("starter set (gt)", H36M_17, H36M_17.left, H36M_17.right, clips["train"], clips["test"])


def load_starter_motion(actions: str | Sequence[str] | None = None, path: str | Path = FILE) -> ForecastData:
    """The starter set for forecasting: 17 joints relative to the pelvis in world axes, every second frame (25 Hz).

    Clips that are shorter than a window are left out; two bodies, and few kinds of motion.

    Args:
        actions, path: as for ``load_starter``.
    Raises:
        DataError: an action that is not there (the nearest one is told), or with no clip as long as a window.
    """
    data = read_npz(path, "positions", "lengths", "subjects", "actions", "parts", "fps")
    step = round(float(data["fps"]) / 25)
    prefixes = published.split_names(actions)
    published.check_actions(prefixes, data["actions"].tolist())
    parts: dict[str, list[Motion]] = {"train": [], "test": []}
    shortest = {"train": OBSERVED + TRAINED, "test": OBSERVED + EVALUATED}
    for number, motion in enumerate(np.split(data["positions"], data["lengths"].cumsum()[:-1])):
        subject, action, part = (str(data[k][number]) for k in ("subjects", "actions", "parts"))
        if not published.selected(action, prefixes, by_group=part == "test"):
            continue
        motion = np.ascontiguousarray(motion[::step] - motion[::step, :1], np.float32)
        if len(motion) >= shortest[part]:
            parts[part].append(Motion(subject, action, number, motion))
    for part, found in parts.items():
        if not found:
            words = f"actions {','.join(prefixes or ['*'])} leave nothing as long as a window ({shortest[part]} frames)"
            raise DataError(f"starter set: {words} to {part} on")
    return ForecastData("starter set", STARTER, parts["train"], parts["test"], axes="z")


def _seen(subject: str, action: str, world: np.ndarray, cameras: Sequence[Camera], fps: float) -> list[Clip]:
    clips = []
    for index, camera in enumerate(cameras):
        points = world_to_camera(world, camera.orientation, camera.translation)
        points = points[longest_in_view(points, camera)]
        if len(points) < SHORTEST:
            continue
        keypoints = project(points, camera.intrinsics)
        points[:, 1:] -= points[:, :1]
        pose = camera.intrinsics, camera.orientation, camera.translation
        clips.append(Clip(subject, action, index, keypoints, points, *pose, fps))
    return clips
