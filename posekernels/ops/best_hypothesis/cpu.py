"""``best_hypothesis`` in C++: ``csrc/best_hypothesis/best_hypothesis_cpu.cpp``."""

from __future__ import annotations

import torch

from ..._native import core, no_cpu
from .._cpu import not_float32


def missing():
    return no_cpu("best_hypothesis", "best_hypothesis_backward")


def refuses(*tensors):
    return not_float32(*tensors)


def best_hypothesis(poses, target):
    B, S, J, _ = poses.shape
    poses, target = poses.contiguous(), target.contiguous()
    error, errors = poses.new_empty(B), poses.new_empty(B, S)
    index = poses.new_empty(B, dtype=torch.int64)
    outputs = (error.data_ptr(), index.data_ptr(), errors.data_ptr())
    core.best_hypothesis(torch.get_num_threads(), poses.data_ptr(), target.data_ptr(), *outputs, B, S, J)
    return error, index, errors


def best_hypothesis_backward(grad, poses, target):
    B, S, J, _ = poses.shape
    poses, target = poses.contiguous(), target.contiguous()
    grad_poses, grad_target = torch.empty_like(poses), torch.empty_like(target)
    core.best_hypothesis_backward(
        torch.get_num_threads(),
        grad.data_ptr(),
        poses.data_ptr(),
        target.data_ptr(),
        grad_poses.data_ptr(),
        grad_target.data_ptr(),
        B,
        S,
        J,
    )
    return grad_poses, grad_target
