"""``procrustes``: best rotation, scale and shift of many poses. Start reading here; ``reference.py`` defines it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ... import _cuda
from ..._arrays import accepts_poses
from ..._checks import check_shape, check_tensor
from ..._dispatch import Kernel, no_triton, not_for_triton, requested
from ..._library import register
from ..._native import no_cuda
from . import cpu, reference


def _fake(poses, target, align, backend):
    aligned = torch.empty_like(poses, memory_format=torch.contiguous_format) if align else poses.new_empty(0)
    return aligned, poses.new_empty(poses.shape[:2])


def _fake_backward(grad_aligned, grad_errors, poses, target, backend):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (poses, target))


def _no_cuda() -> str | None:
    return no_cuda("procrustes_cuda", "procrustes_backward_cuda")


_FOLDER = "posekernels.ops.procrustes"
_forward = register(
    "procrustes",
    "(Tensor poses, Tensor target, bool align, str backend) -> (Tensor, Tensor)",
    _fake,
    {
        "cpu": Kernel(cpu.procrustes, cpu.missing, cpu.refuses),
        "triton": Kernel(f"{_FOLDER}.triton:procrustes", no_triton, not_for_triton),
        "cuda": Kernel(f"{_FOLDER}.cuda:procrustes", _no_cuda, _cuda.refuses, proven=False),
        "reference": Kernel(reference.procrustes),
    },
)
_backward = register(
    "procrustes_backward",
    "(Tensor? grad_aligned, Tensor? grad_errors, Tensor poses, Tensor target, str backend) -> (Tensor, Tensor)",
    _fake_backward,
    {
        "cpu": Kernel(cpu.procrustes_backward, cpu.missing, cpu.refuses_backward),
        "triton": Kernel(f"{_FOLDER}.triton:procrustes_backward", no_triton, not_for_triton),
        "cuda": Kernel(f"{_FOLDER}.cuda:procrustes_backward", _no_cuda, _cuda.refuses, proven=False),
        "reference": Kernel(reference.procrustes_backward),
    },
)


class _Procrustes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, poses, target, align, backend):
        ctx.save_for_backward(poses, target)
        ctx.backend = backend
        ctx.set_materialize_grads(False)
        aligned, errors = _forward(poses, target, align, backend)
        if not align:
            ctx.mark_non_differentiable(aligned)
        return aligned, errors

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_aligned, grad_errors):
        if grad_aligned is None and grad_errors is None:
            return None, None, None, None
        poses, target = ctx.saved_tensors
        grads = [None if g is None else g.contiguous() for g in (grad_aligned, grad_errors)]
        return *_backward(*grads, poses, target, ctx.backend), None, None


def _run(poses: Tensor, target: Tensor, align: bool, backend: str | None) -> tuple[Tensor, Tensor]:
    op = "procrustes"
    check_tensor(op, "poses", poses, min_rank=2)
    J, coordinates = poses.shape[-2:]
    if coordinates != 3 or J < 1:
        raise ValueError(f"{op}: poses must be [..., J, 3], got {list(poses.shape)}")
    check_tensor(op, "target", target, like=poses)
    training = torch.is_grad_enabled() and (poses.requires_grad or target.requires_grad)
    if training and J < 3:
        raise ValueError(f"{op}: poses must have at least 3 joints for a gradient (a line turns freely), got {J}")
    backend = requested(backend)
    if target.shape == poses.shape:
        flat, truth = poses.reshape(-1, 1, J, 3), target.reshape(-1, J, 3)
    elif poses.dim() >= 3 and target.shape == (*poses.shape[:-3], 1, J, 3):
        B, S = poses.shape[:-3].numel(), poses.shape[-3]
        flat, truth = poses.reshape(B, S, J, 3), target.reshape(B, J, 3)
    else:
        check_shape(op, "target", target, tuple(poses.shape), "the shape of poses, or 1 on axis -3")
    if backend == "reference":  # plain PyTorch, inlined
        aligned, errors = reference.procrustes(flat, truth, align)
    elif training:
        aligned, errors = _Procrustes.apply(flat, truth, align, backend)
    else:
        aligned, errors = _forward(flat, truth, align, backend)
    return aligned.view(poses.shape) if align else aligned, errors.view(poses.shape[:-2])


@accepts_poses
def procrustes(poses: Tensor, target: Tensor, *, backend: str | None = None) -> Tensor:
    """Each pose turned, scaled and shifted so that its squared distance to the target is least; no mirroring.

    Args:
        poses: [..., J, 3], float32 or float64; float16 and bfloat16 are computed in float32 and rounded. Any unit.
        target: the same shape, or [..., 1, J, 3] for many hypotheses of one target.
        backend: see ``posekernels.use_backend``.
    Returns:
        [..., J, 3], dtype of ``poses``, unit of ``target``. A pose that is a single point goes to the target's centre.
    Raises:
        ValueError, TypeError: a wrong shape, size, dtype or device, naming the argument; a gradient of fewer than
            three joints, whose best rotation is never unique.
        BackendError: a named backend that cannot run this.
    Gradient: with respect to poses and target; it grows without bound where the best rotation is not unique (poses
        on a line, and mirror images with two equal extents).
    Source: Umeyama, PAMI 1991, eqs. 40 to 42.
    """
    return _run(poses, target, True, backend)[0]


@accepts_poses
def procrustes_error(poses: Tensor, target: Tensor, *, backend: str | None = None) -> Tensor:
    """Mean joint distance of each pose to the target after ``procrustes``; the aligned poses are not stored.

    Args, Raises, Gradient: see ``procrustes``.

    Returns:
        [...], unit of ``target``: P-MPJPE pose by pose.
    """
    return _run(poses, target, False, backend)[1]
