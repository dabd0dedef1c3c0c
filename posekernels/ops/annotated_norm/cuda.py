"""The CUDA C++ kernels of ``annotated_norm`` (csrc/annotated_norm/annotated_norm_cuda.cu)."""

from __future__ import annotations

import torch

from ..._adapters import addresses, contiguous
from ..._cuda import launch
from ..._dropout import gpu_arguments

PARTS = 1024  # of the rows, a warp each, whose sums are added up afterwards


def annotated_norm(x, residual, scale, shift, eps, rate, seed):
    """As ``reference.annotated_norm``."""
    held = contiguous(x, residual, scale, shift)
    y = torch.empty_like(held[0])
    total = None if residual is None else torch.empty_like(y)
    if y.numel():
        seed, *mask = gpu_arguments(rate, seed, x.device)
        launch("annotated_norm_cuda", x, *addresses(*held, y, total, seed), *x.shape, eps, *mask)
    return y, x.new_empty(0) if total is None else total


def annotated_norm_backward(grad, grad_total, total, scale, eps, rate, seed, needs):
    """As ``reference.annotated_norm_backward``."""
    held = contiguous(grad, grad_total, total, scale)
    N, C = total.shape
    grad_x, grad_residual = (torch.empty_like(held[2]) if need else None for need in needs[:2])
    parts = min(N, PARTS)
    partial = torch.empty(parts, 2, C, dtype=torch.float32, device=total.device)
    if N:
        seed, *mask = gpu_arguments(rate, seed, total.device)
        launch(
            "annotated_norm_backward_cuda",
            total,
            *addresses(*held, grad_x, grad_residual, partial, seed),
            *(parts, N, C, eps),
            *mask,
        )
    sums = partial.sum(0).to(scale.dtype)
    found = (grad_x, grad_residual, sums[0].clone(), sums[1].clone())
    return [g for g, need in zip(found, needs) if need]
