"""``procrustes``: best rotation, scale and shift of many poses. Start reading here; ``reference.py`` defines it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._dispatch import requested
from ..._library import register, wants_gradient
from ...arrays import accepts_poses
from ...checks import check_shape, check_tensor


def _fake(poses, target, align, backend):
    aligned = torch.empty_like(poses, memory_format=torch.contiguous_format) if align else poses.new_empty(0)
    return aligned, poses.new_empty(poses.shape[:2])


def _fake_backward(grad_aligned, grad_errors, poses, target, backend):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (poses, target))


_forward = register(
    __name__, "procrustes", "(Tensor poses, Tensor target, bool align, str backend) -> (Tensor, Tensor)", _fake
)
_backward = register(
    __name__,
    "procrustes_backward",
    "(Tensor? grad_aligned, Tensor? grad_errors, Tensor poses, Tensor target, str backend) -> (Tensor, Tensor)",
    _fake_backward,
)


class _Procrustes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, poses, target, align, backend):
        ctx.save_for_backward(poses, target)
        ctx.backend = backend
        ctx.set_materialize_grads(False)
        aligned, errors = _forward.run(poses, target, align, backend=backend)
        if not align:
            ctx.mark_non_differentiable(aligned)
        return aligned, errors

    @staticmethod
    def backward(ctx, grad_aligned, grad_errors):
        if grad_aligned is None and grad_errors is None:
            return None, None, None, None
        poses, target = ctx.saved_tensors
        grads = [None if g is None else g.contiguous() for g in (grad_aligned, grad_errors)]
        return *_backward(*grads, poses, target, backend=ctx.backend), None, None


_forward.gradient = _Procrustes.apply


def _run(poses: Tensor, target: Tensor, align: bool, backend: str | None) -> tuple[Tensor, Tensor]:
    op = "procrustes"
    check_tensor(op, "poses", poses, min_rank=2)
    J, coordinates = poses.shape[-2:]
    if coordinates != 3 or J < 1:
        raise ValueError(f"{op}: poses must be [..., J, 3], got {list(poses.shape)}")
    check_tensor(op, "target", target, like=poses)
    if J < 3 and wants_gradient((poses, target)):
        raise ValueError(f"{op}: poses must have at least 3 joints for a gradient (a line turns freely), got {J}")
    if target.shape == poses.shape:
        flat, truth = poses.reshape(-1, 1, J, 3), target.reshape(-1, J, 3)
    elif poses.dim() >= 3 and target.shape == (*poses.shape[:-3], 1, J, 3):
        B, S = poses.shape[:-3].numel(), poses.shape[-3]
        flat, truth = poses.reshape(B, S, J, 3), target.reshape(B, J, 3)
    else:
        check_shape(op, "target", target, tuple(poses.shape), "the shape of poses, or 1 on axis -3")
    aligned, errors = _forward(flat, truth, align, backend=requested(backend))
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
