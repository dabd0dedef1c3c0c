"""What every data set for lifting becomes in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from posekernels.pose.skeleton import Skeleton


@dataclass
class Clip:
    """One action of one subject seen by one camera.

    Args:
        subject, action: names; the action may end in a take number ("Walking 1").
        camera: index of the camera in its subject's list, and its vector (9: fx, fy, cx, cy, k1, k2, k3, p1, p2 in
            normalised units; zeros when unknown).
        keypoints: [T, K, 2] float32, normalised screen units (width to [-1, 1]); further channels are scores.
        positions: [T, J, 3] float32 metres in camera space; joint 0 is the absolute trajectory, the others are
            relative to it. None where there is no ground truth.
        orientation, translation: the camera in the world, for drawing: unit quaternion (w, x, y, z), centre in metres.
        fps: frames per second.
    """

    subject: str
    action: str
    camera: int
    keypoints: np.ndarray
    positions: np.ndarray | None
    intrinsics: np.ndarray = field(default_factory=lambda: np.zeros(9, np.float32))
    orientation: np.ndarray | None = None
    translation: np.ndarray | None = None
    fps: float = 50.0


@dataclass
class LiftingData:
    """A data set split into training and test clips.

    Args:
        name: as printed beside every figure ("Human3.6M (cpn_ft_h36m_dbb)", "starter set").
        skeleton: of the 3D joints.
        left, right: mirrored keypoints of the 2D input (the detector's layout can differ from ``skeleton``'s).
    """

    name: str
    skeleton: Skeleton
    left: tuple[int, ...]
    right: tuple[int, ...]
    train: list[Clip]
    test: list[Clip]

    @property
    def sides(self) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]:
        """((left, right) keypoints, (left, right) joints), as the window generators take them."""
        return (self.left, self.right), (self.skeleton.left, self.skeleton.right)
