"""HumanEva-I from the published files ``data_3d_humaneva15.npz`` and ``data_2d_humaneva15_<keypoints>.npz``.

Recordings come in contiguous pieces ("Walking 1 chunk3"); Train and Validate are two parts of each. See data_h36m
section 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from posekernels.pose.camera import humaneva_cameras
from posekernels.pose.skeleton import HUMANEVA_15

from . import published
from .clips import LiftingData

TRAIN_SUBJECTS = ("Train/S1", "Train/S2", "Train/S3")
TEST_SUBJECTS = ("Validate/S1", "Validate/S2", "Validate/S3")
ACTIONS = ("Walk", "Jog", "Box")
HUMANEVA = published.Published(
    "humaneva15", "HumanEva-I", 15, tuple(range(15)), HUMANEVA_15, humaneva_cameras, views=3, fps=60.0
)


def load_humaneva(
    root: str | Path,
    keypoints: str = "gt",
    train_subjects: str | Sequence[str] = TRAIN_SUBJECTS,
    test_subjects: str | Sequence[str] = TEST_SUBJECTS,
    actions: str | Sequence[str] | None = ACTIONS,
    downsample: int = 1,
    subset: float = 1.0,
) -> LiftingData:
    """Read and prepare HumanEva-I: 15 joints, 3 cameras whose vectors are zero, as no intrinsics are published.

    Arguments, order and errors as for ``load_h36m``; ``actions`` defaults to the usual protocol: Walking, Jog, Box.
    """
    return published.load(HUMANEVA, root, keypoints, train_subjects, test_subjects, actions, downsample, subset)
