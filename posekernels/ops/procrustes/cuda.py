"""The CUDA C++ kernels of ``procrustes``: csrc/procrustes/procrustes_cuda.cu."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import addresses, contiguous
from ..._cuda import launch


def procrustes(poses, target, align) -> tuple[Tensor, Tensor]:
    """As ``reference.procrustes``."""
    B, S, J, _ = poses.shape
    poses, target = poses.contiguous(), target.contiguous()
    aligned = torch.empty_like(poses) if align else None
    errors = poses.new_empty(B, S)
    if B * S:
        launch("procrustes_cuda", poses, *addresses(poses, target, aligned, errors), B * S, S, J)
    return poses.new_empty(0) if aligned is None else aligned, errors


def procrustes_backward(grad_aligned, grad_errors, poses, target) -> tuple[Tensor, Tensor]:
    """As ``reference.procrustes_backward``. The target's gradient is summed over the hypotheses here."""
    B, S, J, _ = poses.shape
    given = contiguous(grad_aligned, grad_errors, poses, target)
    grad_poses = torch.empty_like(given[2])
    grad_target = torch.empty(poses.shape, dtype=torch.float32, device=poses.device)
    if B * S:
        launch("procrustes_backward_cuda", poses, *addresses(*given, grad_poses, grad_target), B * S, S, J)
    return grad_poses, grad_target.sum(1).to(target.dtype)
