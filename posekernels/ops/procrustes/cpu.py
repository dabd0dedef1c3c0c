"""``procrustes`` in C++: ``csrc/procrustes/procrustes_cpu.cpp``."""

from __future__ import annotations

import torch

from ..._adapters import addresses, contiguous
from ..._native import core
from .._cpu import not_float32


def refuses(poses, target, align):
    return not_float32(poses, target)


def refuses_backward(*tensors):
    return not_float32(*tensors)


def procrustes(poses, target, align):
    B, S, J, _ = poses.shape
    poses, target = contiguous(poses, target)
    aligned = torch.empty_like(poses) if align else None
    errors = poses.new_empty(B, S)
    core.procrustes(torch.get_num_threads(), *addresses(poses, target, aligned, errors), B, S, J)
    return poses.new_empty(0) if aligned is None else aligned, errors


def procrustes_backward(grad_aligned, grad_errors, poses, target):
    B, S, J, _ = poses.shape
    held = contiguous(grad_aligned, grad_errors, poses, target)
    grad_poses, grad_target = torch.empty_like(held[2]), torch.empty_like(held[2])
    core.procrustes_backward(torch.get_num_threads(), *addresses(*held, grad_poses, grad_target), B, S, J)
    return grad_poses, grad_target.sum(1)
