"""``merge_hypotheses`` in C++: ``csrc/merge_hypotheses/merge_hypotheses_cpu.cpp``."""

from __future__ import annotations

import torch

from ..._adapters import addresses
from ..._native import core
from ..._tables import table
from .._cpu import not_float32


def refuses(tensor, *_):
    return not_float32(tensor)


def merge_hypotheses(poses, mirrored, root):
    N, V, J, _ = poses.shape
    poses = poses.contiguous()
    y = poses.new_empty(N, J, 3)
    joints = table(mirrored, poses.device)
    core.merge_hypotheses(torch.get_num_threads(), *addresses(poses, joints, y), N, V, J, root)
    return y


def merge_hypotheses_backward(grad, views, mirrored, root):
    N, J, _ = grad.shape
    grad, joints = grad.contiguous(), table(mirrored, grad.device)
    y = grad.new_empty(N, views, J, 3)
    core.merge_hypotheses_backward(torch.get_num_threads(), *addresses(grad, joints, y), N, views, J, root)
    return y
