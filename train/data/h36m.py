"""Human3.6M from the published files ``data_3d_h36m.npz`` and ``data_2d_h36m_<keypoints>.npz``.

How the files are made, what is in them and which quirks are kept: data_h36m sections 1 to 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from posekernels.pose.camera import h36m_cameras
from posekernels.pose.skeleton import H36M_17, H36M_17_OF_32

from . import published
from .clips import LiftingData

TRAIN_SUBJECTS = ("S1", "S5", "S6", "S7", "S8")
TEST_SUBJECTS = ("S9", "S11")
H36M = published.Published("h36m", "Human3.6M", 32, H36M_17_OF_32, H36M_17, h36m_cameras, views=4, fps=50.0)


def load_h36m(
    root: str | Path,
    keypoints: str = "cpn_ft_h36m_dbb",
    train_subjects: str | Sequence[str] = TRAIN_SUBJECTS,
    test_subjects: str | Sequence[str] = TEST_SUBJECTS,
    actions: str | Sequence[str] | None = None,
    downsample: int = 1,
    subset: float = 1.0,
) -> LiftingData:
    """Read and prepare Human3.6M.

    Args:
        root: the folder of the two files.
        keypoints: the source of the 2D: gt, cpn_ft_h36m_dbb, ... (the end of the file's name).
        train_subjects, test_subjects: a sequence or a comma list, in the order of the clips; "*" for all with 3D.
        actions: prefixes, a sequence or a comma list; None or "*" for all. Matched with the full name for training and
            with its first word for testing, as published.
        downsample: keep every k-th frame. subset: fraction of each training sequence, one contiguous piece.
    Returns:
        Clips in the order subjects, actions as in the 2D file, cameras 0 to 3. Actions without 3D (S11's Directions,
        dropped on purpose) are left out.
    Raises:
        DataError: a missing or malformed file, other than 32 joints or 4 cameras, 2D shorter than 3D, NaN, a subject or
            action that is not there (the nearest one is told), nothing left to train or test on.
    """
    return published.load(H36M, root, keypoints, train_subjects, test_subjects, actions, downsample, subset)
