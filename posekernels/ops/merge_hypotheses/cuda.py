"""The CUDA C++ kernels of ``merge_hypotheses``: csrc/merge_hypotheses/merge_hypotheses_cuda.cu."""

from __future__ import annotations

from torch import Tensor

from ..._adapters import addresses
from ..._cuda import launch
from ..._tables import table


def merge_hypotheses(poses, mirrored, root) -> Tensor:
    """As ``reference.merge_hypotheses``."""
    N, V, J, _ = poses.shape
    poses, joints = poses.contiguous(), table(mirrored, poses.device)
    y = poses.new_empty(N, J, 3)
    if N:
        launch("merge_hypotheses_cuda", poses, *addresses(poses, joints, y), N, V, J, root)
    return y


def merge_hypotheses_backward(grad, views, mirrored, root) -> Tensor:
    """As ``reference.merge_hypotheses_backward``."""
    N, J, _ = grad.shape
    grad, joints = grad.contiguous(), table(mirrored, grad.device)
    y = grad.new_empty(N, views, J, 3)
    if N:
        launch("merge_hypotheses_backward_cuda", grad, *addresses(grad, joints, y), N, views, J, root)
    return y
