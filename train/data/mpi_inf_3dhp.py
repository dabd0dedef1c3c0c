"""MPI-INF-3DHP test sequences, as the multi-hypothesis papers store them: camera-space poses and 2D detections.

``data_3d_3dhp.npz`` and ``data_2d_3dhp_<keypoints>.npz`` hold {subject: {action: list over cameras}}; see
``make_clips`` for the arrays. Test only: no training split exists in this form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from posekernels.archive import DataError, read_npz
from posekernels.pose.skeleton import H36M_17

from .clips import Clip, LiftingData
from .published import check_actions, check_metres, check_pixels, keypoint_file, selected, split_names

SUBJECTS = ("TS1", "TS2", "TS3", "TS4", "TS5", "TS6")
GROUPS = {"green screen": ("TS1", "TS2"), "no green screen": ("TS3", "TS4"), "outdoor": ("TS5", "TS6")}
SIZES = {"TS5": (1920, 1080), "TS6": (1920, 1080)}  # pixels, width x height; all others are square
SIZE = (2048, 2048)


def make_clips(
    positions: Mapping,
    keypoints: Mapping,
    subjects: Sequence[str] = SUBJECTS,
    actions: str | Sequence[str] | None = None,
    downsample: int = 1,
) -> list[Clip]:
    """Clips from the two files' dictionaries; the dictionaries are left as they are.

    Args:
        positions: {subject: {action: [T, 17, 3] per camera}}, metres, already in camera space.
        keypoints: {subject: {action: [T2 >= T, 17, 2] per camera}}, pixels; cut to T.
        subjects: that are wanted, in this order.
        actions: prefixes, a sequence or a comma list; None or "*" for all. downsample: keep every k-th frame.
    Raises:
        DataError: a subject, action or camera that only one file has, no action of that name, too few frames, another
            joint count, or 2D that is normalised already.
    """
    clips, joints, prefixes = [], H36M_17.num_joints, split_names(actions)
    check_actions(prefixes, {action for subject in subjects for action in positions.get(subject, ())})
    for subject in subjects:
        for kind, data in (("3D", positions), ("2D", keypoints)):
            if subject not in data:
                raise DataError(f"3DHP: the {kind} file has no subject {subject} (it has: {', '.join(map(str, data))})")
        for action, cameras in positions[subject].items():
            if not selected(action, prefixes, by_group=True):
                continue
            views = keypoints[subject].get(action, ())
            if len(views) != len(cameras):
                raise DataError(
                    f"3DHP: {subject} {action}: {len(cameras)} cameras in the 3D file, {len(views)} in the 2D file"
                )
            for camera, (world, pixels) in enumerate(zip(cameras, views)):
                where = f"3DHP: {subject} {action}, camera {camera}"
                pose, pixels = np.array(world, np.float32), np.asarray(pixels, np.float32)
                if pose.shape[1:] != (joints, 3) or pixels.shape[1:] != (joints, 2):
                    raise DataError(
                        f"{where}: expected [T, {joints}, 3] and [T, {joints}, 2], got {pose.shape} and {pixels.shape}"
                    )
                if len(pixels) < len(pose):
                    raise DataError(f"{where}: {len(pose)} frames of 3D, but only {len(pixels)} of 2D")
                check_pixels(where, pixels)
                pose[:, 1:] -= pose[:, :1]
                width, height = SIZES.get(subject, SIZE)
                screen = pixels[: len(pose)] * np.float32(2 / width) - np.array([1, height / width], np.float32)
                clips.append(Clip(subject, action, camera, screen[::downsample], pose[::downsample]))
    return clips


def load_3dhp(
    root: str | Path,
    keypoints: str = "gt",
    subjects: Sequence[str] = SUBJECTS,
    actions: str | Sequence[str] | None = None,
    downsample: int = 1,
) -> LiftingData:
    """Read the two files of ``root``; nothing to train on, ``subjects`` to test on.

    Args:
        keypoints: the end of the 2D file's name: gt, hrnet_coco, ...
        actions, downsample: as in ``make_clips``.
    Raises:
        DataError: a missing or malformed file, or what ``make_clips`` refuses.
    """
    root = Path(root)
    tables = {}
    for kind, path in (
        ("positions_3d", root / "data_3d_3dhp.npz"),
        ("positions_2d", keypoint_file(root, "3dhp", keypoints)),
    ):
        tables[kind] = read_npz(path, kind)[kind]
        if not isinstance(tables[kind], dict) or not all(isinstance(v, dict) for v in tables[kind].values()):
            raise DataError(f"{path}: expected {kind} to be {{subject: {{action: arrays per camera}}}}")
    clips = make_clips(tables["positions_3d"], tables["positions_2d"], subjects, actions, downsample)
    for clip in clips:
        for array in (clip.keypoints, clip.positions):
            if not np.isfinite(array).all():
                raise DataError(f"3DHP: {clip.subject} {clip.action}, camera {clip.camera}: NaN or infinity in {root}")
        check_metres(f"{root}: {clip.subject} {clip.action}, camera {clip.camera}", clip.positions[:, 1:])
    return LiftingData(f"MPI-INF-3DHP ({keypoints})", H36M_17, H36M_17.left, H36M_17.right, [], clips)
