"""Joint positions from rotation vectors: the exponential-map skeletons of the motion-prediction text sets.

Published conventions: row vectors, and by default the root neither moves nor turns. Source: pkd section 5.2, 5.3, 6.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..arrays import accepts_poses
from .skeleton import CMU_38, H36M_32, Skeleton


@dataclass(frozen=True, eq=False)
class Body:
    """A skeleton with the lengths of its bones.

    Args:
        skeleton: the joints; every parent comes before its children.
        offsets_mm: [J, 3] float64, each joint from its parent in the rest pose, millimetres.
    """

    skeleton: Skeleton
    offsets_mm: np.ndarray

    def __post_init__(self):
        if self.offsets_mm.shape != (self.skeleton.num_joints, 3):
            raise ValueError(
                f"body of {self.skeleton.name}: offsets_mm must be [{self.skeleton.num_joints}, 3], "
                f"got {list(self.offsets_mm.shape)}"
            )

    @property
    def columns(self) -> int:
        """Numbers in one frame: root translation, then a rotation vector per joint."""
        return 3 + 3 * self.skeleton.num_joints


@accepts_poses
def rotation_matrix(vector: Tensor) -> Tensor:
    """Rotation vectors [..., 3] (axis times angle, radians) to matrices [..., 3, 3].

    Published form: axis n = r / (|r| + 1e-7), R = I + sin(t) K + (1 - cos(t)) K K with K = [[0, -nz, ny], ...].
    """
    angle = vector.norm(dim=-1, keepdim=True)
    axis = vector / (angle + 1e-7)
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    K = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    angle = angle[..., None]
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    KK = axis[..., :, None] * axis[..., None, :] - axis.square().sum(-1)[..., None, None] * eye
    return eye + angle.sin() * K + (1 - angle.cos()) * KK


def _times(a: Tensor, b: Tensor) -> Tensor:
    """Products of many 3 x 3 matrices; far quicker than batched matrix multiplication on a CPU."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


@accepts_poses
def forward_kinematics(rows: Tensor, body: Body, root: str = "ignored") -> Tensor:
    """Joint positions in millimetres of frames given by rotation vectors.

    Args:
        rows: [..., 3 + 3J] float32 or float64: root translation, then the rotation vector of each joint, radians.
        body: ``H36M_BODY`` or ``CMU_BODY``.
        root: "ignored", the published form: the root stays at 0, and its rotation reaches nothing, so the joints that
            hang on it never move. "rotated": the root's rotation turns the whole body, which stays at 0.
    Returns:
        [..., J, 3] millimetres, dtype of ``rows``. R_i = R_i(local) R_parent, p_i = offset_i R_parent + p_parent (row
        vectors).
    Raises:
        ValueError: another number of columns, or another word for ``root``.
    """
    joints = body.skeleton.num_joints
    if rows.dim() < 1 or rows.shape[-1] != body.columns:
        raise ValueError(
            f"forward_kinematics: rows must have {body.columns} columns (3 + 3 x {joints} joints of "
            f"{body.skeleton.name}), got {list(rows.shape)}"
        )
    if root not in ("ignored", "rotated"):
        raise ValueError(f"forward_kinematics: root must be 'ignored' or 'rotated', got {root!r}")
    offsets = torch.as_tensor(body.offsets_mm, dtype=rows.dtype, device=rows.device)
    local = rotation_matrix(rows[..., 3:].unflatten(-1, (joints, 3)))
    turns: list[Tensor] = []
    places: list[Tensor] = []
    for joint, parent in enumerate(body.skeleton.parents):
        turn, offset = local[..., joint, :, :], offsets[joint].expand(*rows.shape[:-1], 3)
        if parent < 0 or parent == body.skeleton.root and root == "ignored":
            turns.append(turn)
            places.append(offset)
        else:
            turns.append(_times(turn, turns[parent]))
            places.append(_times(offset[..., None, :], turns[parent])[..., 0, :] + places[parent])
    return torch.stack(places, -2)


def _body(skeleton: Skeleton, scale: float, offsets: dict[int, tuple[float, float, float]]) -> Body:
    table = np.zeros((skeleton.num_joints, 3))
    for joint, offset in offsets.items():
        table[joint] = offset
    return Body(skeleton, table * scale)


# Joints that are not listed sit on their parent.
H36M_BODY = _body(
    H36M_32,
    1.0,
    {
        1: (-132.948591, 0, 0),
        2: (0, -442.894612, 0),
        3: (0, -454.206447, 0),
        4: (0, 0, 162.767078),
        5: (0, 0, 74.999437),
        6: (132.948826, 0, 0),
        7: (0, -442.894413, 0),
        8: (0, -454.20659, 0),
        9: (0, 0, 162.767426),
        10: (0, 0, 74.999948),
        11: (0, 0.1, 0),
        12: (0, 233.383263, 0),
        13: (0, 257.077681, 0),
        14: (0, 121.134938, 0),
        15: (0, 115.002227, 0),
        16: (0, 257.077681, 0),
        17: (0, 151.034226, 0),
        18: (0, 278.882773, 0),
        19: (0, 251.733451, 0),
        21: (0, 0, 99.999627),
        22: (0, 100.000188, 0),
        24: (0, 257.077681, 0),
        25: (0, 151.031437, 0),
        26: (0, 278.892924, 0),
        27: (0, 251.72868, 0),
        29: (0, 0, 99.999888),
        30: (0, 137.499922, 0),
    },
)

CMU_OFFSETS = {  # in the units of the published code; see CMU_BODY
    2: (1.65674, -1.80282, 0.62477),
    3: (2.5972, -7.13576, 0),
    4: (2.49236, -6.8477, 0),
    5: (0.19704, -0.54136, 2.14581),
    6: (0, 0, 1.11249),
    8: (-1.6107, -1.80282, 0.62476),
    9: (-2.59502, -7.12977, 0),
    10: (-2.4678, -6.78024, 0),
    11: (-0.23024, -0.63258, 2.13368),
    12: (0, 0, 1.11569),
    14: (0.01961, 2.0545, -0.14112),
    15: (0.01021, 2.06436, -0.05921),
    17: (0.00713, 1.56711, 0.14968),
    18: (0.03429, 1.56041, -0.10006),
    19: (0.01305, 1.6256, -0.05265),
    21: (3.54205, 0.90436, -0.17364),
    22: (4.86513, 0, 0),
    23: (3.35554, 0, 0),
    25: (0.66117, 0, 0),
    26: (0.53306, 0, 0),
    28: (0.5412, 0, 0.5412),
    30: (-3.49802, 0.75994, -0.32616),
    31: (-5.02649, 0, 0),
    32: (-3.36431, 0, 0),
    34: (-0.73041, 0, 0),
    35: (-0.58887, 0, 0),
    37: (-0.59786, 0, 0.59786),
}

CMU_BODY = _body(CMU_38, 70.0, CMU_OFFSETS)
"""The published body: 70 mm per unit is nominal, about 24 % long, and kept so that figures compare."""

CMU_BODY_TRUE_SCALE = _body(CMU_38, 56.444, CMU_OFFSETS)
"""The same skeleton at CMU's own scale (one unit is 56.444 mm, the units of the root translation too): true lengths."""
