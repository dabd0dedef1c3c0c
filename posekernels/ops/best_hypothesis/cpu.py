"""``best_hypothesis`` in C++: ``csrc/best_hypothesis/best_hypothesis_cpu.cpp``."""

from __future__ import annotations

import torch

from ..._adapters import addresses, contiguous
from ..._native import core
from .._cpu import not_float32


def refuses(*tensors):
    return not_float32(*tensors)


def best_hypothesis(poses, target):
    B, S, J, _ = poses.shape
    poses, target = contiguous(poses, target)
    error, errors = poses.new_empty(B), poses.new_empty(B, S)
    index = poses.new_empty(B, dtype=torch.int64)
    core.best_hypothesis(torch.get_num_threads(), *addresses(poses, target, error, index, errors), B, S, J)
    return error, index, errors


def best_hypothesis_backward(grad, poses, target):
    B, S, J, _ = poses.shape
    grad, poses, target = contiguous(grad, poses, target)
    grads = torch.empty_like(poses), torch.empty_like(target)
    core.best_hypothesis_backward(torch.get_num_threads(), *addresses(grad, poses, target, *grads), B, S, J)
    return grads
