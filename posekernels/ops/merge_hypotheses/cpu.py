"""``merge_hypotheses`` in C++: ``csrc/merge_hypotheses/merge_hypotheses_cpu.cpp``."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..._adapters import addresses
from ..._native import core
from .._cpu import not_float32


def refuses(tensor, *_):
    return not_float32(tensor)


@functools.lru_cache(maxsize=64)
def table(mirrored: tuple[int, ...], device: torch.device) -> Tensor:
    """[J] int64 on ``device``; kept, because copying it to a GPU would stall every call."""
    return torch.tensor(mirrored, dtype=torch.int64, device=device)


def merge_hypotheses(poses, mirrored, root):
    N, V, J, _ = poses.shape
    poses = poses.contiguous()
    y = poses.new_empty(N, J, 3)
    joints = table(tuple(mirrored), poses.device)
    core.merge_hypotheses(torch.get_num_threads(), *addresses(poses, joints, y), N, V, J, root)
    return y


def merge_hypotheses_backward(grad, views, mirrored, root):
    N, J, _ = grad.shape
    grad, joints = grad.contiguous(), table(tuple(mirrored), grad.device)
    y = grad.new_empty(N, views, J, 3)
    core.merge_hypotheses_backward(torch.get_num_threads(), *addresses(grad, joints, y), N, views, J, root)
    return y
