"""MPI-INF-3DHP test sequences, as the multi-hypothesis papers store them: camera-space poses and 2D detections.

``data_3d_3dhp.npz`` and ``data_2d_3dhp_<keypoints>.npz`` hold {subject: {action: list over cameras}}; see
``make_clips`` for the arrays. Test only: no training split exists in this form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from posekernels.pose.skeleton import H36M_17

from .clips import Clip

SUBJECTS = ("TS1", "TS2", "TS3", "TS4", "TS5", "TS6")
GROUPS = {"green screen": ("TS1", "TS2"), "no green screen": ("TS3", "TS4"), "outdoor": ("TS5", "TS6")}
SIZES = {"TS5": (1920, 1080), "TS6": (1920, 1080)}  # pixels, width x height; all others are square
SIZE = (2048, 2048)


def make_clips(positions: Mapping, keypoints: Mapping, subjects: Sequence[str] = SUBJECTS) -> list[Clip]:
    """Clips from the two files' dictionaries; the dictionaries are left as they are.

    Args:
        positions: {subject: {action: [T, 17, 3] per camera}}, metres, already in camera space.
        keypoints: {subject: {action: [T2 >= T, 17, 2] per camera}}, pixels; cut to T.
        subjects: that are wanted, in this order.
    Raises:
        ValueError: a subject, action or camera that only one file has, too few frames, or another joint count.
    """
    clips, joints = [], H36M_17.num_joints
    for subject in subjects:
        for kind, data in (("3D", positions), ("2D", keypoints)):
            if subject not in data:
                raise ValueError(
                    f"3DHP: the {kind} file has no subject {subject} (it has: {', '.join(map(str, data))})"
                )
        for action, cameras in positions[subject].items():
            views = keypoints[subject].get(action, ())
            if len(views) != len(cameras):
                raise ValueError(
                    f"3DHP: {subject} {action}: {len(cameras)} cameras in the 3D file, {len(views)} in the 2D file"
                )
            for camera, (world, pixels) in enumerate(zip(cameras, views)):
                where = f"3DHP: {subject} {action}, camera {camera}"
                pose, pixels = np.array(world, np.float32), np.asarray(pixels, np.float32)
                if pose.shape[1:] != (joints, 3) or pixels.shape[1:] != (joints, 2):
                    raise ValueError(
                        f"{where}: expected [T, {joints}, 3] and [T, {joints}, 2], got {pose.shape} and {pixels.shape}"
                    )
                if len(pixels) < len(pose):
                    raise ValueError(f"{where}: {len(pose)} frames of 3D, but only {len(pixels)} of 2D")
                pose[:, 1:] -= pose[:, :1]
                width, height = SIZES.get(subject, SIZE)
                screen = pixels[: len(pose)] * np.float32(2 / width) - np.array([1, height / width], np.float32)
                clips.append(Clip(subject, action, camera, screen, pose))
    return clips
