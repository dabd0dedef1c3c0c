"""``merge_hypotheses``: a pose and its mirror image into one. Start reading here; ``reference.py`` defines it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..._dispatch import requested
from ..._library import register
from ...arrays import accepts_arrays
from ...checks import check_integer, check_integers, check_tensor


def _fake(poses, mirrored, root, backend):
    return poses.new_empty(poses.shape[0], *poses.shape[2:])


def _fake_backward(grad, views, mirrored, root, backend):
    return grad.new_empty(grad.shape[0], views, *grad.shape[1:])


_forward = register(
    __name__, "merge_hypotheses", "(Tensor poses, int[] mirrored, int root, str backend) -> Tensor", _fake
)
_backward = register(
    __name__,
    "merge_hypotheses_backward",
    "(Tensor grad, int views, int[] mirrored, int root, str backend) -> Tensor",
    _fake_backward,
)


class _MergeHypotheses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, poses, mirrored, root, backend):
        ctx.options, ctx.backend = (poses.shape[1], mirrored, root), backend
        return _forward.run(poses, mirrored, root, backend=backend)

    @staticmethod
    def backward(ctx, grad):
        return _backward(grad.contiguous(), *ctx.options, backend=ctx.backend), None, None, None


_forward.gradient = _MergeHypotheses.apply


@accepts_arrays
def merge_hypotheses(
    poses: Tensor, mirrored: Sequence[int], *, root: int | None = 0, backend: str | None = None
) -> Tensor:
    """Mirror the second view back, average it with the first, put the root at 0.

    Args:
        poses: [..., V, J, 3], V = 2 (a pose, and the pose lifted from the mirrored picture) or 1; float32 or float64,
            and float16 or bfloat16 where a kernel takes them. Any unit.
        mirrored: the joint that each joint becomes in a mirror (``Skeleton.mirrored``); its own inverse.
        root: the joint that is set to 0 (not subtracted from the others); None for none.
        backend: see ``posekernels.use_backend``.
    Returns:
        [..., J, 3], unit and dtype of ``poses``.
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or option, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to poses.
    Source: test-time augmentation, Pavllo et al., CVPR 2019.
    """
    check_tensor("merge_hypotheses", "poses", poses, min_rank=3)
    V, J, coordinates = poses.shape[-3:]
    if V not in (1, 2) or coordinates != 3 or J < 1:
        raise ValueError(f"merge_hypotheses: poses must be [..., 1 or 2, J, 3], got {list(poses.shape)}")
    mirrored = check_integers("merge_hypotheses", "mirrored", mirrored, "the mirror image of each joint")
    if len(mirrored) != J or any(not 0 <= m < J or mirrored[m] != j for j, m in enumerate(mirrored)):
        raise ValueError(
            f"merge_hypotheses: mirrored must be a permutation of {J} joints that is its own inverse, got {mirrored}"
        )
    root = -1 if root is None else check_integer("merge_hypotheses", "root", root, 0, J - 1)
    y = _forward(poses.reshape(-1, V, J, 3), mirrored, root, backend=requested(backend))
    return y.view(*poses.shape[:-3], J, 3)
