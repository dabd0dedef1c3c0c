"""The CUDA C++ kernels of ``best_hypothesis``: csrc/best_hypothesis/best_hypothesis_cuda.cu."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._adapters import addresses
from ..._cuda import launch


def best_hypothesis(poses, target) -> tuple[Tensor, Tensor, Tensor]:
    """As ``reference.best_hypothesis``."""
    B, S, J, _ = poses.shape
    poses, target = poses.contiguous(), target.contiguous()
    error, errors = poses.new_empty(B), poses.new_empty(B, S)
    index = poses.new_empty(B, dtype=torch.int64)
    if B:
        launch("best_hypothesis_cuda", poses, *addresses(poses, target, error, index, errors), B, S, J)
    return error, index, errors


def best_hypothesis_backward(grad, poses, target) -> tuple[Tensor, Tensor]:
    """As ``reference.best_hypothesis_backward``."""
    B, S, J, _ = poses.shape
    grad, poses, target = grad.contiguous(), poses.contiguous(), target.contiguous()
    grads = torch.empty_like(poses), torch.empty_like(target)
    if B:
        launch("best_hypothesis_backward_cuda", poses, *addresses(grad, poses, target, *grads), B, S, J)
    return grads
