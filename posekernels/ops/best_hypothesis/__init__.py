"""``best_hypothesis``: which of many poses comes nearest. Start reading here; ``reference.py`` defines it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ... import _cuda
from ..._checks import check_shape, check_tensor
from ..._dispatch import Kernel, no_triton, not_for_triton, requested
from ..._library import register
from ..._native import no_cuda
from . import cpu, reference


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


def _no_cuda() -> str | None:
    return no_cuda("best_hypothesis_cuda", "best_hypothesis_backward_cuda")


_FOLDER = "posekernels.ops.best_hypothesis"
_forward = register(
    "best_hypothesis",
    "(Tensor poses, Tensor target, str backend) -> (Tensor, Tensor, Tensor)",
    _fake,
    {
        "cpu": Kernel(cpu.best_hypothesis, cpu.missing, cpu.refuses),
        "triton": Kernel(f"{_FOLDER}.triton:best_hypothesis", no_triton, not_for_triton),
        "cuda": Kernel(f"{_FOLDER}.cuda:best_hypothesis", _no_cuda, _cuda.refuses, proven=False),
        "reference": Kernel(reference.best_hypothesis),
    },
)
_backward = register(
    "best_hypothesis_backward",
    "(Tensor grad, Tensor poses, Tensor target, str backend) -> (Tensor, Tensor)",
    _fake_backward,
    {
        "cpu": Kernel(cpu.best_hypothesis_backward, cpu.missing, cpu.refuses),
        "triton": Kernel(f"{_FOLDER}.triton:best_hypothesis_backward", no_triton, not_for_triton),
        "cuda": Kernel(f"{_FOLDER}.cuda:best_hypothesis_backward", _no_cuda, _cuda.refuses, proven=False),
        "reference": Kernel(reference.best_hypothesis_backward),
    },
)


class _BestHypothesis(torch.autograd.Function):
    @staticmethod
    def forward(ctx, poses, target, backend):
        error, index, errors = _forward(poses, target, backend)
        ctx.save_for_backward(poses, target, index)
        ctx.backend = backend
        ctx.mark_non_differentiable(index)
        return error, index, errors

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_error, _grad_index, grad_errors):
        poses, target, index = ctx.saved_tensors
        grad = grad_errors.scatter_add(1, index[:, None], grad_error[:, None])
        grad_poses, grad_target = _backward(grad.contiguous(), poses, target, ctx.backend)
        return grad_poses, grad_target, None


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
    backend = requested(backend)
    if backend == "reference":  # plain PyTorch, inlined: exports to ONNX, differentiates twice
        return Best(*reference.best_hypothesis(poses, target))
    if torch.is_grad_enabled() and (poses.requires_grad or target.requires_grad):
        return Best(*_BestHypothesis.apply(poses, target, backend))
    return Best(*_forward(poses, target, backend))
