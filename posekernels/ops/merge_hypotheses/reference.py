"""The definition of ``merge_hypotheses``: plain differentiable PyTorch, any device."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._tables import table


def _mirror(poses: Tensor, mirrored: list[int]) -> Tensor:
    """[N, J, 3], coordinate 0 negated, left and right exchanged."""
    back = poses.index_select(1, table(mirrored, poses.device))
    return torch.cat((-back[..., :1], back[..., 1:]), -1)


def merge_hypotheses(poses: Tensor, mirrored: list[int], root: int) -> Tensor:
    """[N, J, 3] from [N, V, J, 3]: mean of view 0 and view 1 mirrored back, then the root at 0."""
    merged = poses[:, 0]
    if poses.shape[1] == 2:
        merged = (merged + _mirror(poses[:, 1], mirrored)) / 2
    if root < 0:
        return merged.contiguous()
    keep = torch.ones(merged.shape[1], 1, dtype=torch.bool, device=merged.device)
    keep[root] = False
    return merged.where(keep, 0).contiguous()


def merge_hypotheses_backward(grad: Tensor, views: int, mirrored: list[int], root: int) -> Tensor:
    """[N, V, J, 3], the gradient of ``poses``. The mirror is its own inverse, so it is its own adjoint."""
    grad = grad.clone()
    if root >= 0:
        grad[:, root] = 0
    if views == 1:
        return grad[:, None].contiguous()
    grad = grad / 2
    return torch.stack((grad, _mirror(grad, mirrored)), 1)
