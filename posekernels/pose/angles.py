"""Angles that a pose shows."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arrays import accepts_poses

LEGS = ((1, 2, 3), (4, 5, 6))  # hip, knee, ankle of H36M-17: the right leg, the left leg


@accepts_poses
def knee_angles(points: Tensor) -> Tensor:
    """Angles between thigh and shin, degrees: 180 is straight, less is bent.

    Args:
        points: [..., 17, 3] H36M-17 joints, any unit, any axes; float32 or float64.
    Returns:
        [..., 2] of the right knee and the left one, in the points' dtype; NaN where a joint of the leg is.
    Raises:
        ValueError: another shape.
    """
    if not isinstance(points, Tensor) or points.dim() < 2 or points.shape[-2:] != (17, 3):
        raise ValueError(f"knee_angles: expected joints [..., 17, 3], got {list(getattr(points, 'shape', []))}")
    hip, knee, ankle = (points[..., list(joints), :] for joints in zip(*LEGS))
    thigh, shin = hip - knee, ankle - knee
    # of near-straight legs an arc cosine would keep half of the digits
    across = torch.linalg.cross(thigh, shin).norm(dim=-1)
    return torch.rad2deg(torch.atan2(across, (thigh * shin).sum(-1)))
