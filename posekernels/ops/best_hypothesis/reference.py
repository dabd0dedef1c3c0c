"""The definition of ``best_hypothesis``: plain differentiable PyTorch, any device."""

from __future__ import annotations

import torch
from torch import Tensor


def best_hypothesis(poses: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(error [B], index [B] int64, errors [B, S]) of poses [B, S, J, 3] against target [B, J, 3]."""
    errors = (poses - target[:, None]).norm(dim=-1).mean(-1)
    index = errors.detach().argmin(1)
    return errors.gather(1, index[:, None]).squeeze(1), index, errors


def best_hypothesis_backward(grad: Tensor, poses: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of (poses, target), given that of ``errors`` [B, S]; 0 where a distance is 0."""
    difference = poses - target[:, None]
    distance = difference.norm(dim=-1, keepdim=True)
    unit = torch.where(distance > 0, difference / distance, torch.zeros_like(difference))
    # A NaN distance is not > 0, but must not pass as 0.
    unit = torch.where(distance.isnan(), distance, unit)
    grad_poses = unit * (grad / poses.shape[2])[..., None, None]
    return grad_poses, -grad_poses.sum(1)
