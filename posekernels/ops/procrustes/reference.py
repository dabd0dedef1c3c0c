"""The definition of ``procrustes``: plain differentiable PyTorch, any device."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._recompute import gradients


def _axis(matrix: Tensor) -> Tensor:
    """[..., 3]: the vector of the antisymmetric part of ``matrix`` [..., 3, 3], doubled."""
    a = matrix - matrix.mT
    return torch.stack((a[..., 2, 1], a[..., 0, 2], a[..., 1, 0]), -1)


def _cross(vector: Tensor) -> Tensor:
    """[..., 3, 3]: the antisymmetric matrix of ``vector``, so that ``_axis(_cross(w)) = 2 w``."""
    x, y, z = vector.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack((o, -z, y, z, o, -x, -y, x, o), -1).unflatten(-1, (3, 3))


def rotation(moment: Tensor) -> Tensor:
    """[..., 3, 3]: the proper rotation R that maximises tr(Rᵀ ``moment``).

    Differentiable wherever it is unique, equal singular values included (which the gradient of an SVD is not): two
    steps of Newton's method are taken from the solution, whose value is nil; the first has the derivative of R, both
    together the second derivative too.
    """
    with torch.no_grad():
        finite = moment.isfinite().all(-1).all(-1)[..., None, None]
        u, _, vt = torch.linalg.svd(moment.where(finite, 0))  # which raises on NaN
        sign = torch.linalg.det(u @ vt).sign()
        sign = torch.where(sign == 0, torch.ones_like(sign), sign)
        flip = torch.stack((torch.ones_like(sign), torch.ones_like(sign), sign), -1)
        solution = ((u * flip[..., None, :]) @ vt).where(finite, torch.nan)
    if not (torch.is_grad_enabled() and moment.requires_grad):
        return solution
    eye = torch.eye(3, dtype=moment.dtype, device=moment.device)
    for _ in range(2):
        stretch = solution.mT @ moment
        system = stretch.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] * eye - (stretch + stretch.mT) / 2
        inverse, _ = torch.linalg.inv_ex(system)
        turn = _cross((inverse @ _axis(stretch)[..., None]).squeeze(-1))
        solution = solution + solution @ (turn + turn @ turn / 2)  # exp(turn), to the second order
    return solution


def _size(x: Tensor) -> Tensor:
    """[..., 1, 1]: the largest number of ``x`` [..., J, 3], or 1: squares and cubes of tiny or huge ones leave float32.

    A constant to the gradient: nothing depends on what is divided by it and multiplied again.
    """
    size = x.detach().abs().amax((-2, -1), keepdim=True)
    return torch.where(size > 0, size, torch.ones_like(size))


def procrustes(poses: Tensor, target: Tensor, align: bool) -> tuple[Tensor, Tensor]:
    """(aligned [B, S, J, 3] or empty unless ``align``, errors [B, S]) of poses [B, S, J, 3] to target [B, J, 3].

    16 bits are computed in float32: there is no SVD of them.
    """
    if poses.dtype in (torch.float16, torch.bfloat16):
        aligned, errors = procrustes(poses.float(), target.float(), align)
        return aligned.to(poses.dtype), errors.to(poses.dtype)
    target = target[:, None]
    mean_p, mean_t = poses.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    p, t = poses - mean_p, target - mean_t
    size_p, size_t = _size(p), _size(t)
    p, t = p / size_p, t / size_t
    moment = p.mT @ t
    turn = rotation(moment)
    square = (p * p).sum((-2, -1))
    # A pose that is a single point has no size to scale: it goes to the target's centre.
    scale = (turn * moment).sum((-2, -1)) / torch.where(square > 0, square, torch.ones_like(square))
    aligned = scale[..., None, None] * (p @ turn) * size_t + mean_t
    errors = (aligned - target).norm(dim=-1).mean(-1)
    return aligned.contiguous() if align else aligned.new_empty(0), errors.contiguous()


def procrustes_backward(
    grad_aligned: Tensor | None, grad_errors: Tensor | None, poses: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of (poses, target)."""
    return tuple(gradients(lambda p, t: procrustes(p, t, True), (poses, target), (grad_aligned, grad_errors)))
