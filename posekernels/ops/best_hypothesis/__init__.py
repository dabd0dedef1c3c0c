"""``best_hypothesis``: which of many poses comes nearest. Start reading here; ``reference.py`` defines it."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..._dispatch import requested
from ..._library import register
from ...arrays import follows_autocast
from ...checks import check_shape, check_tensor


class Best(NamedTuple):
    """error [B]: of the best hypothesis; index [B], int64: which one; errors [B, S]: of every hypothesis."""

    error: Tensor
    index: Tensor
    errors: Tensor


def _fake(poses, target, backend):
    B, S = poses.shape[:2]
    return poses.new_empty(B), poses.new_empty(B, dtype=torch.int64), poses.new_empty(B, S)


def _fake_backward(grad, poses, target, backend):
    return torch.empty_like(poses, memory_format=torch.contiguous_format), target.new_empty(target.shape)


_forward = register(
    __name__,
    "best_hypothesis",
    "(Tensor poses, Tensor target, str backend) -> (Tensor, Tensor, Tensor)",
    _fake,
    order=("cpu", "cuda", "triton"),  # by the counts: Triton's loads take three sectors of the cache for each
)
_backward = register(
    __name__,
    "best_hypothesis_backward",
    "(Tensor grad, Tensor poses, Tensor target, str backend) -> (Tensor, Tensor)",
    _fake_backward,
)


class _BestHypothesis(torch.autograd.Function):
    @staticmethod
    def forward(ctx, poses, target, backend):
        error, index, errors = _forward.run(poses, target, backend=backend)
        ctx.save_for_backward(poses, target, index)
        ctx.backend = backend
        ctx.mark_non_differentiable(index)
        return error, index, errors

    @staticmethod
    def backward(ctx, grad_error, _grad_index, grad_errors):
        poses, target, index = ctx.saved_tensors
        grad = grad_errors.scatter_add(1, index[:, None], grad_error[:, None])
        grad_poses, grad_target = _backward(grad.contiguous(), poses, target, backend=ctx.backend)
        return grad_poses, grad_target, None


_forward.gradient = _BestHypothesis.apply


@partial(follows_autocast, widest=True)  # an error is not rounded to what a network gave
def best_hypothesis(poses: Tensor, target: Tensor, *, backend: str | None = None) -> Best:
    """Mean joint distance of every hypothesis to the truth, and the smallest. Needs the truth: an oracle.

    Args:
        poses: [B, S, J, 3], S >= 1; float32 or float64, and float16 or bfloat16 where a kernel takes them.
        target: [B, J, 3], in the same unit.
        backend: see ``posekernels.use_backend``.
    Returns:
        ``Best(error [B], index [B] int64, errors [B, S])``: distances averaged over the joints, in the unit of
        ``poses``. The first of equals wins; a NaN wins over everything.
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to poses and target, through ``error`` and ``errors``; 0 where a joint's distance is 0.
    Source: best-of-S MPJPE, as in Li & Lee, CVPR 2019; equal to ``(poses - target[:, None]).norm(dim=-1).mean(-1)``.
    """
    check_tensor("best_hypothesis", "poses", poses, rank=4)
    B, S, J, coordinates = poses.shape
    if coordinates != 3 or S < 1 or J < 1:
        raise ValueError(f"best_hypothesis: poses must be [B, S, J, 3] with S, J >= 1, got {list(poses.shape)}")
    check_tensor("best_hypothesis", "target", target, like=poses)
    check_shape("best_hypothesis", "target", target, (B, J, 3), f"poses is {list(poses.shape)}")
    return Best(*_forward(poses, target, backend=requested(backend)))
